//! Names of a session's streams and the ids of their events.
//!
//! An event id is `<stream>.<sequence>`, so it is unique within the session and says which
//! stream to go on with. A POST's stream is `<epoch>-<n>`: an adopting edge counts under its own
//! epoch, so no name is used twice.

use std::fmt;

/// The stream of GET.
pub const STANDING: &str = "g";
/// The log of which streams are open; never sent to the client.
pub const CONTROL: &str = "c";
/// Longest name that session-svc takes.
const NAME_MAX: usize = 64;

/// Where a client stands in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventId {
    /// Name of the stream.
    pub stream: String,
    /// Last sequence the client has seen.
    pub sequence: u64,
}

impl EventId {
    /// Reads a `Last-Event-ID`; `None` when it is not one of ours.
    pub fn parse(text: &str) -> Option<EventId> {
        let (stream, sequence) = text.trim().rsplit_once('.')?;
        let known = stream == STANDING || is_post(stream);
        if !known || sequence.starts_with('+') {
            return None;
        }
        Some(EventId { stream: stream.to_owned(), sequence: sequence.parse().ok()? })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stream, self.sequence)
    }
}

/// The name of the `n`th POST stream of an epoch.
pub fn post_name(epoch: u64, n: u64) -> String {
    format!("{epoch}-{n}")
}

fn is_post(stream: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    stream.len() <= NAME_MAX && stream.split_once('-').is_some_and(|(epoch, n)| digits(epoch) && digits(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_reads_back() {
        for (stream, sequence) in [(STANDING.to_owned(), 0), (post_name(3, 17), 42)] {
            let id = EventId { stream, sequence };
            assert_eq!(EventId::parse(&id.to_string()), Some(id));
        }
    }

    #[test]
    fn a_foreign_event_id_is_refused() {
        for text in ["", "g", "g.", "c.1", "1-2", "1-2.x", "../x.1", "1-.1", "g.+1", "g.18446744073709551616"]
        {
            assert_eq!(EventId::parse(text), None, "{text}");
        }
    }
}
