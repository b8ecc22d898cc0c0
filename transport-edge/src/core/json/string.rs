//! Strings: eight bytes a step until a quote, a backslash or a control character.

use super::Lexer;
use crate::core::jsonrpc::ScanError;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The high bit of each byte that ends a plain run: `"`, `\` or below 0x20. A borrow can flag
/// a byte above a true hit, never below one, so the lowest flag is exact.
fn stops(word: u64) -> u64 {
    let zero = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    control | zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5c))
}

impl Lexer<'_> {
    /// Takes a string that starts at the quote. True when it holds an escape.
    pub(crate) fn string(&mut self) -> Result<bool, ScanError> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.plain();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    self.escape()?;
                    escaped = true;
                }
                Some(_) => return self.malformed("control character in a string"),
                None => return self.malformed("unterminated string"),
            }
        }
    }

    /// Moves to the next byte that is not plain text.
    fn plain(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (words, tail) = rest.as_chunks::<8>();
        for word in words {
            let hits = stops(u64::from_le_bytes(*word));
            if hits != 0 {
                self.at += (hits.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        let is_stop = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
        self.at += tail.iter().position(is_stop).unwrap_or(tail.len());
    }

    fn escape(&mut self) -> Result<(), ScanError> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => self.unicode_escape(),
            _ => self.malformed("unknown escape"),
        }
    }

    fn unicode_escape(&mut self) -> Result<(), ScanError> {
        let first = self.hex4()?;
        match first {
            0xD800..=0xDBFF if self.low_surrogate_follows() => self.hex4().map(|_| ()),
            0xD800..=0xDFFF if !self.lone_surrogates => self.malformed("lone surrogate"),
            _ => Ok(()),
        }
    }

    fn low_surrogate_follows(&self) -> bool {
        let mut ahead = Lexer::new(self.bytes, true);
        ahead.at = self.at;
        let escape = self.bytes.get(self.at..self.at + 2) == Some(br"\u");
        escape && matches!(ahead.hex4(), Ok(0xDC00..=0xDFFF))
    }

    /// Takes `\uXXXX`.
    fn hex4(&mut self) -> Result<u32, ScanError> {
        let digits = self.bytes.get(self.at + 2..self.at + 6).unwrap_or_default();
        if digits.len() != 4 {
            return self.malformed("short unicode escape");
        }
        let mut code = 0;
        for digit in digits {
            match (*digit as char).to_digit(16) {
                Some(value) => code = code << 4 | value,
                None => return self.malformed("unicode escape without four hex digits"),
            }
        }
        self.at += 6;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(text: &str) -> Option<bool> {
        let mut lexer = Lexer::new(text.as_bytes(), false);
        let escaped = lexer.string().ok()?;
        (lexer.at == text.len()).then_some(escaped)
    }

    #[test]
    fn a_stop_at_every_offset_of_the_word_is_found() {
        for length in 0..40 {
            let plain = "x".repeat(length);
            assert_eq!(takes(&format!("\"{plain}\"")), Some(false));
            assert_eq!(takes(&format!("\"{plain}\\n{plain}\"")), Some(true));
            assert_eq!(takes(&format!("\"{plain}\u{1f}\"")), None);
            assert_eq!(takes(&format!("\"{plain}é\u{7f}\u{20}\"")), Some(false));
        }
    }

    #[test]
    fn surrogates_come_in_pairs() {
        assert_eq!(takes(r#""\ud83d\ude00""#), Some(true));
        for lone in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83d\u0041""#, r#""\ud83dx""#] {
            assert_eq!(takes(lone), None, "{lone}");
        }
    }
}
