//! One line of a static directory: `service/name@host:port`.

use crate::directory::{Instance, State};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Services that a directory lists.
const SERVICES: [&str; 5] = ["gossip", "registry", "session", "coordinator", "edge"];

/// An instance of a service at a place that is known beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StaticMember {
    service: String,
    name: String,
    addr: String,
}

impl StaticMember {
    /// As the directory shows it: always up, for nobody watches it. Whether it answers shows at the
    /// call.
    pub fn instance(&self, zone: &str) -> Instance {
        Instance {
            service: self.service.clone(),
            name: self.name.clone(),
            addr: self.addr.clone(),
            generation: 0,
            zone: zone.to_owned(),
            state: State::Up,
            meta: BTreeMap::new(),
        }
    }
}

impl FromStr for StaticMember {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(service, rest)| {
            let (name, addr) = rest.split_once('@')?;
            let (host, port) = addr.rsplit_once(':')?;
            (!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(())?;
            Some((service, name, addr))
        });
        let Some((service, name, addr)) = parts else {
            return Err(format!("{text:?} is not service/name@host:port"));
        };
        super::node::check_word("members", name).map_err(|error| error.to_string())?;
        if !SERVICES.contains(&service) {
            return Err(format!("{text:?}: {service:?} is none of {}", SERVICES.join(", ")));
        }
        Ok(Self { service: service.into(), name: name.into(), addr: addr.into() })
    }
}

impl TryFrom<String> for StaticMember {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<StaticMember> for String {
    fn from(member: StaticMember) -> String {
        member.to_string()
    }
}

impl fmt::Display for StaticMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.service, self.name, self.addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_reads_back_and_a_wrong_one_is_told_why() {
        for good in ["registry/n1@registry:7610", "edge/e.1@[::1]:7610"] {
            assert_eq!(good.parse::<StaticMember>().unwrap().to_string(), good);
        }
        for (wrong, why) in [
            ("registry=n1", "is not service/name@host:port"),
            ("registry/n1@host", "is not service/name@host:port"),
            ("registry/n1@host:0", "is not service/name@host:port"),
            ("registry/n 1@host:1", "1 to 128 characters"),
            ("registri/n1@host:1", "is none of gossip, registry"),
        ] {
            let error = wrong.parse::<StaticMember>().unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
