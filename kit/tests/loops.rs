//! A gRPC port that is served by event loops of its own.

#![allow(clippy::unwrap_used)]

#[path = "common/echo.rs"]
mod echo;

use echo::{Echo, ask};
use kit::{
    Host, NodeConfig,
    host::{Parts, Served},
    net::TcpNet,
    rpc::{Channel, with_deadline},
    test::eventually,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;
use tonic::Code;

const SOON: Duration = Duration::from_secs(5);
const LOOPS: usize = 3;

async fn node() -> (Served, Echo) {
    let config = NodeConfig { grpc_loops: Some(LOOPS), ..NodeConfig::for_test("n1") };
    let host = Host::bind(&config, Parts::default()).await.unwrap();
    let echo = Echo::default();
    host.context().rpc.add(echo.clone());
    (host.serve().await, echo)
}

/// A connection of its own.
async fn connect(served: &Served) -> Channel {
    Channel::new(Arc::new(TcpNet), &served.context().advertise)
}

async fn thread_of(channel: Channel) -> String {
    ask(channel, with_deadline("thread".to_owned(), SOON)).await.unwrap().into_inner()
}

/// Loops of this process that are alive.
fn loops() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("grpc-")).count()
}

// One test: it counts the threads of the process.
#[tokio::test(flavor = "multi_thread")]
async fn connections_go_round_the_loops_and_the_loops_end_with_the_node() {
    let (served, echo) = node().await;
    let mut channels = Vec::new();
    for _ in 0..2 * LOOPS {
        channels.push(connect(&served).await);
    }
    let mut by_loop: BTreeMap<String, usize> = BTreeMap::new();
    for channel in &channels {
        let thread = thread_of(channel.clone()).await;
        assert_eq!(thread_of(channel.clone()).await, thread, "a connection stays where it is");
        *by_loop.entry(thread).or_default() += 1;
    }
    let even = (0..LOOPS).map(|number| (format!("grpc-{number}"), 2)).collect();
    assert_eq!(by_loop, even);
    assert_eq!(loops(), LOOPS);

    // An open call does not hold up the end for long, and knows that it broke.
    let before = echo.calls.load(Ordering::Relaxed);
    let open = tokio::spawn(ask(channels.remove(0), with_deadline("slow".to_owned(), SOON * 6)));
    eventually("the call arrived", SOON, || async {
        (echo.calls.load(Ordering::Relaxed) > before).then_some(())
    })
    .await;
    let begun = Instant::now();
    served.shutdown();
    assert_eq!(tokio::time::timeout(SOON, served.stopped()).await.unwrap(), Ok(()));
    assert!(begun.elapsed() < SOON);
    let broken = tokio::time::timeout(SOON, open).await.unwrap().unwrap().unwrap_err();
    assert_ne!(broken.code(), Code::Ok);
    eventually("the loops have ended", SOON, || async { (loops() == 0).then_some(()) }).await;
}
