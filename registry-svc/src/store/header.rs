//! What a store says of itself: its layout, the oldest layout that a reader must know, and the
//! version of the program that wrote it last.

use super::StoreError;
use std::fmt;

/// The layout that this program writes.
pub(crate) const FORMAT: u32 = 1;
/// The oldest layout that a program must know to read what this one writes.
pub(crate) const MIN_READER: u32 = 1;
/// The oldest layout that this program reads.
pub(crate) const OLDEST: u32 = 1;
/// This program.
pub(super) const WRITER: &str = env!("CARGO_PKG_VERSION");

/// The header of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) format: u32,
    pub(crate) min_reader: u32,
    /// Empty when the store does not say.
    pub(crate) writer: String,
}

impl Header {
    /// The header of a store that this program makes.
    pub(super) fn own() -> Self {
        Self { format: FORMAT, min_reader: MIN_READER, writer: WRITER.into() }
    }

    /// Refuses a store that this program cannot read. A newer layout is read when its writer says
    /// that readers of ours may (it only added to it).
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.format < OLDEST || self.min_reader > FORMAT {
            return Err(StoreError::Format(self.clone()));
        }
        Ok(())
    }

    /// The header once this program writes too: a newer layout stays what it is.
    pub(super) fn taken_over(&self) -> Self {
        let newer = self.format > FORMAT;
        let (format, min_reader) = if newer { (self.format, self.min_reader) } else { (FORMAT, MIN_READER) };
        Self { format, min_reader, writer: WRITER.into() }
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, min_reader, writer } = self;
        let writer = if writer.is_empty() { "an unnamed version" } else { writer };
        write!(f, "format {format}, written by {writer}, for readers of format {min_reader} or later")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(format: u32, min_reader: u32) -> Header {
        Header { format, min_reader, writer: "9.1.0".into() }
    }

    #[test]
    fn a_newer_format_is_read_only_when_its_writer_says_so() {
        assert_eq!(Header::own().check(), Ok(()));
        assert_eq!(header(FORMAT + 1, FORMAT).check(), Ok(()));
        for refused in [header(FORMAT + 2, FORMAT + 1), header(OLDEST - 1, 0)] {
            assert_eq!(refused.check(), Err(StoreError::Format(refused.clone())));
        }
        let told = header(7, 5).check().unwrap_err().to_string();
        assert_eq!(
            told,
            "the store has format 7, written by 9.1.0, for readers of format 5 or later; \
             this program reads formats 1 to 1"
        );
    }

    #[test]
    fn who_writes_too_leaves_a_newer_format_as_it_is() {
        assert_eq!(header(OLDEST, 0).taken_over(), Header::own());
        let newer = header(FORMAT + 1, FORMAT);
        assert_eq!(newer.taken_over(), Header { writer: WRITER.into(), ..newer });
    }
}
