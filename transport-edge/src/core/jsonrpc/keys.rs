//! No key twice at a routed level: not exactly, not in another case, not behind an escape.

use super::{Field, ScanError, fields::FIELDS, fields::Level};
use smallvec::SmallVec;
use std::borrow::Cow;

/// Most keys that are not ours at one level; they are compared pairwise.
const MAX_FOREIGN: usize = 256;

/// The foreign keys seen at one level.
#[derive(Default)]
pub(crate) struct Keys<'a> {
    foreign: SmallVec<[Cow<'a, [u8]>; 4]>,
}

impl<'a> Keys<'a> {
    /// The field that `key` names, or a failure when it imitates one or repeats a key.
    pub(crate) fn claim(
        &mut self,
        level: Level,
        key: &'a [u8],
        escaped: bool,
        at: usize,
    ) -> Result<Option<Field>, ScanError> {
        let key = match escaped {
            true => Cow::Owned(unescape(key, at)?),
            false => Cow::Borrowed(key),
        };
        if let Some(field) = Field::named(level, &key) {
            return Ok(Some(field));
        }
        let imitates = |(of, name, _): &(Level, &str, Field)| *of == level && same(name.as_bytes(), &key);
        if FIELDS.iter().any(imitates) {
            return Err(ScanError::refused(at, "a key differs from a known one by case only"));
        }
        self.remember(key, at)?;
        Ok(None)
    }

    fn remember(&mut self, key: Cow<'a, [u8]>, at: usize) -> Result<(), ScanError> {
        if self.foreign.iter().any(|seen| same(seen, &key)) {
            return Err(ScanError::refused(at, "a key comes twice"));
        }
        if self.foreign.len() == MAX_FOREIGN {
            return Err(ScanError::refused(at, "more than 256 unknown keys"));
        }
        self.foreign.push(key);
        Ok(())
    }
}

fn unescape(key: &[u8], at: usize) -> Result<Vec<u8>, ScanError> {
    let quoted = [b"\"", key, b"\""].concat();
    let text = serde_json::from_slice::<String>(&quoted);
    text.map(String::into_bytes).map_err(|_| ScanError::malformed(at, "lone surrogate in a key"))
}

/// Equal under the case folding that parsers which ignore case use: ASCII, and the two other
/// letters that fold into it (long s, Kelvin sign).
fn same(left: &[u8], right: &[u8]) -> bool {
    if left.is_ascii() && right.is_ascii() {
        return left.eq_ignore_ascii_case(right);
    }
    fold(left) == fold(right)
}

fn fold(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    text.chars()
        .map(|letter| match letter {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        })
        .collect()
}
