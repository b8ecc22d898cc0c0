//! The shard against a plain ordered map: same answers, same names, same versions order; and
//! several nodes that hear each other in any order come to hold the same.

use crate::core::{
    batch::Batch,
    check::{self},
    command::{Deregister, Heard, Refusal, Register},
    history::{Change, History},
    shard::{Bounds, Shard},
    table::Table,
};
use crate::{feed::Feed, names::Names};
use proptest::{collection::vec, prelude::*};
use proto::{
    ids::ShardId,
    registry::{Durability, Kind, Registration, Removed, registration::Spec},
};
use rand::{SeedableRng as _, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

mod shared;

const BOUNDS: Bounds = Bounds { tombstones: 1000, recent: 1000 };
const TTL: Duration = Duration::from_secs(2);
const MS: Duration = Duration::from_millis(1);

struct Node {
    shard: Shard,
    feed: Arc<Feed>,
    table: Arc<Table>,
}

impl Node {
    fn new(name: &str, clock: u64) -> Self {
        let table = Arc::new(Table::new(1));
        let feed = Feed::new(Names::new(table.clone()), History::new(1, 1000, 1 << 20), 10);
        let rng = StdRng::seed_from_u64(clock);
        let shard = Shard::new(ShardId(0), name.into(), table.clone(), clock, BOUNDS, rng);
        Self { shard, feed, table }
    }

    /// Decides one command in a batch of its own; answers what became visible.
    fn step<T>(&mut self, decide: impl FnOnce(&mut Shard, &mut Batch) -> T) -> (T, Vec<Change>) {
        let mut batch = Batch::default();
        let answer = decide(&mut self.shard, &mut batch);
        let changes = batch.changes.clone();
        self.feed.publish(ShardId(0), batch);
        (answer, changes)
    }

    fn names(&self) -> BTreeMap<String, Registration> {
        let entries = self.table.shard_entries(ShardId(0));
        entries.iter().map(|entry| (entry.registration.name.clone(), entry.registration.clone())).collect()
    }
}

#[allow(clippy::disallowed_methods)]
fn start() -> Instant {
    Instant::now()
}

fn durable(name: &str, owner: &str, value: u8) -> Registration {
    Registration {
        name: name.into(),
        owner: owner.into(),
        kind: Kind::Worker.into(),
        durability: Durability::Durable.into(),
        spec: Some(Spec::Opaque(vec![value].into())),
        ..Default::default()
    }
}

fn ephemeral(name: &str, owner: &str) -> Registration {
    let ttl_ms = TTL.as_millis() as u64;
    Registration { durability: Durability::Ephemeral.into(), ttl_ms, ..durable(name, owner, 0) }
}

fn register(registration: Registration, replace: bool) -> Register {
    Register { replace, ..Register::new(registration) }
}

fn deregister(name: &str, owner: &str, force: bool) -> Deregister {
    Deregister { request_id: String::new(), name: name.into(), owner: owner.into(), force }
}

fn as_heard(change: &Change) -> Heard {
    match change {
        Change::Put(entry) => Heard::Put(entry.registration.clone().into()),
        Change::Removed(gone) => Heard::Removed(Removed::clone(&gone.removed)),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Register { name: u8, owner: u8, value: u8, replace: bool },
    Deregister { name: u8, owner: u8, force: bool },
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..4, 0u8..2, 0u8..3, any::<bool>()).prop_map(|(name, owner, value, replace)| Step::Register {
            name,
            owner,
            value,
            replace
        }),
        (0u8..4, 0u8..2, any::<bool>()).prop_map(|(name, owner, force)| Step::Deregister {
            name,
            owner,
            force
        }),
    ]
}

proptest! {
    #[test]
    fn a_shard_answers_as_an_ordered_map_with_owners(steps in vec(steps(), 1..80)) {
        let (now, mut node) = (start(), Node::new("n1", 0));
        let mut model: BTreeMap<String, (String, u8)> = BTreeMap::new();
        let mut newest = 0;
        for step in steps {
            match step {
                Step::Register { name, owner, value, replace } => {
                    let (name, owner) = (format!("name{name}"), format!("owner{owner}"));
                    let wanted = register(durable(&name, &owner, value), replace);
                    let (answer, changes) = node.step(|shard, batch| shard.register(wanted, batch, now));
                    let expected = match model.get(&name) {
                        None => Ok(true),
                        Some((_, held)) if *held == value => Ok(false),
                        Some((holder, _)) if *holder == owner && replace => Ok(true),
                        Some((holder, _)) => Err(holder.clone()),
                    };
                    match (answer, expected) {
                        (Ok(registered), Ok(created)) => {
                            prop_assert_eq!((registered.created, changes.len()), (created, usize::from(created)));
                            if created {
                                prop_assert!(registered.version > newest);
                                newest = registered.version;
                                model.insert(name, (owner, value));
                            }
                        }
                        (Err(Refusal::AlreadyRegistered { owner, .. }), Err(holder)) => prop_assert_eq!(owner, holder),
                        (answer, expected) => prop_assert!(false, "{answer:?} instead of {expected:?}"),
                    }
                }
                Step::Deregister { name, owner, force } => {
                    let (name, owner) = (format!("name{name}"), format!("owner{owner}"));
                    let wanted = deregister(&name, &owner, force);
                    let (answer, _) = node.step(|shard, batch| shard.deregister(wanted, batch, now));
                    match (answer, model.get(&name)) {
                        (Err(Refusal::NotFound { .. }), None) => {}
                        (Err(Refusal::OtherOwner { .. }), Some((holder, _))) => prop_assert!(*holder != owner && !force),
                        (Ok(()), Some((holder, _))) => {
                            prop_assert!(*holder == owner || force);
                            model.remove(&name);
                        }
                        (answer, held) => prop_assert!(false, "{answer:?} with {held:?}"),
                    }
                }
            }
            let held = node.names();
            prop_assert!(held.keys().eq(model.keys()));
            prop_assert!(held.values().zip(model.values()).all(|(held, (owner, _))| held.owner == *owner));
        }
    }

    /// Each node's stream arrives in its order, the streams mix in any way: all end up equal.
    #[test]
    fn nodes_that_heard_the_same_hold_the_same(
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
                Step::Register { name, owner, value, replace } => {
                    let wanted = durable(&format!("name{name}"), &format!("owner{owner}"), value);
                    let _ = shard.register(register(wanted, replace), batch, now);
                }
                Step::Deregister { name, owner, force } => {
                    let wanted = deregister(&format!("name{name}"), &format!("owner{owner}"), force);
                    let _ = shard.deregister(wanted, batch, now);
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
        let first = nodes[0].names();
        prop_assert_eq!(&first, &nodes[1].names());
        prop_assert_eq!(&first, &nodes[2].names());
    }
}

fn hear_one(
    nodes: &mut [Node],
    told: &[Vec<Heard>],
    read: &mut [[usize; 3]; 3],
    to: usize,
    from: usize,
    now: Instant,
) -> bool {
    let Some(heard) = told[from].get(read[to][from]).filter(|_| to != from) else {
        return false;
    };
    read[to][from] += 1;
    let (outcome, _) = nodes[to].step(|shard, batch| shard.hear(heard.clone(), batch, now));
    outcome.is_ok()
}

#[test]
fn an_ephemeral_name_lives_its_full_time_after_a_renewal_and_is_gone_a_second_after() {
    let (now, mut node) = (start(), Node::new("n1", 0));
    let (answer, _) =
        node.step(|shard, batch| shard.register(register(ephemeral("w", "a"), false), batch, now));
    let lease = answer.unwrap().lease_id;
    let renewed_at = now + TTL / 2;
    let (answer, _) = node.step(|shard, batch| shard.renew(&[lease, 7], "a", batch, renewed_at));
    assert_eq!((answer.renewed, answer.unknown, answer.ttl), (vec![lease], vec![7], Some(TTL)));
    node.step(|shard, batch| shard.sweep(batch, renewed_at + TTL - MS));
    assert!(node.names().contains_key("w"), "expired early");
    assert_eq!(node.shard.next_end(), Some(renewed_at + TTL));
    node.step(|shard, batch| shard.sweep(batch, renewed_at + TTL));
    assert!(node.names().is_empty());
}

#[test]
fn a_lease_of_another_owner_is_named_and_not_renewed() {
    let (now, mut node) = (start(), Node::new("n1", 0));
    let (answer, _) =
        node.step(|shard, batch| shard.register(register(ephemeral("w", "a"), false), batch, now));
    let lease = answer.unwrap().lease_id;
    let (answer, _) = node.step(|shard, batch| shard.renew(&[lease], "b", batch, now + TTL / 2));
    assert_eq!((answer.renewed, answer.foreign), (vec![], Some((lease, "a".into()))));
    node.step(|shard, batch| shard.sweep(batch, now + TTL));
    assert!(node.names().is_empty(), "it ran out as if nobody had asked");
}

#[test]
fn a_repeated_request_gets_its_first_answer() {
    let (now, mut node) = (start(), Node::new("n1", 0));
    let first = Register { request_id: "r1".into(), ..register(durable("a", "o", 1), false) };
    let (answer, _) = node.step(|shard, batch| shard.register(first.clone(), batch, now));
    let (again, changes) = node.step(|shard, batch| shard.register(first, batch, now));
    assert_eq!((again.unwrap(), changes), (answer.unwrap(), vec![]));
    let free = Deregister { request_id: "r2".into(), ..deregister("a", "o", false) };
    assert_eq!(node.step(|shard, batch| shard.deregister(free.clone(), batch, now)).0, Ok(()));
    assert_eq!(node.step(|shard, batch| shard.deregister(free, batch, now)).0, Ok(()), "not: unknown name");
    let mixed = Deregister { request_id: "r1".into(), ..deregister("a", "o", false) };
    let (refusal, _) = node.step(|shard, batch| shard.deregister(mixed, batch, now));
    assert_eq!(refusal, Err(Refusal::RequestIdReused { request_id: "r1".into() }));
}

#[test]
fn commands_of_one_batch_see_each_other() {
    let (now, mut node) = (start(), Node::new("n1", 0));
    let mut batch = Batch::default();
    node.shard.register(register(durable("a", "o", 1), false), &mut batch, now).unwrap();
    let refusal = node.shard.register(register(durable("a", "p", 2), false), &mut batch, now);
    assert!(matches!(refusal, Err(Refusal::AlreadyRegistered { owner, .. }) if owner == "o"));
    node.shard.deregister(deregister("a", "o", false), &mut batch, now).unwrap();
    node.shard.register(register(durable("a", "p", 2), false), &mut batch, now).unwrap();
    node.feed.publish(ShardId(0), batch);
    assert_eq!(node.names()["a"].owner, "p");
    let listed = |node: &Node| node.table.page(None, "", 10, 10, |_| true).entries.len();
    assert_eq!(listed(&node), 1, "it was freed and taken again");
    node.step(|shard, batch| shard.deregister(deregister("a", "p", false), batch, now)).0.unwrap();
    assert_eq!((listed(&node), node.table.len()), (0, 0));
}

#[test]
fn names_of_a_dead_origin_run_out_and_those_of_a_live_one_do_not() {
    let (now, mut n1, mut n2) = (start(), Node::new("n1", 0), Node::new("n2", 0));
    for name in ["w", "x"] {
        let (_, changes) =
            n1.step(|shard, batch| shard.register(register(ephemeral(name, "a"), false), batch, now));
        n2.step(|shard, batch| shard.hear(as_heard(&changes[0]), batch, now)).0.unwrap();
    }
    n2.step(|shard, batch| shard.sweep(batch, now + TTL * 10));
    assert_eq!(n2.names().len(), 2, "its origin renews it");
    let died = now + TTL * 10;
    n2.step(|shard, batch| shard.hear(Heard::OriginDown("n1".into()), batch, died)).0.unwrap();
    n2.step(|shard, batch| shard.hear(Heard::OriginUp("n1".into()), batch, died + TTL / 2)).0.unwrap();
    n2.step(|shard, batch| shard.sweep(batch, died + TTL));
    assert_eq!(n2.names().len(), 2, "it was not dead");
    // It came back without "x": nobody knows whether its holder lives, so it gets its time.
    let listed = Arc::new(BTreeSet::from(["w".to_owned()]));
    let complete = Heard::Complete { origin: "n1".into(), listed };
    n2.step(|shard, batch| shard.hear(complete, batch, died + TTL)).0.unwrap();
    n2.step(|shard, batch| shard.sweep(batch, died + TTL * 2 - MS));
    assert_eq!(n2.names().len(), 2);
    n2.step(|shard, batch| shard.sweep(batch, died + TTL * 2));
    assert!(n2.names().keys().eq(["w"]));
}

#[test]
fn a_lease_is_taken_over_by_the_instance_that_its_owner_comes_to() {
    let (now, mut n1, mut n2) = (start(), Node::new("n1", 0), Node::new("n2", 1));
    let (first, changes) =
        n1.step(|shard, batch| shard.register(register(ephemeral("w", "a"), false), batch, now));
    n2.step(|shard, batch| shard.hear(as_heard(&changes[0]), batch, now)).0.unwrap();
    let (second, changes) =
        n2.step(|shard, batch| shard.register(register(ephemeral("w", "a"), false), batch, now));
    assert!(second.unwrap().lease_id != first.clone().unwrap().lease_id);
    n1.step(|shard, batch| shard.hear(as_heard(&changes[0]), batch, now)).0.unwrap();
    let (answer, _) = n1.step(|shard, batch| shard.renew(&[first.unwrap().lease_id], "", batch, now));
    assert_eq!(answer.unknown.len(), 1);
    n1.step(|shard, batch| shard.sweep(batch, now + TTL * 2));
    assert_eq!(n1.names()["w"].origin, "n2");
}

#[test]
fn what_a_peer_sends_is_checked() {
    let (now, mut node) = (start(), Node::new("n1", 0));
    let bad_name = Heard::Put(durable("a b", "o", 1).into());
    let bad_version = Heard::Put(Registration { version: u64::MAX, ..durable("a", "o", 1) }.into());
    for heard in [bad_name, bad_version] {
        let (outcome, changes) = node.step(|shard, batch| shard.hear(heard, batch, now));
        assert!(matches!(outcome, Err(check::Malformed::Name(_) | check::Malformed::Value { .. })));
        assert!(changes.is_empty());
    }
}
