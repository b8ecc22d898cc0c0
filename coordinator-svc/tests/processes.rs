//! Three real processes, one of them killed at a time under load: nothing acknowledged is lost.
#![allow(clippy::unwrap_used)]

use coordinator_client::{Change, CoordinatorClient};
use kit::{Directory, Instance, State, clock::SystemClock, net::TcpNet, rpc::Channels, test::eventually};
use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(20);
const ROUNDS: usize = 6;
const WRITERS: usize = 8;
const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// A process that does not outlive the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL, as a crash; an ended process makes both fail, which is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(folder: &Path, name: &str, port: u16) -> Process {
    let child = Command::new(env!("CARGO_BIN_EXE_coordinator-svc"))
        .args(["--name", name, "--expect", "3", "--admin", "127.0.0.1:0", "--log", "warn"])
        .args(["--grpc", &format!("127.0.0.1:{port}")])
        .arg("--data")
        .arg(folder.join(name))
        .arg("--config")
        .arg(folder.join("swarm.toml"))
        .stdout(Stdio::null())
        .spawn();
    Process(child.expect("the binary starts"))
}

/// Free ports, all different: each is held until all are known.
fn free_ports() -> Vec<u16> {
    let held: Vec<TcpListener> = NAMES.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

fn directory(ports: &[u16]) -> Directory {
    let instance = |(name, port): (&&str, &u16)| Instance {
        service: "coordinator".into(),
        name: (*name).into(),
        addr: format!("127.0.0.1:{port}"),
        generation: 1,
        zone: "default".into(),
        state: State::Up,
        meta: BTreeMap::new(),
    };
    Directory::fixed(NAMES.iter().zip(ports).map(instance).collect())
}

/// Writes keys of its own until told to stop; answers what was acknowledged.
async fn write(client: CoordinatorClient, writer: usize, stop: Arc<AtomicBool>) -> BTreeMap<String, String> {
    let mut acknowledged = BTreeMap::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, value) = (format!("w{writer}-{n}"), format!("{writer}/{n}"));
        if client.propose(Change::set(key.clone(), value.clone()), SOON).await.is_ok() {
            acknowledged.insert(key, value);
        }
    }
    acknowledged
}

/// Three processes that know each other from the configuration, and a client.
struct Group {
    folder: TempDir,
    ports: Vec<u16>,
    processes: Vec<Process>,
    client: CoordinatorClient,
}

impl Group {
    async fn start() -> Group {
        let folder = TempDir::new().unwrap();
        let ports = free_ports();
        let peers = NAMES.iter().zip(&ports).map(|(name, port)| format!("{name} = \"127.0.0.1:{port}\"\n"));
        let config = format!("[coordinator.peers]\n{}", peers.collect::<String>());
        std::fs::write(folder.path().join("swarm.toml"), config).unwrap();
        let processes =
            NAMES.iter().zip(&ports).map(|(name, port)| spawn(folder.path(), name, *port)).collect();
        let channels = Channels::new(Arc::new(TcpNet), Arc::new(SystemClock));
        let client = CoordinatorClient::new(channels, directory(&ports), None);
        client.propose(Change::set("start", "now"), SOON).await.unwrap();
        Group { folder, ports, processes, client }
    }

    fn restart(&mut self, at: usize) {
        self.processes.insert(at, spawn(self.folder.path(), NAMES[at], self.ports[at]));
    }

    fn addr(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.ports[at])
    }

    async fn leader(&self) -> usize {
        eventually("a leader", SOON, || async {
            let leader = self.client.status(SOON).await.ok()?.leader_instance;
            NAMES.iter().position(|name| *name == leader)
        })
        .await
    }
}

fn signal(process: &Process, name: &str) {
    let status = Command::new("kill").args([name, &process.0.id().to_string()]).status().unwrap();
    assert!(status.success(), "kill {name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_is_replaced_and_serves_nothing_old_when_it_wakes() {
    let group = Group::start().await;
    let leader = group.leader().await;
    group.client.propose(Change::set("k", "old"), SOON).await.unwrap();
    signal(&group.processes[leader], "-STOP");
    let start = Instant::now();
    group.client.propose(Change::set("k", "new"), SOON).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
    // It wakes up in the belief that it leads: what it answers then must be the new value.
    let only_it =
        Instance { addr: group.addr(leader), ..directory(&group.ports).of("coordinator")[leader].clone() };
    let channels = Channels::new(Arc::new(TcpNet), Arc::new(SystemClock));
    let at_it = CoordinatorClient::new(channels, Directory::fixed(vec![only_it]), None);
    let reading = tokio::spawn(async move { at_it.read("k", SOON).await });
    signal(&group.processes[leader], "-CONT");
    let found = reading.await.unwrap().unwrap().unwrap();
    assert_eq!(found.value, "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_one_process_at_a_time_loses_nothing_that_was_acknowledged() {
    let mut group = Group::start().await;
    let client = group.client.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..WRITERS).map(|n| tokio::spawn(write(client.clone(), n, stop.clone()))).collect();

    for round in 0..ROUNDS {
        // The leader every other time, else the one after it.
        let leader = group.leader().await;
        let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        let start = Instant::now();
        drop(group.processes.remove(victim));
        client.propose(Change::set(format!("round{round}"), "ok"), SOON).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "round {round} took {:?}", start.elapsed());
        group.restart(victim);
        let addr = group.addr(victim);
        eventually("the restarted process follows and has caught up", SOON, || async {
            let own = client.status_of(&addr, Duration::from_secs(1)).await.ok()?;
            let marker = client.read_local(&format!("round{round}"), SOON).await.ok()?;
            let followed = own.leader_raft_id != 0 && own.applied_index == own.committed_index;
            (marker.is_some() && followed).then_some(())
        })
        .await;
    }

    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert!(acknowledged.len() > 100, "only {} writes were acknowledged", acknowledged.len());
    for (key, value) in &acknowledged {
        let found = client.read(key, SOON).await.unwrap();
        assert_eq!(found.map(|found| found.value), Some(value.clone().into()), "{key}");
    }
    println!("{} acknowledged writes, none lost", acknowledged.len());
}
