//! Section `[gossip]`. A value out of its range does not parse; unset timings follow the profile.

use kit::config::{ConfigError, NodeConfig, Section, duration};
use serde::{Deserialize, Serialize};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

/// Section `[gossip]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// UDP address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// host:port under which the others reach this node; needed only where it cannot be found out
    /// (behind address translation). Port 0 means the bound port.
    pub advertise: Option<String>,
    /// Gossip addresses (host:port) of other nodes; added to those of `[node]`.
    pub join: Vec<String>,
    /// Timings by name; unset follows `[node]`.
    pub profile: Option<Profile>,
    /// Time between gossip rounds.
    pub interval: Option<Span<20, 10_000>>,
    /// Suspicion from which on a member is dead.
    pub phi: Option<Threshold>,
    /// Suspicion from which on a member is suspect; half of `phi` if unset.
    pub phi_suspect: Option<Threshold>,
    /// How long dead members and lost services stay listed.
    pub forget_dead: Option<Span<10_000, 604_800_000>>,
    /// How long members that left stay listed.
    pub forget_left: Option<Span<1_000, 86_400_000>>,
    /// How long the last word is spread before the process ends.
    pub leave: Option<Span<0, 10_000>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 7620).into(),
            advertise: None,
            join: Vec::new(),
            profile: None,
            interval: None,
            phi: None,
            phi_suspect: None,
            forget_dead: None,
            forget_left: None,
            leave: None,
        }
    }
}

impl Section for Config {
    const NAME: &'static str = "gossip";
}

impl Config {
    /// A free port on loopback.
    pub fn for_test() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 0).into(), ..Self::default() }
    }

    /// Takes over what `[node]` says and this section does not.
    pub fn with_node(mut self, node: &NodeConfig) -> Self {
        self.profile = self.profile.or_else(|| Profile::try_from(node.profile.clone()).ok());
        self.join
            .extend(node.join.iter().filter(|addr| !self.join.contains(addr)).cloned().collect::<Vec<_>>());
        if let (None, Some(host)) = (&self.advertise, &node.advertise) {
            self.advertise = Some(format!("{host}:0"));
        }
        self
    }

    /// The timings in force.
    ///
    /// # Errors
    /// When values do not go together.
    pub fn timing(&self) -> Result<Timing, ConfigError> {
        let preset = self.profile.unwrap_or_default().timing();
        let phi = self.phi.map_or(preset.phi, |phi| phi.0);
        let phi_suspect = self.phi_suspect.map_or(phi / 2.0, |phi| phi.0);
        if phi_suspect >= phi {
            return Err(ConfigError::Invalid(format!(
                "gossip.phi_suspect = {phi_suspect} must be below gossip.phi = {phi}"
            )));
        }
        let interval = self.interval.map_or(preset.interval, Into::into);
        Ok(Timing {
            interval,
            phi,
            phi_suspect,
            forget_dead: self.forget_dead.map_or(preset.forget_dead, Into::into),
            forget_left: self.forget_left.map_or(preset.forget_left, Into::into),
            leave: self.leave.map_or(interval * LEAVE_ROUNDS, Into::into),
        })
    }

    /// Refuses what parses but makes no sense.
    ///
    /// # Errors
    /// With the key and the rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for addr in self.join.iter().chain(&self.advertise) {
            let port = addr.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
            if port.is_none_or(|port| port.parse::<u16>().is_err()) {
                return Err(ConfigError::Invalid(format!("gossip address {addr:?} is not host:port")));
            }
        }
        self.timing().map(drop)
    }
}

/// Rounds in which the last word reaches everybody: each one tells three others, who tell theirs.
const LEAVE_ROUNDS: u32 = 4;

/// The numbers in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// Time between gossip rounds; also the interval the detector expects.
    pub interval: Duration,
    /// Suspicion from which on a member is dead.
    pub phi: f64,
    /// Suspicion from which on a member is suspect.
    pub phi_suspect: f64,
    /// How long dead members and lost services stay listed.
    pub forget_dead: Duration,
    /// How long members that left stay listed.
    pub forget_left: Duration,
    /// How long the last word is spread.
    pub leave: Duration,
}

impl Timing {
    /// How often the driver looks: often enough to tell heartbeats of one interval apart.
    pub(crate) fn tick(&self) -> Duration {
        (self.interval / 4).clamp(Duration::from_millis(10), Duration::from_millis(250))
    }
}

/// Timings by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Profile {
    /// One data centre: 200 ms, phi 8; a death is known in about 2 s.
    #[default]
    Lan,
    /// Several data centres: 1 s, phi 12.
    Wan,
    /// One machine: 100 ms, phi 12; fast and still calm on a busy laptop.
    Local,
    /// The seed's numbers: 1 s, phi 8.
    Seed,
}

impl Profile {
    fn timing(self) -> Timing {
        let (interval_ms, phi) = match self {
            Profile::Lan => (200, 8.0),
            Profile::Wan => (1_000, 12.0),
            Profile::Local => (100, 12.0),
            Profile::Seed => (1_000, 8.0),
        };
        let interval = Duration::from_millis(interval_ms);
        Timing {
            interval,
            phi,
            phi_suspect: phi / 2.0,
            forget_dead: Duration::from_secs(24 * 60 * 60),
            forget_left: Duration::from_secs(60 * 60),
            leave: interval * LEAVE_ROUNDS,
        }
    }
}

impl TryFrom<String> for Profile {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "default" | "lan" => Ok(Profile::Lan),
            "wan" => Ok(Profile::Wan),
            "local" => Ok(Profile::Local),
            "seed" => Ok(Profile::Seed),
            _ => Err(format!("profile {name:?} is not one of default, lan, wan, local, seed")),
        }
    }
}

impl From<Profile> for String {
    fn from(profile: Profile) -> String {
        let name = match profile {
            Profile::Lan => "lan",
            Profile::Wan => "wan",
            Profile::Local => "local",
            Profile::Seed => "seed",
        };
        name.to_owned()
    }
}

/// A duration of `MIN` to `MAX` ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span<const MIN: u64, const MAX: u64>(Duration);

impl<const MIN: u64, const MAX: u64> TryFrom<Duration> for Span<MIN, MAX> {
    type Error = String;
    fn try_from(span: Duration) -> Result<Self, String> {
        let (min, max) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        if (min..=max).contains(&span) {
            return Ok(Self(span));
        }
        Err(format!("{span:?} is not within {min:?} and {max:?}"))
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<String> for Span<MIN, MAX> {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        duration::parse(&text)?.try_into()
    }
}

impl<const MIN: u64, const MAX: u64> From<Span<MIN, MAX>> for String {
    fn from(span: Span<MIN, MAX>) -> String {
        duration::format(span.0)
    }
}

impl<const MIN: u64, const MAX: u64> From<Span<MIN, MAX>> for Duration {
    fn from(span: Span<MIN, MAX>) -> Duration {
        span.0
    }
}

/// A suspicion level of 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Threshold(f64);

impl TryFrom<f64> for Threshold {
    type Error = String;
    fn try_from(phi: f64) -> Result<Self, String> {
        if (1.0..=100.0).contains(&phi) {
            Ok(Self(phi))
        } else {
            Err(format!("phi {phi} is not within 1 and 100"))
        }
    }
}

impl From<Threshold> for f64 {
    fn from(threshold: Threshold) -> f64 {
        threshold.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Config, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_profile_sets_what_is_not_set_by_hand() {
        let config = parse(r#"{"profile": "seed", "phi": 10}"#).unwrap();
        let timing = config.timing().unwrap();
        assert_eq!((timing.interval, timing.phi, timing.phi_suspect), (Duration::from_secs(1), 10.0, 5.0));
        assert_eq!(Config::default().timing().unwrap().interval, Duration::from_millis(200));
    }

    #[test]
    fn illegal_values_do_not_parse() {
        for bad in [
            r#"{"interval": "1ms"}"#,
            r#"{"interval": 200}"#,
            r#"{"phi": 0.5}"#,
            r#"{"phi": "eight"}"#,
            r#"{"profile": "fast"}"#,
            r#"{"leave": "1h"}"#,
            r#"{"intervall": "200ms"}"#,
            r#"{"listen": "nowhere"}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let crossed = parse(r#"{"phi": 4, "phi_suspect": 6}"#).unwrap();
        assert!(crossed.validate().unwrap_err().to_string().contains("must be below"));
        let nowhere = parse(r#"{"join": ["n2"]}"#).unwrap();
        assert!(nowhere.validate().is_err());
    }

    #[test]
    fn the_node_section_fills_the_gaps() {
        let node = NodeConfig {
            profile: "wan".into(),
            join: vec!["n2:7620".into()],
            advertise: Some("n1.example".into()),
            ..NodeConfig::default()
        };
        let config = Config { join: vec!["n3:7620".into()], ..Config::default() }.with_node(&node);
        assert_eq!(config.profile, Some(Profile::Wan));
        assert_eq!(config.join, ["n3:7620", "n2:7620"]);
        assert_eq!(config.advertise.as_deref(), Some("n1.example:0"));
        let own = Config { profile: Some(Profile::Seed), ..Config::default() }.with_node(&node);
        assert_eq!(own.profile, Some(Profile::Seed));
    }

    #[test]
    fn a_config_survives_serialisation() {
        let config = parse(r#"{"interval": "150ms", "forget_left": "2m", "profile": "local"}"#).unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(parse(&text).unwrap(), config);
    }
}
