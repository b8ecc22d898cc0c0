//! The seam to the gossip engine. chitchat is known to this file and to no other.
//!
//! The engine spreads facts and heartbeats; what they mean is decided in `core/`. chitchat's own
//! verdicts (whom it gossips with, when it forgets) run on the same numbers but are not read.

use crate::{
    config::Timing,
    core::{Facts, Sighting},
    metrics::Traffic,
};
use anyhow::Context as _;
use async_trait::async_trait;
use chitchat::{
    Chitchat, ChitchatConfig, ChitchatEnvelope, ChitchatHandle, ChitchatId, ChitchatMessage,
    FailureDetectorConfig, ProtocolVersion, spawn_chitchat,
    transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpTransport},
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

/// Receive errors in a row after which the socket is given up and the engine starts afresh.
const RECV_ERRORS_MAX: u32 = 100;
/// Wait after a receive error, so that a broken socket does not spin.
const RECV_ERROR_PAUSE: Duration = Duration::from_millis(10);
/// How long the removal of a key is remembered: longer than any partition we heal without a reset.
const TOMBSTONE_GRACE: Duration = Duration::from_secs(15 * 60);

/// A bound UDP socket that the engine takes over.
pub(crate) struct Bound {
    socket: Box<dyn Socket>,
    pub(crate) addr: SocketAddr,
}

impl Bound {
    /// Binds `listen`; port 0 takes a free one.
    pub(crate) async fn bind(listen: SocketAddr, traffic: Traffic) -> anyhow::Result<Self> {
        let inner = UdpTransport.open(listen).await?;
        let addr = inner.local_addr()?;
        Ok(Self { socket: Box::new(Counted { inner, traffic, errors: 0 }), addr })
    }
}

/// Who this node is to the engine.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) node: String,
    pub(crate) generation: u64,
    pub(crate) advertise: SocketAddr,
    pub(crate) cluster: String,
    /// host:port of nodes to talk to first.
    pub(crate) seeds: Vec<String>,
}

/// A running engine; it stops when dropped.
pub(crate) struct Membership {
    handle: ChitchatHandle,
    // Facts by node and generation, with the version they were copied at: most ticks copy none.
    copies: BTreeMap<(String, u64), (u64, Arc<Facts>)>,
}

impl Membership {
    /// Starts gossiping with `facts` as this node's own.
    pub(crate) async fn start(
        bound: Bound,
        identity: Identity,
        timing: &Timing,
        facts: Vec<(String, String)>,
    ) -> anyhow::Result<Self> {
        let config = engine_config(&bound, identity, timing);
        let transport = Once(Mutex::new(Some(bound.socket)));
        let handle = spawn_chitchat(config, facts, &transport).await?;
        Ok(Self { handle, copies: BTreeMap::new() })
    }

    /// Every node the engine knows, this one included.
    pub(crate) async fn sightings(&mut self) -> Vec<Sighting> {
        let chitchat = self.handle.chitchat();
        let chitchat = chitchat.lock().await;
        let copies = std::mem::take(&mut self.copies);
        let sightings: Vec<_> =
            chitchat.node_states().iter().map(|(id, state)| sighting(&copies, id, state)).collect();
        self.copies = sightings
            .iter()
            .map(|(version, s)| ((s.node.clone(), s.generation), (*version, s.facts.clone())))
            .collect();
        sightings.into_iter().map(|(_, sighting)| sighting).collect()
    }

    /// Writes one of this node's facts.
    pub(crate) async fn set(&self, key: String, value: String) {
        self.with(|chitchat| chitchat.self_node_state().set(&key, &value)).await;
    }

    /// Removes one of this node's facts.
    pub(crate) async fn remove(&self, key: &str) {
        self.with(|chitchat| {
            let own = chitchat.self_node_state();
            if own.contains_key(key) {
                own.delete(key);
            }
        })
        .await;
    }

    /// Resolves when the engine's loop ended, with the reason.
    pub(crate) fn ended(&self) -> impl Future<Output = String> + use<> {
        let termination = self.handle.termination_watcher();
        async move {
            match termination.await {
                Ok(()) => "it stopped".into(),
                Err(error) => format!("{error:#}"),
            }
        }
    }

    /// Stops the loop and frees the port.
    pub(crate) async fn stop(self) {
        if let Err(error) = self.handle.shutdown().await {
            tracing::debug!(%error, "gossip engine had already ended");
        }
    }

    async fn with<T>(&self, f: impl FnMut(&mut Chitchat) -> T) -> T {
        self.handle.with_chitchat(f).await
    }

    #[cfg(test)]
    pub(crate) fn kill(&self) {
        self.handle.abort();
    }
}

fn sighting(
    copies: &BTreeMap<(String, u64), (u64, Arc<Facts>)>,
    id: &ChitchatId,
    state: &chitchat::NodeState,
) -> (u64, Sighting) {
    let node = id.node_id.to_string();
    let version = state.max_version();
    let copy = copies.get(&(node.clone(), id.generation_id)).filter(|(at, _)| *at == version);
    let facts = copy.map_or_else(|| Arc::new(facts_of(state)), |(_, facts)| facts.clone());
    let heartbeat = u64::from(state.heartbeat());
    (
        version,
        Sighting { node, generation: id.generation_id, addr: id.gossip_advertise_addr, heartbeat, facts },
    )
}

fn facts_of(state: &chitchat::NodeState) -> Facts {
    state.key_values().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn engine_config(bound: &Bound, identity: Identity, timing: &Timing) -> ChitchatConfig {
    ChitchatConfig {
        chitchat_id: ChitchatId::new(identity.node, identity.generation, identity.advertise),
        cluster_id: identity.cluster,
        gossip_interval: timing.interval,
        listen_addr: bound.addr,
        seed_nodes: identity.seeds,
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: timing.phi,
            sampling_window_size: 100,
            max_interval: timing.interval * 10,
            initial_interval: timing.interval,
            dead_node_grace_period: timing.forget_dead,
        },
        marked_for_deletion_grace_period: TOMBSTONE_GRACE,
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: ProtocolVersion::V1,
    }
}

/// Hands out the socket that was bound before, so that its port is known to the node's identity.
struct Once(Mutex<Option<Box<dyn Socket>>>);

#[async_trait]
impl Transport for Once {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        self.0.lock().take().context("the gossip socket is opened once")
    }
}

/// Counts what passes, and keeps the loop alive over receive errors (F19).
struct Counted {
    inner: Box<dyn Socket>,
    traffic: Traffic,
    errors: u32,
}

#[async_trait]
impl Socket for Counted {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.inner.local_addr()
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        let kind = kind(&envelope.message);
        let sent = self.inner.send(to, envelope).await;
        match &sent {
            Ok(outcome) => self.traffic.sent(kind, outcome.num_bytes_sent),
            Err(_) => self.traffic.failed("send"),
        }
        sent
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            match self.inner.recv().await {
                Ok(outcome) => {
                    self.errors = 0;
                    self.traffic.received(kind(&outcome.envelope.message), outcome.num_bytes_received);
                    return Ok(outcome);
                }
                Err(error) => {
                    self.traffic.failed("receive");
                    self.errors += 1;
                    if self.errors >= RECV_ERRORS_MAX {
                        return Err(error);
                    }
                    tracing::warn!(%error, errors = self.errors, "gossip receive failed");
                    tokio::time::sleep(RECV_ERROR_PAUSE).await;
                }
            }
        }
    }
}

fn kind(message: &ChitchatMessage) -> &'static str {
    match message {
        ChitchatMessage::Syn { .. } => "syn",
        ChitchatMessage::SynAck { .. } => "syn_ack",
        ChitchatMessage::Ack { .. } => "ack",
        ChitchatMessage::BadCluster => "bad_cluster",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Flaky(u32);

    #[async_trait]
    impl Socket for Flaky {
        fn local_addr(&self) -> anyhow::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 1).into())
        }
        async fn send(
            &mut self,
            _to: SocketAddr,
            _envelope: ChitchatEnvelope,
        ) -> anyhow::Result<SendOutcome> {
            anyhow::bail!("no buffer space")
        }
        async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
            self.0 = self.0.checked_sub(1).context("broken for good")?;
            let message = ChitchatMessage::BadCluster;
            let envelope = ChitchatEnvelope { version: ProtocolVersion::V1, message };
            let from_addr = self.local_addr()?;
            if self.0.is_multiple_of(2) {
                anyhow::bail!("interrupted")
            }
            Ok(RecvOutcome { from_addr, envelope, num_bytes_received: 4 })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn receive_errors_do_not_end_the_loop_until_the_socket_is_broken_for_good() {
        let traffic = Traffic::new(&kit::metrics::Metrics::new());
        let mut socket = Counted { inner: Box::new(Flaky(20)), traffic, errors: 0 };
        for _ in 0..10 {
            assert!(socket.recv().await.is_ok());
        }
        let error = socket.recv().await.unwrap_err();
        assert_eq!(error.to_string(), "broken for good");
    }
}
