//! Wiring.

use crate::{
    Config, Error,
    coordinate::Coordinator,
    door::Door,
    driver::{self, Driver, Passes},
    metrics::Metrics,
    replica::Replica,
    rpc::Handler,
    store::{MemoryStore, RedbStore, Store, StoreError},
};
use kit::{Context, Policy, Running, rpc::MAX_MESSAGE};
use proto::session::{
    replica_service_server::ReplicaServiceServer, session_service_server::SessionServiceServer,
};
use session_client::SERVICE;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// How long an earlier life in this process may take to close the file.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// Starts the service: recovers from disk, adds its RPCs, and runs until the node stops.
pub async fn start(config: Config, ctx: &Context) -> Result<Running, Error> {
    config.validate()?;
    let ready = ctx.readiness.condition(SERVICE);
    let replica = Arc::new(recover(&config, ctx).await?);
    let metrics = Metrics::new(&ctx.metrics);
    let coordinator = Arc::new(Coordinator::new(config, ctx, replica.clone(), metrics));
    let handler = SessionServiceServer::new(Handler::new(coordinator.clone()));
    ctx.rpc.add(handler.max_decoding_message_size(MAX_MESSAGE));
    let door = ReplicaServiceServer::new(Door::new(replica));
    ctx.rpc.add(door.max_decoding_message_size(MAX_MESSAGE));

    let passes = Arc::new(Passes::default());
    let driver = Driver::new(ctx, coordinator.clone(), passes.clone(), ready);
    ctx.tasks.spawn("session-driver", driver.run());
    let shutdown = ctx.shutdown.clone();
    ctx.tasks.supervise("session-repair", Policy::DRIVER, move || {
        driver::repair(coordinator.clone(), passes.clone(), shutdown.clone())
    });
    ctx.announce.set(ctx.instance(SERVICE));
    Ok(Running { addr: ctx.grpc_addr })
}

async fn recover(config: &Config, ctx: &Context) -> Result<Replica, Error> {
    let store: Arc<dyn Store> = match &ctx.data {
        Some(dir) => Arc::new(open(dir.join("session.redb")).await?),
        None => Arc::new(MemoryStore::default()),
    };
    let (config, clock) = (config.clone(), ctx.clock.clone());
    let recovered = tokio::task::spawn_blocking(move || Replica::recover(config, clock, store));
    Ok(recovered.await.map_err(|error| StoreError::Read(error.to_string()))??)
}

async fn open(path: PathBuf) -> Result<RedbStore, StoreError> {
    let patience = tokio::time::Instant::now() + OPEN_PATIENCE;
    loop {
        let path = path.clone();
        let opened = tokio::task::spawn_blocking(move || RedbStore::open(&path)).await;
        match opened.map_err(|error| StoreError::Read(error.to_string()))? {
            Err(StoreError::Busy) if tokio::time::Instant::now() < patience => {
                tokio::time::sleep(OPEN_PAUSE).await;
            }
            opened => return opened,
        }
    }
}
