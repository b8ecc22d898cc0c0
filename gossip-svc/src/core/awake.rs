//! The time this node was really running.

use std::time::{Duration, Instant};

/// Adds up the time between ticks, each gap counted up to a limit.
///
/// A process that was stopped, starved or suspended did not listen meanwhile, so the silence of
/// the others proves nothing (local-health awareness, after Lifeguard): the gap beyond the limit
/// is no evidence against anybody, and ends nobody's lease.
#[derive(Debug)]
pub(crate) struct Awake {
    limit: Duration,
    last: Option<Instant>,
    total: Duration,
}

impl Awake {
    /// Counts at most `limit` for one gap between two ticks.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, last: None, total: Duration::ZERO }
    }

    /// The time awake up to `now`. A `now` before an earlier one adds nothing.
    pub(crate) fn advance(&mut self, now: Instant) -> Duration {
        let gap = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.total += gap.min(self.limit);
        self.last = Some(self.last.map_or(now, |last| last.max(now)));
        self.total
    }

    /// The time awake up to the last tick.
    pub(crate) fn total(&self) -> Duration {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::clock::{Clock as _, SystemClock};

    #[test]
    fn a_pause_counts_only_up_to_the_limit() {
        let start = SystemClock.now();
        let mut awake = Awake::new(Duration::from_millis(500));
        assert_eq!(awake.advance(start), Duration::ZERO);
        assert_eq!(awake.advance(start + Duration::from_millis(100)), Duration::from_millis(100));
        assert_eq!(awake.advance(start + Duration::from_secs(60)), Duration::from_millis(600));
        assert_eq!(awake.advance(start), Duration::from_millis(600));
    }
}
