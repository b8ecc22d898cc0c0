//! Section `[session]`.

use crate::Error;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Largest value of a session in bytes.
pub(crate) const VALUE_MAX: usize = 256 << 10;

/// Configuration of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Owners of a session, 1 to 5; fewer when there are fewer instances and no more are expected.
    pub replication_factor: usize,
    /// How long one owner may take to answer another.
    #[serde(with = "kit::config::duration")]
    pub replica_deadline: Duration,
    /// Life of a session that was created without one.
    #[serde(with = "kit::config::duration")]
    pub default_ttl: Duration,
    /// Longest life without touch.
    #[serde(with = "kit::config::duration")]
    pub max_ttl: Duration,
    /// How long a tombstone or an expired session is kept beyond its end.
    #[serde(with = "kit::config::duration")]
    pub grace: Duration,
    /// How often event logs are written to disk.
    #[serde(with = "kit::config::duration")]
    pub flush_interval: Duration,
    /// How often ended sessions and leases are looked for.
    #[serde(with = "kit::config::duration")]
    pub sweep_interval: Duration,
    /// Sessions of one instance; further creates are refused.
    pub max_sessions: usize,
    /// Bytes of all sessions of one instance in memory.
    pub max_session_bytes: usize,
    /// Bytes of all event logs of one instance in memory.
    pub max_log_bytes: usize,
    /// Sessions a second that are brought to owners that miss them.
    pub repair_rate: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            replication_factor: session_client::REPLICATION_FACTOR,
            replica_deadline: Duration::from_secs(1),
            default_ttl: Duration::from_secs(30 * 60),
            max_ttl: Duration::from_secs(24 * 60 * 60),
            grace: Duration::from_secs(10 * 60),
            flush_interval: Duration::from_millis(100),
            sweep_interval: Duration::from_secs(1),
            max_sessions: 1_000_000,
            max_session_bytes: 1 << 30,
            max_log_bytes: 512 << 20,
            repair_rate: 2_000,
        }
    }
}

impl kit::config::Section for Config {
    const NAME: &'static str = "session";
}

impl Config {
    /// Refuses what parses but makes no sense.
    pub fn validate(&self) -> Result<(), Error> {
        let within = |value: Duration, least: u64, most: u64| {
            (Duration::from_millis(least)..=Duration::from_millis(most)).contains(&value)
        };
        let rules = [
            ("replication_factor", (1..=5).contains(&self.replication_factor), "must be 1 to 5"),
            ("replica_deadline", within(self.replica_deadline, 10, 10_000), "must be 10ms to 10s"),
            ("max_ttl", within(self.max_ttl, 1_000, 30 * 86_400_000), "must be 1s to 30 days"),
            ("default_ttl", within(self.default_ttl, 1, millis(self.max_ttl)), "must be at most max_ttl"),
            ("flush_interval", within(self.flush_interval, 1, 10_000), "must be 1ms to 10s"),
            ("sweep_interval", within(self.sweep_interval, 10, 60_000), "must be 10ms to 60s"),
            ("max_sessions", self.max_sessions > 0, "must not be 0"),
            ("max_session_bytes", self.max_session_bytes >= 1 << 20, "must be 1 MiB at least"),
            ("max_log_bytes", self.max_log_bytes >= 1 << 20, "must be 1 MiB at least"),
            ("repair_rate", self.repair_rate > 0, "must not be 0"),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((key, _, rule)) => Err(Error::Config { key, rule }),
            None => Ok(()),
        }
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_nonsense_is_not() {
        assert!(Config::default().validate().is_ok());
        let config = Config { replication_factor: 0, ..Config::default() };
        let error = config.validate().expect_err("refused");
        assert_eq!(error.to_string(), "session.replication_factor: must be 1 to 5");
    }
}
