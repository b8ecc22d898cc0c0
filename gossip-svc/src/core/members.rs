//! The members and their states.
//!
//! Rules (RELIABILITY.md G2, G4, F20):
//! * a node is its name; of several generations only the highest counts, old gossip changes nothing;
//! * a first sighting proves nothing, it may be an echo of a dead node: a node is listed when its
//!   heartbeat moves (then it is alive) or when it stays silent for long (then it is dead);
//! * a heartbeat that moves again revives a dead node of the same generation (a healed partition);
//! * left is final for a generation, and remembered after the node is forgotten.

use super::{Event, Facts, Member, Sighting, State, View, awake::Awake, facts, record::Record};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// Nodes that are known at most; a sighting beyond is not taken in.
const MEMBERS_MAX: usize = 4_096;

/// Forgotten nodes that are remembered; the oldest generation goes first.
const FORGOTTEN_MAX: usize = 5_000;

/// Numbers of the detector.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Expected time between heartbeats.
    pub(crate) interval: Duration,
    /// phi from which on a member is dead.
    pub(crate) phi: f64,
    /// phi from which on a member is suspect.
    pub(crate) phi_suspect: f64,
    /// How long a dead member is listed.
    pub(crate) forget_dead: Duration,
    /// How long a member that left is listed.
    pub(crate) forget_left: Duration,
}

/// This node, as the others are to see it.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) node: String,
    pub(crate) generation: u64,
    pub(crate) addr: SocketAddr,
}

#[derive(Debug, Clone, Copy)]
struct Forgotten {
    generation: u64,
    left: bool,
}

/// Everyone this node knows.
#[derive(Debug)]
pub(crate) struct Members {
    settings: Settings,
    own: Own,
    own_facts: Arc<Facts>,
    awake: Awake,
    records: BTreeMap<String, Record>,
    forgotten: BTreeMap<String, Forgotten>,
    version: u64,
    /// The highest generation another process of our name was seen with.
    rival: Option<u64>,
}

impl Members {
    /// Knows only itself.
    pub(crate) fn new(settings: Settings, own: Own) -> Self {
        // A loop that is more than two intervals late was starved, not lonely.
        let awake = Awake::new(settings.interval * 2);
        Self {
            settings,
            own,
            own_facts: Arc::default(),
            awake,
            records: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            version: 1,
            rival: None,
        }
    }

    /// The time awake, on which leases run too.
    pub(crate) fn awake(&self) -> Duration {
        self.awake.total()
    }

    /// This node restarts its engine under a new generation or address.
    pub(crate) fn renew_own(&mut self, own: Own) {
        self.own = own;
        self.version += 1;
    }

    /// A newer process with this node's name, if one was seen.
    pub(crate) fn rival(&self) -> Option<u64> {
        self.rival.filter(|rival| *rival > self.own.generation)
    }

    /// Where the living others are.
    pub(crate) fn peers(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let reachable = |record: &&Record| record.state() != Some(State::Left);
        self.records.values().filter(reachable).map(Record::addr)
    }

    /// Takes what the engine sees at `now` and answers what changed.
    pub(crate) fn observe(&mut self, now: Instant, sightings: Vec<Sighting>) -> Vec<Event> {
        let awake = self.awake.advance(now);
        for sighting in sightings {
            if sighting.node == self.own.node {
                self.see_own(sighting);
            } else {
                self.see(awake, sighting);
            }
        }
        let events = self.judge(awake);
        self.forget(awake);
        events
    }

    /// The membership with the suspicion of this moment.
    pub(crate) fn view(&self) -> View {
        let own = Member {
            node: self.own.node.clone(),
            generation: self.own.generation,
            state: if self.own_facts.contains_key(facts::LEFT) { State::Left } else { State::Alive },
            addr: self.own.addr,
            phi: 0.0,
            facts: self.own_facts.clone(),
        };
        let awake = self.awake.total();
        let others = self.records.iter().filter_map(|(node, record)| record.member(node, awake));
        let mut members: Vec<_> = std::iter::once(own).chain(others).collect();
        members.sort_by(|a, b| a.node.cmp(&b.node));
        View { members, own: self.own.node.clone(), version: self.version }
    }

    fn see_own(&mut self, sighting: Sighting) {
        if sighting.generation > self.own.generation {
            self.rival = self.rival.max(Some(sighting.generation));
        }
        if sighting.generation == self.own.generation && *sighting.facts != *self.own_facts {
            self.own_facts = sighting.facts;
            self.version += 1;
        }
    }

    fn see(&mut self, awake: Duration, sighting: Sighting) {
        let Some(record) = self.records.get_mut(&sighting.node) else {
            return self.meet(awake, sighting);
        };
        if record.take(&self.settings, awake, sighting) {
            self.version += 1;
        }
    }

    fn meet(&mut self, awake: Duration, sighting: Sighting) {
        let past = self.forgotten.get(&sighting.node).copied();
        let same = past.is_some_and(|past| past.generation == sighting.generation);
        let older = past.is_some_and(|past| past.generation > sighting.generation);
        let left = same && past.is_some_and(|past| past.left);
        if older || left || self.records.len() >= MEMBERS_MAX {
            return;
        }
        let node = sighting.node.clone();
        self.records.insert(node, Record::new(&self.settings, awake, sighting, same));
    }

    fn judge(&mut self, awake: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        for (node, record) in &mut self.records {
            let judgement = record.judge(&self.settings, awake);
            self.version += u64::from(judgement.changed);
            let member = record.member(node, awake);
            events.extend(judgement.what.zip(member).map(|(what, member)| Event { what, member }));
        }
        events
    }

    fn forget(&mut self, awake: Duration) {
        let over: Vec<_> = self
            .records
            .iter()
            .filter(|(_, record)| record.is_over(&self.settings, awake))
            .map(|(node, record)| (node.clone(), record.generation(), record.state() == Some(State::Left)))
            .collect();
        for (node, generation, left) in over {
            let listed = self.records.remove(&node).is_some_and(|record| record.state().is_some());
            self.version += u64::from(listed);
            self.forgotten.insert(node, Forgotten { generation, left });
        }
        while self.forgotten.len() > FORGOTTEN_MAX {
            let oldest = self.forgotten.iter().min_by_key(|(_, past)| past.generation);
            let Some(node) = oldest.map(|(node, _)| node.clone()) else { break };
            self.forgotten.remove(&node);
        }
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
