//! One strict pass over a JSON-RPC message (DESIGN K28): what passes is forwarded as the bytes
//! that came, because every parser behind us reads them the same way.
//!
//! At the levels that are routed on (the message, `params`, `params._meta`, `result`,
//! `result._meta`, `error`) no key may come twice, not even in another case or with escapes:
//! parsers differ in which one they take, and some ignore case (CVE-2026-27896).

mod fields;
mod keys;
#[cfg(test)]
mod tests;

pub use fields::Field;

use super::json::Lexer;
use fields::{FIELDS, Level};
use keys::Keys;
use std::{borrow::Cow, fmt};

/// Largest body that is looked at, whatever the caller allows.
pub const MAX_BODY: usize = 64 << 20;
/// Most messages in one batch.
pub const MAX_BATCH: usize = 100;
/// Longest request id, in bytes as written.
pub const MAX_ID: usize = 512;

/// JSON-RPC's "parse error".
pub const PARSE_ERROR: i32 = -32700;
/// JSON-RPC's "invalid request".
pub const INVALID_REQUEST: i32 = -32600;

/// Why a body was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanError {
    /// [`PARSE_ERROR`] when it is not JSON, [`INVALID_REQUEST`] when it is but not one we take.
    pub code: i32,
    /// Byte offset.
    pub position: usize,
    /// In words, without input in it.
    pub reason: &'static str,
}

impl ScanError {
    pub(crate) fn malformed(position: usize, reason: &'static str) -> Self {
        ScanError { code: PARSE_ERROR, position, reason }
    }

    pub(crate) fn refused(position: usize, reason: &'static str) -> Self {
        ScanError { code: INVALID_REQUEST, position, reason }
    }
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.reason, self.position)
    }
}

impl std::error::Error for ScanError {}

/// A range of bytes in the body: a JSON value as written, strings with their quotes. Empty
/// means absent (no JSON value is empty).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        let clamp = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { start: clamp(start), end: clamp(end) }
    }

    /// True when nothing was there.
    pub fn is_none(&self) -> bool {
        self.start == self.end
    }

    /// The bytes; empty when absent or when `raw` is not the body that was scanned.
    pub fn of<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        raw.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `method` and `id`.
    Request,
    /// `method` without `id`.
    Notification,
    /// `id` and `result`.
    Response,
    /// `error`, with an `id` or `null`.
    Error,
}

/// Where things are in a scanned message. Small, `Copy`, refers to the body by offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// What it is.
    pub kind: Kind,
    /// The whole object, without whitespace around it.
    pub root: Span,
    spans: [Span; Field::COUNT],
}

impl Envelope {
    /// Where `field` is; [`Span::is_none`] when absent.
    pub fn span(&self, field: Field) -> Span {
        self.spans.get(field as usize).copied().unwrap_or_default()
    }

    /// True when the field is there (even as `null`).
    pub fn has(&self, field: Field) -> bool {
        !self.span(field).is_none()
    }

    /// The raw JSON of a field.
    pub fn raw<'a>(&self, body: &'a [u8], field: Field) -> Option<&'a [u8]> {
        let bytes = self.span(field).of(body);
        (!bytes.is_empty()).then_some(bytes)
    }

    /// The text of a field that is a string; borrowed unless it holds escapes.
    pub fn text<'a>(&self, body: &'a [u8], field: Field) -> Option<Cow<'a, str>> {
        text(self.raw(body, field)?)
    }

    /// The method, unescaped; empty for answers.
    pub fn method<'a>(&self, body: &'a [u8]) -> Cow<'a, str> {
        self.text(body, Field::Method).unwrap_or_default()
    }

    /// The id as written.
    pub fn id<'a>(&self, body: &'a [u8]) -> Option<&'a [u8]> {
        self.raw(body, Field::Id)
    }

    /// True for a result with `"isError": true`.
    pub fn is_tool_error(&self, body: &[u8]) -> bool {
        self.raw(body, Field::IsError) == Some(b"true")
    }

    /// True when the field is a JSON object.
    pub fn is_object(&self, body: &[u8], field: Field) -> bool {
        self.raw(body, field).is_some_and(|raw| raw.first() == Some(&b'{'))
    }
}

/// The text of a raw JSON string; `None` when it is not one.
pub fn text(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', inner).is_some() {
        return serde_json::from_slice::<String>(raw).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inner).ok().map(Cow::Borrowed)
}

/// Scans a message from a client. A batch fails with [`INVALID_REQUEST`]; see [`scan_batch`].
pub fn scan(body: &[u8]) -> Result<Envelope, ScanError> {
    Scanner::new(body, false)?.message(body)
}

/// Scans a message from a backend: the same, but lone surrogates in values are let through, as
/// a backend in JavaScript writes them and the client would have got them without us.
pub fn scan_backend(body: &[u8]) -> Result<Envelope, ScanError> {
    Scanner::new(body, true)?.message(body)
}

/// Splits a batch (an array, 2025-03-26 only) into its messages, each to be scanned by itself.
pub fn scan_batch(body: &[u8]) -> Result<Vec<Span>, ScanError> {
    let mut lexer = Scanner::new(body, false)?.lexer;
    lexer.expect(b'[', "expected an array")?;
    let mut messages = Vec::new();
    if lexer.accept(b']') {
        return Err(ScanError::refused(lexer.at, "empty batch"));
    }
    loop {
        lexer.whitespace();
        let start = lexer.at;
        lexer.skip(1)?;
        messages.push(Span::new(start, lexer.at));
        if messages.len() > MAX_BATCH {
            return Err(ScanError::refused(start, "more than 100 messages in a batch"));
        }
        if !lexer.accept(b',') {
            break;
        }
    }
    lexer.expect(b']', "expected a comma or the end of the batch")?;
    end_of_body(&mut lexer)?;
    Ok(messages)
}

/// True when the body is an array as far as its first byte tells.
pub fn is_batch(body: &[u8]) -> bool {
    body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

fn end_of_body(lexer: &mut Lexer<'_>) -> Result<(), ScanError> {
    lexer.whitespace();
    match lexer.peek() {
        None => Ok(()),
        Some(_) => lexer.malformed("data after the message"),
    }
}

struct Scanner<'a> {
    lexer: Lexer<'a>,
    spans: [Span; Field::COUNT],
}

impl<'a> Scanner<'a> {
    fn new(body: &'a [u8], lone_surrogates: bool) -> Result<Self, ScanError> {
        if body.len() > MAX_BODY {
            return Err(ScanError::refused(MAX_BODY, "body too large"));
        }
        if simdutf8::basic::from_utf8(body).is_err() {
            let position = simdutf8::compat::from_utf8(body).err().map_or(0, |e| e.valid_up_to());
            return Err(ScanError::malformed(position, "not UTF-8"));
        }
        Ok(Scanner { lexer: Lexer::new(body, lone_surrogates), spans: [Span::default(); Field::COUNT] })
    }

    fn message(mut self, body: &[u8]) -> Result<Envelope, ScanError> {
        self.lexer.whitespace();
        let start = self.lexer.at;
        match self.lexer.peek() {
            Some(b'{') => self.routed(Level::Message, 1)?,
            Some(b'[') => return self.batch(),
            _ => {
                self.lexer.skip(0)?;
                end_of_body(&mut self.lexer)?;
                return Err(ScanError::refused(start, "not an object"));
            }
        }
        let root = Span::new(start, self.lexer.at);
        end_of_body(&mut self.lexer)?;
        self.envelope(body, root)
    }

    fn batch<T>(mut self) -> Result<T, ScanError> {
        let start = self.lexer.at;
        self.lexer.skip(0)?;
        end_of_body(&mut self.lexer)?;
        Err(ScanError::refused(start, "batches are not taken"))
    }

    /// Takes an object at its brace, noting the fields of `level` and checking its keys.
    fn routed(&mut self, level: Level, depth: u32) -> Result<(), ScanError> {
        self.lexer.count()?;
        self.lexer.deepen(depth)?;
        self.lexer.at += 1;
        if self.lexer.accept(b'}') {
            return Ok(());
        }
        let mut keys = Keys::default();
        loop {
            self.member(level, depth, &mut keys)?;
            if !self.lexer.accept(b',') {
                return self.lexer.expect(b'}', "expected a comma or the end of the object");
            }
        }
    }

    fn member(&mut self, level: Level, depth: u32, keys: &mut Keys<'a>) -> Result<(), ScanError> {
        let (from, to, escaped) = self.lexer.key()?;
        let key = self.lexer.bytes.get(from..to).unwrap_or_default();
        let field = keys.claim(level, key, escaped, from)?;
        self.lexer.whitespace();
        let start = self.lexer.at;
        let inner = field.and_then(Field::level);
        match inner {
            Some(inner) if self.lexer.peek() == Some(b'{') => self.routed(inner, depth + 1)?,
            _ => self.lexer.skip(depth)?,
        }
        if let Some(slot) = field.and_then(|field| self.spans.get_mut(field as usize)) {
            if !slot.is_none() {
                return Err(ScanError::refused(from, "a key comes twice"));
            }
            *slot = Span::new(start, self.lexer.at);
        }
        Ok(())
    }

    fn envelope(self, body: &[u8], root: Span) -> Result<Envelope, ScanError> {
        let kind = self.kind(body)?;
        let envelope = Envelope { kind, root, spans: self.spans };
        let first = |field| envelope.raw(body, field).and_then(|raw| raw.first().copied());
        let at = |field| envelope.span(field).start as usize;
        for (field, reason) in [
            (Field::Params, "params is not an object"),
            (Field::Meta, "_meta is not an object"),
            (Field::Error, "error is not an object"),
        ] {
            let fine = match first(field) {
                None | Some(b'{') => true,
                Some(b'n') => field == Field::Params,
                Some(_) => false,
            };
            if !fine {
                return Err(ScanError::refused(at(field), reason));
            }
        }
        Ok(envelope)
    }

    fn kind(&self, body: &[u8]) -> Result<Kind, ScanError> {
        let span = |field: Field| self.spans.get(field as usize).copied().unwrap_or_default();
        let refuse = |field: Field, reason| Err(ScanError::refused(span(field).start as usize, reason));
        if text(span(Field::Jsonrpc).of(body)).as_deref() != Some("2.0") {
            return refuse(Field::Jsonrpc, "jsonrpc is not \"2.0\"");
        }
        let id = Id::of(span(Field::Id).of(body));
        let has = |field| !span(field).is_none();
        match (has(Field::Method), has(Field::Result), has(Field::Error), id) {
            (_, _, _, Id::Odd) => refuse(Field::Id, "id is not a string or an integer"),
            (true, false, false, _) if text(span(Field::Method).of(body)).is_none() => {
                refuse(Field::Method, "method is not a string")
            }
            (true, false, false, Id::Some) => Ok(Kind::Request),
            (true, false, false, Id::None) => Ok(Kind::Notification),
            (false, true, false, Id::Some) => Ok(Kind::Response),
            (false, false, true, _) => Ok(Kind::Error),
            (_, _, _, Id::Null) => refuse(Field::Id, "id is null"),
            _ => refuse(Field::Method, "neither a request, a notification nor a response"),
        }
    }
}

#[derive(Clone, Copy)]
enum Id {
    None,
    Null,
    Some,
    Odd,
}

impl Id {
    /// MCP takes strings and integers; `null` only in errors about unreadable requests.
    fn of(raw: &[u8]) -> Id {
        match raw.first() {
            None => Id::None,
            Some(b'n') => Id::Null,
            _ if raw.len() > MAX_ID => Id::Odd,
            Some(b'"') => text(raw).map_or(Id::Odd, |_| Id::Some),
            Some(b'-' | b'0'..=b'9') if !raw.iter().any(|b| matches!(b, b'.' | b'e' | b'E')) => Id::Some,
            Some(_) => Id::Odd,
        }
    }
}

impl Field {
    /// The routed level below this field.
    fn level(self) -> Option<Level> {
        match self {
            Field::Params => Some(Level::Params),
            Field::Meta => Some(Level::Meta),
            Field::Result => Some(Level::Result),
            Field::ResultMeta => Some(Level::ResultMeta),
            Field::Error => Some(Level::Error),
            _ => None,
        }
    }

    pub(crate) fn named(level: Level, key: &[u8]) -> Option<Field> {
        let known = FIELDS.iter().find(|(of, name, _)| *of == level && name.as_bytes() == key);
        known.map(|(_, _, field)| *field)
    }
}
