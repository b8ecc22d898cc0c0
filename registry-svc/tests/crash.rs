//! SIGKILL of the real binary, again and again, under writes of every outcome: what it
//! acknowledged is there after the restart, and nothing is that it refused or never was asked.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use kit::test::eventually;
use rand::{Rng as _, rngs::StdRng};
use registry_client::{Error, RegistryClient};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use support::{
    durable,
    process::{Process, client},
};

/// Kills; `SWARM_KILLS` asks for more.
const KILLS: u32 = 100;
const WRITERS: u32 = 8;
/// Names of each writer.
const SLOTS: u32 = 32;
const ANY_PORT: &str = "127.0.0.1:0";

/// Owner and command of a name; `None` = not there.
type Value = Option<(String, String)>;

/// What each name may be.
type Allowed = BTreeMap<String, BTreeSet<Value>>;

#[derive(Default)]
struct Counts {
    acknowledged: AtomicU32,
    refused: AtomicU32,
    unavailable: AtomicU32,
    unknown_in_window: AtomicU32,
    unknown_outside: AtomicU32,
}

/// One client that writes until the process is gone.
struct Writer {
    client: RegistryClient,
    round: u32,
    id: u32,
    rng: StdRng,
    killed: Arc<AtomicBool>,
    counts: Arc<Counts>,
    allowed: Allowed,
}

enum Write {
    Register { owner: String, command: String },
    Deregister { owner: String },
}

impl Write {
    fn random(writer: &mut Writer, n: u32) -> Self {
        // One in eight comes from somebody who may not.
        let owner =
            if writer.rng.random_ratio(1, 8) { "thief".to_owned() } else { format!("w{}", writer.id) };
        if writer.rng.random_ratio(1, 4) {
            return Write::Deregister { owner };
        }
        Write::Register { owner, command: format!("r{}n{n}", writer.round) }
    }

    async fn send(&self, client: &RegistryClient, name: &str) -> Result<(), Error> {
        match self {
            Write::Register { owner, command } => {
                client.register(durable(name, owner, command), true).await.map(drop)
            }
            Write::Deregister { owner } => client.deregister(name, owner, false).await.map(drop),
        }
    }

    fn wanted(&self) -> Value {
        match self {
            Write::Register { owner, command } => Some((owner.clone(), command.clone())),
            Write::Deregister { .. } => None,
        }
    }
}

impl Writer {
    async fn run(mut self) -> Allowed {
        for n in 0.. {
            let name = format!("w{}-{}", self.id, self.rng.random_range(0..SLOTS));
            let write = Write::random(&mut self, n);
            let outcome = write.send(&self.client, &name).await;
            self.settle(&name, &write, &outcome);
            if matches!(outcome, Err(Error::Unavailable(_) | Error::Unknown(_))) && self.killed.load(Relaxed)
            {
                break;
            }
        }
        self.allowed
    }

    /// OK: as wanted. Refused or unavailable: nothing was applied. Unknown: either.
    fn settle(&mut self, name: &str, write: &Write, outcome: &Result<(), Error>) {
        let values = self.allowed.entry(name.to_owned()).or_insert_with(|| BTreeSet::from([None]));
        let counts = &self.counts;
        let count = match outcome {
            Ok(()) => {
                *values = BTreeSet::from([write.wanted()]);
                &counts.acknowledged
            }
            Err(Error::Unknown(_)) => {
                values.insert(write.wanted());
                if self.killed.load(Relaxed) { &counts.unknown_in_window } else { &counts.unknown_outside }
            }
            Err(Error::NotFound(_)) => {
                *values = BTreeSet::from([None]);
                &counts.refused
            }
            Err(Error::AlreadyRegistered { .. } | Error::Denied { .. }) => &counts.refused,
            Err(Error::Unavailable(_) | Error::Exhausted(_)) => &counts.unavailable,
            Err(error) => panic!("{error:?} is not an outcome of a write"),
        };
        count.fetch_add(1, Relaxed);
    }
}

/// Compares what is there with what may be, and takes it for what is.
async fn check(client: &RegistryClient, allowed: &mut Allowed, round: u32) {
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    for registration in client.list(&Default::default()).await.unwrap() {
        let command = command_of(&registration);
        found.insert(registration.name, Some((registration.owner, command)));
    }
    let phantoms: Vec<_> = found.keys().filter(|name| !allowed.contains_key(*name)).collect();
    assert!(phantoms.is_empty(), "round {round}: nobody registered {phantoms:?}");
    for (name, values) in allowed {
        let value = found.remove(name).flatten();
        assert!(values.contains(&value), "round {round}: {name} is {value:?}, not one of {values:?}");
        *values = BTreeSet::from([value]);
    }
}

fn command_of(registration: &proto::registry::Registration) -> String {
    use proto::registry::{backend_spec::Transport, registration::Spec};
    let Some(Spec::Backend(spec)) = &registration.spec else { panic!("{registration:?}") };
    let Some(Transport::Stdio(stdio)) = &spec.transport else { panic!("{registration:?}") };
    stdio.command.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_loses_what_was_acknowledged_or_keeps_what_was_refused() {
    let kills = std::env::var("SWARM_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let seed = kit::test::seed();
    let mut rng = kit::test::rng(seed);
    let dir = tempfile::tempdir().unwrap();
    let (counts, mut allowed) = (Arc::new(Counts::default()), Allowed::new());
    for round in 0..=kills {
        let process = Process::start(dir.path(), ANY_PORT, &[]).await;
        let client = client(&process.grpc);
        check(&client, &mut allowed, round).await;
        if round == kills {
            break;
        }
        let killed = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|id| {
                let mine = format!("w{id}-");
                let of_mine = allowed.iter().filter(|(name, _)| name.starts_with(&mine));
                let writer = Writer {
                    client: client.clone(),
                    round,
                    id,
                    rng: kit::test::rng(seed ^ u64::from(round << 4 | id)),
                    killed: killed.clone(),
                    counts: counts.clone(),
                    allowed: of_mine.map(|(name, values)| (name.clone(), values.clone())).collect(),
                };
                tokio::spawn(writer.run())
            })
            .collect();
        let enough = counts.acknowledged.load(Relaxed) + rng.random_range(1..80);
        eventually("writes are acknowledged", Duration::from_secs(30), || async {
            (counts.acknowledged.load(Relaxed) >= enough).then_some(())
        })
        .await;
        killed.store(true, Relaxed);
        process.kill().await;
        for writer in writers {
            allowed.extend(writer.await.unwrap());
        }
    }
    report(kills, &counts);
}

fn report(kills: u32, counts: &Counts) {
    let of = |count: &AtomicU32| count.load(Relaxed);
    let (acknowledged, refused) = (of(&counts.acknowledged), of(&counts.refused));
    let (unavailable, outside) = (of(&counts.unavailable), of(&counts.unknown_outside));
    println!(
        "{kills} kills: {acknowledged} acknowledged, {refused} refused, {unavailable} unavailable, {} unknown \
         around the kills, {outside} unknown else; 0 lost, 0 phantoms",
        of(&counts.unknown_in_window)
    );
    assert!(acknowledged >= kills * 10 && refused >= kills, "a run of too little");
    assert!(outside * 100 <= acknowledged + refused, "more than 1 % unknown without a fault");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_says_that_it_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), ANY_PORT, &[]).await;
    let client = client(&process.grpc);
    client.register(durable("a", "o", "x"), false).await.unwrap();
    process.kill().await;
    let refused = client.register(durable("b", "o", "x"), false).await;
    assert!(matches!(refused, Err(Error::Unavailable(_) | Error::Unknown(_))), "{refused:?}");
}
