//! What a write makes of the state it finds.

use super::record::{Ballot, Record, Version};
use bytes::Bytes;

/// A write as asked for.
#[derive(Debug, Clone)]
pub struct Change {
    /// Makes it idempotent.
    pub request_id: String,
    /// Must be the session's.
    pub tenant: String,
    /// Must be the session's.
    pub principal: String,
    /// What to do.
    pub kind: Kind,
}

/// The kinds of write.
#[derive(Debug, Clone)]
pub enum Kind {
    /// The first state of an id.
    Create {
        /// The id.
        id: String,
        /// Its value.
        value: Bytes,
        /// Its life without touch.
        ttl_ms: u64,
    },
    /// Compare and set.
    Put {
        /// The version it must replace.
        expected: Version,
        /// The new value.
        value: Bytes,
    },
    /// A tombstone, whatever the version.
    Delete,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Store this.
    Write(Box<Record>),
    /// An earlier attempt did it, under this version.
    Done(Version),
    /// No.
    Reject(Rejection),
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// No such session for this tenant and principal.
    NotFound,
    /// Another version is stored.
    Mismatch(Version),
    /// An earlier attempt may have been applied and overwritten since.
    Undecidable,
}

impl Change {
    /// Decides on the state found by a quorum. `tried` is the version this write has already been
    /// sent under, if it has.
    pub fn decide(&self, found: Option<&Record>, now_ms: u64, tried: Option<&Version>) -> Decision {
        if let Some(version) = found.and_then(|record| record.follows(&self.request_id)) {
            return self.repeated(version.clone(), found);
        }
        let decision = match &self.kind {
            Kind::Create { id, value, ttl_ms } => self.create(id, value, *ttl_ms, found, now_ms),
            Kind::Put { expected, value } => self.put(expected, value, found, now_ms),
            Kind::Delete => self.delete(found, now_ms),
        };
        match (&decision, tried, found) {
            (Decision::Reject(_), Some(tried), Some(found)) if !excludes(found, tried) => {
                Decision::Reject(Rejection::Undecidable)
            }
            _ => decision,
        }
    }

    fn repeated(&self, version: Version, found: Option<&Record>) -> Decision {
        match found {
            Some(record) if self.owns(record) => Decision::Done(version),
            _ => Decision::Reject(Rejection::NotFound),
        }
    }

    fn create(&self, id: &str, value: &Bytes, ttl_ms: u64, found: Option<&Record>, now_ms: u64) -> Decision {
        if let Some(record) = found {
            return Decision::Reject(Rejection::Mismatch(record.version.clone()));
        }
        let version = Version { counter: 1, writer: self.request_id.clone() };
        Decision::Write(Box::new(Record {
            id: id.to_owned(),
            version: version.clone(),
            value: value.clone(),
            tenant: self.tenant.clone(),
            principal: self.principal.clone(),
            created_at_ms: now_ms,
            ttl_ms,
            deleted: false,
            expires_at_ms: now_ms.saturating_add(ttl_ms),
            ballot: Ballot { round: 1, proposer: self.request_id.clone() },
            recent: vec![version],
        }))
    }

    fn put(&self, expected: &Version, value: &Bytes, found: Option<&Record>, now_ms: u64) -> Decision {
        let Some(record) = self.visible(found, now_ms) else {
            return Decision::Reject(Rejection::NotFound);
        };
        if record.version != *expected {
            return Decision::Reject(Rejection::Mismatch(record.version.clone()));
        }
        let mut next = record.successor(&self.request_id);
        next.value = value.clone();
        next.expires_at_ms = record.expires_at_ms.max(now_ms.saturating_add(record.ttl_ms));
        Decision::Write(Box::new(next))
    }

    fn delete(&self, found: Option<&Record>, now_ms: u64) -> Decision {
        let Some(record) = found.filter(|record| self.owns(record)) else {
            return Decision::Reject(Rejection::NotFound);
        };
        if record.deleted {
            return Decision::Done(record.version.clone());
        }
        let mut next = record.successor(&self.request_id);
        next.deleted = true;
        next.value = Bytes::new();
        // The tombstone outlives every life the session may still have at an owner that is away.
        next.expires_at_ms = record.expires_at_ms.max(now_ms.saturating_add(record.ttl_ms));
        Decision::Write(Box::new(next))
    }

    fn visible<'a>(&self, found: Option<&'a Record>, now_ms: u64) -> Option<&'a Record> {
        found.filter(|record| self.owns(record) && record.live(now_ms))
    }

    fn owns(&self, record: &Record) -> bool {
        record.tenant == self.tenant && record.principal == self.principal
    }
}

/// Whether this state proves that the version tried was never chosen and never will be: the states
/// that led here are known back to that counter, and it is not among them.
fn excludes(found: &Record, tried: &Version) -> bool {
    let oldest = found.recent.first().map_or(u64::MAX, |version| version.counter);
    found.version.counter < tried.counter || oldest <= tried.counter
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::record::tests::record;

    fn put(request_id: &str, expected: &Version) -> Change {
        let kind = Kind::Put { expected: expected.clone(), value: Bytes::from_static(b"new") };
        change(request_id, kind)
    }

    fn change(request_id: &str, kind: Kind) -> Change {
        Change { request_id: request_id.into(), tenant: "t".into(), principal: "p".into(), kind }
    }

    #[test]
    fn a_put_replaces_the_expected_version_only() {
        let state = record(5, "a", 1);
        let Decision::Write(next) = put("b", &state.version).decide(Some(&state), 10, None) else {
            panic!("refused")
        };
        assert_eq!((next.version.counter, next.expires_at_ms), (6, 1010));
        let late = put("c", &state.version).decide(Some(&next), 10, None);
        assert_eq!(late, Decision::Reject(Rejection::Mismatch(next.version.clone())));
        let again = put("b", &state.version).decide(Some(&next), 10, None);
        assert_eq!(again, Decision::Done(next.version.clone()));
    }

    #[test]
    fn another_principal_or_tenant_finds_nothing() {
        let state = record(5, "a", 1);
        let mut other = put("b", &state.version);
        other.principal = "q".into();
        let none = Decision::Reject(Rejection::NotFound);
        assert_eq!(other.decide(Some(&state), 10, None), none);
        let mut other = change("b", Kind::Delete);
        other.tenant = "u".into();
        assert_eq!(other.decide(Some(&state), 10, None), none);
    }

    #[test]
    fn an_ended_session_takes_no_put() {
        let state = record(5, "a", 1);
        let none = Decision::Reject(Rejection::NotFound);
        assert_eq!(put("b", &state.version).decide(Some(&state), 1001, None), none);
        let Decision::Write(tombstone) = change("d", Kind::Delete).decide(Some(&state), 10, None) else {
            panic!("refused")
        };
        assert_eq!(put("b", &tombstone.version).decide(Some(&tombstone), 10, None), none);
    }

    #[test]
    fn a_write_that_was_sent_is_refused_only_with_proof() {
        let tried = Version { counter: 6, writer: "b".into() };
        let expected = Version { counter: 5, writer: "a".into() };
        let winner = record(5, "a", 1).successor("c");
        let decision = put("b", &expected).decide(Some(&winner), 10, Some(&tried));
        assert_eq!(decision, Decision::Reject(Rejection::Mismatch(winner.version.clone())));
        let mut far = winner;
        for i in 0..10 {
            far = far.successor(&format!("x{i}"));
        }
        let decision = put("b", &expected).decide(Some(&far), 10, Some(&tried));
        assert_eq!(decision, Decision::Reject(Rejection::Undecidable));
    }
}
