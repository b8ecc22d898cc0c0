//! Numbers: RFC 8259, and small enough for a double.

use super::Lexer;
use crate::core::jsonrpc::ScanError;

/// Longest literal; anything longer is an attack on somebody's big-number code.
const MAX_LITERAL: usize = 512;
/// A literal this short without an exponent is finite for sure.
const SURELY_FINITE: usize = 300;

impl Lexer<'_> {
    /// Takes a number that starts at a digit or a minus.
    pub(crate) fn number(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.malformed("minus without digits"),
        }
        let fraction = self.peek() == Some(b'.');
        if fraction {
            self.at += 1;
            self.some_digits()?;
        }
        let exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if exponent {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.some_digits()?;
        }
        self.finite(start, exponent)
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), ScanError> {
        let before = self.at;
        self.digits();
        match self.at > before {
            true => Ok(()),
            false => self.malformed("expected a digit"),
        }
    }

    fn finite(&self, start: usize, exponent: bool) -> Result<(), ScanError> {
        let literal = self.bytes.get(start..self.at).unwrap_or_default();
        if literal.len() > MAX_LITERAL {
            return Err(ScanError::refused(start, "number longer than 512 digits"));
        }
        if !exponent && literal.len() <= SURELY_FINITE {
            return Ok(());
        }
        let value = std::str::from_utf8(literal).ok().and_then(|text| text.parse::<f64>().ok());
        match value.is_some_and(f64::is_finite) {
            true => Ok(()),
            false => Err(ScanError::malformed(start, "number out of range")),
        }
    }
}
