//! The binary as operators run it: ready line, SIGKILL, SIGTERM.

use gossip_client::{GossipClient, MemberState};
use kit::{clock::SystemClock, net::TcpNet, rpc::Channels, test::eventually};
use std::{process::Stdio, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

struct Process {
    child: Child,
    grpc: String,
    gossip: String,
}

/// Starts the binary and waits for its ready line.
async fn process(name: &str, join: Option<&str>) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gossip-svc"));
    command.args(["--name", name, "--data", ":memory:", "--gossip", "127.0.0.1:0"]);
    command.args(["--admin", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
    if let Some(join) = join {
        command.args(["--join", join]);
    }
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().expect("started");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let ready = tokio::time::timeout(Duration::from_secs(10), lines.next_line());
    let ready = ready.await.expect("in time").expect("readable").expect("a ready line");
    let value = |key: &str| {
        let pair = ready.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        pair.unwrap_or_else(|| panic!("{key} in {ready:?}")).to_owned()
    };
    assert!(ready.starts_with("ready name="), "{ready}");
    Process { grpc: value("grpc"), gossip: value("gossip"), child }
}

fn client(process: &Process) -> GossipClient {
    let channels = Channels::new(Arc::new(TcpNet), Arc::new(SystemClock));
    GossipClient::connect(channels, vec![process.grpc.clone()])
}

async fn sees(client: &GossipClient, node: &str, state: MemberState) {
    eventually(&format!("{node} is {state:?}"), Duration::from_secs(4), async || {
        let view = client.members().await.ok()?;
        view.member(node).filter(|member| member.state == state).map(|_| ())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_dead_and_a_terminated_one_has_left() {
    let first = process("n1", None).await;
    let mut second = process("n2", Some(&first.gossip)).await;
    let mut third = process("n3", Some(&first.gossip)).await;
    let observer = client(&first);
    sees(&observer, "n2", MemberState::Alive).await;
    sees(&observer, "n3", MemberState::Alive).await;

    second.child.kill().await.expect("SIGKILL");
    sees(&observer, "n2", MemberState::Dead).await;

    signal(&third, "-TERM").await;
    let status = tokio::time::timeout(Duration::from_secs(5), third.child.wait()).await.expect("in time");
    assert_eq!(status.expect("waited for").code(), Some(0));
    sees(&observer, "n3", MemberState::Left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_process_is_dead_to_others_accuses_nobody_when_it_resumes_and_is_alive_again() {
    let first = process("n1", None).await;
    let frozen = process("n2", Some(&first.gossip)).await;
    let (observer, resumed) = (client(&first), client(&frozen));
    sees(&observer, "n2", MemberState::Alive).await;
    sees(&resumed, "n1", MemberState::Alive).await;

    signal(&frozen, "-STOP").await;
    sees(&observer, "n2", MemberState::Dead).await;
    signal(&frozen, "-CONT").await;
    let accused = async {
        loop {
            let seen = resumed.members().await.ok();
            let state = seen.and_then(|view| Some(view.member("n1")?.state));
            if state.is_some_and(|state| state != MemberState::Alive) {
                return state;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        state = accused => panic!("it slept for seconds and calls n1 {state:?}"),
        () = sees(&observer, "n2", MemberState::Alive) => {}
    }
}

async fn signal(process: &Process, signal: &str) {
    let pid = process.child.id().expect("it runs").to_string();
    let sent = Command::new("kill").args([signal, &pid]).status().await.expect("kill runs");
    assert!(sent.success());
}

#[tokio::test]
async fn wrong_values_exit_78_and_name_the_key() {
    for (variable, value, named) in [
        ("SWARM__GOSSIP__INTERVAL", "1ms", "SWARM__GOSSIP__INTERVAL"),
        ("SWARM__GOSSIP__PHI_SUSPECT", "9.5", "gossip.phi_suspect"),
        ("SWARM__GOSSIP__INTERVALL", "1s", "did you mean `interval`?"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gossip-svc"));
        command.args(["--data", ":memory:", "--gossip", "127.0.0.1:0"]);
        command.args(["--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let output = command.env(variable, value).output().await.expect("ran");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{error}");
        assert!(error.contains(named), "{error}");
    }
}
