//! Who lives until when. Time is the caller's monotonic clock.
//!
//! A lease never ends before its time to live has passed since the last renewal (RELIABILITY
//! ND6). The driver sweeps when the next one ends, so it is gone within a second after. A sweep
//! that comes later than that finds that this process stood still, and then nobody could renew:
//! the holders are let in first (F23).

use hashbrown::DefaultHashBuilder;
use indexmap::IndexMap;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
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
/// How far ahead a sweep looks for ends that were put off, so that it is not called for each.
const AHEAD: Duration = Duration::from_millis(500);
/// Ends in the queue that are nobody's, beside as many as there are leases.
const LITTER_MIN: usize = 64;

/// Leases by key, each with a value. There may be a million of them: an end is kept as a number.
#[derive(Debug, Clone)]
pub(crate) struct Leases<K, V> {
    // A grant writes behind the one before it, and not to a place in memory that nobody expects.
    by_key: IndexMap<K, Lease<V>, DefaultHashBuilder>,
    // Each lease is there at its end or before it, and so may be some that are gone. A renewal leaves
    // its lease where it is: that comes up at its old end, and is then put behind.
    by_end: BinaryHeap<Reverse<(Nanos, K)>>,
    // When the first one was granted: ends count from then on.
    start: Option<Instant>,
    hold: Option<Instant>,
}

/// Since the start.
type Nanos = u64;

#[derive(Debug, Clone)]
struct Lease<V> {
    value: V,
    ttl: Nanos,
    end: Nanos,
}

impl<K: Ord + Hash + Clone, V> Leases<K, V> {
    pub(crate) fn new() -> Self {
        Self { by_key: IndexMap::default(), by_end: BinaryHeap::new(), start: None, hold: None }
    }

    /// Grants a lease, or replaces the one of the same key.
    pub(crate) fn grant(&mut self, key: K, value: V, ttl: Duration, now: Instant) {
        self.start.get_or_insert(now);
        let ttl = nanos(ttl);
        let end = self.since_start(now).saturating_add(ttl);
        self.by_end.push(Reverse((end, key.clone())));
        self.by_key.insert(key, Lease { value, ttl, end });
        self.clean();
    }

    /// Extends a lease to a full time to live from now. `None`: there is no such lease.
    pub(crate) fn renew(&mut self, key: &K, now: Instant) -> Option<Duration> {
        let now = self.since_start(now);
        let lease = self.by_key.get_mut(key)?;
        lease.end = lease.end.max(now.saturating_add(lease.ttl));
        Some(Duration::from_nanos(lease.ttl))
    }

    pub(crate) fn revoke(&mut self, key: &K) -> Option<V> {
        let lease = self.by_key.swap_remove(key)?;
        self.clean();
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
        let Reverse((end, _)) = self.by_end.peek()?;
        let end = self.start? + Duration::from_nanos(*end);
        Some(self.hold.map_or(end, |hold| hold.max(end)))
    }

    /// How long ago the first lease that is still here ended.
    pub(crate) fn overdue(&mut self, now: Instant) -> Option<Duration> {
        let (now, first) = (self.since_start(now), self.settle(now)?);
        now.checked_sub(first).map(Duration::from_nanos)
    }

    /// Takes out the leases that have ended.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<(K, V)> {
        if self.must_hold(now) {
            return Vec::new();
        }
        let mut expired = Vec::new();
        while self.settle(now).is_some_and(|end| end <= self.since_start(now)) {
            let Some(Reverse((_, key))) = self.by_end.pop() else { break };
            expired.extend(self.by_key.swap_remove(&key).map(|lease| (key, lease.value)));
        }
        self.settle(now + AHEAD);
        expired
    }

    /// Puts off what comes up until a moment and was renewed. Answers when the first of the queue
    /// comes up after that; its lease has ended by the moment if it is not later.
    fn settle(&mut self, until: Instant) -> Option<Nanos> {
        let until = self.since_start(until);
        loop {
            let mut first = self.by_end.peek_mut()?;
            let Reverse((at, key)) = &mut *first;
            if *at > until {
                return Some(*at);
            }
            match self.by_key.get(key) {
                Some(lease) if lease.end == *at => return Some(*at),
                Some(lease) => *at = lease.end,
                None => drop(PeekMut::pop(first)),
            }
        }
    }

    /// Bounds the queue by the leases that stand.
    fn clean(&mut self) {
        if self.by_end.len() > 2 * self.by_key.len() + LITTER_MIN {
            self.by_end = self.by_key.iter().map(|(key, lease)| Reverse((lease.end, key.clone()))).collect();
        }
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
        let now = self.since_start(now);
        let overdue = self.by_key.values().filter(|lease| lease.end <= now);
        let longest = overdue.map(|lease| lease.ttl).max().unwrap_or_default();
        (Duration::from_nanos(longest) / 3).clamp(GRACE_MIN, GRACE_MAX)
    }

    /// The clock of the caller is monotonic: nothing is before the start.
    fn since_start(&self, now: Instant) -> Nanos {
        self.start.map_or(0, |start| nanos(now.saturating_duration_since(start)))
    }
}

/// They last for 584 years.
fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
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
        assert!(keys(leases.expired(t + SECOND)).is_empty());
        assert_eq!((leases.next_end(), leases.len()), (None, 0));
    }

    #[test]
    fn leases_that_are_renewed_call_for_a_sweep_twice_a_second_at_most() {
        let (t, mut leases) = (start(), Leases::new());
        for n in 0..1000 {
            leases.grant(n, (), SECOND * 10, t + Duration::from_millis(n));
        }
        let (mut now, mut sweeps) = (t, 0);
        while let Some(next) = leases.next_end().filter(|next| *next < t + SECOND * 60) {
            assert!(next >= now);
            now = next;
            // Each of them has been renewed three seconds ago at most.
            assert!((0..1000).all(|n| leases.renew(&n, now - SECOND * 3).is_some()));
            assert!(leases.expired(now).is_empty());
            sweeps += 1;
            assert!(sweeps <= 100);
        }
        assert!(sweeps > 0);
        assert_eq!(leases.len(), 1000);
    }

    proptest! {
        #[test]
        fn never_early_and_gone_a_second_after(
            steps in vec((0u64..6, 0u8..5, 0u64..250), 1..300),
            ttls in vec(1000u64..4000, 6),
        ) {
            let (mut now, mut leases) = (start(), Leases::new());
            let mut ends: BTreeMap<u64, Instant> = BTreeMap::new();
            for (key, step, ms) in steps {
                now += Duration::from_millis(ms);
                for (key, ()) in leases.expired(now) {
                    let end = ends.remove(&key);
                    prop_assert!(end.is_some_and(|end| end <= now), "expired early");
                }
                let ttl = Duration::from_millis(ttls[key as usize]);
                match step {
                    0 | 1 => {
                        leases.grant(key, (), ttl, now);
                        ends.insert(key, now + ttl);
                    }
                    2 => prop_assert_eq!(leases.revoke(&key), ends.remove(&key).map(drop)),
                    _ => {
                        prop_assert_eq!(leases.renew(&key, now).is_some(), ends.contains_key(&key));
                        ends.entry(key).and_modify(|end| *end = now + ttl);
                    }
                }
                prop_assert!(leases.by_end.len() <= 2 * leases.len() + LITTER_MIN);
                prop_assert_eq!(leases.len(), ends.len());
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
