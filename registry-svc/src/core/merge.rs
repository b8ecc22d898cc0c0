//! Which version of a name wins. Every node decides alike, whatever order it hears in, so all
//! come to hold the same (RELIABILITY ND4); no wall clock takes part (F12).
//!
//! A version is a Lamport counter: one more than any its node has seen in the shard. What a
//! write has seen it therefore beats; of two writes that have not seen each other, the higher
//! counter stays, then the higher origin.

use proto::registry::{Registration, Removed};

/// Versions at or above it are refused: nobody counts so far, and the counter must not overflow.
pub(crate) const VERSION_MAX: u64 = 1 << 62;

/// The place of one write in the order of its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    pub(crate) version: u64,
    pub(crate) origin: String,
}

impl Stamp {
    pub(crate) fn of(registration: &Registration) -> Self {
        Self { version: registration.version, origin: registration.origin.clone() }
    }

    pub(crate) fn of_removed(removed: &Removed) -> Self {
        Self { version: removed.version, origin: removed.origin.clone() }
    }
}

/// Whether a registration that a peer sends stands over what is known here.
pub(crate) fn put_wins(put: &Stamp, live: Option<&Stamp>, freed: Option<&Stamp>) -> bool {
    live.is_none_or(|live| put > live) && freed.is_none_or(|freed| put > freed)
}

/// Whether a deregistration that a peer sends stands over what is known here.
pub(crate) fn removal_wins(removal: &Stamp, live: Option<&Stamp>, freed: Option<&Stamp>) -> bool {
    live.is_none_or(|live| removal >= live) && freed.is_none_or(|freed| removal > freed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(version: u64, origin: &str) -> Stamp {
        Stamp { version, origin: origin.into() }
    }

    #[test]
    fn the_higher_counter_wins_then_the_higher_origin() {
        let live = stamp(3, "n1");
        assert!(put_wins(&stamp(4, "n1"), Some(&live), None));
        assert!(put_wins(&stamp(3, "n2"), Some(&live), None));
        assert!(!put_wins(&live, Some(&live), None), "a repeated put changes nothing");
        assert!(!put_wins(&stamp(2, "n9"), Some(&live), None));
    }

    #[test]
    fn an_old_put_does_not_bring_back_a_freed_name() {
        let freed = stamp(5, "n2");
        assert!(!put_wins(&stamp(5, "n1"), None, Some(&freed)));
        assert!(put_wins(&stamp(6, "n1"), None, Some(&freed)));
        assert!(!removal_wins(&stamp(2, "n1"), Some(&stamp(3, "n1")), None));
    }
}
