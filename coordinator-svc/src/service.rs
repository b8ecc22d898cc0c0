//! Wiring.

use crate::{
    config::Config,
    desk::Desk,
    driver::{Driver, Known},
    error::Error,
    events::Facts,
    members::Membership,
    metrics::Meters,
    raft::{
        log_store::LogStore,
        node::Node,
        peers::{META_RAFT_ID, Peer, Peers, SERVICE},
        server::Server,
    },
    rpc::Handler,
    waiters::Waiters,
};
use kit::{Context, Policy, Running, rpc::MAX_MESSAGE};
use proto::coordinator::{
    coordinator_service_server::CoordinatorServiceServer, raft_service_server::RaftServiceServer,
};
use std::{fs, io, path::Path, sync::Arc, time::Duration};
use tokio::sync::Mutex;
use xxhash_rust::xxh3::xxh3_64;

/// Tries to open the store while a former run lets go of it.
const OPEN_TRIES: u32 = 50;
const OPEN_PAUSE: Duration = Duration::from_millis(100);

/// Starts the service: its handlers are added to the node's gRPC, its loops to the node's tasks.
pub async fn start(config: Config, ctx: &Context) -> Result<Running, Error> {
    config.validate()?;
    let timing = config.timing();
    let store = open(ctx.data.as_deref()).await?;
    let raft_id = store.raft_id(|| fresh_raft_id(&ctx.node)).await?;
    let own = Peer { raft_id, name: ctx.node.clone(), addr: ctx.advertise.clone(), up: true };
    let peers = Peers::new(own, ctx.directory.clone(), ctx.channels.clone(), config.peers.clone());
    let (node, events) =
        Node::start(store.clone(), peers.clone(), timing, config.snapshot_every, ctx.clock.clone()).await?;

    let (waiters, meters) = (Waiters::default(), Meters::new(&ctx.metrics));
    let desk = Desk::new(node.clone(), waiters.clone(), meters.clone(), ctx.clock.clone());
    ctx.rpc.add(CoordinatorServiceServer::new(Handler::new(desk, ctx.node.clone())));
    let raft_server = RaftServiceServer::new(Server::new(node.clone()));
    ctx.rpc.add(raft_server.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE));

    announce(ctx, raft_id);
    stop_when_aborted(ctx, node.clone());
    let membership =
        Membership { node: node.clone(), peers, store, expect: ctx.expect, shutdown: ctx.shutdown.clone() };
    ctx.tasks.supervise("coordinator-members", Policy::DRIVER, move || membership.clone().run());
    let driver = Arc::new(Mutex::new(Driver {
        node,
        events,
        waiters,
        meters,
        facts: Facts::new(ctx.bus.clone(), ctx.cluster.clone()),
        ready: ctx.readiness.condition("coordinator"),
        instance: ctx.node.clone(),
        clock: ctx.clock.clone(),
        shutdown: ctx.shutdown.clone(),
        known: Known::default(),
    }));
    ctx.tasks.supervise("coordinator-driver", Policy::DRIVER, move || {
        let driver = Arc::clone(&driver);
        async move { driver.lock().await.run().await }
    });
    Ok(Running { addr: ctx.grpc_addr })
}

/// A disk's id: the instance's name and chance, so that a lost disk never comes back as a voter
/// that has forgotten its vote.
fn fresh_raft_id(name: &str) -> u64 {
    let incarnation: u128 = rand::random();
    xxh3_64(format!("{name}/{incarnation:032x}").as_bytes()).max(1)
}

fn announce(ctx: &Context, raft_id: u64) {
    let mut instance = ctx.instance(SERVICE);
    instance.meta.insert(META_RAFT_ID.into(), raft_id.to_string());
    ctx.announce.set(instance);
}

/// The library's tasks are its own: without this they would outlive a node that was aborted.
fn stop_when_aborted(ctx: &Context, node: Node) {
    let shutdown = ctx.shutdown.clone();
    tokio::spawn(async move {
        shutdown.aborted().await;
        node.stop().await;
    });
}

async fn open(data: Option<&Path>) -> io::Result<LogStore> {
    let Some(data) = data else { return LogStore::in_memory() };
    let folder = data.join("coordinator");
    fs::create_dir_all(&folder)?;
    let path = folder.join("raft.redb");
    let mut tries = 0;
    loop {
        match LogStore::open(&path) {
            Err(error) if tries < OPEN_TRIES && is_held(&error) => tries += 1,
            opened => return opened,
        }
        tokio::time::sleep(OPEN_PAUSE).await;
    }
}

fn is_held(error: &io::Error) -> bool {
    let database = error.get_ref().and_then(|inner| inner.downcast_ref::<redb::DatabaseError>());
    matches!(database, Some(redb::DatabaseError::DatabaseAlreadyOpen))
}
