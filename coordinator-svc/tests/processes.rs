//! Three real processes, one of them killed at a time under load: nothing acknowledged is lost.

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

#[tokio::test(flavor = "multi_thread")]
async fn killing_one_process_at_a_time_loses_nothing_that_was_acknowledged() {
    let folder = TempDir::new().unwrap();
    let ports = free_ports();
    let peers = NAMES.iter().zip(&ports).map(|(name, port)| format!("{name} = \"127.0.0.1:{port}\"\n"));
    let config = format!("[coordinator.peers]\n{}", peers.collect::<String>());
    std::fs::write(folder.path().join("swarm.toml"), config).unwrap();
    let mut processes: Vec<Process> =
        NAMES.iter().zip(&ports).map(|(name, port)| spawn(folder.path(), name, *port)).collect();

    let channels = Channels::new(Arc::new(TcpNet), Arc::new(SystemClock));
    let client = CoordinatorClient::new(channels, directory(&ports), None);
    client.propose(Change::set("start", "now"), SOON).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS).map(|n| tokio::spawn(write(client.clone(), n, stop.clone()))).collect();

    for round in 0..ROUNDS {
        // The leader every other time, else whoever is next.
        let leader = client.status(SOON).await.unwrap().leader_instance;
        let leader = NAMES.iter().position(|name| *name == leader).unwrap_or(round % 3);
        let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        let start = Instant::now();
        drop(processes.remove(victim));
        client.propose(Change::set(format!("round{round}"), "ok"), SOON).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "round {round} took {:?}", start.elapsed());
        processes.insert(victim, spawn(folder.path(), NAMES[victim], ports[victim]));
        let addr = format!("127.0.0.1:{}", ports[victim]);
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
