//! Section `[coordinator]`.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// How the service is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Timings by name; unset takes the node's profile.
    pub profile: Option<Profile>,
    /// Between two signs of life of the leader; overrides the profile.
    pub heartbeat: Option<Span>,
    /// Shortest silence after which a follower asks for votes; overrides the profile.
    pub election_min: Option<Span>,
    /// Longest such silence, and the leader's lease; overrides the profile.
    pub election_max: Option<Span>,
    /// Entries between two snapshots, 100 to 1000000.
    pub snapshot_every: u64,
    /// Other coordinators that no gossip tells of, name -> host:port.
    pub peers: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            profile: None,
            heartbeat: None,
            election_min: None,
            election_max: None,
            snapshot_every: 5_000,
            peers: BTreeMap::new(),
        }
    }
}

impl kit::config::Section for Config {
    const NAME: &'static str = "coordinator";
}

/// A duration with its unit, such as `"100ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(#[serde(with = "kit::config::duration")] pub Duration);

/// Timings that go together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Nodes in one place, some of them busy.
    #[default]
    Default,
    /// The seed's numbers: quicker, for quiet machines.
    Seed,
    /// Nodes far apart.
    Wan,
}

/// The Raft timings in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two signs of life.
    pub heartbeat: Duration,
    /// Shortest silence before an election.
    pub election_min: Duration,
    /// Longest silence before an election.
    pub election_max: Duration,
}

impl Profile {
    /// Its timings.
    pub fn timing(self) -> Timing {
        let (heartbeat, election_min, election_max) = match self {
            Profile::Default => (100, 600, 1200),
            Profile::Seed => (50, 150, 300),
            Profile::Wan => (500, 3000, 6000),
        };
        let millis = Duration::from_millis;
        Timing {
            heartbeat: millis(heartbeat),
            election_min: millis(election_min),
            election_max: millis(election_max),
        }
    }
}

impl Config {
    /// Takes the node's profile unless the section names its own.
    pub fn with_profile(mut self, node: &str) -> Config {
        let node = match node {
            "seed" => Profile::Seed,
            "wan" => Profile::Wan,
            _ => Profile::Default,
        };
        self.profile.get_or_insert(node);
        self
    }

    /// The timings: the profile's, each overridden by its own key.
    pub fn timing(&self) -> Timing {
        let profile = self.profile.unwrap_or_default().timing();
        let or = |own: Option<Span>, profile| own.map_or(profile, |span| span.0);
        Timing {
            heartbeat: or(self.heartbeat, profile.heartbeat),
            election_min: or(self.election_min, profile.election_min),
            election_max: or(self.election_max, profile.election_max),
        }
    }

    /// Refuses what cannot work.
    pub fn validate(&self) -> Result<(), Error> {
        let Timing { heartbeat, election_min, election_max } = self.timing();
        if heartbeat < Duration::from_millis(10) {
            return Err(refused("heartbeat", "must be at least 10ms"));
        }
        if election_min < heartbeat * 3 {
            return Err(refused("election_min", "must be at least three heartbeats"));
        }
        if election_max <= election_min {
            return Err(refused("election_max", "must be longer than election_min"));
        }
        if election_max > Duration::from_secs(60) {
            return Err(refused("election_max", "must be at most 60s"));
        }
        if !(100..=1_000_000).contains(&self.snapshot_every) {
            return Err(refused("snapshot_every", "must be 100 to 1000000"));
        }
        let bad =
            self.peers.iter().find(|(name, addr)| proto::ids::check_name(name).is_err() || !is_addr(addr));
        match bad {
            Some((name, addr)) => {
                Err(refused("peers", &format!("{name} = {addr:?} is not a name with host:port")))
            }
            None => Ok(()),
        }
    }
}

fn is_addr(addr: &str) -> bool {
    addr.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn refused(key: &str, rule: &str) -> Error {
    Error::Config(format!("coordinator.{key} {rule}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_valid_and_each_value_can_be_overridden() {
        for profile in [Profile::Default, Profile::Seed, Profile::Wan] {
            Config { profile: Some(profile), ..Config::default() }.validate().unwrap();
        }
        let config: Config = serde_json::from_str(r#"{"profile": "seed", "election_max": "900ms"}"#).unwrap();
        let timing = config.with_profile("wan").timing();
        assert_eq!(timing.heartbeat, Duration::from_millis(50));
        assert_eq!(timing.election_max, Duration::from_millis(900));
        assert_eq!(Config::default().with_profile("wan").timing(), Profile::Wan.timing());
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_key() {
        let refuse = |text: &str| {
            let config: Config = serde_json::from_str(text).unwrap();
            config.validate().unwrap_err().to_string()
        };
        assert_eq!(refuse(r#"{"heartbeat": "1ms"}"#), "coordinator.heartbeat must be at least 10ms");
        assert!(refuse(r#"{"heartbeat": "300ms"}"#).contains("election_min"));
        assert!(refuse(r#"{"election_max": "500ms"}"#).contains("election_max"));
        assert!(refuse(r#"{"snapshot_every": 1}"#).contains("snapshot_every"));
        assert!(refuse(r#"{"peers": {"n2": "nowhere"}}"#).contains("n2"));
        assert!(serde_json::from_str::<Config>(r#"{"hartbeat": "1s"}"#).is_err());
    }
}
