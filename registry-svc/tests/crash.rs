//! SIGKILL of the real binary: what it acknowledged as durable is there after the restart.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use kit::{
    clock::SystemClock,
    directory::{Directory, Instance, State},
    net::TcpNet,
    rpc::Channels,
    test::eventually,
};
use registry_client::{Error, RegistryClient};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use support::{durable, names};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

const ROUNDS: u32 = 20;
const WRITERS: u32 = 8;

/// Starts the binary and waits for its ready line; answers its gRPC address.
async fn spawn(data: &Path) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_registry-svc"))
        .args(["--name", "n1", "--admin", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("ready") {
                return line;
            }
        }
        panic!("it ended before it was ready");
    };
    let line = tokio::time::timeout(Duration::from_secs(30), ready).await.unwrap();
    let addr = line.split_whitespace().find_map(|pair| pair.strip_prefix("grpc=")).unwrap();
    (child, addr.trim_start_matches("http://").to_owned())
}

fn client(addr: &str) -> RegistryClient {
    let instance = Instance {
        service: "registry".into(),
        name: "n1".into(),
        addr: addr.into(),
        generation: 0,
        zone: String::new(),
        state: State::Up,
        meta: BTreeMap::new(),
    };
    let channels = Channels::new(Arc::new(TcpNet), Arc::new(SystemClock));
    RegistryClient::new(channels, Directory::fixed(vec![instance]), None)
}

/// Registers and deregisters until the process is gone. Answers what must be there and what
/// must not; a write without an answer may be either.
async fn write(
    client: RegistryClient,
    round: u32,
    writer: u32,
    acks: Arc<AtomicU32>,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut there, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for n in 0.. {
        let name = format!("r{round}-w{writer}-{n}");
        if client.register(durable(&name, "o", "x"), false).await.is_err() {
            break;
        }
        acks.fetch_add(1, Ordering::Relaxed);
        if n % 3 != 0 {
            there.insert(name);
            continue;
        }
        match client.deregister(&name, "o", false).await {
            Ok(_) => drop(gone.insert(name)),
            Err(_) => break,
        }
    }
    (there, gone)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_by_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (mut there, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..ROUNDS {
        let (mut process, addr) = spawn(dir.path()).await;
        let client = client(&addr);
        let found: BTreeSet<String> = names(&client).await.into_iter().collect();
        let lost: Vec<_> = there.difference(&found).collect();
        let risen: Vec<_> = gone.intersection(&found).collect();
        assert!(lost.is_empty() && risen.is_empty(), "round {round}: lost {lost:?}, came back {risen:?}");
        let acks = Arc::new(AtomicU32::new(0));
        let writers =
            (0..WRITERS).map(|writer| tokio::spawn(write(client.clone(), round, writer, acks.clone())));
        let writers: Vec<_> = writers.collect();
        let enough = 30 + round * 37 % 50;
        eventually("writes are acknowledged", Duration::from_secs(30), || async {
            (acks.load(Ordering::Relaxed) >= enough).then_some(())
        })
        .await;
        process.kill().await.unwrap();
        for writer in writers {
            let (acked, freed) = writer.await.unwrap();
            there.extend(acked);
            gone.extend(freed);
        }
    }
    assert!(there.len() > 400, "only {} names were written", there.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_says_that_it_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, addr) = spawn(dir.path()).await;
    let client = client(&addr);
    client.register(durable("a", "o", "x"), false).await.unwrap();
    process.kill().await.unwrap();
    let refused = client.register(durable("b", "o", "x"), false).await;
    assert!(matches!(refused, Err(Error::Unavailable(_) | Error::Unknown(_))), "{refused:?}");
}
