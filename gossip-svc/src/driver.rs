//! The one loop: requests, ticks, the engine's end, shutdown.

use crate::{
    Error,
    config::Timing,
    core::{
        View, facts,
        facts::{ServiceFact, ServiceKey},
        leases::{Change, Leases, Refused},
        members::{Members, Own},
    },
    events::Events,
    membership::{Bound, Identity, Membership},
    metrics::{GossipMetrics, Traffic},
};
use kit::{backoff::Backoff, clock::Clock, readiness::Condition, shutdown::Shutdown};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::MissedTickBehavior,
};

/// Tries to start an ended engine again before the process is given up.
const ENGINE_STARTS: u32 = 10;

/// What an RPC asks of the loop.
#[derive(Debug)]
pub(crate) enum Request {
    Publish { publication: Publication, answer: oneshot::Sender<Result<(), Refused>> },
    Leave { answer: oneshot::Sender<()> },
}

/// Services of this node, for a while.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) services: Vec<(ServiceKey, ServiceFact)>,
    pub(crate) withdrawn: Vec<ServiceKey>,
    pub(crate) ttl: Duration,
}

/// Everything the loop owns.
pub(crate) struct Driver {
    pub(crate) timing: Timing,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) identity: Identity,
    /// The bound address, taken again when the engine is started again.
    pub(crate) listen: SocketAddr,
    pub(crate) members: Members,
    pub(crate) leases: Leases,
    pub(crate) engine: Membership,
    /// Facts of the node itself, beside those of its services.
    pub(crate) own_facts: Vec<(String, String)>,
    pub(crate) views: watch::Sender<Arc<View>>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) events: Events,
    pub(crate) metrics: GossipMetrics,
    pub(crate) traffic: Traffic,
    pub(crate) ready: Gate,
}

/// Readiness: enough nodes were seen once, and nobody newer uses our name.
pub(crate) struct Gate {
    pub(crate) condition: Condition,
    pub(crate) expect: usize,
    pub(crate) seen: bool,
}

impl Driver {
    /// Runs until the shutdown; then says goodbye, unless it is an abort.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<(), Error> {
        let mut ticks = tokio::time::interval(self.timing.tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ended = self.engine.ended();
            // Requests come before ticks: a renewal that waited out a pause counts first.
            tokio::select! {
                biased;
                () = shutdown.wait() => break,
                Some(request) = self.requests.recv() => self.handle(request).await,
                why = ended => self.restart(why).await?,
                _ = ticks.tick() => self.tick().await,
            }
        }
        if !shutdown.is_aborted() {
            self.say_goodbye().await;
        }
        self.engine.stop().await;
        Ok(())
    }

    async fn handle(&mut self, request: Request) {
        match request {
            Request::Publish { publication, answer } => {
                let result = self.publish(publication).await;
                // A caller that went away has no use for the answer.
                let _ = answer.send(result);
            }
            Request::Leave { answer } => {
                self.leave().await;
                let _ = answer.send(());
            }
        }
        self.look().await;
    }

    async fn publish(&mut self, publication: Publication) -> Result<(), Refused> {
        let now = self.members.awake();
        let mut changes = self.leases.publish(now, publication.services, publication.ttl)?;
        changes.extend(self.leases.withdraw(&publication.withdrawn));
        self.apply(changes).await;
        Ok(())
    }

    async fn leave(&mut self) {
        tracing::info!(node = self.identity.node, "leaving the cluster");
        let mark = (facts::LEFT.to_owned(), self.identity.generation.to_string());
        self.own_facts.retain(|(key, _)| key != facts::LEFT);
        self.own_facts.push(mark.clone());
        self.engine.set(mark.0, mark.1).await;
    }

    async fn tick(&mut self) {
        self.metrics.ticks.inc();
        let changes = self.leases.tick(self.members.awake());
        self.apply(changes).await;
        self.look().await;
    }

    async fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Set(key, value) => self.engine.set(key, value).await,
                Change::Remove(key) => self.engine.remove(&key).await,
            }
        }
    }

    /// Asks the engine, judges, tells.
    async fn look(&mut self) {
        let sightings = self.engine.sightings().await;
        let events = self.members.observe(self.clock.now(), sightings);
        self.events.tell(&events);
        let view = Arc::new(self.members.view());
        self.metrics.show(&view);
        self.ready.judge(&view, self.members.rival());
        self.views.send_if_modified(|shown| {
            let news = shown.version != view.version;
            *shown = view;
            news
        });
    }

    /// Spreads the last word for some rounds. The view is kept up, so that watchers see it too.
    async fn say_goodbye(&mut self) {
        self.leave().await;
        let mut ticks = tokio::time::interval(self.timing.tick());
        let spread = tokio::time::sleep(self.timing.leave);
        tokio::pin!(spread);
        loop {
            tokio::select! {
                biased;
                () = &mut spread => return,
                Some(request) = self.requests.recv() => self.handle(request).await,
                _ = ticks.tick() => self.look().await,
            }
        }
    }

    /// A new engine on the same port, as a new generation: the old one's versions are gone.
    async fn restart(&mut self, why: String) -> Result<(), Error> {
        tracing::error!(why, "gossip engine ended; starting it again");
        self.metrics.restarts.inc();
        self.identity.generation = (self.identity.generation + 1).max(self.clock.timestamp().0);
        let mut backoff = Backoff::random(Duration::from_millis(10), Duration::from_secs(1));
        let mut last = why;
        for _ in 0..ENGINE_STARTS {
            match self.start_engine().await {
                Ok(engine) => {
                    self.engine = engine;
                    let Identity { node, generation, advertise: addr, .. } = self.identity.clone();
                    self.members.renew_own(Own { node, generation, addr });
                    return Ok(());
                }
                Err(error) => last = format!("{error:#}"),
            }
            tokio::time::sleep(backoff.next()).await;
        }
        Err(Error::Engine(last))
    }

    async fn start_engine(&self) -> anyhow::Result<Membership> {
        let bound = Bound::bind(self.listen, self.traffic.clone()).await?;
        let mut identity = self.identity.clone();
        // Those it knew are better seeds than those of the configuration, which may be gone.
        identity.seeds.extend(self.members.peers().map(|addr| addr.to_string()));
        let facts = self.own_facts.iter().cloned().chain(self.leases.facts()).collect();
        Membership::start(bound, identity, &self.timing, facts).await
    }
}

impl Gate {
    fn judge(&mut self, view: &View, rival: Option<u64>) {
        if let Some(rival) = rival {
            return self
                .condition
                .unmet(format!("another process runs as {:?} with the newer generation {rival}", view.own));
        }
        let alive = view.members.iter().filter(|member| member.state.is_reachable()).count();
        self.seen |= alive >= self.expect;
        if self.seen {
            self.condition.met();
        } else {
            self.condition.unmet(format!("{alive} of {} nodes seen", self.expect));
        }
    }
}
