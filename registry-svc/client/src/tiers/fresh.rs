//! How old the node's copy may be.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// An answer from a copy is at most this old, or says that it is stale (DESIGN K16).
pub const STALENESS_BOUND: Duration = Duration::from_secs(2);

/// Until when the copy may be answered from. Asked with the caller's own `now`, so no timer that
/// is late can make an old answer look fresh.
pub(crate) struct Freshness {
    origin: Instant,
    // In ns after the origin; 0 = there was no complete copy yet.
    until: AtomicU64,
}

/// The moment until which a copy is fresh, as one reader keeps it: two moments are compared at
/// less cost than their distance is computed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Until {
    nanos: u64,
    at: Option<Instant>,
}

impl Freshness {
    pub(crate) fn new(origin: Instant) -> Self {
        Self { origin, until: AtomicU64::new(0) }
    }

    /// The copy held all that was acknowledged before this moment.
    pub(crate) fn confirm(&self, at: Instant) {
        self.until.fetch_max(self.nanos(at + STALENESS_BOUND), Ordering::Release);
    }

    #[inline]
    pub(crate) fn holds_by(&self, kept: &mut Until, now: Instant) -> bool {
        let nanos = self.until.load(Ordering::Acquire);
        if kept.nanos != nanos {
            *kept = Until { nanos, at: Some(self.origin + Duration::from_nanos(nanos)) };
        }
        kept.at.is_some_and(|until| now < until)
    }

    /// Since when changes may be missing; all the time when there was no copy.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        let as_of = self.until.load(Ordering::Acquire).saturating_sub(nanos(STALENESS_BOUND));
        Duration::from_nanos(self.nanos(now).saturating_sub(as_of))
    }

    #[inline]
    fn nanos(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.origin))
    }
}

#[inline]
fn nanos(span: Duration) -> u64 {
    span.as_secs() * 1_000_000_000 + u64::from(span.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_fresh_for_the_bound_after_what_it_was_confirmed_for() {
        let origin = kit::clock::Clock::now(&kit::clock::SystemClock);
        let at = |ms| origin + Duration::from_millis(ms);
        let fresh = Freshness::new(origin);
        let mut kept = Until::default();
        assert!(!fresh.holds_by(&mut kept, origin), "there is no copy");
        fresh.confirm(at(100));
        let mut holds = |ms| fresh.holds_by(&mut kept, at(ms));
        assert!(holds(100) && holds(2099) && !holds(2100));
        fresh.confirm(at(50));
        assert_eq!(fresh.age(at(1100)), Duration::from_millis(1000), "an earlier moment says nothing");
        fresh.confirm(at(2000));
        assert!(fresh.holds_by(&mut kept, at(3999)), "what is kept follows");
    }
}
