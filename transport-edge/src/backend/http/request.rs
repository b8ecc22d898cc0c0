//! Requests as bytes: head and body in one buffer, so that they go out in one write.

use super::Origin;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method};
use std::fmt::Write as _;

/// What a POST takes as its answer, and what its body is.
const POST: &[u8] = b"accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n";
const GET: &[u8] = b"accept: text/event-stream\r\n";
/// Room for the request line, the length and what stands between.
const ROOM: usize = 160;

/// Header lines as they are sent.
pub(super) fn lines<'a>(headers: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> Bytes {
    let mut out = BytesMut::new();
    for (name, value) in headers {
        put(&mut out, name, value);
    }
    out.freeze()
}

fn put(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    out.put_slice(name.as_str().as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

/// A POST of `body`, or a GET or DELETE without one. `lines` are those of the conversation,
/// `extra` those of this request alone.
pub(super) fn compose(
    method: &Method,
    origin: &Origin,
    lines: &[u8],
    extra: &[(HeaderName, HeaderValue)],
    body: &[u8],
) -> Bytes {
    let room = origin.target.len() + origin.lines.len() + lines.len() + body.len() + ROOM;
    let mut out = BytesMut::with_capacity(room);
    for part in [method.as_str(), " ", &origin.target, " HTTP/1.1\r\n"] {
        out.put_slice(part.as_bytes());
    }
    out.put_slice(&origin.lines);
    out.put_slice(lines);
    for (name, value) in extra {
        put(&mut out, name, value);
    }
    if *method == Method::POST {
        out.put_slice(POST);
        // Writing to memory does not fail.
        let _ = write!(out, "content-length: {}\r\n", body.len());
    } else if *method == Method::GET {
        out.put_slice(GET);
    }
    out.put_slice(b"\r\n");
    out.put_slice(body);
    out.freeze()
}
