//! The head of an answer: its status, how long its body is, and the few headers that matter.

use super::{Decoder, Malformed};
use bytes::{Buf as _, BytesMut};
use http::StatusCode;
use memchr::memmem;
use std::mem::MaybeUninit;

/// Most bytes of heads before a body, those of interim answers included.
const HEAD_MAX: usize = 32 << 10;
/// Most headers of an answer.
const HEADERS_MAX: usize = 100;
/// Most digits of a length; more would not fit into 64 bits.
const DIGITS_MAX: usize = 19;

/// What an answer's body is, as far as `Content-Type` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Content {
    /// `application/json`
    Json,
    /// `text/event-stream`
    Events,
    /// Anything else, or nothing.
    #[default]
    Other,
}

/// What is needed of an answer's head.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// The final status; interim answers are passed over.
    pub status: StatusCode,
    /// How the body is read.
    pub body: Decoder,
    /// The connection may carry another request after the body.
    pub keep_alive: bool,
    /// What the body is.
    pub content: Content,
    /// `Mcp-Session-Id`, if it is visible ASCII.
    pub session_id: Option<String>,
    /// `Retry-After` in seconds.
    pub retry_after: Option<u64>,
}

/// Finds the head of an answer in what comes.
#[derive(Debug, Default)]
pub struct HeadReader {
    searched: usize,
    passed: usize,
}

impl HeadReader {
    /// Takes the head from the front of `buffer` once it is whole; what follows it stays.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Head>, Malformed> {
        while let Some(end) = self.end(buffer)? {
            let head = parse(buffer.get(..end).unwrap_or_default())?;
            buffer.advance(end);
            match head.status {
                StatusCode::SWITCHING_PROTOCOLS => return Err(Malformed("switched protocols unasked")),
                status if status.is_informational() => {
                    *self = HeadReader { searched: 0, passed: self.passed + end };
                }
                _ => return Ok(Some(head)),
            }
        }
        Ok(None)
    }

    /// One past the empty line; bytes are searched once, however they come.
    fn end(&mut self, buffer: &[u8]) -> Result<Option<usize>, Malformed> {
        let from = self.searched.saturating_sub(3);
        let found = memmem::find(buffer.get(from..).unwrap_or_default(), b"\r\n\r\n");
        let end = found.map(|at| from + at + 4);
        self.searched = buffer.len();
        match self.passed + end.unwrap_or(buffer.len()) > HEAD_MAX {
            true => Err(Malformed("the head is larger than 32 KiB")),
            false => Ok(end),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Head, Malformed> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut answer,
        bytes,
        &mut headers,
    );
    match parsed {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed("the head has more than 100 headers")),
        _ => return Err(Malformed("the head is not HTTP/1.1")),
    }
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Malformed("the status is not one of HTTP"))?;
    let mut fields = Fields::default();
    for header in answer.headers.iter() {
        fields.note(header.name, header.value)?;
    }
    fields.head(status, answer.version == Some(1))
}

#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    persist: bool,
    content: Option<Content>,
    session_id: Option<String>,
    retry_after: Option<u64>,
}

impl Fields {
    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), Malformed> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if is("content-length") {
            return self.length(value);
        }
        if is("transfer-encoding") {
            return self.coding(value);
        }
        if is("connection") {
            for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= token.eq_ignore_ascii_case(b"close");
                self.persist |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if is("content-type") {
            self.content.get_or_insert_with(|| content(value));
        } else if is("mcp-session-id") && self.session_id.is_none() {
            let visible = value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
            self.session_id = std::str::from_utf8(value).ok().filter(|_| visible).map(str::to_owned);
        } else if is("retry-after") {
            self.retry_after = std::str::from_utf8(value).ok().and_then(|seconds| seconds.parse().ok());
        }
        Ok(())
    }

    /// Two lengths are two answers to somebody, even when they are equal.
    fn length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let digits = value.iter().all(u8::is_ascii_digit) && (1..=DIGITS_MAX).contains(&value.len());
        let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        match self.length.replace(length.ok_or(Malformed("content-length is not a number"))?) {
            None => Ok(()),
            Some(_) => Err(Malformed("content-length comes twice")),
        }
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let known = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
        match known && !std::mem::replace(&mut self.chunked, true) {
            true => Ok(()),
            false => Err(Malformed("transfer-encoding is not chunked alone")),
        }
    }

    fn head(self, status: StatusCode, current: bool) -> Result<Head, Malformed> {
        let bodiless =
            status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let body = match (self.chunked, self.length) {
            (true, Some(_)) => return Err(Malformed("content-length and transfer-encoding contradict")),
            (true, None) if !current => return Err(Malformed("transfer-encoding in HTTP/1.0")),
            _ if bodiless => Decoder::length(0),
            (true, None) => Decoder::chunked(),
            (false, Some(length)) => Decoder::length(length),
            (false, None) => Decoder::until_close(),
        };
        Ok(Head {
            status,
            keep_alive: !self.close && (current || self.persist) && !body.is_until_close(),
            body,
            content: self.content.unwrap_or_default(),
            session_id: self.session_id,
            retry_after: self.retry_after,
        })
    }
}

fn content(value: &[u8]) -> Content {
    let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if kind.eq_ignore_ascii_case(b"application/json") {
        return Content::Json;
    }
    match kind.eq_ignore_ascii_case(b"text/event-stream") {
        true => Content::Events,
        false => Content::Other,
    }
}
