//! Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter").

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::time::Duration;

/// Delays that double from `first` to `max`, each drawn uniformly from `0..=ceiling`.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    ceiling: Duration,
    rng: StdRng,
}

impl Backoff {
    /// A backoff whose draws follow from `seed`.
    pub fn new(first: Duration, max: Duration, seed: u64) -> Self {
        Self { first, max, ceiling: first.min(max), rng: StdRng::seed_from_u64(seed) }
    }

    /// A backoff with a random seed, for where nothing is replayed.
    pub fn random(first: Duration, max: Duration) -> Self {
        Self::new(first, max, rand::random())
    }

    /// The next delay. It never ends; whoever retries brings the limit on attempts.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(self.max);
        ceiling.mul_f64(self.rng.random_range(0.0..=1.0))
    }

    /// Starts again at `first`, after a success.
    pub fn reset(&mut self) {
        self.ceiling = self.first.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_maximum_and_never_pass_it() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500), 7);
        let delays: Vec<_> = (0..50).map(|_| backoff.next()).collect();
        assert!(delays[0] <= Duration::from_millis(10));
        assert!(delays.iter().all(|delay| *delay <= Duration::from_millis(500)));
        assert!(delays.iter().any(|delay| *delay > Duration::from_millis(100)));
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(10));
    }

    #[test]
    fn the_same_seed_gives_the_same_delays() {
        let draw = || {
            let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1), 42);
            (0..8).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
    }
}
