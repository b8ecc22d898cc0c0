//! Section `[registry]`.

use crate::core::route::ShardMap;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Settings of registry-svc. The default suits a node of a small cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Shards: a power of two, 1 to 1024. More shards let more writers work at once.
    pub shards: u16,
    /// Most names; more are refused.
    pub max_registrations: usize,
    /// Writes that may wait for one shard; more are refused.
    pub queue: usize,
    /// Changes that a watcher may be behind before it is cut or must read the state again.
    pub history: usize,
    /// The same in bytes.
    pub history_bytes: usize,
    /// Most open watches; more are refused.
    pub max_watchers: usize,
    /// Calls that may wait for a name or for the end of a registration; more are refused.
    pub max_waiters: usize,
    /// Entries of batched writes that may wait at once; more are refused.
    pub max_batched: usize,
    /// Answers that each shard remembers for repeated requests.
    pub recent_answers: usize,
    /// Most tombstones of freed names; over it the oldest goes.
    pub max_tombstones: usize,
    /// How long a tombstone stays at least. It stays longer while a peer is away.
    #[serde(with = "kit::config::duration")]
    pub tombstone_retention: Duration,
    /// How often tombstones and old status reports are looked through.
    #[serde(with = "kit::config::duration")]
    pub sweep_interval: Duration,
    /// How long a status report counts without being repeated.
    #[serde(with = "kit::config::duration")]
    pub status_ttl: Duration,
    /// Most status reports (backends times edges).
    pub max_statuses: usize,
    /// How long a starting instance waits for the names of its peers before it says ready.
    #[serde(with = "kit::config::duration")]
    pub sync_wait: Duration,
    /// Which node owns which shards, such as `n1 = "0-7"`; empty: every instance answers for
    /// all. Every instance must be given the same.
    pub owners: BTreeMap<String, String>,
    /// Grows with every change of `owners`.
    pub owners_epoch: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shards: 16,
            max_registrations: 4_000_000,
            queue: 1024,
            history: 65_536,
            history_bytes: 64 << 20,
            max_watchers: 10_000,
            max_waiters: 10_000,
            max_batched: 100_000,
            recent_answers: 4096,
            max_tombstones: 1_000_000,
            tombstone_retention: Duration::from_secs(3600),
            sweep_interval: Duration::from_secs(10),
            status_ttl: Duration::from_secs(30),
            max_statuses: 100_000,
            sync_wait: Duration::from_secs(3),
            owners: BTreeMap::new(),
            owners_epoch: 1,
        }
    }
}

impl kit::config::Section for Config {
    const NAME: &'static str = "registry";

    fn check(&self) -> Result<(), String> {
        self.validate()
    }
}

impl Config {
    pub(crate) fn shard_map(&self) -> Result<ShardMap, String> {
        ShardMap::parse(self.owners_epoch, self.shards, &self.owners)
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        let wrong = |what: String| Err(what);
        if !self.shards.is_power_of_two() || self.shards > 1024 {
            return wrong(format!("shards is {}; a power of two from 1 to 1024 is needed", self.shards));
        }
        let counts = [
            ("max_registrations", self.max_registrations),
            ("queue", self.queue),
            ("history", self.history),
            ("history_bytes", self.history_bytes),
            ("max_watchers", self.max_watchers),
            ("max_waiters", self.max_waiters),
            ("max_batched", self.max_batched),
            ("recent_answers", self.recent_answers),
            ("max_tombstones", self.max_tombstones),
            ("max_statuses", self.max_statuses),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return wrong(format!("{name} is 0; at least 1 is needed"));
        }
        let times = [("sweep_interval", self.sweep_interval), ("status_ttl", self.status_ttl)];
        match times.into_iter().find(|(_, time)| *time < Duration::from_millis(10)) {
            Some((name, time)) => wrong(format!("{name} is {time:?}; at least 10ms is needed")),
            None => self.shard_map().map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_a_power_of_two_up_to_1024() {
        let with = |shards| Config { shards, ..Config::default() }.validate();
        assert!([1, 2, 16, 1024].into_iter().all(|shards| with(shards).is_ok()));
        assert!([0, 3, 17, 2048].into_iter().all(|shards| with(shards).is_err()));
    }
}
