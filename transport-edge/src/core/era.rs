//! Protocol revisions and how one is agreed on (MCP.md 1.0).

use std::fmt;

/// The stateless revision of 2026.
pub const MODERN: &str = "2026-07-28";
/// Every revision served, oldest first.
pub const SUPPORTED: [&str; 5] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", MODERN];

/// A revision with `initialize` and sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Legacy {
    /// 2024-11-05
    V2024_11_05,
    /// 2025-03-26, the only one with batches.
    V2025_03_26,
    /// 2025-06-18, which brought the `MCP-Protocol-Version` header.
    V2025_06_18,
    /// 2025-11-25, which brought priming events.
    V2025_11_25,
}

impl Legacy {
    /// The newest.
    pub const LATEST: Legacy = Legacy::V2025_11_25;

    /// As it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Legacy::V2024_11_05 => "2024-11-05",
            Legacy::V2025_03_26 => "2025-03-26",
            Legacy::V2025_06_18 => "2025-06-18",
            Legacy::V2025_11_25 => "2025-11-25",
        }
    }

    /// Reads a revision; `None` when it is not one of these.
    pub fn parse(text: &str) -> Option<Legacy> {
        match text {
            "2024-11-05" => Some(Legacy::V2024_11_05),
            "2025-03-26" => Some(Legacy::V2025_03_26),
            "2025-06-18" => Some(Legacy::V2025_06_18),
            "2025-11-25" => Some(Legacy::V2025_11_25),
            _ => None,
        }
    }

    /// What `initialize` is answered with: the version asked for if it is served, else the
    /// newest with sessions (also to 2026-07-28, which has no `initialize`).
    pub fn negotiate(requested: &str) -> Legacy {
        Legacy::parse(requested).unwrap_or(Legacy::LATEST)
    }

    /// Whether JSON-RPC arrays are taken.
    pub fn batches(self) -> bool {
        self == Legacy::V2025_03_26
    }
}

impl fmt::Display for Legacy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the `MCP-Protocol-Version` header of a request within a session says.
///
/// A missing header means that nothing is known (clients before 2025-06-18 send none). Any
/// legacy revision is taken, not only the negotiated one: real clients send their own newest
/// until they have read the answer to `initialize`.
pub fn header_is_served(value: Option<&[u8]>) -> bool {
    match value {
        None => true,
        Some(value) => std::str::from_utf8(value).is_ok_and(|text| Legacy::parse(text.trim()).is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initialize_for_the_modern_revision_gets_the_newest_with_sessions() {
        assert_eq!(Legacy::negotiate(MODERN), Legacy::V2025_11_25);
        assert_eq!(Legacy::negotiate("2025-03-26"), Legacy::V2025_03_26);
        assert_eq!(Legacy::negotiate("1999-01-01"), Legacy::LATEST);
    }

    #[test]
    fn every_legacy_revision_reads_back() {
        for text in SUPPORTED.iter().filter(|text| **text != MODERN) {
            assert_eq!(Legacy::parse(text).map(Legacy::as_str), Some(*text));
        }
    }

    #[test]
    fn a_header_may_be_missing_but_not_unknown() {
        assert!(header_is_served(None));
        assert!(header_is_served(Some(b"2025-06-18")));
        assert!(!header_is_served(Some(b"1.0")));
        assert!(!header_is_served(Some(b"\xff")));
    }
}
