//! A session whose anchor is another edge: its requests are relayed there; when the anchor is
//! gone the session is taken over (DESIGN K29, K30).

mod client;
mod headers;

pub(crate) use headers::{from_wire, to_wire};

use crate::{
    core::jsonrpc::{Field, Kind, scan},
    front::{self, Edge, Inbound, Reply, node_lost, resend, session_gone, unavailable},
    session::{AdoptError, Live, StoreError, adopt},
};
use client::Relayed;
use http::{Method, StatusCode};
use kit::{Instance, State};
use parking_lot::Mutex;
use prost::Message as _;
use proto::edge::SessionRecord;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// The edge's name in the directory.
pub(crate) const SERVICE: &str = "edge";
/// Times that the anchor may turn out to be another one.
const HOPS: usize = 6;

/// How long an anchor is remembered. A wrong memory costs a hop: that edge says so.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Most anchors remembered.
const REMEMBERED_MAX: usize = 20_000;

/// Anchors of sessions seen lately, so that a relay needs no read of the store.
#[derive(Default)]
pub(crate) struct Anchors(Mutex<HashMap<String, (String, u64, Instant)>>);

impl Anchors {
    fn get(&self, id: &str, now: Instant) -> Option<(String, u64)> {
        let anchors = self.0.lock();
        let (name, epoch, until) = anchors.get(id)?;
        (now < *until).then(|| (name.clone(), *epoch))
    }

    fn put(&self, id: &str, name: &str, epoch: u64, now: Instant) {
        let mut anchors = self.0.lock();
        if anchors.len() >= REMEMBERED_MAX {
            anchors.clear();
        }
        anchors.insert(id.to_owned(), (name.to_owned(), epoch, now + REMEMBERED));
    }

    fn forget(&self, id: &str) {
        self.0.lock().remove(id);
    }
}

/// Adoptions under way, so that requests of one session wait for one.
#[derive(Default)]
pub(crate) struct Adoptions(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

/// Where a session is.
enum Place {
    Anchor { anchor: Instance, epoch: u64 },
    Lost { epoch: u64 },
}

/// Serves a request of a session that is not live here.
pub(crate) async fn serve(edge: &Arc<Edge>, core: usize, id: &str, inbound: &Inbound) -> Reply {
    let mut maybe_ran = false;
    for _ in 0..HOPS {
        let place = match locate(edge, id, inbound).await {
            Ok(Some(place)) => place,
            Ok(None) => return session_gone(None),
            Err(error) => return cannot(edge, id, inbound, &error).await,
        };
        let epoch = match place {
            Place::Lost { epoch } => epoch,
            Place::Anchor { anchor, epoch } => match client::relay(edge, &anchor, id, epoch, inbound).await {
                Relayed::Reply(reply) => {
                    edge.metrics.relayed.inc();
                    edge.anchors.put(id, &anchor.name, epoch, edge.clock.now());
                    return reply;
                }
                Relayed::NotThere => {
                    edge.anchors.forget(id);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                Relayed::Broke { sent } => {
                    edge.anchors.forget(id);
                    edge.metrics.relay_failed.inc();
                    tracing::info!(
                        anchor = anchor.name,
                        sent,
                        session = crate::session::hash(id),
                        "the anchor edge does not answer"
                    );
                    maybe_ran |= sent;
                    epoch
                }
            },
        };
        match take_over(edge, id, &inbound.principal.0, epoch).await {
            Ok(live) => return after_adoption(edge, core, &live, inbound, maybe_ran).await,
            Err(AdoptError::Elsewhere { .. }) => {}
            Err(AdoptError::Store(StoreError::NotFound)) => return session_gone(None),
            Err(AdoptError::Store(error)) => return unavailable(None, &error.to_string()),
        }
    }
    unavailable(None, "the session's edge changes too often")
}

async fn locate(edge: &Edge, id: &str, inbound: &Inbound) -> Result<Option<Place>, StoreError> {
    if let Some((name, epoch)) = edge.anchors.get(id, edge.clock.now())
        && let Some(anchor) = up(edge, &name)
    {
        return Ok(Some(Place::Anchor { anchor, epoch }));
    }
    let stored = match edge.store.get(id, &inbound.principal.0, None).await {
        Err(StoreError::NotFound) => return Ok(None),
        other => other?,
    };
    let Ok(record) = SessionRecord::decode(stored.value) else { return Ok(None) };
    if record.scope != inbound.scope.as_str() {
        return Ok(None);
    }
    let epoch = record.epoch;
    Ok(Some(match up(edge, &record.anchor) {
        Some(anchor) => Place::Anchor { anchor, epoch },
        None => Place::Lost { epoch },
    }))
}

/// Another edge that is not known to be down.
fn up(edge: &Edge, name: &str) -> Option<Instance> {
    let found = edge.directory.get(SERVICE, name).filter(|_| name != edge.name);
    found.filter(|anchor| anchor.state != State::Down)
}

/// A DELETE needs no anchor: the store ends the session for every edge.
async fn cannot(edge: &Edge, id: &str, inbound: &Inbound, error: &StoreError) -> Reply {
    if inbound.method == Method::DELETE && edge.store.delete(id, &inbound.principal.0).await.is_ok() {
        return front::empty(StatusCode::NO_CONTENT);
    }
    unavailable(None, &error.to_string())
}

/// Makes this edge the anchor, unless it is already; requests of one session wait for one.
pub(crate) async fn take_over(
    edge: &Arc<Edge>,
    id: &str,
    principal: &str,
    seen: u64,
) -> Result<Arc<Live>, AdoptError> {
    let turn = edge.adoptions.0.lock().entry(id.to_owned()).or_default().clone();
    let _turn = turn.lock().await;
    let taken = match edge.sessions.get(id).filter(|live| live.epoch > seen && live.principal == principal) {
        Some(live) => Ok(live),
        None => begin(edge, id, principal, seen).await,
    };
    let mut adoptions = edge.adoptions.0.lock();
    // The map, `turn` here and nobody else.
    if adoptions.get(id).is_some_and(|turn| Arc::strong_count(turn) <= 2) {
        adoptions.remove(id);
    }
    taken
}

async fn begin(edge: &Arc<Edge>, id: &str, principal: &str, seen: u64) -> Result<Arc<Live>, AdoptError> {
    let adopted = adopt(&edge.store, &edge.name, id, principal, seen, edge.clock.now()).await?;
    let live = adopted.live;
    live.mark_used(edge.now_ms());
    edge.sessions.insert(live.clone());
    edge.metrics.adopted.inc();
    tracing::info!(session = live.hash, epoch = live.epoch, open = adopted.open.len(), "session taken over");
    for (stream, request) in adopted.open {
        tokio::spawn(resend(edge.clone(), live.clone(), stream, request));
    }
    Ok(live)
}

/// Serves the request here. One that may have run at the lost anchor runs again only if that
/// does no harm.
async fn after_adoption(
    edge: &Arc<Edge>,
    core: usize,
    live: &Arc<Live>,
    inbound: &Inbound,
    maybe_ran: bool,
) -> Reply {
    if maybe_ran && let Some(reply) = lost(edge, inbound).await {
        edge.metrics.lost.inc();
        return reply;
    }
    front::serve_session(edge, core, live, &mut inbound.clone()).await
}

/// The answer to a request that may have run, unless it may run again. An edge that has just
/// started waits for its catalogue: without it no tool is known to be repeatable.
async fn lost(edge: &Edge, inbound: &Inbound) -> Option<Reply> {
    let envelope = scan(&inbound.body).ok().filter(|envelope| envelope.kind == Kind::Request)?;
    let method = envelope.method(&inbound.body);
    let name = envelope.text(&inbound.body, Field::Name).unwrap_or_default();
    let scope = Some(inbound.scope.as_str()).filter(|scope| !scope.is_empty());
    let hints = front::settled(edge).await.tool(scope, &name).map(|target| target.hints).unwrap_or_default();
    if front::repeatable(&method, &hints)
        || matches!(&*method, "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe")
    {
        return None;
    }
    let body = node_lost(if name.is_empty() { &method } else { &name }).body(envelope.id(&inbound.body));
    Some(front::json(StatusCode::OK, body))
}
