//! A key that lies inline in its slot: a lookup then chases one pointer less, which is worth a
//! factor of two once the table does not fit the cache.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
};

const INLINE: usize = 30;

/// A name, at most [`INLINE`] bytes inline, in 32 bytes.
#[derive(Clone)]
pub(crate) struct Name(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Box<str>),
}

impl Name {
    pub(crate) fn new(text: &str) -> Self {
        let mut bytes = [0; INLINE];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(head), Ok(len)) => {
                head.copy_from_slice(text.as_bytes());
                Self(Repr::Inline { len, bytes })
            }
            _ => Self(Repr::Heap(text.into())),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Repr::Heap(text) => text.as_bytes(),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match &self.0 {
            // Always valid: it was copied from a `str`.
            Repr::Inline { .. } => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Repr::Heap(text) => text,
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl Ord for Name {
    /// As text. Of two that lie inline the bytes behind each are zeros, which order the shorter one
    /// first, and so two words compare them.
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Repr::Inline { len, bytes }, Repr::Inline { len: other_len, bytes: other }) => {
                (words(bytes), len).cmp(&(words(other), other_len))
            }
            _ => self.as_bytes().cmp(other.as_bytes()),
        }
    }
}

/// In their order; some bytes are in both.
#[inline]
fn words(bytes: &[u8; INLINE]) -> Option<(u128, u128)> {
    let word = |bytes: &[u8; 16]| u128::from_be_bytes(*bytes);
    Some((word(bytes.first_chunk()?), word(bytes.last_chunk()?)))
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

// Text orders by its bytes; as text they would be checked at each comparison.
impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_names_read_back_and_order_as_text() {
        let texts = [
            "",
            "a",
            "a\0",
            "a\0\0",
            "a\0b",
            "a.b",
            "time",
            "time-of-the-day-a",
            "time-of-the-day-b",
            &"x".repeat(30),
            &"x".repeat(31),
            &"y".repeat(128),
        ];
        for pair in texts.windows(2) {
            let (low, high) = (Name::new(pair[0]), Name::new(pair[1]));
            assert_eq!(low.as_str(), pair[0]);
            assert!(low < high);
            assert_eq!(low, Name::new(pair[0]));
        }
        assert_eq!(size_of::<Name>(), 32);
    }
}
