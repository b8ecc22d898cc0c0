//! Leases of read copies (K27): who may serve a session from a copy, and for how long.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

/// No lease is longer.
pub const LEASE_MAX: Duration = Duration::from_secs(2);
/// Holders of one session; a further one gets no lease and reads through.
const HOLDERS_MAX: usize = 64;
/// Sessions under lease; the same.
const SESSIONS_MAX: usize = 262_144;

/// The leases that one owner granted. In memory only: after a start the owner takes it that every
/// session may be under a lease of the longest kind.
#[derive(Debug)]
pub struct Leases {
    by_id: HashMap<String, BTreeMap<String, Instant>>,
    unknown_until: Instant,
}

impl Leases {
    /// After a start with records from an earlier life, or a fresh one.
    pub fn new(now: Instant, recovered: bool) -> Self {
        let unknown_until = if recovered { now + LEASE_MAX } else { now };
        Leases { by_id: HashMap::new(), unknown_until }
    }

    /// Grants or extends a lease; answers its length, 0 when there is no room.
    pub fn grant(&mut self, id: &str, holder: &str, length: Duration, now: Instant) -> Duration {
        let length = length.min(LEASE_MAX);
        if !self.by_id.contains_key(id) && self.by_id.len() >= SESSIONS_MAX {
            return Duration::ZERO;
        }
        let holders = self.by_id.entry(id.to_owned()).or_default();
        holders.retain(|_, until| *until > now);
        if !holders.contains_key(holder) && holders.len() >= HOLDERS_MAX {
            return Duration::ZERO;
        }
        let until = holders.entry(holder.to_owned()).or_insert(now);
        *until = (*until).max(now + length);
        length
    }

    /// How long a holder other than `holder` may still serve the session.
    pub fn remaining(&self, id: &str, holder: &str, now: Instant) -> Duration {
        let granted = self.by_id.get(id).into_iter().flatten();
        let others = granted.filter(|(name, _)| name.as_str() != holder).map(|(_, until)| *until);
        let until = others.chain([self.unknown_until]).max().unwrap_or(now);
        until.saturating_duration_since(now)
    }

    /// Drops what has ended.
    pub fn sweep(&mut self, now: Instant) {
        self.by_id.retain(|_, holders| {
            holders.retain(|_, until| *until > now);
            !holders.is_empty()
        });
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_lease_of_another_holder_counts() {
        let now = Instant::now();
        let mut leases = Leases::new(now, false);
        let second = Duration::from_secs(1);
        leases.grant("s", "n1", second, now);
        leases.grant("s", "n2", second * 60, now);
        assert_eq!(leases.remaining("s", "n2", now), second);
        assert_eq!(leases.remaining("s", "n1", now), LEASE_MAX);
        assert_eq!(leases.remaining("s", "n1", now + LEASE_MAX), Duration::ZERO);
        assert_eq!(leases.remaining("other", "n1", now), Duration::ZERO);
        leases.sweep(now + LEASE_MAX);
        assert!(leases.by_id.is_empty());
    }

    #[test]
    fn after_a_restart_every_session_may_be_leased() {
        let now = Instant::now();
        let leases = Leases::new(now, true);
        assert_eq!(leases.remaining("s", "n1", now), LEASE_MAX);
        assert_eq!(leases.remaining("s", "n1", now + LEASE_MAX), Duration::ZERO);
    }
}
