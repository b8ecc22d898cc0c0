//! Server-sent events: an incremental parser and the encoder (WHATWG HTML, "event stream").

use bytes::{BufMut, Bytes, BytesMut};

/// One event. Unlike a browser, an event without data is given out when it carries an id or a
/// `retry`: MCP's priming event is one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// `id:`
    pub id: Option<String>,
    /// `event:`; empty means `message`.
    pub name: String,
    /// `data:` lines joined by a line feed.
    pub data: Bytes,
    /// `retry:` in ms.
    pub retry: Option<u64>,
}

/// One event grew over the parser's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event larger than {limit} bytes")]
pub struct TooLarge {
    /// The limit in bytes.
    pub limit: usize,
}

/// Turns chunks into events. Holds at most one unfinished event and the chunk in hand.
#[derive(Debug)]
pub struct Parser {
    buffer: BytesMut,
    searched: usize,
    after_return: bool,
    started: bool,
    event: Event,
    data: BytesMut,
    has_data: bool,
    limit: usize,
}

impl Parser {
    /// A parser whose events (and lines) may have `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Parser {
            buffer: BytesMut::new(),
            searched: 0,
            after_return: false,
            started: false,
            event: Event::default(),
            data: BytesMut::new(),
            has_data: false,
            limit,
        }
    }

    /// Adds what came; then call [`Parser::next`] until it gives `None`.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.put_slice(chunk);
    }

    /// The next complete event.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Event>, TooLarge> {
        while let Some(line) = self.line()? {
            if line.is_empty() {
                if let Some(event) = self.dispatch() {
                    return Ok(Some(event));
                }
                continue;
            }
            self.field(&line)?;
        }
        Ok(None)
    }

    /// The next whole line without its end (LF, CR or CRLF).
    fn line(&mut self) -> Result<Option<BytesMut>, TooLarge> {
        if self.after_return && !self.buffer.is_empty() {
            self.after_return = false;
            if self.buffer.first() == Some(&b'\n') {
                let _ = self.buffer.split_to(1);
            }
        }
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(found) = memchr::memchr2(b'\n', b'\r', unsearched) else {
            self.searched = self.buffer.len();
            return self.within(self.searched).map(|()| None);
        };
        let end = self.searched + found;
        self.searched = 0;
        self.within(end)?;
        let mut line = self.buffer.split_to(end + 1);
        self.after_return = line.last() == Some(&b'\r');
        line.truncate(end);
        if !std::mem::replace(&mut self.started, true) && line.starts_with(b"\xef\xbb\xbf") {
            let _ = line.split_to(3);
        }
        Ok(Some(line))
    }

    fn within(&self, size: usize) -> Result<(), TooLarge> {
        match size > self.limit {
            true => Err(TooLarge { limit: self.limit }),
            false => Ok(()),
        }
    }

    fn field(&mut self, line: &[u8]) -> Result<(), TooLarge> {
        let (name, value) = match memchr::memchr(b':', line) {
            Some(0) => return Ok(()),
            Some(colon) => line.split_at(colon),
            None => (line, b"".as_slice()),
        };
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = || String::from_utf8_lossy(value).into_owned();
        match name {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.put_u8(b'\n');
                }
                self.data.put_slice(value);
                self.within(self.data.len())?;
            }
            b"id" if !value.contains(&0) => self.event.id = Some(text()),
            b"event" => self.event.name = text(),
            b"retry" => self.event.retry = text().parse().ok().or(self.event.retry),
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self) -> Option<Event> {
        let mut event = std::mem::take(&mut self.event);
        event.data = self.data.split().freeze();
        let says_something =
            std::mem::take(&mut self.has_data) || event.id.is_some() || event.retry.is_some();
        says_something.then_some(event)
    }
}

/// One `message` event. Line breaks in `data` (whitespace between JSON tokens) become further
/// `data:` lines.
pub fn encode(id: Option<&str>, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 64);
    out.put_slice(b"event: message\n");
    put_id(&mut out, id);
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.put_slice(b"data: ");
        out.put_slice(line);
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
    out.freeze()
}

/// The priming event: an id to resume from, no data, and after how long to come back.
pub fn prime(id: &str, retry_ms: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    put_id(&mut out, Some(id));
    out.put_slice(format!("retry: {retry_ms}\ndata: \n\n").as_bytes());
    out.freeze()
}

/// A comment, to keep a quiet connection open.
pub fn keep_alive() -> Bytes {
    Bytes::from_static(b":\n\n")
}

fn put_id(out: &mut BytesMut, id: Option<&str>) {
    if let Some(id) = id {
        out.put_slice(b"id: ");
        out.put_slice(id.as_bytes());
        out.put_u8(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(chunks: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::new(1 << 20);
        let mut events = Vec::new();
        for chunk in chunks {
            parser.push(chunk);
            while let Some(event) = parser.next().unwrap() {
                events.push(event);
            }
        }
        events
    }

    #[test]
    fn line_ends_of_all_kinds_wherever_the_chunk_ends() {
        let stream = b"\xef\xbb\xbfid: 1\r\ndata: a\r\ndata:b\r\n\r\n:comment\n\ndata\r\rid: 7\nretry: 5\n\nevent: x\ndata: {}\n\n";
        let whole = parse(&[stream]);
        assert_eq!(whole.len(), 4);
        assert_eq!((whole[0].id.as_deref(), whole[0].data.as_ref()), (Some("1"), b"a\nb".as_slice()));
        assert_eq!((whole[2].id.as_deref(), whole[2].retry, whole[2].data.len()), (Some("7"), Some(5), 0));
        assert_eq!(whole[3].name, "x");
        for cut in 0..stream.len() {
            let (left, right) = stream.split_at(cut);
            assert_eq!(parse(&[left, right]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_line_and_an_endless_event_are_refused() {
        let mut parser = Parser::new(16);
        parser.push(&[b'x'; 17]);
        assert_eq!(parser.next(), Err(TooLarge { limit: 16 }));
        let mut parser = Parser::new(16);
        parser.push("data: 12345678\n".repeat(3).as_bytes());
        assert_eq!(parser.next(), Err(TooLarge { limit: 16 }));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed(text in "[^\r]{0,40}", id in "[a-z0-9.]{1,8}", cut in any::<prop::sample::Index>()) {
            let bytes = encode(Some(&id), text.as_bytes());
            let (left, right) = bytes.split_at(cut.index(bytes.len()));
            let events = parse(&[left, right]);
            prop_assert_eq!(events.len(), 1);
            prop_assert_eq!(events[0].data.as_ref(), text.as_bytes());
            prop_assert_eq!(events[0].id.as_deref(), Some(id.as_str()));
        }
    }
}
