//! The keys and values a node publishes about itself.

use super::Facts;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Present once the node left.
pub(crate) const LEFT: &str = "left";
/// The node's zone.
pub(crate) const ZONE: &str = "zone";
/// The node's software version.
pub(crate) const VERSION: &str = "version";
const SERVICE: &str = "svc/";

/// A running service, by service and instance name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServiceKey {
    pub(crate) service: String,
    pub(crate) instance: String,
}

impl ServiceKey {
    /// The fact's key, `svc/<service>/<instance>`.
    pub(crate) fn fact(&self) -> String {
        format!("{SERVICE}{}/{}", self.service, self.instance)
    }

    fn parse(key: &str) -> Option<Self> {
        let (service, instance) = key.strip_prefix(SERVICE)?.split_once('/')?;
        Some(Self { service: service.into(), instance: instance.into() })
    }
}

/// What a service says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceFact {
    pub(crate) addr: String,
    pub(crate) generation: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) zone: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) meta: BTreeMap<String, String>,
    /// The lease ran out: the service is gone, its node is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) down: bool,
}

impl ServiceFact {
    /// The fact's value.
    pub(crate) fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The services in a node's facts. What does not parse was written by another version (or by a
/// forger) and is skipped: one odd fact must not hide the others.
pub(crate) fn services(facts: &Facts) -> impl Iterator<Item = (ServiceKey, ServiceFact)> + '_ {
    facts
        .range(SERVICE.to_owned()..)
        .take_while(|(key, _)| key.starts_with(SERVICE))
        .filter_map(|(key, value)| Some((ServiceKey::parse(key)?, serde_json::from_str(value).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact() -> ServiceFact {
        let meta = BTreeMap::from([("mcp".to_owned(), "127.0.0.1:7700".to_owned())]);
        ServiceFact { addr: "127.0.0.1:7610".into(), generation: 3, zone: "a".into(), meta, down: false }
    }

    #[test]
    fn a_service_survives_the_trip_through_facts() {
        let key = ServiceKey { service: "edge".into(), instance: "n1".into() };
        let facts = Facts::from([(key.fact(), fact().encode()), (ZONE.into(), "a".into())]);
        assert_eq!(services(&facts).collect::<Vec<_>>(), vec![(key, fact())]);
    }

    #[test]
    fn a_broken_fact_does_not_hide_the_others() {
        let key = ServiceKey { service: "edge".into(), instance: "n1".into() };
        let facts = Facts::from([
            ("svc/broken".into(), "{}".into()),
            ("svc/edge/n0".into(), "not json".into()),
            (key.fact(), fact().encode()),
        ]);
        assert_eq!(services(&facts).count(), 1);
    }
}
