//! The loop of the service: time, the directory, the shutdown. A second loop repairs, so that a
//! slow owner never delays the disk.

use crate::coordinate::Coordinator;
use futures::{StreamExt as _, stream};
use kit::{Context, Directory, Shutdown, State, readiness::Condition};
use parking_lot::Mutex;
use session_client::SERVICE;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval};

/// Repairs under way at a time.
const REPAIR_PARALLEL: usize = 16;
/// How often repairs are looked for.
const REPAIR_INTERVAL: Duration = Duration::from_millis(100);
/// Sessions looked at for their end in one sweep.
const SWEEP_PAGE: usize = 10_000;

/// Walks over all sessions that are due: to one owner that came back, or to all.
#[derive(Default)]
pub(crate) struct Passes {
    due: Mutex<VecDeque<Option<String>>>,
}

impl Passes {
    fn add(&self, to: Option<String>) {
        let mut due = self.due.lock();
        if due.contains(&None) || due.contains(&to) {
            return;
        }
        if to.is_none() {
            due.clear();
        }
        due.push_back(to);
    }

    fn next(&self) -> Option<Option<String>> {
        self.due.lock().pop_front()
    }
}

/// The main loop.
pub(crate) struct Driver {
    coordinator: Arc<Coordinator>,
    passes: Arc<Passes>,
    directory: Directory,
    shutdown: Shutdown,
    ready: Condition,
    /// Generation of each instance when it last seemed alive.
    seen: BTreeMap<String, u64>,
    swept: String,
}

impl Driver {
    pub(crate) fn new(
        ctx: &Context,
        coordinator: Arc<Coordinator>,
        passes: Arc<Passes>,
        ready: Condition,
    ) -> Self {
        Driver {
            coordinator,
            passes,
            directory: ctx.directory.clone(),
            shutdown: ctx.shutdown.clone(),
            ready,
            seen: BTreeMap::new(),
            swept: String::new(),
        }
    }

    pub(crate) async fn run(mut self) {
        let mut flush = ticks(self.coordinator.config.flush_interval);
        let mut sweep = ticks(self.coordinator.config.sweep_interval);
        self.look_around();
        loop {
            tokio::select! {
                () = self.shutdown.wait() => break,
                () = self.directory.changed() => self.look_around(),
                _ = flush.tick() => self.flush().await,
                _ = sweep.tick() => self.sweep().await,
            }
        }
        self.ready.unmet("shutting down");
        self.flush().await;
    }

    /// The directory changed: the ring may have moved, an owner may be back.
    fn look_around(&mut self) {
        if let Some(ring) = self.coordinator.rebuild_ring() {
            tracing::info!(?ring, "the ring moved");
            self.coordinator.metrics.ring(&ring);
            self.coordinator.hints.keep(|name| ring.members().iter().any(|m| m.name == name));
            self.passes.add(None);
        }
        for name in self.returned() {
            self.passes.add(Some(name));
        }
        self.report();
    }

    /// Instances that seem alive now and did not before, or started anew.
    fn returned(&mut self) -> Vec<String> {
        let mut alive = BTreeMap::new();
        for instance in self.directory.of(SERVICE) {
            if instance.state != State::Down {
                alive.insert(instance.name, instance.generation);
            }
        }
        let new = alive.iter().filter(|(name, generation)| self.seen.get(*name) != Some(generation));
        let returned = new.map(|(name, _)| name.clone()).collect();
        self.seen = alive;
        returned
    }

    fn report(&self) {
        if self.coordinator.replica.fenced().is_some() {
            return;
        }
        match self.coordinator.strength() {
            (alive, need) if alive >= need => self.ready.met(),
            (alive, need) => {
                self.ready.unmet(format!("{alive} session instances of the {need} that a write needs"));
            }
        }
    }

    async fn flush(&self) {
        let flushed = self.coordinator.replica.flush().await;
        let fenced = flushed.err().map(|error| error.to_string());
        if let Some(why) = self.coordinator.replica.fenced().or(fenced) {
            // What is on disk is unknown; a new start reads it, and the other owners repair it.
            self.ready.unmet(why.clone());
            self.shutdown.fail(1, format!("session store: {why}"));
        }
    }

    async fn sweep(&mut self) {
        if let Err(error) = self.coordinator.replica.sweep().await {
            tracing::warn!(%error, "sweep failed");
        }
        let (ended, next) = self.coordinator.replica.reapable(&self.swept, SWEEP_PAGE);
        self.swept = next.unwrap_or_default();
        let coordinator = self.coordinator.clone();
        let reaps = ended.into_iter().take(coordinator.config.repair_rate);
        // Owners that are away must not hold up the loop: a tick is enough, the rest comes later.
        let all = stream::iter(reaps).for_each_concurrent(REPAIR_PARALLEL, |record| {
            let coordinator = self.coordinator.clone();
            async move { coordinator.reap(&record).await }
        });
        let _ = tokio::time::timeout(REPAIR_INTERVAL, all).await;
        let (sessions, log_bytes) = coordinator.replica.held();
        coordinator.metrics.held(sessions, log_bytes);
        let (pending, sessions) = coordinator.hints.pending();
        coordinator.metrics.hints(pending.iter().map(|(name, count)| (name.as_str(), *count)), sessions);
    }
}

/// The loop that brings owners what they miss, at a bounded rate.
pub(crate) async fn repair(coordinator: Arc<Coordinator>, passes: Arc<Passes>, shutdown: Shutdown) {
    let budget = (coordinator.config.repair_rate / 10).max(1);
    let mut ticks = ticks(REPAIR_INTERVAL);
    let mut pass: Option<(Option<String>, String)> = None;
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            _ = ticks.tick() => {}
        }
        repair_hints(&coordinator, &passes, budget).await;
        pass = pass.or_else(|| passes.next().map(|to| (to, String::new())));
        pass = match pass {
            Some((to, after)) => step(&coordinator, to, &after, budget).await,
            None => None,
        };
    }
}

async fn repair_hints(coordinator: &Arc<Coordinator>, passes: &Passes, budget: usize) {
    let up = |name: &str| coordinator.instance_state(name) != State::Down;
    for owner in coordinator.hints.take_overflowed(up) {
        passes.add(Some(owner));
    }
    let due: BTreeSet<String> = coordinator.hints.due(budget, up);
    stream::iter(due)
        .for_each_concurrent(REPAIR_PARALLEL, |id| async move {
            coordinator.repair(&id).await;
        })
        .await;
}

/// One page of a pass; answers where it goes on.
async fn step(
    coordinator: &Arc<Coordinator>,
    to: Option<String>,
    after: &str,
    budget: usize,
) -> Option<(Option<String>, String)> {
    let page = coordinator.replica.list(after, budget);
    let next = page.last().filter(|_| page.len() == budget).map(|record| record.id.clone());
    let target = to.as_deref();
    stream::iter(page)
        .for_each_concurrent(REPAIR_PARALLEL, |record| async move {
            coordinator.hand_over(&record, target).await;
        })
        .await;
    next.map(|next| (to, next))
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_to_all_stands_for_every_other() {
        let passes = Passes::default();
        passes.add(Some("n1".into()));
        passes.add(Some("n1".into()));
        passes.add(None);
        passes.add(Some("n2".into()));
        assert_eq!(passes.next(), Some(None));
        assert_eq!(passes.next(), None);
    }
}
