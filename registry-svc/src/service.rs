//! Wiring only.

use crate::{
    Config, Error,
    core::{
        history::History,
        shard::{Bounds, Shard},
        status::StatusBoard,
        table::Table,
    },
    driver::{Driver, Inbox, Queues, queues},
    events,
    feed::Feed,
    follow::Peers,
    handle::{Handle, Shared},
    janitor,
    metrics::Metrics,
    names::Names,
    rpc::Handler,
    sharding::{FLAG, Sharding},
    store::{MemoryStore, Record, RedbStore, Store, StoreError},
    together::Together,
};
use kit::{
    flags::Shadow,
    host::{Context, Running},
    rpc::MAX_MESSAGE,
};
use parking_lot::Mutex;
use proto::{
    ids::ShardId,
    registry::{Registration, registry_service_server::RegistryServiceServer},
};
use rand::{SeedableRng as _, rngs::StdRng};
use registry_client::{Door, tiers::Lookups};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Semaphore, watch};

/// Reads the store, adds the gRPC service to the node and starts the writers, the followers of
/// the other instances, and the publisher of facts.
pub async fn start(config: Config, ctx: &Context) -> Result<Running, Error> {
    let (running, _) = embed(config, ctx).await?;
    Ok(running)
}

/// The same, with the handlers of its RPCs to call in this process: the checks, queues and
/// writers of a call over gRPC, without the wire.
pub async fn embed(config: Config, ctx: &Context) -> Result<(Running, Arc<Handler>), Error> {
    config.validate().map_err(Error::Config)?;
    let ready = ctx.readiness.condition("registry");
    let synced = ctx.readiness.condition("registry-peers");
    let metrics = Metrics::new(&ctx.metrics).counting(Lookups::of(ctx));
    let store = open_store(ctx, &metrics).await?;
    let handle = assemble(&config, ctx, store, metrics)?;
    let handler = serve(ctx, &handle);
    ctx.shared.get(Door::default).open(Arc::new(handle.clone()));
    let peers = Peers::new(ctx.clone(), handle.clone());
    ctx.tasks.spawn("registry-peers", peers.run(synced, config.sync_wait));
    ctx.tasks.spawn("registry-facts", events::publish(ctx.clone(), handle.clone()));
    ctx.tasks.spawn("registry-janitor", janitor::run(ctx.clone(), handle, config));
    ctx.announce.set(ctx.instance("registry"));
    ready.met();
    Ok((Running { addr: ctx.grpc_addr }, handler))
}

/// Starts the writers on what a store holds.
pub(crate) fn assemble(
    config: &Config,
    ctx: &Context,
    store: Arc<dyn Store>,
    metrics: Metrics,
) -> Result<Handle, Error> {
    let route = config.shard_map().map_err(Error::Config)?;
    let table = Arc::new(Table::new(config.shards));
    let names = Names::new(table.clone());
    let sharding = sharding(config, ctx, &names)?;
    let history = History::new(ctx.generation, config.history, config.history_bytes);
    let feed = Feed::new(names, history, config.max_waiters);
    let (queues, inboxes): (Vec<Queues>, Vec<Inbox>) =
        (0..config.shards).map(|_| queues(config.queue)).unzip();
    let shards = restore(store.load()?, config, ctx, &table, &feed);
    for (shard, inbox) in shards.into_iter().zip(inboxes) {
        let id = shard.id();
        let driver = Driver {
            id,
            shard,
            inbox,
            store: store.clone(),
            feed: feed.clone(),
            table: table.clone(),
            max_registrations: config.max_registrations,
            clock: ctx.clock.clone(),
            shutdown: ctx.shutdown.clone(),
            metrics: metrics.shard(id),
        };
        ctx.tasks.spawn("registry-shard", driver.run());
    }
    Ok(Handle::new(Shared {
        node: ctx.node.as_str().into(),
        route,
        table,
        sharding,
        feed,
        queues,
        queue_limit: config.queue,
        statuses: Mutex::new(StatusBoard::new(config.max_statuses, config.status_ttl)),
        max_statuses: config.max_statuses,
        max_watchers: config.max_watchers,
        batched: Semaphore::new(config.max_batched),
        max_batched: config.max_batched,
        reported: watch::Sender::new(0),
        clock: ctx.clock.clone(),
        metrics,
    }))
}

/// The flag becomes a choice of models here.
fn sharding(config: &Config, ctx: &Context, names: &Arc<Names>) -> Result<Arc<Sharding>, Error> {
    let flags = phases::plain().filter(|((key, ..), _)| key.starts_with("registry."));
    ctx.flags.define(flags).map_err(Error::Flags)?;
    let (flag, shadow) = (ctx.flags.handle(FLAG), Shadow::new(&ctx.metrics, FLAG));
    let sharding = Arc::new(Sharding::new(flag, names.clone(), config.queue, shadow, ctx.clock.clone()));
    let keeper = sharding.clone().run(ctx.flags.clone(), ctx.shutdown.clone());
    ctx.tasks.background("registry-sharding", keeper);
    Ok(sharding)
}

/// A node that was killed in this process may still be at its last transaction.
const RELEASE: Duration = Duration::from_secs(5);

async fn open_store(ctx: &Context, metrics: &Metrics) -> Result<Arc<dyn Store>, Error> {
    let Some(data) = &ctx.data else {
        return Ok(Arc::new(MemoryStore::default()));
    };
    let give_up = ctx.clock.now() + RELEASE;
    loop {
        match RedbStore::open(&data.join("registry"), metrics.store()) {
            Err(StoreError::Busy(_)) if ctx.clock.now() < give_up => tokio::time::sleep(RELEASE / 200).await,
            opened => return Ok(Arc::new(opened?)),
        }
    }
}

/// Puts what the disk holds into the table, and gives each shard its tombstones and its clock.
fn restore(
    records: Vec<Record>,
    config: &Config,
    ctx: &Context,
    table: &Arc<Table>,
    feed: &Feed,
) -> Vec<Shard> {
    let now = ctx.clock.now();
    let mut shards: Vec<Shard> =
        (0..config.shards).map(|id| new_shard(ShardId(id), config, ctx, table)).collect();
    let mut puts: Vec<Registration> = Vec::new();
    for record in records {
        let shard = shards.get_mut(usize::from(table.shard_of(record.name()).0));
        match (record, shard) {
            (Record::Put(registration), Some(shard)) => {
                shard.observe(registration.version);
                puts.push(*registration);
            }
            (Record::Tombstone(removed), Some(shard)) => shard.restore_tombstone(&removed, now),
            (_, None) => {}
        }
    }
    feed.restore(puts);
    shards
}

fn new_shard(id: ShardId, config: &Config, ctx: &Context, table: &Arc<Table>) -> Shard {
    let bounds = Bounds {
        tombstones: config.max_tombstones.div_ceil(usize::from(config.shards)),
        recent: config.recent_answers,
    };
    // The generation grows with every start, so versions do too, even of what was in memory only.
    Shard::new(id, ctx.node.as_str().into(), table.clone(), ctx.generation, bounds, StdRng::from_os_rng())
}

fn serve(ctx: &Context, handle: &Handle) -> Arc<Handler> {
    let (node, shutdown) = (ctx.node.as_str().into(), ctx.shutdown.clone());
    let handler = Arc::new(Handler { handle: handle.clone(), node, shutdown, together: Together::default() });
    let server = RegistryServiceServer::from_arc(handler.clone()).max_decoding_message_size(MAX_MESSAGE);
    ctx.rpc.add(server.max_encoding_message_size(MAX_MESSAGE));
    ctx.rpc.reflect(proto::DESCRIPTORS);
    handler
}
