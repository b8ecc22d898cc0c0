//! Server-sent events as we write them.

use bytes::{BufMut, Bytes, BytesMut};
use std::io::Write as _;

/// One message: `id:` when it is resumable, then its bytes, one `data:` line per line.
pub fn message(id: Option<(&str, u64)>, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 64);
    write_message(&mut out, id, data);
    out.freeze()
}

/// Appends a message to `out`.
pub fn write_message(out: &mut BytesMut, id: Option<(&str, u64)>, data: &[u8]) {
    if let Some((stream, sequence)) = id {
        put_id(out, stream, sequence);
    }
    out.put_slice(b"event: message\n");
    for line in data.split(|byte| *byte == b'\n' || *byte == b'\r') {
        out.put_slice(b"data: ");
        out.put_slice(line);
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
}

/// The event that opens a resumable stream (2025-11-25): an id, no data, and when to come back.
pub fn priming(stream: &str, sequence: u64, retry_ms: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    put_id(&mut out, stream, sequence);
    let _ = write!((&mut out).writer(), "retry: {retry_ms}\ndata: \n\n");
    out.freeze()
}

fn put_id(out: &mut BytesMut, stream: &str, sequence: u64) {
    let _ = writeln!(out.writer(), "id: {stream}.{sequence}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_over_several_lines_stays_one_event() {
        let text = message(Some(("1-2", 3)), b"{\n\"a\":1}");
        assert_eq!(&text[..], b"id: 1-2.3\nevent: message\ndata: {\ndata: \"a\":1}\n\n");
        assert_eq!(&message(None, b"{}")[..], b"event: message\ndata: {}\n\n");
    }

    #[test]
    fn a_priming_event_has_an_id_and_no_data() {
        assert_eq!(&priming("g", 1, 500)[..], b"id: g.1\nretry: 500\ndata: \n\n");
    }
}
