//! Server-sent events, incrementally (WHATWG HTML, "Server-sent events").

use std::time::Duration;

/// Longest event that is kept, in bytes.
pub(super) const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// One event.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Event {
    /// `id:`, when the event has one.
    pub id: Option<String>,
    /// `event:`, empty for the default `message`.
    pub kind: String,
    /// The `data:` lines, joined by newlines.
    pub data: String,
    /// `retry:`.
    pub retry: Option<Duration>,
}

/// Turns bytes into events.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    after_cr: bool,
}

impl Parser {
    /// Takes the next bytes and returns the events they complete, or `None` when a line or event
    /// is longer than 16 MiB.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<Vec<Event>> {
        let mut events = Vec::new();
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_of_line()),
                _ => self.line.push(byte),
            }
            if self.line.len() + self.event.data.len() > MAX_EVENT_BYTES {
                return None;
            }
        }
        Some(events)
    }

    fn end_of_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.end_of_event();
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        self.field(field, value.strip_prefix(' ').unwrap_or(value));
        None
    }

    fn field(&mut self, field: &str, value: &str) {
        match field {
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "event" => self.event.kind = value.to_owned(),
            "retry" => self.event.retry = value.parse().ok().map(Duration::from_millis),
            _ => {}
        }
    }

    /// An event without data still carries its id and retry (MCP's priming event).
    fn end_of_event(&mut self) -> Option<Event> {
        self.has_data = false;
        let event = std::mem::take(&mut self.event);
        (event != Event::default()).then_some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let text = b": hello\r\nid: s.1\r\nretry: 500\r\ndata:\r\n\r\nid: s.2\nevent: message\ndata: {\"a\":\ndata: 1}\n\n";
        let whole = Parser::default().feed(text).expect("short");
        let mut parser = Parser::default();
        let cut: Vec<Event> = text.iter().flat_map(|byte| parser.feed(&[*byte]).expect("short")).collect();
        assert_eq!(whole, cut);
        assert_eq!(whole[0].id.as_deref(), Some("s.1"));
        assert_eq!(whole[0].retry, Some(Duration::from_millis(500)));
        assert_eq!(whole[1].data, "{\"a\":\n1}");
    }

    #[test]
    fn comments_alone_are_no_event() {
        assert_eq!(Parser::default().feed(b": ping\n\n"), Some(Vec::new()));
    }
}
