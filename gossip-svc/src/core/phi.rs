//! The phi-accrual failure detector of one member.
//!
//! Hayashibara et al., "The phi accrual failure detector" (2004), in the form Cassandra and
//! chitchat use: phi = time since the last heartbeat / smoothed mean of the arrival intervals.

use std::{collections::VecDeque, time::Duration};

/// Intervals that are remembered.
const WINDOW: usize = 100;

/// Weight of the prior interval, in samples: the first few real intervals do not swing the mean.
const PRIOR_WEIGHT: f64 = 5.0;

/// Intervals longer than this many priors are an outage, not a rhythm.
const OUTAGE: u32 = 10;

/// Arrival history of one member's heartbeats. Times are [`super::awake::Awake`] times.
#[derive(Debug, Clone)]
pub(crate) struct Phi {
    prior: Duration,
    intervals: VecDeque<Duration>,
    sum: Duration,
    last: Duration,
}

impl Phi {
    /// A member heard of at `now`, expected every `prior`.
    pub(crate) fn new(prior: Duration, now: Duration) -> Self {
        Self { prior, intervals: VecDeque::new(), sum: Duration::ZERO, last: now }
    }

    /// Takes note of a newer heartbeat.
    pub(crate) fn heard(&mut self, now: Duration) {
        let interval = now.saturating_sub(self.last);
        self.last = now;
        if interval > self.prior * OUTAGE {
            return;
        }
        self.intervals.push_back(interval);
        self.sum += interval;
        if self.intervals.len() > WINDOW
            && let Some(oldest) = self.intervals.pop_front()
        {
            self.sum = self.sum.saturating_sub(oldest);
        }
    }

    /// Suspicion at `now`: 0 just after a heartbeat, growing without bound in silence.
    ///
    /// The mean never falls below the prior. Heartbeats also travel in other members' digests, so
    /// they often come faster than the gossip interval; a detector that got used to that would
    /// accuse a member for being no better than promised.
    pub(crate) fn phi(&self, now: Duration) -> f64 {
        let prior = self.prior.as_secs_f64();
        let samples = self.intervals.len() as f64;
        let mean = (self.sum.as_secs_f64() + PRIOR_WEIGHT * prior) / (samples + PRIOR_WEIGHT);
        now.saturating_sub(self.last).as_secs_f64() / mean.max(prior)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIOR: Duration = Duration::from_millis(200);

    #[test]
    fn phi_grows_in_silence_and_falls_with_a_heartbeat() {
        let mut detector = Phi::new(PRIOR, Duration::ZERO);
        assert_eq!(detector.phi(PRIOR), 1.0);
        assert_eq!(detector.phi(PRIOR * 8), 8.0);
        detector.heard(PRIOR);
        assert_eq!(detector.phi(PRIOR), 0.0);
    }

    #[test]
    fn a_slow_member_is_given_more_time() {
        let mut detector = Phi::new(PRIOR, Duration::ZERO);
        let mut now = Duration::ZERO;
        for _ in 0..200 {
            now += PRIOR * 3;
            detector.heard(now);
        }
        let phi = detector.phi(now + PRIOR * 8);
        assert!(phi < 3.0, "{phi}");
        assert_eq!(detector.intervals.len(), WINDOW);
    }

    #[test]
    fn a_fast_member_is_not_accused_sooner_than_promised() {
        let mut detector = Phi::new(PRIOR, Duration::ZERO);
        let mut now = Duration::ZERO;
        for _ in 0..200 {
            now += PRIOR / 10;
            detector.heard(now);
        }
        assert_eq!(detector.phi(now + PRIOR * 4), 4.0);
    }

    #[test]
    fn an_outage_does_not_spoil_the_mean() {
        let mut detector = Phi::new(PRIOR, Duration::ZERO);
        detector.heard(PRIOR * 1000);
        assert_eq!(detector.phi(PRIOR * 1008), 8.0);
    }
}
