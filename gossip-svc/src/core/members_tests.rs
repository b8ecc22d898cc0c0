//! Tests of the rules in members.rs.

use super::*;
use crate::core::Happening;
use kit::clock::{Clock as _, SystemClock};
use proptest::prelude::*;

const INTERVAL: Duration = Duration::from_millis(200);

fn settings() -> Settings {
    Settings {
        interval: INTERVAL,
        phi: 8.0,
        phi_suspect: 4.0,
        forget_dead: Duration::from_secs(60),
        forget_left: Duration::from_secs(10),
    }
}

fn addr() -> SocketAddr {
    ([127, 0, 0, 1], 7620).into()
}

fn sighting(node: &str, generation: u64, heartbeat: u64) -> Sighting {
    Sighting { node: node.into(), generation, addr: addr(), heartbeat, facts: Arc::default() }
}

fn leaving(node: &str, generation: u64, heartbeat: u64) -> Sighting {
    let facts = Arc::new(Facts::from([(facts::LEFT.to_owned(), "1".to_owned())]));
    Sighting { facts, ..sighting(node, generation, heartbeat) }
}

/// A membership of n1 with a clock of its own and what n1's engine sees.
struct World {
    members: Members,
    now: Instant,
    heartbeat: u64,
    events: Vec<(Happening, String)>,
}

impl World {
    fn new() -> Self {
        let own = Own { node: "n1".into(), generation: 1, addr: addr() };
        Self { members: Members::new(settings(), own), now: SystemClock.now(), heartbeat: 0, events: vec![] }
    }

    fn observe(&mut self, sightings: Vec<Sighting>) {
        self.now += INTERVAL / 2;
        let events = self.members.observe(self.now, sightings);
        self.events.extend(events.into_iter().map(|event| (event.what, event.member.node)));
    }

    fn beat(&mut self, node: &str, generation: u64, times: u32) {
        for _ in 0..times {
            self.heartbeat += 1;
            let heartbeat = self.heartbeat;
            self.observe(vec![sighting(node, generation, heartbeat)]);
        }
    }

    /// The engine keeps showing what it last knew, as chitchat does with a dead node.
    fn silence(&mut self, node: &str, generation: u64, intervals: u32) {
        let heartbeat = self.heartbeat;
        for _ in 0..intervals * 2 {
            self.observe(vec![sighting(node, generation, heartbeat)]);
        }
    }

    fn listed(&self, node: &str) -> Option<(u64, State)> {
        let view = self.members.view();
        view.members.iter().find(|m| m.node == node).map(|m| (m.generation, m.state))
    }
}

#[test]
fn a_node_is_alive_once_its_heartbeat_moves() {
    let mut world = World::new();
    world.beat("n2", 1, 1);
    assert_eq!(world.listed("n2"), None, "one sighting may be an echo");
    world.beat("n2", 1, 1);
    assert_eq!(world.listed("n2"), Some((1, State::Alive)));
    assert_eq!(world.events, vec![(Happening::Joined, "n2".into())]);
}

#[test]
fn a_silent_node_is_suspect_then_dead_within_the_budget() {
    let mut world = World::new();
    world.beat("n2", 1, 20);
    world.silence("n2", 1, 5);
    assert_eq!(world.listed("n2"), Some((1, State::Suspect)));
    world.silence("n2", 1, 4);
    assert_eq!(world.listed("n2"), Some((1, State::Dead)), "9 intervals of 200 ms are 1.8 s");
    let told: Vec<_> = world.events.iter().map(|(what, _)| *what).collect();
    assert_eq!(told, vec![Happening::Joined, Happening::Suspected, Happening::Died]);
}

#[test]
fn dead_node_with_old_generation_stays_dead() {
    let mut world = World::new();
    world.beat("n2", 5, 10);
    world.silence("n2", 5, 10);
    world.beat("n2", 4, 10);
    assert_eq!(world.listed("n2"), Some((5, State::Dead)));
}

#[test]
fn a_returning_node_with_a_higher_generation_is_alive() {
    let mut world = World::new();
    world.beat("n2", 5, 10);
    world.silence("n2", 5, 10);
    world.beat("n2", 6, 2);
    assert_eq!(world.listed("n2"), Some((6, State::Alive)));
    assert_eq!(world.events.last(), Some(&(Happening::Joined, "n2".into())));
}

#[test]
fn a_quick_restart_keeps_its_place_and_is_told_once() {
    let mut world = World::new();
    world.beat("n2", 5, 10);
    world.beat("n2", 6, 1);
    assert_eq!(world.listed("n2"), Some((6, State::Alive)));
    world.beat("n2", 6, 10);
    assert_eq!(world.events.len(), 2);
}

#[test]
fn a_healed_partition_revives_the_same_generation() {
    let mut world = World::new();
    world.beat("n2", 5, 10);
    world.silence("n2", 5, 10);
    world.beat("n2", 5, 1);
    assert_eq!(world.listed("n2"), Some((5, State::Alive)));
}

#[test]
fn left_is_final_for_a_generation_even_when_forgotten() {
    let mut world = World::new();
    world.beat("n2", 5, 10);
    world.heartbeat += 1;
    world.observe(vec![leaving("n2", 5, world.heartbeat)]);
    assert_eq!(world.listed("n2"), Some((5, State::Left)));
    for _ in 0..200 {
        world.heartbeat += 1;
        world.observe(vec![leaving("n2", 5, world.heartbeat)]);
    }
    assert_eq!(world.listed("n2"), None, "forgotten, and not seen again");
    world.beat("n2", 6, 2);
    assert_eq!(world.listed("n2"), Some((6, State::Alive)));
}

#[test]
fn a_forgotten_node_is_not_resurrected_by_an_echo_but_by_a_heartbeat() {
    let mut world = World::new();
    world.beat("n2", 5, 10);
    world.silence("n2", 5, 10 + 300 + 5);
    assert_eq!(world.listed("n2"), None);
    world.silence("n2", 5, 100);
    assert_eq!(world.listed("n2"), None);
    world.beat("n2", 5, 2);
    assert_eq!(world.listed("n2"), Some((5, State::Alive)));
}

#[test]
fn a_starved_node_accuses_nobody() {
    let mut world = World::new();
    world.beat("n2", 1, 20);
    world.now += Duration::from_secs(30);
    world.silence("n2", 1, 1);
    assert_eq!(world.listed("n2"), Some((1, State::Alive)));
}

#[test]
fn phi_alone_is_no_new_version() {
    let mut world = World::new();
    world.beat("n2", 1, 10);
    let before = world.members.view().version;
    world.silence("n2", 1, 2);
    assert_eq!(world.members.view().version, before);
}

#[test]
fn a_rival_of_the_same_name_is_noticed() {
    let mut world = World::new();
    world.observe(vec![sighting("n1", 1, 7)]);
    assert_eq!(world.members.rival(), None);
    world.observe(vec![sighting("n1", 9, 7)]);
    assert_eq!(world.members.rival(), Some(9));
}

fn any_sighting() -> impl Strategy<Value = Sighting> {
    ("n[1-4]", 0u64..4, 0u64..50, any::<bool>()).prop_map(|(node, generation, heartbeat, left)| {
        // A real engine never takes back a left mark; a generation leaves or does not.
        let left = left && generation == 2;
        if left { leaving(&node, generation, heartbeat) } else { sighting(&node, generation, heartbeat) }
    })
}

proptest! {
    #[test]
    fn generations_grow_left_is_final_and_versions_tell(
        steps in proptest::collection::vec((0u64..3_000, proptest::collection::vec(any_sighting(), 0..6)), 1..120)
    ) {
        let mut world = World::new();
        let mut before = world.members.view();
        for (gap, sightings) in steps {
            world.now += Duration::from_millis(gap);
            world.observe(sightings);
            let after = world.members.view();
            prop_assert!(after.version >= before.version);
            for member in &after.members {
                let Some(old) = before.members.iter().find(|m| m.node == member.node) else { continue };
                prop_assert!(member.generation >= old.generation);
                prop_assert!(member.phi >= 0.0);
                let changed = (member.generation, member.state) != (old.generation, old.state);
                prop_assert!(!changed || after.version > before.version);
            }
            prop_assert!(after.members.len() <= 4);
            before = after;
        }
    }

    #[test]
    fn a_steady_node_is_never_accused(jitter in proptest::collection::vec(0u64..400, 50..200)) {
        let mut world = World::new();
        for wait in jitter {
            world.now += Duration::from_millis(wait);
            world.beat("n2", 1, 1);
        }
        prop_assert_eq!(world.listed("n2"), Some((1, State::Alive)));
        prop_assert_eq!(world.events.len(), 1);
    }
}
