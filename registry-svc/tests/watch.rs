//! Watchers that come and go while others write: each sees every change once and in order, or is
//! told that it must read the state again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use kit::rpc::with_deadline;
use proto::{
    error::Code,
    registry::{
        Registration, WatchRequest, WatchResponse, registry_service_client::RegistryServiceClient,
        watch_response::Event,
    },
};
use rand::{Rng as _, rngs::StdRng};
use registry_client::{RegistryClient, tiers::STALENESS_BOUND};
use registry_svc::Config;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use support::{
    Cluster, SOON, durable, ephemeral,
    process::{Process, client, instance},
    proxy::Proxy,
    until,
};
use tokio::sync::watch;
use tonic::{Status, Streaming};

const WRITERS: u32 = 4;
const WRITES: u32 = 250;
/// Names of each writer.
const NAMES: u32 = 6;
const WATCHERS: u32 = 6;
/// Far less than what a watcher may miss while it is away.
const HISTORY: usize = 128;

/// A change of one name as text.
type Change = String;

fn text(event: &Event) -> (String, Change) {
    match event {
        Event::Put(put) => (put.name.clone(), format!("+{}", put.version)),
        Event::Removed(removed) => (removed.name.clone(), "-".into()),
        other => panic!("{other:?} is not a change"),
    }
}

/// What was acknowledged: by name the changes in order, and which revision each put has.
#[derive(Default)]
struct Log {
    by_name: BTreeMap<String, Vec<Change>>,
    revisions: BTreeMap<u64, (String, Change)>,
}

/// Writes to names of its own, one after the other.
async fn write(
    client: RegistryClient,
    id: u32,
    mut rng: StdRng,
    log: Arc<Mutex<Log>>,
    done: Arc<watch::Sender<u32>>,
) {
    for n in 0..WRITES {
        let name = format!("w{id}-{}", rng.random_range(0..NAMES));
        if rng.random_ratio(1, 4) {
            if client.deregister(&name, "o", false).await.is_ok() {
                log.lock().unwrap().by_name.entry(name).or_default().push("-".into());
            }
        } else {
            let registration = match rng.random_ratio(1, 3) {
                true => ephemeral(&name, "o", Duration::from_secs(3600 - u64::from(n))),
                false => durable(&name, "o", &format!("c{n}")),
            };
            let answer = client.register(registration, true).await.unwrap();
            let change = format!("+{}", answer.version);
            let mut log = log.lock().unwrap();
            log.revisions.insert(answer.revision, (name.clone(), change.clone()));
            log.by_name.entry(name).or_default().push(change);
        }
        done.send_modify(|done| *done += 1);
    }
}

/// One watcher: what it holds, and what it was told since it last read the state.
struct Watcher {
    stub: RegistryServiceClient<kit::rpc::Channel>,
    rng: StdRng,
    written: watch::Receiver<u32>,
    // 0 = to read the state.
    position: u64,
    view: BTreeMap<String, Change>,
    seen: Vec<(u64, String, Change)>,
    resumed: u32,
    compacted: u32,
}

impl Watcher {
    /// Connects, reads some, goes away for some writes, and again, until everything was written
    /// and read.
    async fn run(mut self) -> Self {
        while *self.written.borrow() < WRITERS * WRITES {
            let count = self.rng.random_range(1..120);
            self.connect_and_read(|watcher, read| read >= count || watcher.is_over()).await;
            let away = *self.written.borrow() + self.rng.random_range(0..300);
            let _ = self.written.wait_for(|written| *written >= away.min(WRITERS * WRITES)).await;
        }
        self
    }

    fn is_over(&self) -> bool {
        *self.written.borrow() >= WRITERS * WRITES
    }

    async fn connect_and_read(&mut self, enough: impl Fn(&Self, u32) -> bool) {
        let mut stream = loop {
            let request = WatchRequest { from_revision: self.position, ..Default::default() };
            match self.stub.watch(with_deadline(request, SOON)).await {
                Ok(stream) => break stream.into_inner(),
                Err(status) => self.start_over(&status),
            }
        };
        self.resumed += u32::from(self.position > 0);
        let mut state = (self.position == 0).then(BTreeMap::new);
        let mut read = 0;
        while state.is_some() || !enough(self, read) {
            let next = tokio::time::timeout(Duration::from_millis(300), stream.message()).await;
            match next {
                Ok(Ok(Some(response))) => self.take(response, &mut state),
                Ok(Err(status)) => return self.fell_behind(&status),
                Ok(Ok(None)) => panic!("the watch ended without a word"),
                // Nothing new: the writers are at rest.
                Err(_) => return,
            }
            read += 1;
        }
    }

    fn take(&mut self, response: WatchResponse, state: &mut Option<BTreeMap<String, Change>>) {
        match (response.event.unwrap(), &mut *state) {
            (Event::Synced(synced), Some(read)) => {
                assert_eq!(synced.count, read.len() as u64);
                self.view = state.take().unwrap();
                self.position = response.revision;
                self.seen.clear();
            }
            (Event::Put(put), Some(read)) => {
                let twice = read.insert(put.name, format!("+{}", put.version));
                assert_eq!(twice, None, "twice in one state");
            }
            (event, None) => {
                assert_eq!(response.revision, self.position + 1, "a gap or a repeat");
                self.position = response.revision;
                let (name, change) = text(&event);
                self.seen.push((response.revision, name.clone(), change.clone()));
                self.view.insert(name, change);
            }
            (event, Some(_)) => panic!("{event:?} within the state"),
        }
    }

    /// The answer to a position that the history has passed.
    fn start_over(&mut self, status: &Status) {
        assert_eq!(Code::of(status), Code::Compacted, "{status}");
        let oldest: u64 = proto::error::detail(status, "oldest").unwrap().parse().unwrap();
        assert!(oldest > self.position, "{} could have been resumed from", self.position);
        self.compacted += 1;
        self.position = 0;
    }

    /// The history passed it while it was connected: its position stays.
    fn fell_behind(&self, status: &Status) {
        assert_eq!(Code::of(status), Code::Exhausted, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_that_come_and_go_see_every_change_once_and_in_order() {
    let seed = kit::test::seed();
    let rng = |n: u32| kit::test::rng(seed ^ u64::from(n));
    let cluster = Cluster::of(1, Config { history: HISTORY, ..Config::default() }).await;
    let (log, done) = (Arc::new(Mutex::new(Log::default())), Arc::new(watch::Sender::new(0)));
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|n| {
            let watcher = Watcher {
                stub: cluster.stub("n1"),
                rng: rng(100 + n),
                written: done.subscribe(),
                position: 0,
                view: BTreeMap::new(),
                seen: Vec::new(),
                resumed: 0,
                compacted: 0,
            };
            tokio::spawn(watcher.run())
        })
        .collect();
    let writers = (0..WRITERS).map(|id| write(cluster.client("n1"), id, rng(id), log.clone(), done.clone()));
    futures::future::join_all(writers).await;
    let log = Arc::into_inner(log).unwrap().into_inner().unwrap();
    let (mut resumed, mut compacted) = (0, 0);
    for watcher in watchers {
        let mut watcher = watcher.await.unwrap();
        // Whatever it missed at its last turn.
        watcher.connect_and_read(|_, _| false).await;
        check(&watcher, &log);
        resumed += watcher.resumed;
        compacted += watcher.compacted;
    }
    println!("{resumed} resumed, {compacted} told to read the state again");
    assert!(resumed >= 3 && compacted >= 3, "a run of too little");
}

fn check(watcher: &Watcher, log: &Log) {
    for (revision, name, change) in &watcher.seen {
        if let Some(acknowledged) = log.revisions.get(revision) {
            assert_eq!(acknowledged, &(name.clone(), change.clone()), "at {revision}");
        }
    }
    let mut last: BTreeMap<&String, &Change> = BTreeMap::new();
    for (name, changes) in &log.by_name {
        let seen: Vec<_> =
            watcher.seen.iter().filter(|(_, seen, _)| seen == name).map(|(.., change)| change).collect();
        let tail = &changes[changes.len() - seen.len()..];
        assert!(seen.iter().copied().eq(tail), "{name}: {seen:?}, not the end of {changes:?}");
        last.extend(changes.last().map(|change| (name, change)));
    }
    let there = |(name, change): (_, &String)| (change != "-").then_some(name);
    let expected: BTreeSet<_> = last.into_iter().filter_map(|(name, change)| there((name, change))).collect();
    let held: BTreeSet<_> = watcher.view.iter().filter_map(there).collect();
    assert_eq!(held, expected);
}

/// About 20 KB.
fn large(n: u32) -> Registration {
    let labels = (0..20).map(|key| (format!("{key}"), format!("{n:04}").repeat(250))).collect();
    Registration { labels, ..ephemeral("large", "o", Duration::from_secs(3600)) }
}

async fn open(addr: &str) -> Streaming<WatchResponse> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{addr}")).unwrap();
    let mut stub = RegistryServiceClient::new(endpoint.connect().await.unwrap());
    stub.watch(with_deadline(WatchRequest::default(), SOON)).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_watchers_cost_little_memory_and_are_cut_while_others_go_on() {
    const CHANGES: u32 = 1500;
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "127.0.0.1:0", &[("SWARM__REGISTRY__HISTORY", "50")]).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut stream = open(&process.grpc).await;
        assert!(matches!(stream.message().await.unwrap().unwrap().event, Some(Event::Synced(_))));
        stalled.push(stream);
    }
    let before = process.memory();
    let mut reading = open(&process.grpc).await;
    let reader = tokio::spawn(async move {
        let mut last = None;
        loop {
            let response = reading.message().await.unwrap().unwrap();
            match response.event.unwrap() {
                Event::Synced(_) => last = Some(response.revision),
                Event::Put(put) => {
                    assert_eq!(Some(response.revision), last.map(|last| last + 1));
                    last = Some(response.revision);
                    if put.labels["0"].starts_with(&format!("{CHANGES:04}")) {
                        return;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    });
    let writer = client(&process.grpc);
    for n in 1..=CHANGES {
        writer.register(large(n), true).await.unwrap();
    }
    tokio::time::timeout(SOON, reader).await.expect("a reader goes on").unwrap();
    // 30 MB of changes for each of 20 would be 600 MB.
    let grown = process.memory().saturating_sub(before);
    println!("{} MB more with 20 stalled watchers that are {CHANGES} changes of 20 KB behind", grown >> 20);
    assert!(grown < 100 << 20, "{} MB more", grown >> 20);
    for mut stream in stalled {
        let cut = loop {
            match tokio::time::timeout(SOON, stream.message()).await.unwrap() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a word"),
                Err(status) => break status,
            }
        };
        assert_eq!(Code::of(&cut), Code::Exhausted);
    }
    assert_eq!(process.metric("swarm_registry_watchers_cut_total").await, 20.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_was_away_too_long_reads_the_state_again() {
    let cluster = Cluster::of(1, Config { history: 8, ..Config::default() }).await;
    let context = cluster.node("n1").context().clone();
    let proxy = Proxy::start(context.grpc_addr).await;
    let directory = kit::directory::Directory::fixed(vec![instance(&proxy.addr)]);
    let mirror = RegistryClient::new(context.channels.clone(), directory, None).mirror(Default::default());
    let writer = cluster.client("n1");
    for name in ["freed", "kept"] {
        writer.register(durable(name, "o", "x"), false).await.unwrap();
    }
    let shows = async |names: &[&str]| {
        until("the mirror shows what there is", || async { mirror.snapshot().keys().eq(names) }).await;
    };
    shows(&["freed", "kept"]).await;
    for round in 0..3 {
        proxy.cut();
        until("the mirror knows that it is cut off", || async { mirror.age() >= STALENESS_BOUND }).await;
        // Within the history, then beyond it.
        for n in 0..4 * (1 + round) {
            writer.register(durable("kept", "o", &format!("{round}.{n}")), true).await.unwrap();
        }
        let freed = if round == 0 { "freed".to_owned() } else { format!("new{}", round - 1) };
        writer.deregister(&freed, "o", false).await.unwrap();
        let new = format!("new{round}");
        writer.register(durable(&new, "o", "x"), false).await.unwrap();
        assert!(mirror.get(&freed).is_some(), "the last view stays while it is cut off");
        proxy.heal();
        shows(&["kept", &new]).await;
    }
    let all = writer.list(&Default::default()).await.unwrap();
    let mirrored = mirror.snapshot();
    assert!(all.iter().all(|one| mirrored[&one.name].version == one.version), "an old version stayed");
    until("the mirror knows that it is fresh", || async { mirror.age() < STALENESS_BOUND }).await;
}
