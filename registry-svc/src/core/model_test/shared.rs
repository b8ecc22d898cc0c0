//! Properties and counters against a plain map: each owner's own, sums that follow, requests that
//! count once, and nodes that come to hold the same.

use super::{Node, TTL, as_heard, deregister, hear_one, register, start};
use crate::core::{
    command::{Heard, Refusal, Update},
    index::Total,
    key,
};
use proptest::{collection::vec, prelude::*};
use proto::registry::{Counter, Durability, Kind, Registration, registration::Spec};
use std::collections::BTreeMap;

const MIN: i64 = -20;
const MAX: i64 = 30;

fn counter(name: &str, owner: &str) -> Registration {
    let spec = Some(Spec::Counter(Counter { min: MIN, max: MAX, ..Counter::default() }));
    shared(Kind::Counter, name, owner, spec)
}

fn property(name: &str, owner: &str, value: u8) -> Registration {
    shared(Kind::Property, name, owner, Some(Spec::Opaque(vec![value].into())))
}

fn shared(kind: Kind, name: &str, owner: &str, spec: Option<Spec>) -> Registration {
    Registration {
        name: key::key(kind, name, owner).unwrap(),
        kind: kind.into(),
        owner: owner.into(),
        spec,
        durability: Durability::Durable.into(),
        ..Registration::default()
    }
}

fn leased(registration: Registration) -> Registration {
    let ttl_ms = TTL.as_millis() as u64;
    Registration { durability: Durability::Ephemeral.into(), ttl_ms, ..registration }
}

fn update(name: &str, owner: &str, delta: i64, request_id: &str) -> Update {
    let name = key::key(Kind::Counter, name, owner).unwrap();
    Update { request_id: request_id.into(), name, delta }
}

fn value(registration: &Registration) -> i64 {
    match &registration.spec {
        Some(Spec::Counter(counter)) => counter.value,
        Some(Spec::Opaque(bytes)) => i64::from(bytes[0]),
        _ => panic!("neither a counter nor a property: {registration:?}"),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Count { name: u8, owner: u8 },
    Add { name: u8, owner: u8, delta: i64, request: u8 },
    Set { name: u8, owner: u8, value: u8 },
    Free { kind: Kind, name: u8, owner: u8 },
}

fn steps() -> impl Strategy<Value = Step> {
    let (name, owner) = (0u8..2, 0u8..3);
    let kind = prop_oneof![Just(Kind::Counter), Just(Kind::Property)];
    prop_oneof![
        2 => (name.clone(), owner.clone()).prop_map(|(name, owner)| Step::Count { name, owner }),
        5 => (name.clone(), owner.clone(), -15i64..20, 0u8..30)
            .prop_map(|(name, owner, delta, request)| Step::Add { name, owner, delta, request }),
        2 => (name.clone(), owner.clone(), 0u8..3)
            .prop_map(|(name, owner, value)| Step::Set { name, owner, value }),
        1 => (kind, name, owner).prop_map(|(kind, name, owner)| Step::Free { kind, name, owner }),
    ]
}

/// What each owner holds, and what each request was answered.
#[derive(Default)]
struct Model {
    held: BTreeMap<String, i64>,
    answers: BTreeMap<u8, i64>,
}

impl Model {
    /// The answer to an update: a value, or whether a counter is there at all.
    fn add(&mut self, key: &str, delta: i64, request: u8) -> Result<i64, bool> {
        if let Some(answer) = self.answers.get(&request) {
            return Ok(*answer);
        }
        let value = self.held.get_mut(key).ok_or(false)?;
        if !(MIN..=MAX).contains(&(*value + delta)) {
            return Err(true);
        }
        *value += delta;
        self.answers.insert(request, *value);
        Ok(*value)
    }

    fn total(&self, name: &str) -> Total {
        let prefix = format!("~c:{name}:");
        let values = self.held.iter().filter(|(key, _)| key.starts_with(&prefix));
        values.fold(Total::default(), |total, (_, value)| Total {
            sum: total.sum + i128::from(*value),
            holders: total.holders + 1,
        })
    }
}

fn named(name: u8, owner: u8) -> (String, String) {
    (format!("name{name}"), format!("owner/{owner}"))
}

proptest! {
    #[test]
    fn owners_hold_their_own_and_sums_follow(steps in vec(steps(), 1..120)) {
        let (now, mut node, mut model) = (start(), Node::new("n1", 0), Model::default());
        for step in steps {
            match step {
                Step::Count { name, owner } => {
                    let wanted = counter(&named(name, owner).0, &named(name, owner).1);
                    let is_new = !model.held.contains_key(&wanted.name);
                    model.held.entry(wanted.name.clone()).or_insert(0);
                    let (answer, _) = node.step(|shard, batch| shard.register(register(wanted, false), batch, now));
                    prop_assert_eq!(answer.unwrap().created, is_new, "a counter goes on from where it is");
                }
                Step::Add { name, owner, delta, request } => {
                    let (name, owner) = named(name, owner);
                    let wanted = update(&name, &owner, delta, &request.to_string());
                    let expected = model.add(&wanted.name, delta, request);
                    let (answer, _) = node.step(|shard, batch| shard.update(wanted, batch, now));
                    match (answer, expected) {
                        (Ok(answer), Ok(expected)) => prop_assert_eq!(answer, expected),
                        (Err(Refusal::OutOfBounds { .. }), Err(true)) => {}
                        (Err(Refusal::NotFound { .. }), Err(false)) => {}
                        (answer, expected) => prop_assert!(false, "{answer:?} instead of {expected:?}"),
                    }
                }
                Step::Set { name, owner, value } => {
                    let (name, owner) = named(name, owner);
                    let wanted = property(&name, &owner, value);
                    model.held.insert(wanted.name.clone(), i64::from(value));
                    let (answer, _) = node.step(|shard, batch| shard.register(register(wanted, true), batch, now));
                    prop_assert!(answer.is_ok(), "no other owner is in the way: {answer:?}");
                }
                Step::Free { kind, name, owner } => {
                    let (name, owner) = named(name, owner);
                    let wanted = deregister(&key::key(kind, &name, &owner).unwrap(), &owner, false);
                    let was_there = model.held.remove(&wanted.name).is_some();
                    let (answer, _) = node.step(|shard, batch| shard.deregister(wanted, batch, now));
                    prop_assert_eq!(answer.is_ok(), was_there);
                }
            }
            let held: BTreeMap<String, i64> = node.names().iter().map(|(key, held)| (key.clone(), value(held))).collect();
            prop_assert_eq!(&held, &model.held);
            for name in ["name0", "name1"] {
                prop_assert_eq!(node.table.index().total(name), model.total(name));
            }
        }
    }

    #[test]
    fn nodes_that_heard_the_same_sum_the_same(
        steps in vec((0usize..3, steps()), 1..40),
        hearing in vec((0usize..3, 0usize..3), 0..120),
    ) {
        let now = start();
        let mut nodes: Vec<Node> = (0..3).map(|n| Node::new(&format!("n{n}"), n)).collect();
        let mut told: Vec<Vec<Heard>> = vec![Vec::new(); 3];
        let mut read = [[0usize; 3]; 3];
        let mut hearing = hearing.into_iter();
        for (at, step) in steps {
            let (_, changes) = nodes[at].step(|shard, batch| match step {
                Step::Count { name, owner } => {
                    let (name, owner) = named(name, owner);
                    drop(shard.register(register(counter(&name, &owner), false), batch, now));
                }
                Step::Add { name, owner, delta, request } => {
                    let (name, owner) = named(name, owner);
                    drop(shard.update(update(&name, &owner, delta, &request.to_string()), batch, now));
                }
                Step::Set { name, owner, value } => {
                    let (name, owner) = named(name, owner);
                    drop(shard.register(register(property(&name, &owner, value), true), batch, now));
                }
                Step::Free { kind, name, owner } => {
                    let (name, owner) = named(name, owner);
                    let wanted = deregister(&key::key(kind, &name, &owner).unwrap(), &owner, false);
                    drop(shard.deregister(wanted, batch, now));
                }
            });
            told[at].extend(changes.iter().map(as_heard));
            for (to, from) in hearing.by_ref().take(3) {
                hear_one(&mut nodes, &told, &mut read, to, from, now);
            }
        }
        for to in 0..3 {
            for from in 0..3 {
                while hear_one(&mut nodes, &told, &mut read, to, from, now) {}
            }
        }
        let (first, total) = (nodes[0].names(), nodes[0].table.index().total("name0"));
        for node in &nodes[1..] {
            prop_assert_eq!(&first, &node.names());
            prop_assert_eq!(total, node.table.index().total("name0"));
        }
    }
}

#[test]
fn an_update_that_is_repeated_at_another_node_counts_once() {
    let (now, mut n1, mut n2) = (start(), Node::new("n1", 0), Node::new("n2", 1));
    let (_, mut changes) =
        n1.step(|shard, batch| shard.register(register(counter("jobs", "o"), false), batch, now));
    let (answer, more) = n1.step(|shard, batch| shard.update(update("jobs", "o", 5, "r1"), batch, now));
    changes.extend(more);
    for change in &changes {
        n2.step(|shard, batch| shard.hear(as_heard(change), batch, now)).0.unwrap();
    }
    let (again, changes) = n2.step(|shard, batch| shard.update(update("jobs", "o", 5, "r1"), batch, now));
    assert_eq!((answer, again, changes), (Ok(5), Ok(5), vec![]));
    let (reused, _) = n1.step(|shard, batch| {
        let wanted = deregister("~c:jobs:o", "o", false);
        shard.deregister(crate::core::command::Deregister { request_id: "r1".into(), ..wanted }, batch, now)
    });
    assert_eq!(reused, Err(Refusal::RequestIdReused { request_id: "r1".into() }));
}

#[test]
fn a_leased_counter_keeps_its_lease_while_it_counts_and_its_value_when_the_lease_moves() {
    let (now, mut n1, mut n2) = (start(), Node::new("n1", 0), Node::new("n2", 1));
    let wanted = leased(counter("jobs", "o"));
    let (first, mut changes) =
        n1.step(|shard, batch| shard.register(register(wanted.clone(), false), batch, now));
    let lease = first.unwrap().lease_id;
    let (answer, more) = n1.step(|shard, batch| shard.update(update("jobs", "o", 7, ""), batch, now));
    assert_eq!(answer, Ok(7));
    assert_eq!(n1.names()["~c:jobs:o"].lease_id, lease);
    changes.extend(more);
    for change in &changes {
        n2.step(|shard, batch| shard.hear(as_heard(change), batch, now)).0.unwrap();
    }
    // The owner comes to n2, then counts there.
    let (moved, _) = n2.step(|shard, batch| shard.register(register(wanted, false), batch, now));
    assert!(moved.unwrap().lease_id != lease);
    let (answer, _) = n2.step(|shard, batch| shard.update(update("jobs", "o", 1, ""), batch, now));
    assert_eq!(answer, Ok(8));
    // Nobody renews: it goes with its lease, out of the sum too.
    n1.step(|shard, batch| shard.sweep(batch, now + TTL));
    assert!(n1.names().is_empty());
    assert_eq!(n1.table.index().total("jobs"), Total::default());
}

#[test]
fn an_update_takes_over_a_lease_that_another_node_granted() {
    let (now, mut n1, mut n2) = (start(), Node::new("n1", 0), Node::new("n2", 1));
    let (first, changes) =
        n1.step(|shard, batch| shard.register(register(leased(counter("jobs", "o")), false), batch, now));
    n2.step(|shard, batch| shard.hear(as_heard(&changes[0]), batch, now)).0.unwrap();
    let (answer, changes) = n2.step(|shard, batch| shard.update(update("jobs", "o", 1, ""), batch, now));
    assert_eq!(answer, Ok(1));
    n1.step(|shard, batch| shard.hear(as_heard(&changes[0]), batch, now)).0.unwrap();
    let (renewed, _) = n1.step(|shard, batch| shard.renew(&[first.unwrap().lease_id], "o", batch, now));
    assert_eq!(renewed.unknown.len(), 1, "its owner hears of it and registers again");
    n2.step(|shard, batch| shard.sweep(batch, now + TTL));
    assert!(n2.names().is_empty(), "or it ends");
}

#[test]
fn a_peer_cannot_hand_over_a_key_that_is_not_its_owners() {
    let (now, mut node) = (start(), Node::new("n1", 0));
    let others = Registration { owner: "p".into(), ..property("jobs", "o", 1) };
    let as_name = Registration { name: "jobs".into(), ..property("jobs", "o", 1) };
    let as_worker = Registration { kind: Kind::Worker.into(), ..property("jobs", "o", 1) };
    for forged in [others, as_name, as_worker] {
        let heard = Heard::Put(Registration { version: 3, ..forged }.into());
        let (outcome, changes) = node.step(|shard, batch| shard.hear(heard, batch, now));
        assert!(outcome.is_err() && changes.is_empty());
    }
}
