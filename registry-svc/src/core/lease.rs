//! Who lives until when. Time is the caller's monotonic clock.
//!
//! A lease never ends before its time to live has passed since the last renewal (RELIABILITY
//! ND6). The driver sweeps when the next one ends, so it is gone within a second after. A sweep
//! that comes later than that finds that this process stood still, and then nobody could renew:
//! the holders are let in first (F23).

use hashbrown::HashMap;
use std::{
    collections::BTreeSet,
    hash::Hash,
    time::{Duration, Instant},
};

/// Later than this a sweep means that the process stood still (frozen, starved, a slow disk).
pub(crate) const LATE: Duration = Duration::from_millis(900);
/// For how long holders are let in after a standstill: a third of their time to live, in which
/// each of them renews, within these. A call that was under way fails within two seconds, and
/// its holder repeats it within two more.
const GRACE_MIN: Duration = Duration::from_secs(5);
const GRACE_MAX: Duration = Duration::from_secs(10);

/// Leases by key, each with a value.
#[derive(Debug, Clone)]
pub(crate) struct Leases<K, V> {
    // Asked for one key at a time, never walked.
    by_key: HashMap<K, Lease<V>>,
    by_end: BTreeSet<(Instant, K)>,
    hold: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Lease<V> {
    value: V,
    ttl: Duration,
    end: Instant,
}

impl<K: Ord + Hash + Clone, V> Leases<K, V> {
    pub(crate) fn new() -> Self {
        Self { by_key: HashMap::new(), by_end: BTreeSet::new(), hold: None }
    }

    /// Grants a lease, or replaces the one of the same key.
    pub(crate) fn grant(&mut self, key: K, value: V, ttl: Duration, now: Instant) {
        let end = now + ttl;
        if let Some(old) = self.by_key.insert(key.clone(), Lease { value, ttl, end }) {
            self.by_end.remove(&(old.end, key.clone()));
        }
        self.by_end.insert((end, key));
    }

    /// Extends a lease to a full time to live from now. `None`: there is no such lease.
    pub(crate) fn renew(&mut self, key: &K, now: Instant) -> Option<Duration> {
        let lease = self.by_key.get_mut(key)?;
        self.by_end.remove(&(lease.end, key.clone()));
        lease.end = lease.end.max(now + lease.ttl);
        self.by_end.insert((lease.end, key.clone()));
        Some(lease.ttl)
    }

    pub(crate) fn revoke(&mut self, key: &K) -> Option<V> {
        let lease = self.by_key.remove(key)?;
        self.by_end.remove(&(lease.end, key.clone()));
        Some(lease.value)
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.by_key.get(key).map(|lease| &lease.value)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// When [`Leases::expired`] is to be asked next.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        let (end, _) = self.by_end.first()?;
        Some(self.hold.map_or(*end, |hold| hold.max(*end)))
    }

    /// How long ago the first lease that is still here ended.
    pub(crate) fn overdue(&self, now: Instant) -> Option<Duration> {
        let (end, _) = self.by_end.first()?;
        now.checked_duration_since(*end)
    }

    /// Takes out the leases that have ended.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<(K, V)> {
        if self.must_hold(now) {
            return Vec::new();
        }
        let mut expired = Vec::new();
        while let Some((end, key)) = self.by_end.first().cloned()
            && end <= now
        {
            expired.extend(self.revoke(&key).map(|value| (key, value)));
        }
        expired
    }

    /// A late sweep waits once for the holders.
    fn must_hold(&mut self, now: Instant) -> bool {
        match self.hold {
            Some(hold) if now < hold => true,
            Some(_) => {
                self.hold = None;
                false
            }
            None => {
                let late = self.overdue(now).is_some_and(|overdue| overdue > LATE);
                self.hold = late.then(|| now + self.grace(now));
                late
            }
        }
    }

    fn grace(&self, now: Instant) -> Duration {
        let overdue = self.by_end.iter().take_while(|(end, _)| *end <= now);
        let ttls = overdue.filter_map(|(_, key)| self.by_key.get(key)).map(|lease| lease.ttl);
        (ttls.max().unwrap_or_default() / 3).clamp(GRACE_MIN, GRACE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::collections::BTreeMap;

    const SECOND: Duration = Duration::from_secs(1);

    // A base for arithmetic; the tests move time by hand.
    #[allow(clippy::disallowed_methods)]
    fn start() -> Instant {
        Instant::now()
    }

    fn keys(expired: Vec<(u64, ())>) -> Vec<u64> {
        expired.into_iter().map(|(key, ())| key).collect()
    }

    #[test]
    fn a_lease_lives_its_full_time_from_the_last_renewal() {
        let (t, mut leases) = (start(), Leases::new());
        leases.grant(1, (), SECOND, t);
        assert_eq!(leases.renew(&1, t + SECOND / 2), Some(SECOND));
        let almost = t + SECOND * 3 / 2 - Duration::from_nanos(1);
        assert!(keys(leases.expired(almost)).is_empty());
        assert_eq!(keys(leases.expired(t + SECOND * 3 / 2)), [1]);
        assert_eq!(leases.renew(&1, t + SECOND * 2), None, "an ended lease stays ended");
    }

    #[test]
    fn a_process_that_stood_still_lets_waiting_renewals_in_first() {
        let (t, mut leases) = (start(), Leases::new());
        leases.grant(1, (), SECOND, t);
        leases.grant(2, (), SECOND, t);
        let woken = t + SECOND * 30;
        assert!(keys(leases.expired(woken)).is_empty(), "holders may be about to renew");
        assert_eq!(leases.next_end(), Some(woken + GRACE_MIN));
        leases.renew(&1, woken + GRACE_MIN - SECOND / 2);
        assert_eq!(keys(leases.expired(woken + GRACE_MIN)), [2]);
        assert_eq!(keys(leases.expired(woken + GRACE_MIN + SECOND / 2)), [1]);
    }

    #[test]
    fn a_standstill_gives_each_holder_a_third_of_its_time_within_bounds() {
        for (ttl, grace) in [(1, GRACE_MIN), (24, SECOND * 8), (3600, GRACE_MAX)] {
            let (t, mut leases) = (start(), Leases::new());
            leases.grant(1, (), SECOND, t);
            leases.grant(2, (), SECOND * ttl, t);
            let woken = t + SECOND * (ttl + 2);
            assert!(leases.expired(woken).is_empty());
            assert_eq!(leases.next_end(), Some(woken + grace), "{ttl} s");
            assert_eq!(leases.expired(woken + grace).len(), 2, "it waits once");
        }
    }

    #[test]
    fn a_revoked_lease_neither_ends_nor_renews() {
        let (t, mut leases) = (start(), Leases::new());
        leases.grant(1, (), SECOND, t);
        assert_eq!(leases.revoke(&1), Some(()));
        assert_eq!(leases.renew(&1, t), None);
        assert_eq!((leases.next_end(), leases.len()), (None, 0));
    }

    proptest! {
        #[test]
        fn never_early_and_gone_a_second_after(
            steps in vec((0u64..6, any::<bool>(), 0u64..250), 1..200),
            ttls in vec(1000u64..4000, 6),
        ) {
            let (mut now, mut leases) = (start(), Leases::new());
            let mut ends: BTreeMap<u64, Instant> = BTreeMap::new();
            for (key, grant, ms) in steps {
                now += Duration::from_millis(ms);
                for (key, ()) in leases.expired(now) {
                    let end = ends.remove(&key);
                    prop_assert!(end.is_some_and(|end| end <= now), "expired early");
                }
                let ttl = Duration::from_millis(ttls[key as usize]);
                if grant {
                    leases.grant(key, (), ttl, now);
                    ends.insert(key, now + ttl);
                } else if leases.renew(&key, now).is_some() {
                    ends.insert(key, now + ttl);
                }
                // Swept as the driver does: at `next_end`, within the late bound.
                while let Some(next) = leases.next_end().filter(|next| *next <= now) {
                    let _ = next;
                    for (key, ()) in leases.expired(now) {
                        prop_assert!(ends.remove(&key).is_some_and(|end| end <= now));
                    }
                }
                prop_assert!(ends.values().all(|end| now <= *end + SECOND), "alive a second after");
            }
        }
    }
}
