//! One stored state of a session, and what orders it.

use bytes::Bytes;
use proto::session as wire;
use serde::{Deserialize, Serialize};

/// Versions kept to recognise a repeated write after others followed it.
pub const RECENT_MAX: usize = 8;

/// Orders proposals for one session. The round follows the proposer's wall clock, which only
/// decides how often a proposal is refused, never which value wins.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Compared first.
    pub round: u64,
    /// Unique to an attempt.
    pub proposer: String,
}

/// Orders the states of a session as clients see them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// One more than that of the state it replaced.
    pub counter: u64,
    /// The request id of the write.
    pub writer: String,
}

/// One state of a session with the ballot under which it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The session.
    pub id: String,
    /// What clients compare and set by.
    pub version: Version,
    /// Opaque.
    pub value: Bytes,
    /// Bound at creation.
    pub tenant: String,
    /// Bound at creation.
    pub principal: String,
    /// Wall clock of the creation.
    pub created_at_ms: u64,
    /// Life after the last put or touch.
    pub ttl_ms: u64,
    /// A tombstone.
    pub deleted: bool,
    /// Wall clock of the end of its life. Not decided by ballots: the latest known counts.
    pub expires_at_ms: u64,
    /// Under which it was stored.
    pub ballot: Ballot,
    /// The last versions that led here, this one included, newest last.
    pub recent: Vec<Version>,
}

impl Record {
    /// Whether clients may see it.
    pub fn live(&self, now_ms: u64) -> bool {
        !self.deleted && now_ms < self.expires_at_ms
    }

    /// Whether it may be dropped once every owner agrees that its life has ended.
    pub fn reapable(&self, now_ms: u64, grace_ms: u64) -> bool {
        now_ms >= self.expires_at_ms.saturating_add(grace_ms)
    }

    /// Whether the write with this request id led here.
    pub fn follows(&self, request_id: &str) -> Option<&Version> {
        self.recent.iter().find(|version| version.writer == request_id)
    }

    /// The next state under another version; `recent` follows.
    pub fn successor(&self, request_id: &str) -> Record {
        let version = Version { counter: self.version.counter + 1, writer: request_id.to_owned() };
        let mut next = Record { version: version.clone(), ..self.clone() };
        next.recent.push(version);
        if next.recent.len() > RECENT_MAX {
            next.recent.drain(..next.recent.len() - RECENT_MAX);
        }
        next
    }

    /// Bytes it takes in memory, about.
    pub fn weight(&self) -> usize {
        let recent: usize = self.recent.iter().map(|version| version.writer.len() + 32).sum();
        self.value.len() + self.tenant.len() + self.principal.len() + recent + 256
    }

    /// The part that clients see.
    pub fn to_session(&self) -> wire::Session {
        wire::Session {
            id: self.id.clone(),
            version: Some(self.version.clone().into()),
            value: self.value.clone(),
            tenant: self.tenant.clone(),
            principal: self.principal.clone(),
            created_at_ms: self.created_at_ms,
            ttl_ms: self.ttl_ms,
            deleted: self.deleted,
            expires_at_ms: self.expires_at_ms,
        }
    }

    /// Puts together what travels apart.
    pub fn from_wire(
        session: wire::Session,
        ballot: Option<wire::Ballot>,
        recent: Vec<wire::Version>,
    ) -> Record {
        Record {
            id: session.id,
            version: session.version.unwrap_or_default().into(),
            value: session.value,
            tenant: session.tenant,
            principal: session.principal,
            created_at_ms: session.created_at_ms,
            ttl_ms: session.ttl_ms,
            deleted: session.deleted,
            expires_at_ms: session.expires_at_ms,
            ballot: ballot.unwrap_or_default().into(),
            recent: recent.into_iter().map(Version::from).collect(),
        }
    }

    /// The last versions, as they travel.
    pub fn recent_wire(&self) -> Vec<wire::Version> {
        self.recent.iter().cloned().map(Into::into).collect()
    }
}

impl From<wire::Version> for Version {
    fn from(version: wire::Version) -> Self {
        Version { counter: version.counter, writer: version.writer }
    }
}

impl From<Version> for wire::Version {
    fn from(version: Version) -> Self {
        wire::Version { counter: version.counter, writer: version.writer }
    }
}

impl From<wire::Ballot> for Ballot {
    fn from(ballot: wire::Ballot) -> Self {
        Ballot { round: ballot.round, proposer: ballot.proposer }
    }
}

impl From<Ballot> for wire::Ballot {
    fn from(ballot: Ballot) -> Self {
        wire::Ballot { round: ballot.round, proposer: ballot.proposer }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(counter: u64, writer: &str, round: u64) -> Record {
        let version = Version { counter, writer: writer.into() };
        Record {
            id: "0000".into(),
            version: version.clone(),
            value: Bytes::from_static(b"v"),
            tenant: "t".into(),
            principal: "p".into(),
            created_at_ms: 1,
            ttl_ms: 1000,
            deleted: false,
            expires_at_ms: 1001,
            ballot: Ballot { round, proposer: writer.into() },
            recent: vec![version],
        }
    }

    #[test]
    fn a_state_knows_the_last_writes_that_led_to_it() {
        let mut state = record(1, "w1", 1);
        for i in 2..=20 {
            state = state.successor(&format!("w{i}"));
        }
        assert_eq!(state.version.counter, 20);
        assert_eq!(state.recent.len(), RECENT_MAX);
        assert_eq!(state.follows("w13").map(|version| version.counter), Some(13));
        assert_eq!(state.follows("w12"), None);
    }

    #[test]
    fn a_record_survives_the_wire() {
        let state = record(3, "w", 9);
        let wire = state.to_session();
        let again = Record::from_wire(wire, Some(state.ballot.clone().into()), state.recent_wire());
        assert_eq!(again, state);
    }
}
