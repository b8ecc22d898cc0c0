//! Time comes in through [`Clock`], so that a simulation can own it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall clock: milliseconds since the Unix epoch. For people and files, never for order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
pub struct Timestamp(pub u64);

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time. Follows tokio's clock, so `tokio::time::pause` works.
    fn now(&self) -> Instant;
    /// Wall-clock time.
    fn timestamp(&self) -> Timestamp;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    // The one place that reads the wall clock.
    #[allow(clippy::disallowed_methods)]
    fn timestamp(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}
