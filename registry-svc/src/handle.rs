//! The registry as its handlers and followers see it: reads go to the table, writes to the
//! queue of the name's shard.

use crate::{
    core::{
        command::{Deregister, Heard, Register, Registered, Renewed, Update},
        index::Total,
        key,
        route::ShardMap,
        select::Selector,
        shard::shard_of_lease,
        status::{StatusBoard, worst},
        table::{Entry, Page, Table},
        waiters::Full,
    },
    driver::{At, Command, Queues, Renew},
    error::Failure,
    feed::{Feed, Monitored, Waiting},
    metrics::Metrics,
    sharding::Sharding,
};
use kit::clock::Clock;
use parking_lot::Mutex;
use proto::registry::{BackendReport, BackendStatus, Kind, Registration, Removed};
use registry_client::map::Reader;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc::error::TrySendError, oneshot, watch};

/// Names that one page looks at.
const SCAN_MAX: usize = 10_000;
/// Label keys that an error names.
const LABELS_TOLD: usize = 8;

#[derive(Clone)]
pub(crate) struct Handle {
    shared: Arc<Shared>,
    // For whom it asks; nobody in particular when empty.
    tenant: Arc<str>,
}

pub(crate) struct Shared {
    pub(crate) node: Arc<str>,
    pub(crate) route: ShardMap,
    pub(crate) table: Arc<Table>,
    pub(crate) sharding: Arc<Sharding>,
    pub(crate) feed: Arc<Feed>,
    /// By shard.
    pub(crate) queues: Vec<Queues>,
    pub(crate) queue_limit: usize,
    pub(crate) statuses: Mutex<StatusBoard>,
    pub(crate) max_statuses: usize,
    pub(crate) max_watchers: usize,
    /// A permit for each entry of a batch that waits.
    pub(crate) batched: Semaphore,
    pub(crate) max_batched: usize,
    pub(crate) reported: watch::Sender<u64>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
}

impl Handle {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared), tenant: "".into() }
    }

    /// The same for a tenant: flags may tell it apart.
    pub(crate) fn for_tenant(&self, tenant: Option<&str>) -> Self {
        Self { tenant: tenant.map_or_else(|| self.tenant.clone(), Into::into), shared: self.shared.clone() }
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Refuses a watch over the limit.
    pub(crate) fn admit_watcher(&self) -> Result<(), Failure> {
        let limit = self.shared.max_watchers;
        let open = usize::try_from(self.shared.metrics.watchers.get()).unwrap_or_default();
        if open < limit { Ok(()) } else { Err(Failure::Exhausted { what: "max_watchers", limit }) }
    }

    pub(crate) fn feed(&self) -> &Arc<Feed> {
        &self.shared.feed
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    /// Who owns which shard.
    pub(crate) fn route(&self) -> &ShardMap {
        &self.shared.route
    }

    /// Looks a name up for a caller that chose this instance by the shard map of an epoch.
    pub(crate) fn lookup_routed(&self, name: &str, route_epoch: u64) -> Result<Option<Arc<Entry>>, Failure> {
        self.shared.route.check(&self.shared.node, name, route_epoch).map_err(Failure::NotOwner)?;
        Ok(self.lookup(name))
    }

    pub(crate) fn lookup(&self, name: &str) -> Option<Arc<Entry>> {
        let entry = self.shared.sharding.get(name, &self.tenant);
        self.shared.metrics.lookup(entry.is_some());
        entry
    }

    /// Looks versions up for one stream.
    pub(crate) fn reader(&self) -> Reader<Arc<Entry>> {
        self.shared.table.reader()
    }

    /// The versions of a batch of names, in their order.
    pub(crate) fn versions<'a>(
        &self,
        reader: &mut Reader<Arc<Entry>>,
        names: impl Iterator<Item = &'a [u8]> + Clone,
        tell: impl FnMut(Option<u64>),
    ) {
        self.shared.sharding.versions(reader, names, &self.tenant, tell);
    }

    pub(crate) fn page(
        &self,
        after: Option<&str>,
        prefix: &str,
        limit: usize,
        keep: impl Fn(&Registration) -> bool,
    ) -> Page {
        let keep = |entry: &Entry| keep(&entry.registration);
        self.shared.sharding.page(
            &self.tenant,
            |single| single.page(after, prefix, limit, SCAN_MAX, keep),
            || self.shared.table.page(after, prefix, limit, SCAN_MAX, keep),
        )
    }

    /// A page of what a selector asks for.
    pub(crate) fn select(&self, selector: &Selector, after: Option<&str>, limit: usize) -> Page {
        let now = self.shared.clock.now();
        let board = selector.tool().map(|tool| (tool, self.shared.statuses.lock()));
        let offers = |name: &str| board.as_ref().is_none_or(|(tool, board)| board.offers(name, tool, now));
        let prefix = selector.prefix();
        let mut page = self.page(after, &prefix, limit, |registration| {
            selector.keeps(registration) && offers(&registration.name)
        });
        // Behind the names there are properties and counters only.
        page.next = page.next.filter(|next| key::is_shared(&prefix) || !key::is_shared(next));
        page
    }

    /// Refuses a label key that no registration has.
    pub(crate) fn check_labels(&self, selector: &Selector) -> Result<(), Failure> {
        let index = self.shared.table.index();
        let Some(unknown) = selector.known_labels().find(|key| !index.has_label(key)) else {
            return Ok(());
        };
        let known = match index.label_keys(LABELS_TOLD) {
            keys if keys.is_empty() => "none has any label".to_owned(),
            keys => format!("known are {}", keys.join(", ")),
        };
        Err(Failure::UnknownLabel { key: unknown.to_owned(), known })
    }

    /// The sum of a counter over its owners.
    pub(crate) fn total(&self, name: &str) -> Total {
        self.shared.table.index().total(name)
    }

    /// A name's registration, or a wait for it.
    pub(crate) fn await_name(&self, name: &str) -> Result<Result<Arc<Entry>, Waiting>, Full> {
        self.shared.feed.await_name(name)
    }

    /// How a registration has ended, or a wait for its end.
    pub(crate) fn monitor(&self, asked: &Registration, since: Option<u64>) -> Result<Monitored, Full> {
        self.shared.feed.monitor(asked, since)
    }

    pub(crate) async fn update(&self, update: Update) -> Result<At<i64>, Failure> {
        let name = update.name.clone();
        self.ask(&name, |reply| Command::Update(update, reply)).await
    }

    pub(crate) async fn register(&self, register: Register) -> Result<At<Registered>, Failure> {
        let name = register.entry.name.clone();
        let returns = register.returns;
        let command = |reply| Command::Register(Box::new(register), reply);
        if returns { self.ask_again(&name, command).await } else { self.ask(&name, command).await }
    }

    pub(crate) async fn deregister(&self, deregister: Deregister) -> Result<At<()>, Failure> {
        let name = deregister.name.clone();
        self.ask(&name, |reply| Command::Deregister(deregister, reply)).await
    }

    /// Renews leases, each at its shard.
    pub(crate) async fn renew(&self, lease_ids: &[u64], owner: &str) -> Result<Renewed, Failure> {
        let mut by_shard: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for id in lease_ids {
            by_shard.entry(usize::from(shard_of_lease(*id).0)).or_default().push(*id);
        }
        let mut all = Renewed::default();
        let mut waiting = Vec::new();
        for (shard, lease_ids) in by_shard {
            let Some(queues) = self.shared.queues.get(shard) else {
                all.unknown.extend(lease_ids);
                continue;
            };
            let (reply, answer) = oneshot::channel();
            // Renewals wait for their place instead of being refused.
            let renew = Renew { lease_ids, owner: owner.to_owned(), reply };
            queues.renewals.send(renew).await.map_err(|_| Failure::ShuttingDown)?;
            waiting.push(answer);
        }
        for answer in waiting {
            let part = answer.await.map_err(|_| Failure::ShuttingDown)?;
            all.renewed.extend(part.renewed);
            all.unknown.extend(part.unknown);
            all.foreign = all.foreign.or(part.foreign);
            all.ttl = all.ttl.into_iter().chain(part.ttl).min();
        }
        Ok(all)
    }

    /// Takes in what a peer says, in its order for each name; returns once it is visible and,
    /// where it must be, durable.
    pub(crate) async fn hear(&self, heard: Vec<Heard>) -> Result<(), Failure> {
        let mut by_shard: BTreeMap<usize, Vec<Heard>> = BTreeMap::new();
        for heard in heard {
            for shard in self.shards_of(&heard) {
                by_shard.entry(shard).or_default().push(heard.clone());
            }
        }
        let mut waiting = Vec::new();
        for (shard, heard) in by_shard {
            let Some(queues) = self.shared.queues.get(shard) else {
                continue;
            };
            let (reply, answer) = oneshot::channel();
            queues.commands.send(Command::Hear(heard, reply)).await.map_err(|_| Failure::ShuttingDown)?;
            waiting.push(answer);
        }
        for answer in waiting {
            answer.await.map_err(|_| Failure::ShuttingDown)??;
        }
        Ok(())
    }

    /// Every tombstone.
    pub(crate) async fn tombstones(&self) -> Result<Vec<Removed>, Failure> {
        let mut all = Vec::new();
        for queues in &self.shared.queues {
            let (reply, answer) = oneshot::channel();
            queues.commands.send(Command::Tombstones(reply)).await.map_err(|_| Failure::ShuttingDown)?;
            all.extend(answer.await.map_err(|_| Failure::ShuttingDown)?);
        }
        Ok(all)
    }

    /// Forgets tombstones of before a moment.
    pub(crate) async fn reap(&self, before: Instant) {
        for queues in &self.shared.queues {
            // Ends with the writers.
            let _ = queues.commands.send(Command::Reap(before)).await;
        }
    }

    /// Takes what an edge says (`local`), or what a peer heard from it. Answers how long it counts.
    pub(crate) fn report(&self, reports: Vec<BackendReport>, local: bool) -> Result<Duration, Failure> {
        let now = self.shared.clock.now();
        let mut board = self.shared.statuses.lock();
        for BackendReport { name, status } in reports {
            let full = Failure::Exhausted { what: "max_statuses", limit: self.shared.max_statuses };
            board.put(&name, status.unwrap_or_default(), local, now).map_err(|_| full)?;
        }
        let (ttl, counter) = (board.ttl(), board.counter());
        drop(board);
        self.shared.reported.send_replace(counter);
        Ok(ttl)
    }

    /// What this node's edges reported after a counter, and the counter now.
    pub(crate) fn reports_since(&self, counter: u64) -> (Vec<BackendReport>, u64) {
        let board = self.shared.statuses.lock();
        (board.since(counter, self.shared.clock.now()), board.counter())
    }

    pub(crate) fn subscribe_reports(&self) -> watch::Receiver<u64> {
        self.shared.reported.subscribe()
    }

    pub(crate) fn sweep_reports(&self) {
        self.shared.statuses.lock().sweep(self.shared.clock.now());
    }

    /// A registration as people see it: with what edges say of it.
    pub(crate) fn with_status(&self, entry: &Entry) -> Registration {
        let mut registration = key::shown(entry.registration.clone());
        if registration.kind() != Kind::Backend {
            return registration;
        }
        let statuses: Vec<BackendStatus> =
            self.shared.statuses.lock().of(&registration.name, self.shared.clock.now());
        registration.status = worst(&statuses).cloned().map(Box::new);
        registration.statuses = statuses;
        registration
    }

    /// A write by a client waits for nothing: a full queue is told at once.
    async fn ask<T>(
        &self,
        name: &str,
        command: impl FnOnce(oneshot::Sender<Result<T, Failure>>) -> Command,
    ) -> Result<T, Failure> {
        let shard = usize::from(self.shared.table.shard_of(name).0);
        let Some(queues) = self.shared.queues.get(shard) else {
            return Err(Failure::ShuttingDown);
        };
        // Held until the write is visible, where the name is not sharded.
        let _turn = self.shared.sharding.turn(name, &self.tenant).await?;
        let (reply, answer) = oneshot::channel();
        match queues.commands.try_send(command(reply)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(Failure::Exhausted { what: "queue", limit: self.shared.queue_limit });
            }
            Err(TrySendError::Closed(_)) => return Err(Failure::ShuttingDown),
        }
        // The writer ended with the command in its queue or in its hands.
        let ended = || Failure::StoreUnsure("the shard's writer has ended".into());
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// What comes again waits for its place instead of being refused.
    async fn ask_again<T>(
        &self,
        name: &str,
        command: impl FnOnce(oneshot::Sender<Result<T, Failure>>) -> Command,
    ) -> Result<T, Failure> {
        let shard = usize::from(self.shared.table.shard_of(name).0);
        let queues = self.shared.queues.get(shard).ok_or(Failure::ShuttingDown)?;
        let (reply, answer) = oneshot::channel();
        queues.returning.send(command(reply)).await.map_err(|_| Failure::ShuttingDown)?;
        let ended = || Failure::StoreUnsure("the shard's writer has ended".into());
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    fn shards_of(&self, heard: &Heard) -> Vec<usize> {
        let of = |name: &str| vec![usize::from(self.shared.table.shard_of(name).0)];
        match heard {
            Heard::Put(registration) => of(&registration.name),
            Heard::Removed(removed) => of(&removed.name),
            Heard::Complete { .. } | Heard::OriginDown(_) | Heard::OriginUp(_) => {
                (0..self.shared.queues.len()).collect()
            }
        }
    }
}
