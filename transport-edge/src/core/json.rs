//! A strict JSON lexer over bytes: it validates and skips, it never builds a tree.
//!
//! The grammar is RFC 8259 without leniency: no BOM, no NaN, no trailing comma, no control
//! character in a string, no number that a double cannot hold. UTF-8 is checked by the caller
//! for the whole body before the first byte is looked at.

mod number;
mod string;

use super::jsonrpc::{ScanError, Span};

/// Deepest nesting of objects and arrays.
pub const MAX_DEPTH: u32 = 64;
/// Most values (keys not counted) in one body.
pub const MAX_NODES: u32 = 100_000;

/// Where the value of `key` is in the object `raw`, which is valid JSON. The key is compared
/// as written; the first one counts.
pub fn member(raw: &[u8], key: &str) -> Option<Span> {
    let mut lexer = Lexer::new(raw, true);
    lexer.expect(b'{', "not an object").ok()?;
    loop {
        let (start, end, _) = lexer.key().ok()?;
        lexer.whitespace();
        let value = lexer.at;
        lexer.skip(1).ok()?;
        if raw.get(start..end) == Some(key.as_bytes()) {
            return Some(Span::new(value, lexer.at));
        }
        if !lexer.accept(b',') {
            return None;
        }
    }
}

/// The elements of the array `raw`, which is valid JSON.
pub fn elements(raw: &[u8]) -> Vec<Span> {
    let mut lexer = Lexer::new(raw, true);
    let mut found = Vec::new();
    if lexer.expect(b'[', "not an array").is_err() || lexer.accept(b']') {
        return found;
    }
    loop {
        lexer.whitespace();
        let start = lexer.at;
        if lexer.skip(1).is_err() {
            return found;
        }
        found.push(Span::new(start, lexer.at));
        if !lexer.accept(b',') {
            return found;
        }
    }
}

/// Position and budgets of one pass.
pub(crate) struct Lexer<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
    nodes: u32,
    lone_surrogates: bool,
}

impl<'a> Lexer<'a> {
    /// `lone_surrogates` accepts `"\ud800"` in values (what `JSON.stringify` writes for a cut
    /// emoji); keys of routed levels are checked by the caller in any case.
    pub(crate) fn new(bytes: &'a [u8], lone_surrogates: bool) -> Self {
        Lexer { bytes, at: 0, nodes: 0, lone_surrogates }
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(crate) fn whitespace(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    pub(crate) fn malformed<T>(&self, reason: &'static str) -> Result<T, ScanError> {
        Err(ScanError::malformed(self.at, reason))
    }

    /// Takes `byte` after whitespace, or fails with `reason`.
    pub(crate) fn expect(&mut self, byte: u8, reason: &'static str) -> Result<(), ScanError> {
        self.whitespace();
        if self.peek() != Some(byte) {
            return self.malformed(reason);
        }
        self.at += 1;
        Ok(())
    }

    /// Takes `byte` if it comes next after whitespace.
    pub(crate) fn accept(&mut self, byte: u8) -> bool {
        self.whitespace();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Counts one value against the budget.
    pub(crate) fn count(&mut self) -> Result<(), ScanError> {
        self.nodes += 1;
        match self.nodes > MAX_NODES {
            true => Err(ScanError::refused(self.at, "more than 100000 values")),
            false => Ok(()),
        }
    }

    /// Fails when a container at `depth` (1 is the outermost) is too deep.
    pub(crate) fn deepen(&self, depth: u32) -> Result<(), ScanError> {
        match depth > MAX_DEPTH {
            true => Err(ScanError::refused(self.at, "nested deeper than 64")),
            false => Ok(()),
        }
    }

    /// Takes a key and its colon; the span is without quotes. True when it holds an escape.
    pub(crate) fn key(&mut self) -> Result<(usize, usize, bool), ScanError> {
        self.whitespace();
        if self.peek() != Some(b'"') {
            return self.malformed("expected a key");
        }
        let start = self.at + 1;
        let escaped = self.string()?;
        let end = self.at - 1;
        self.expect(b':', "expected a colon")?;
        Ok((start, end, escaped))
    }

    /// Validates and skips one value whose container sits at `depth`.
    pub(crate) fn skip(&mut self, depth: u32) -> Result<(), ScanError> {
        let mut open = Open { kinds: 0, count: 0 };
        loop {
            self.whitespace();
            self.count()?;
            if self.enter(depth, &mut open)? {
                continue;
            }
            if !self.leave(&mut open)? {
                return Ok(());
            }
        }
    }

    /// Takes a scalar or an empty container, or opens a container. True when one was opened.
    fn enter(&mut self, depth: u32, open: &mut Open) -> Result<bool, ScanError> {
        match self.peek() {
            Some(b'{') => {
                self.deepen(depth + open.count + 1)?;
                self.at += 1;
                if self.accept(b'}') {
                    return Ok(false);
                }
                open.push(true);
                self.key()?;
                Ok(true)
            }
            Some(b'[') => {
                self.deepen(depth + open.count + 1)?;
                self.at += 1;
                if self.accept(b']') {
                    return Ok(false);
                }
                open.push(false);
                Ok(true)
            }
            _ => self.scalar().map(|()| false),
        }
    }

    /// After a value: closes containers up to the next comma. False when the outermost closed.
    fn leave(&mut self, open: &mut Open) -> Result<bool, ScanError> {
        while open.count > 0 {
            self.whitespace();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    if open.is_object() {
                        self.key()?;
                    }
                    return Ok(true);
                }
                Some(b'}') if open.is_object() => open.pop(),
                Some(b']') if !open.is_object() => open.pop(),
                _ => return self.malformed("expected a comma or the end of the container"),
            }
            self.at += 1;
        }
        Ok(false)
    }

    fn scalar(&mut self) -> Result<(), ScanError> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            Some(_) => self.malformed("expected a value"),
            None => self.malformed("unexpected end"),
        }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), ScanError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return self.malformed("expected true, false or null");
        }
        self.at += word.len();
        Ok(())
    }
}

/// The containers open inside one skipped value: bit 0 is the innermost, 1 means object.
struct Open {
    kinds: u64,
    count: u32,
}

impl Open {
    fn push(&mut self, object: bool) {
        self.kinds = self.kinds << 1 | u64::from(object);
        self.count += 1;
    }

    fn pop(&mut self) {
        self.kinds >>= 1;
        self.count -= 1;
    }

    fn is_object(&self) -> bool {
        self.kinds & 1 == 1
    }
}
