//! Real SIGKILL of the real binary, and crashes of instances under load: nothing acked is lost.

mod common;

use common::{Cluster, LONG, PATIENCE, alice};
use kit::{
    Directory, Instance, State,
    clock::SystemClock,
    net::TcpNet,
    rpc::Channels,
    test::{eventually, rng, seed},
};
use rand::Rng as _;
use session_client::{Read, SessionClient, SessionError, SessionId, Version};
use std::{collections::BTreeMap, path::Path, process::Stdio, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinSet,
};

const ROUNDS: usize = 20;
const WRITERS: usize = 16;

/// What a writer knows of its session.
#[derive(Debug, Clone)]
struct Known {
    id: SessionId,
    version: Version,
    value: String,
    /// Sent, never answered: it may be applied.
    attempted: Option<String>,
}

async fn spawn(data: &Path) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_session-svc"))
        .args(["--name", "n1", "--admin", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--log", "warn", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("spawned");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let ready = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("ready in time");
    let ready = ready.expect("read").expect("a line");
    let grpc = ready.split(' ').find_map(|pair| pair.strip_prefix("grpc=")).expect("grpc").to_owned();
    (child, grpc)
}

fn client_of(addr: String) -> SessionClient {
    let instance = Instance {
        service: "session".into(),
        name: "n1".into(),
        addr,
        generation: 1,
        zone: "default".into(),
        state: State::Up,
        meta: BTreeMap::new(),
    };
    let channels = Channels::new(Arc::new(TcpNet), Arc::new(SystemClock));
    let directory = Directory::fixed(vec![instance]);
    SessionClient::with_deadline(channels, directory, Some("n1".into()), Duration::from_secs(2))
}

/// Writes until told to stop or the first failure; answers what it knows.
async fn write(client: SessionClient, writer: usize, stop: watch::Receiver<bool>) -> Option<Known> {
    let id = client.mint();
    let created = client.create(&id, &alice(), "0".into(), LONG).await.ok()?;
    let mut known = Known { id, version: created.version, value: "0".into(), attempted: None };
    for round in 1.. {
        if *stop.borrow() {
            break;
        }
        let value = format!("{writer}/{round}");
        known.attempted = Some(value.clone());
        match client.put(known.id.as_str(), &alice(), &known.version, value.clone().into()).await {
            Ok(version) => known = Known { version, value, attempted: None, ..known },
            Err(SessionError::VersionMismatch { .. }) => panic!("nobody else writes"),
            Err(_) => break,
        }
    }
    Some(known)
}

async fn check(client: &SessionClient, known: &Known) {
    let read = client.get(known.id.as_str(), &alice(), &Read::quorum()).await;
    let session = read.unwrap_or_else(|error| panic!("{known:?}: {error}")).session;
    let value = String::from_utf8_lossy(&session.value).into_owned();
    let version = session.version.unwrap_or_default();
    let acked = value == known.value && version == known.version;
    let attempted = known.attempted.as_ref() == Some(&value) && version.counter == known.version.counter + 1;
    assert!(acked || attempted, "{known:?} became {value} at {version:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acked_write_is_lost_in_twenty_kills_of_the_process() {
    let mut random = rng(seed());
    let dir = tempfile::tempdir().expect("dir");
    let mut known: Vec<Known> = Vec::new();
    let mut acked = 0;
    for _ in 0..ROUNDS {
        let (mut child, addr) = spawn(dir.path()).await;
        let client = client_of(addr);
        for known in &known {
            check(&client, known).await;
        }
        let (stop, stopped) = watch::channel(false);
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(client.clone(), writer, stopped.clone()));
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(50..250))).await;
        child.start_kill().expect("killed");
        child.wait().await.expect("reaped");
        stop.send_replace(true);
        for written in writers.join_all().await.into_iter().flatten() {
            acked += written.version.counter;
            known.push(written);
        }
    }
    let (mut child, addr) = spawn(dir.path()).await;
    for known in &known {
        check(&client_of(addr.clone()), known).await;
    }
    child.kill().await.expect("killed");
    eprintln!("{acked} acked writes in {} sessions survived {ROUNDS} kills", known.len());
    assert!(acked > 100, "only {acked} writes were acked: the test proves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acked_write_is_lost_while_one_instance_after_the_other_crashes() {
    let mut random = rng(seed());
    let mut cluster = Cluster::on_disk(3).await;
    let (stop, stopped) = watch::channel(false);
    let mut writers = JoinSet::new();
    for writer in 0..12 {
        let client = cluster.client(["n1", "n2", "n3"][writer % 3]);
        writers.spawn(write_through(client, writer, stopped.clone()));
    }
    for round in 0..6 {
        let victim = ["n1", "n2", "n3"][random.random_range(0..3)];
        tokio::time::sleep(Duration::from_millis(random.random_range(100..400))).await;
        cluster.kill(victim).await;
        if round % 2 == 0 {
            cluster.tell(victim, State::Down);
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(100..400))).await;
        cluster.add(victim).await;
        cluster.ready().await;
    }
    stop.send_replace(true);
    let known = writers.join_all().await;
    let acked: u64 = known.iter().map(|known| known.version.counter).sum();
    for name in ["n1", "n2", "n3"] {
        let client = cluster.client(name);
        for known in &known {
            eventually("a quorum answers", PATIENCE, || async {
                let read = client.get(known.id.as_str(), &alice(), &Read::quorum()).await.ok()?;
                (!read.stale).then_some(())
            })
            .await;
            check(&client, known).await;
        }
    }
    eprintln!("{acked} acked writes survived");
    assert!(acked > 50, "only {acked} writes were acked: the test proves nothing");
}

/// Writes on through failures: after an unknown outcome it reads which of the two it was.
async fn write_through(client: SessionClient, writer: usize, stop: watch::Receiver<bool>) -> Known {
    let id = client.mint();
    let created = client.create(&id, &alice(), "0".into(), LONG).await.expect("created");
    let mut known = Known { id, version: created.version, value: "0".into(), attempted: None };
    let mut round = 0;
    while !*stop.borrow() {
        round += 1;
        let value = format!("{writer}/{round}");
        match client.put(known.id.as_str(), &alice(), &known.version, value.clone().into()).await {
            Ok(version) => known = Known { version, value, attempted: None, ..known },
            Err(SessionError::VersionMismatch { current }) => panic!("{known:?} lost to {current:?}"),
            Err(error) => {
                if matches!(error, SessionError::Unknown(_)) {
                    known.attempted = Some(value);
                }
                known = recover(&client, known).await;
            }
        }
    }
    known
}

async fn recover(client: &SessionClient, known: Known) -> Known {
    eventually("the outcome is known", PATIENCE, || async {
        let read = client.get(known.id.as_str(), &alice(), &Read::quorum()).await.ok()?;
        if read.stale {
            return None;
        }
        let value = String::from_utf8_lossy(&read.session.value).into_owned();
        let version = read.session.version.unwrap_or_default();
        let acked = version == known.version;
        let attempted =
            known.attempted.as_ref() == Some(&value) && version.counter == known.version.counter + 1;
        assert!(acked || attempted, "{known:?} became {value} at {version:?}");
        Some(Known { version, value, attempted: None, ..known.clone() })
    })
    .await
}
