//! The services a node speaks for, each under a lease.
//!
//! phi tells of a dead node; the lease tells of a dead service on a living node. A service whose
//! lease ran out stays listed as down, so that every node keeps computing the same ring, until it
//! is published again, withdrawn, or forgotten.

use super::facts::{ServiceFact, ServiceKey};
use std::{collections::BTreeMap, time::Duration};

/// Shortest lease: below it, one lost renewal ends a service.
pub(crate) const TTL_MIN: Duration = Duration::from_secs(1);
/// Longest lease.
pub(crate) const TTL_MAX: Duration = Duration::from_secs(60);
/// Services of one node.
pub(crate) const SERVICES_MAX: usize = 64;
/// Bytes of all service facts of one node: with the other facts below the 64 KiB of a node (G5).
pub(crate) const BYTES_MAX: usize = 48 * 1024;

/// Why a publication is refused; nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("a lease lasts {TTL_MIN:?} to {TTL_MAX:?}, not {0:?}")]
    Ttl(Duration),
    #[error("a node publishes at most {SERVICES_MAX} services, not {0}")]
    TooMany(usize),
    #[error("the services of a node take at most {BYTES_MAX} bytes, not {0}")]
    TooBig(usize),
    #[error("{service}/{instance} is already published with generation {current}")]
    OldGeneration { service: String, instance: String, current: u64 },
}

/// A fact to write or to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Set(String, String),
    Remove(String),
}

#[derive(Debug, Clone)]
struct Lease {
    fact: ServiceFact,
    /// When the lease ends, or, once down, when the service is forgotten. `None` = never.
    ends: Option<Duration>,
}

/// Every service of this node. Times are [`super::awake::Awake`] times.
#[derive(Debug)]
pub(crate) struct Leases {
    held: BTreeMap<ServiceKey, Lease>,
    forget: Duration,
}

impl Leases {
    /// Forgets a service that is down for `forget`.
    pub(crate) fn new(forget: Duration) -> Self {
        Self { held: BTreeMap::new(), forget }
    }

    /// Holds a service for as long as this process lives.
    pub(crate) fn hold(&mut self, key: ServiceKey, fact: ServiceFact) -> Change {
        let change = Change::Set(key.fact(), fact.encode());
        self.held.insert(key, Lease { fact, ends: None });
        change
    }

    /// Publishes or renews `services` for `ttl`: all of them or none.
    pub(crate) fn publish(
        &mut self,
        now: Duration,
        services: Vec<(ServiceKey, ServiceFact)>,
        ttl: Duration,
    ) -> Result<Vec<Change>, Refused> {
        if !(TTL_MIN..=TTL_MAX).contains(&ttl) {
            return Err(Refused::Ttl(ttl));
        }
        self.admit(&services)?;
        let ends = Some(now + ttl);
        let changes = services.into_iter().filter_map(|(key, fact)| self.renew(key, fact, ends));
        Ok(changes.collect())
    }

    /// Removes services that ended on purpose.
    pub(crate) fn withdraw(&mut self, keys: &[ServiceKey]) -> Vec<Change> {
        let removed = keys.iter().filter(|key| self.held.remove(key).is_some());
        removed.map(|key| Change::Remove(key.fact())).collect()
    }

    /// Ends what is over at `now`.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<Change> {
        let over = |lease: &Lease| lease.ends.is_some_and(|ends| ends <= now);
        let due: Vec<_> =
            self.held.iter().filter(|(_, lease)| over(lease)).map(|(key, _)| key.clone()).collect();
        due.into_iter().filter_map(|key| self.end(now, key)).collect()
    }

    /// Every fact, for an engine that starts afresh.
    pub(crate) fn facts(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.held.iter().map(|(key, lease)| (key.fact(), lease.fact.encode()))
    }

    fn admit(&self, services: &[(ServiceKey, ServiceFact)]) -> Result<(), Refused> {
        let mut after: BTreeMap<&ServiceKey, &ServiceFact> =
            self.held.iter().map(|(key, lease)| (key, &lease.fact)).collect();
        for (key, fact) in services {
            // One that is down already fences nobody: the other process is the living one.
            let current = after.insert(key, fact).filter(|held| !held.down).map_or(0, |held| held.generation);
            if fact.generation < current {
                let (service, instance) = (key.service.clone(), key.instance.clone());
                return Err(Refused::OldGeneration { service, instance, current });
            }
        }
        if after.len() > SERVICES_MAX {
            return Err(Refused::TooMany(after.len()));
        }
        let bytes = after.iter().map(|(key, fact)| key.fact().len() + fact.encode().len()).sum();
        if bytes > BYTES_MAX {
            return Err(Refused::TooBig(bytes));
        }
        Ok(())
    }

    fn renew(&mut self, key: ServiceKey, fact: ServiceFact, ends: Option<Duration>) -> Option<Change> {
        let held = self.held.get(&key);
        let ends = if held.is_some_and(|lease| lease.ends.is_none()) { None } else { ends };
        let same = held.is_some_and(|lease| lease.fact == fact);
        let change = (!same).then(|| Change::Set(key.fact(), fact.encode()));
        self.held.insert(key, Lease { fact, ends });
        change
    }

    fn end(&mut self, now: Duration, key: ServiceKey) -> Option<Change> {
        let lease = self.held.get_mut(&key)?;
        if lease.fact.down {
            self.held.remove(&key);
            return Some(Change::Remove(key.fact()));
        }
        lease.fact.down = true;
        lease.ends = Some(now + self.forget);
        Some(Change::Set(key.fact(), lease.fact.encode()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TTL: Duration = Duration::from_secs(3);
    const FORGET: Duration = Duration::from_secs(60);

    fn key(instance: &str) -> ServiceKey {
        ServiceKey { service: "session".into(), instance: instance.into() }
    }

    fn fact(generation: u64) -> ServiceFact {
        ServiceFact {
            addr: "127.0.0.1:7610".into(),
            generation,
            zone: String::new(),
            meta: BTreeMap::new(),
            down: false,
        }
    }

    fn down(generation: u64) -> ServiceFact {
        ServiceFact { down: true, ..fact(generation) }
    }

    #[test]
    fn a_renewal_that_says_nothing_new_changes_nothing() {
        let mut leases = Leases::new(FORGET);
        let first = leases.publish(Duration::ZERO, vec![(key("n1"), fact(1))], TTL).unwrap();
        assert_eq!(first, vec![Change::Set(key("n1").fact(), fact(1).encode())]);
        assert_eq!(leases.publish(TTL / 2, vec![(key("n1"), fact(1))], TTL).unwrap(), vec![]);
        assert_eq!(leases.tick(TTL), vec![]);
    }

    #[test]
    fn a_lost_lease_is_down_then_forgotten_and_a_new_one_is_up() {
        let mut leases = Leases::new(FORGET);
        leases.publish(Duration::ZERO, vec![(key("n1"), fact(1)), (key("n2"), fact(1))], TTL).unwrap();
        let ended = leases.tick(TTL);
        assert_eq!(ended.len(), 2);
        assert_eq!(ended[0], Change::Set(key("n1").fact(), down(1).encode()));
        let again = leases.publish(TTL, vec![(key("n1"), fact(2))], TTL).unwrap();
        assert_eq!(again, vec![Change::Set(key("n1").fact(), fact(2).encode())]);
        let forgotten = leases.tick(TTL + FORGET);
        assert!(forgotten.contains(&Change::Remove(key("n2").fact())));
    }

    #[test]
    fn a_withdrawn_service_goes_at_once() {
        let mut leases = Leases::new(FORGET);
        leases.publish(Duration::ZERO, vec![(key("n1"), fact(1))], TTL).unwrap();
        assert_eq!(leases.withdraw(&[key("n1"), key("n9")]), vec![Change::Remove(key("n1").fact())]);
        assert_eq!(leases.facts().count(), 0);
    }

    #[test]
    fn the_older_of_two_processes_of_one_name_is_refused() {
        let mut leases = Leases::new(FORGET);
        leases.publish(Duration::ZERO, vec![(key("n1"), fact(2))], TTL).unwrap();
        let refused = leases.publish(Duration::ZERO, vec![(key("n0"), fact(1)), (key("n1"), fact(1))], TTL);
        assert!(matches!(refused, Err(Refused::OldGeneration { current: 2, .. })));
        assert_eq!(leases.facts().count(), 1, "nothing of a refused publication is applied");
        leases.tick(TTL);
        assert!(leases.publish(TTL, vec![(key("n1"), fact(1))], TTL).is_ok(), "the newer one is gone");
    }

    #[test]
    fn limits_refuse_without_applying() {
        let mut leases = Leases::new(FORGET);
        let many = (0..=SERVICES_MAX).map(|i| (key(&format!("n{i}")), fact(1))).collect();
        assert_eq!(leases.publish(Duration::ZERO, many, TTL), Err(Refused::TooMany(SERVICES_MAX + 1)));
        let mut big = fact(1);
        big.meta.insert("x".into(), "y".repeat(BYTES_MAX));
        assert!(matches!(
            leases.publish(Duration::ZERO, vec![(key("n1"), big)], TTL),
            Err(Refused::TooBig(_))
        ));
        assert!(matches!(leases.publish(Duration::ZERO, vec![], Duration::ZERO), Err(Refused::Ttl(_))));
        assert_eq!(leases.facts().count(), 0);
    }

    #[test]
    fn the_own_service_never_ends() {
        let mut leases = Leases::new(FORGET);
        leases.hold(key("n1"), fact(1));
        assert_eq!(leases.tick(Duration::from_secs(1_000_000)), vec![]);
    }

    proptest! {
        #[test]
        fn no_lease_ends_before_its_ttl(renewals in proptest::collection::vec(0u64..5_000, 1..40)) {
            let mut leases = Leases::new(FORGET);
            let (mut now, mut last) = (Duration::ZERO, None);
            for gap in renewals {
                now += Duration::from_millis(gap);
                let ended = !leases.tick(now).is_empty();
                let due = last.is_some_and(|last| now >= last + TTL);
                prop_assert_eq!(ended, due);
                leases.publish(now, vec![(key("n1"), fact(1))], TTL).unwrap();
                last = Some(now);
            }
        }
    }
}
