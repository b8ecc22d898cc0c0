//! The registry on a disk that crashes (RELIABILITY F1, F2, F4): whatever the machine leaves of it,
//! the store opens, every acknowledged write is there, and nothing that was refused is.

use super::{
    Observed, Record, RedbStore, Store as _, StoreError,
    disk_test::{Call, Disk, Image, Moment},
};
use crate::{
    Config,
    core::command::{Deregister, Register},
    error::Failure,
    handle::Handle,
    metrics::Metrics,
    service::assemble,
};
use kit::{host::Context, test::rng};
use parking_lot::Mutex;
use proto::registry::{Durability, Kind, Registration, registration::Spec};
use rand::{Rng as _, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    thread,
    time::Duration,
};

/// Commands of one run.
const OPERATIONS: usize = 500;
const NAMES: usize = 40;
/// Commands that are under way together, each of another name.
const BURST: usize = 6;
/// Images of each moment beside the two that lose nothing and everything;
/// `SWARM_CRASH_IMAGES` asks for more.
const RANDOM_IMAGES: usize = 7;
/// Of the first crashes every so many-th crashes a second time, at each sync of the recovery.
const SECOND_CRASHES: usize = 16;

const SOON: Duration = Duration::from_secs(10);

/// Owner and value of a durable name; `None` = not there.
type Value = Option<(String, u8)>;

/// What each name may be after a crash now: one value, or more while a write is under way.
type Allowed = BTreeMap<String, BTreeSet<Value>>;

fn observed() -> Observed {
    Metrics::new(&kit::Metrics::new()).store()
}

/// A registry on a disk, and the oracle of its writes.
struct Run {
    handle: Handle,
    context: Context,
    allowed: Arc<Mutex<Allowed>>,
    acknowledged: usize,
    refused: usize,
    unknown: usize,
}

impl Run {
    fn start(disk: &Disk) -> Self {
        let context = Context::for_test("n1");
        let store = Arc::new(RedbStore::on(disk.clone(), observed()).unwrap());
        let config = Config { shards: 4, ..Config::default() };
        let handle = assemble(&config, &context, store, Metrics::new(&context.metrics)).unwrap();
        let names = (0..NAMES).map(|n| (format!("name{n}"), BTreeSet::from([None])));
        let allowed = Arc::new(Mutex::new(names.collect()));
        Self { handle, context, allowed, acknowledged: 0, refused: 0, unknown: 0 }
    }

    /// Sends random commands, some alone and some together, until all have been sent or the
    /// store has failed.
    async fn operate(&mut self, operations: usize, rng: &mut StdRng) {
        let mut sent = 0;
        while sent < operations && self.unknown == 0 {
            let burst = if rng.random() { 1 } else { rng.random_range(2..=BURST) };
            let names = rand::seq::index::sample(rng, NAMES, burst);
            let commands: Vec<Command> =
                names.into_iter().map(|n| Command::random(format!("name{n}"), rng)).collect();
            sent += burst;
            self.send(commands).await;
        }
    }

    async fn send(&mut self, commands: Vec<Command>) {
        for command in &commands {
            self.allow(&command.name, |values| values.extend([command.wanted()]));
        }
        let this = &*self;
        let outcomes = commands.iter().map(|command| async move {
            let outcome = command.send(&this.handle).await;
            this.settle(command, &outcome);
            outcome
        });
        let outcomes = futures::future::join_all(outcomes).await;
        for outcome in outcomes {
            match outcome {
                Ok(_) => self.acknowledged += 1,
                Err(Failure::Refused(_)) => self.refused += 1,
                Err(_) => self.unknown += 1,
            }
        }
    }

    fn settle(&self, command: &Command, outcome: &Result<bool, Failure>) {
        self.allow(&command.name, |values| match outcome {
            Ok(true) => *values = BTreeSet::from([command.wanted()]),
            // The table still shows what stood before.
            Ok(false) | Err(Failure::Refused(_)) => *values = BTreeSet::from([self.shown(&command.name)]),
            Err(_) => {}
        });
    }

    fn shown(&self, name: &str) -> Value {
        let entry = self.handle.lookup(name)?;
        value(&entry.registration)
    }

    fn allow(&self, name: &str, change: impl FnOnce(&mut BTreeSet<Value>)) {
        if let Some(values) = self.allowed.lock().get_mut(name) {
            change(values);
        }
    }

    async fn stop(self) {
        self.context.shutdown.trigger();
        self.context.tasks.join(SOON).await;
    }
}

struct Command {
    name: String,
    owner: String,
    action: Action,
}

enum Action {
    Register { value: u8, replace: bool, durability: Durability },
    Deregister { force: bool },
}

impl Command {
    fn random(name: String, rng: &mut StdRng) -> Self {
        let action = if rng.random_bool(0.25) {
            Action::Deregister { force: rng.random_bool(0.2) }
        } else {
            let ephemeral = rng.random_bool(0.1);
            let durability = if ephemeral { Durability::Ephemeral } else { Durability::Durable };
            Action::Register { value: rng.random(), replace: rng.random_bool(0.7), durability }
        };
        Self { name, owner: format!("owner{}", rng.random_range(0..2)), action }
    }

    /// What the disk holds of the name once it is acknowledged.
    fn wanted(&self) -> Value {
        match self.action {
            Action::Register { value, durability: Durability::Durable, .. } => {
                Some((self.owner.clone(), value))
            }
            _ => None,
        }
    }

    /// Whether it changed something.
    async fn send(&self, handle: &Handle) -> Result<bool, Failure> {
        let (name, owner) = (self.name.clone(), self.owner.clone());
        let request_id = String::new();
        match self.action {
            Action::Register { value, replace, durability } => {
                let registration = Registration {
                    name,
                    owner,
                    kind: Kind::Worker.into(),
                    durability: durability.into(),
                    ttl_ms: 3_600_000,
                    // Long enough that the tree has branches.
                    spec: Some(Spec::Opaque(vec![value; 300].into())),
                    ..Default::default()
                };
                let register = Register { request_id, replace, ..Register::new(registration) };
                handle.register(register).await.map(|(registered, _)| registered.created)
            }
            Action::Deregister { force } => {
                handle.deregister(Deregister { request_id, name, owner, force }).await.map(|_| true)
            }
        }
    }
}

fn value(registration: &Registration) -> Value {
    let Some(Spec::Opaque(bytes)) = &registration.spec else { return None };
    (registration.durability() == Durability::Durable).then(|| (registration.owner.clone(), bytes[0]))
}

/// The durable names on a disk.
fn kept(disk: Disk) -> Result<BTreeMap<String, Value>, StoreError> {
    let records = RedbStore::on(disk, observed())?.load()?;
    Ok(records
        .into_iter()
        .filter_map(|record| match record {
            Record::Put(registration) => Some((registration.name.clone(), value(&registration))),
            Record::Tombstone(_) => None,
        })
        .collect())
}

/// Opens what a crash left. An error says what is wrong with it.
fn check(disk: Disk, allowed: &Allowed) -> Result<(), String> {
    let kept = kept(disk).map_err(|error| format!("the store does not open: {error}"))?;
    for (name, values) in allowed {
        let found = kept.get(name).cloned().flatten();
        if !values.contains(&found) {
            return Err(format!("{name} is {found:?}, not one of {values:?}"));
        }
    }
    match kept.keys().find(|name| !allowed.contains_key(*name)) {
        Some(name) => Err(format!("{name} was never registered")),
        None => Ok(()),
    }
}

/// A moment of a crash, and what must be found after it.
struct Crash {
    moment: Moment,
    allowed: Allowed,
}

/// One run; every sync of it is a crash.
async fn crashes(seed: u64) -> (Vec<Crash>, Image) {
    let disk = Disk::default();
    let mut run = Run::start(&disk);
    let (crashes, allowed) = (Arc::new(Mutex::new(Vec::new())), run.allowed.clone());
    let told = crashes.clone();
    disk.on_sync(move |moment| told.lock().push(Crash { moment, allowed: allowed.lock().clone() }));
    run.operate(OPERATIONS, &mut rng(seed)).await;
    assert_eq!(run.unknown, 0);
    assert!(run.acknowledged > OPERATIONS / 3 && run.refused > OPERATIONS / 10, "a run of too little");
    let last = Crash { moment: disk.moment(), allowed: run.allowed.lock().clone() };
    let image = disk.image();
    run.stop().await;
    let mut crashes = std::mem::take(&mut *crashes.lock());
    crashes.push(last);
    (crashes, image)
}

/// Checks the images of one crash; every so many-th time also what a crash of the recovery
/// leaves. Returns how many were checked.
fn check_crash(n: usize, crash: &Crash, random: usize, rng: &mut StdRng) -> usize {
    let mut checked = 0;
    for (image_n, image) in crash.moment.images(random, rng).into_iter().enumerate() {
        let disk = Disk::of(image);
        let recovery = Arc::new(Mutex::new(Vec::new()));
        if n.is_multiple_of(SECOND_CRASHES) {
            let told = recovery.clone();
            disk.on_sync(move |moment| told.lock().push(moment));
        }
        let outcome = check(disk, &crash.allowed);
        assert_eq!(outcome, Ok(()), "image {image_n} of the crash at sync {n}");
        checked += 1;
        for (second, moment) in std::mem::take(&mut *recovery.lock()).iter().enumerate() {
            for image in moment.images(random, rng) {
                let outcome = check(Disk::of(image), &crash.allowed);
                assert_eq!(outcome, Ok(()), "sync {second} of the recovery after sync {n}");
                checked += 1;
            }
        }
    }
    checked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_sync_loses_nothing_acknowledged_and_keeps_nothing_refused() {
    let asked = std::env::var("SWARM_CRASH_IMAGES").ok().and_then(|text| text.parse().ok());
    let random = asked.unwrap_or(RANDOM_IMAGES);
    let seed = kit::test::seed();
    let (crashes, _) = crashes(seed).await;
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let checked: usize = thread::scope(|scope| {
        let crashes = &crashes;
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    let mine = crashes.iter().enumerate().skip(worker).step_by(threads);
                    let check = |(n, crash)| check_crash(n, crash, random, &mut rng(seed ^ n as u64));
                    mine.map(check).sum::<usize>()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    println!("{} syncs, {checked} crash images, 0 lost, 0 risen", crashes.len());
    assert!(crashes.len() > OPERATIONS / 2, "only {} syncs", crashes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_the_disk_that_fails_fences_the_store_and_loses_nothing_acknowledged() {
    let seed = kit::test::seed();
    // Every sync and growth of a run, and some of its many writes.
    for (call, step) in [(Call::Sync, 1), (Call::SetLen, 1), (Call::Write, 17)] {
        let mut failures = 0;
        while fail_one(call, 1 + failures * step, seed).await {
            failures += 1;
        }
        println!("{failures} failures of {call:?}, each fenced the store, 0 lost");
        assert!(failures >= 1, "no {call:?} failed");
    }
}

/// A run whose `nth` call of the disk fails; false when there were less.
async fn fail_one(call: Call, nth: u32, seed: u64) -> bool {
    let disk = Disk::default();
    let mut run = Run::start(&disk);
    disk.fail(call, nth);
    let mut rng = rng(seed);
    run.operate(100, &mut rng).await;
    let failed = run.unknown > 0;
    if failed {
        let ending = run.context.shutdown.wait();
        tokio::time::timeout(SOON, ending).await.expect("who could not write ends");
    }
    let (moment, allowed) = (disk.moment(), run.allowed.lock().clone());
    run.stop().await;
    for image in moment.images(RANDOM_IMAGES, &mut rng) {
        assert_eq!(check(Disk::of(image), &allowed), Ok(()), "{call:?} {nth}");
    }
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_told_and_never_served() {
    let (crashes, image) = crashes(7).await;
    let expected = kept(Disk::of(image.clone())).unwrap();
    assert_eq!(check(Disk::of(image.clone()), &crashes.last().unwrap().allowed), Ok(()));
    let seed = kit::test::seed();
    let (mut rng, used) = (rng(seed), image.used());
    let (mut told, mut named) = (0, 0);
    for _ in 0..600 {
        let mut damaged = image.clone();
        damaged.flip(used[rng.random_range(0..used.len())], rng.random_range(0..8));
        match kept(Disk::of(damaged)) {
            Ok(found) => assert_eq!(found, expected, "a damaged record was served"),
            Err(StoreError::Corrupt { .. }) => named += 1,
            Err(_) => told += 1,
        }
    }
    println!("of 600 flipped bits {named} were named by record, {told} told, the rest was free space");
    assert!(named > 0 && told > 0);
}
