//! `subscriptions/listen`: a modern client's stream of changes (MCP.md 1.2, 22).

use super::{
    answer::{self, Reply},
    body::{Outlet, events},
    edge::Edge,
    lists,
};
use crate::{
    backend::{CallMeta, Core, Era, Exchange, FromBackend},
    core::{
        catalog::Catalog,
        codes::{self, Problem, own},
        event::message,
        jsonrpc::{Envelope, Field, scan, scan_backend},
    },
    session::{Scope, tell},
};
use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::broadcast;

/// Most listen streams of one edge.
const STREAMS_MAX: usize = 10_000;
/// Most resources of one listen stream.
const RESOURCES_MAX: usize = 256;
/// Updates that wait for a listener; a slower one is told of every resource it watches.
const UPDATES_MAX: usize = 1024;
/// A stream to a backend ends at the latest after this time and is opened again.
const UPSTREAM_LIFE: Duration = Duration::from_secs(3600);

/// What a client asks for, and what it is promised.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    #[serde(skip_serializing_if = "is_false")]
    tools_list_changed: bool,
    #[serde(skip_serializing_if = "is_false")]
    prompts_list_changed: bool,
    #[serde(skip_serializing_if = "is_false")]
    resources_list_changed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource_subscriptions: Vec<String>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Filter {
    fn wants(&self, kind: &str) -> bool {
        match kind {
            "tools" => self.tools_list_changed,
            "prompts" => self.prompts_list_changed,
            _ => self.resources_list_changed,
        }
    }
}

/// Who listens to what.
pub(crate) struct Listeners {
    open: AtomicUsize,
    updates: broadcast::Sender<(String, String)>,
    /// Listeners per backend and resource; a legacy backend is subscribed once.
    watched: Mutex<HashMap<(String, String), usize>>,
}

impl Default for Listeners {
    fn default() -> Self {
        let (updates, _) = broadcast::channel(UPDATES_MAX);
        Listeners { open: AtomicUsize::new(0), updates, watched: Mutex::default() }
    }
}

impl Listeners {
    /// A resource of a backend changed.
    pub(crate) fn updated(&self, backend: &str, uri: &str) {
        // Nobody listens: nothing to do.
        let _ = self.updates.send((backend.to_owned(), uri.to_owned()));
    }

    /// The resources of a backend that somebody watches.
    pub(crate) fn watched(&self, backend: &str) -> Vec<String> {
        let watched = self.watched.lock();
        watched.keys().filter(|(name, _)| name == backend).map(|(_, uri)| uri.clone()).collect()
    }
}

/// Opens a listen stream.
pub(crate) async fn listen(edge: &Arc<Edge>, scope: &Scope, body: &Bytes, envelope: &Envelope) -> Reply {
    let id = body.slice_ref(envelope.id(body).unwrap_or_default());
    let refuse = |status, problem: Problem| answer::problem(status, Some(&id), &problem);
    let filter =
        envelope.raw(body, Field::Notifications).and_then(|raw| serde_json::from_slice::<Filter>(raw).ok());
    let Some(filter) = filter.filter(|filter| filter.resource_subscriptions.len() <= RESOURCES_MAX) else {
        let why = format!(
            "params.notifications is missing, malformed or names more than {RESOURCES_MAX} resources"
        );
        return refuse(StatusCode::BAD_REQUEST, Problem::new(codes::INVALID_PARAMS, why));
    };
    if edge.listeners.open.load(Ordering::Relaxed) >= STREAMS_MAX {
        return refuse(
            StatusCode::TOO_MANY_REQUESTS,
            Problem::new(own::OVERLOADED, "too many listen streams are open"),
        );
    }
    let catalog = lists::settled(edge).await;
    let mut updates = Updates::new(edge);
    let (filter, sources) = updates.subscribe(&catalog, scope, filter).await;
    let meta = json!({ "io.modelcontextprotocol/subscriptionId": serde_json::from_slice::<serde_json::Value>(&id).unwrap_or_default() });
    let ack = json!({
        "jsonrpc": "2.0",
        "method": "notifications/subscriptions/acknowledged",
        "params": { "notifications": filter, "_meta": meta },
    });
    let (outlet, reply) = events(message(None, ack.to_string().as_bytes()));
    let listener = Listener { edge: edge.clone(), scope: scope.clone(), filter, meta, id, outlet, catalog };
    tokio::spawn(listener.run(updates, sources));
    answer::stream(reply)
}

struct Listener {
    edge: Arc<Edge>,
    scope: Scope,
    filter: Filter,
    meta: serde_json::Value,
    id: Bytes,
    outlet: Outlet,
    catalog: Arc<Catalog>,
}

impl Listener {
    async fn run(mut self, mut updates: Updates, sources: Vec<Exchange>) {
        self.edge.listeners.open.fetch_add(1, Ordering::Relaxed);
        self.follow(&mut updates, sources).await;
        self.edge.listeners.open.fetch_sub(1, Ordering::Relaxed);
        updates.unsubscribe().await;
    }

    async fn follow(&mut self, updates: &mut Updates, mut sources: Vec<Exchange>) {
        let mut catalogs = self.edge.backends.watch();
        loop {
            let open = tokio::select! {
                () = self.outlet.closed() => return,
                () = self.edge.shutdown.wait() => return self.end(),
                changed = catalogs.changed() => changed.is_ok() && self.lists(),
                update = updates.queue.recv() => self.update(update),
                uri = from_sources(&mut sources) => self.resource(&uri),
            };
            if !open {
                return;
            }
        }
    }

    fn lists(&mut self) -> bool {
        let now = self.edge.backends.catalog();
        let kinds = lists::changed(&self.catalog, &now, lists::of_scope(&self.scope));
        self.catalog = now;
        let mut wanted = kinds.into_iter().filter(|kind| self.filter.wants(kind));
        wanted.all(|kind| self.send(&format!("notifications/{kind}/list_changed"), json!({})))
    }

    fn update(&self, update: Result<(String, String), broadcast::error::RecvError>) -> bool {
        match update {
            Ok((_, uri)) if self.filter.resource_subscriptions.contains(&uri) => self.resource(&uri),
            Ok(_) => true,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                self.filter.resource_subscriptions.iter().all(|uri| self.resource(uri))
            }
            Err(broadcast::error::RecvError::Closed) => false,
        }
    }

    fn resource(&self, uri: &str) -> bool {
        self.send("notifications/resources/updated", json!({ "uri": uri }))
    }

    fn send(&self, method: &str, mut params: serde_json::Value) -> bool {
        if let Some(params) = params.as_object_mut() {
            params.insert("_meta".into(), self.meta.clone());
        }
        let body = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        self.outlet.send(message(None, body.to_string().as_bytes()))
    }

    /// Tells the client that the end is meant.
    fn end(&self) {
        let body = json!({ "resultType": "complete", "_meta": self.meta });
        self.outlet.send(message(None, &codes::result(&self.id, body.to_string().as_bytes())));
    }
}

/// The next resource that a modern backend reports; waits for ever when there is none.
async fn from_sources(sources: &mut Vec<Exchange>) -> String {
    loop {
        if sources.is_empty() {
            return std::future::pending().await;
        }
        let (next, at, _) =
            futures::future::select_all(sources.iter_mut().map(|source| Box::pin(source.next()))).await;
        match next {
            Some(Ok(FromBackend::Notification { raw })) => {
                let uri = scan_backend(&raw).ok().and_then(|envelope| {
                    let ours = envelope.method(&raw) == "notifications/resources/updated";
                    envelope.text(&raw, Field::Uri).filter(|_| ours).map(std::borrow::Cow::into_owned)
                });
                if let Some(uri) = uri {
                    return uri;
                }
            }
            _ => drop(sources.swap_remove(at)),
        }
    }
}

/// A listener's resource subscriptions at backends.
struct Updates {
    edge: Arc<Edge>,
    queue: broadcast::Receiver<(String, String)>,
    watched: Vec<(String, String)>,
}

impl Updates {
    fn new(edge: &Arc<Edge>) -> Self {
        Updates { edge: edge.clone(), queue: edge.listeners.updates.subscribe(), watched: Vec::new() }
    }

    /// Subscribes where a backend has the resource; what it cannot promise leaves the filter.
    async fn subscribe(
        &mut self,
        catalog: &Catalog,
        scope: &Scope,
        mut filter: Filter,
    ) -> (Filter, Vec<Exchange>) {
        let mut by_backend: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for uri in filter.resource_subscriptions.drain(..) {
            if let Some(backend) = catalog.resource(lists::of_scope(scope), &uri) {
                by_backend.entry(backend.to_string()).or_default().push(uri);
            }
        }
        let mut sources = Vec::new();
        for (backend, uris) in by_backend {
            match self.subscribe_at(&backend, &uris).await {
                Some(source) => sources.extend(source),
                None => continue,
            }
            filter.resource_subscriptions.extend(uris);
        }
        (filter, sources)
    }

    async fn subscribe_at(&mut self, name: &str, uris: &[String]) -> Option<Option<Exchange>> {
        let backend = self.edge.backends.get(name)?;
        let upstream = self.edge.shared.get(&self.edge, &backend).await.ok()?;
        let now = self.edge.clock.now();
        let core = Core(self.edge.relay_core());
        if backend.era() == Era::Modern {
            let request = json!({
                "jsonrpc": "2.0", "id": "listen", "method": "subscriptions/listen",
                "params": { "notifications": { "resourceSubscriptions": uris } },
            });
            let raw = Bytes::from(request.to_string());
            let envelope = scan(&raw).ok()?;
            let meta = CallMeta { deadline: now + UPSTREAM_LIFE, headers: Vec::new() };
            return Some(Some(upstream.request(core, raw, &envelope, Default::default(), meta).await.ok()?));
        }
        for uri in uris {
            let key = (name.to_owned(), uri.clone());
            let first = {
                let mut watched = self.edge.listeners.watched.lock();
                let count = watched.entry(key.clone()).or_default();
                *count += 1;
                *count == 1
            };
            self.watched.push(key);
            if first {
                tell(&upstream, core, "resources/subscribe", &json!({ "uri": uri }), now).await;
            }
        }
        Some(None)
    }

    async fn unsubscribe(mut self) {
        for key in std::mem::take(&mut self.watched) {
            if self.was_last(&key)
                && let Some(upstream) = self.edge.shared.ready(&key.0)
            {
                let core = Core(self.edge.relay_core());
                tell(
                    &upstream,
                    core,
                    "resources/unsubscribe",
                    &json!({ "uri": key.1 }),
                    self.edge.clock.now(),
                )
                .await;
            }
        }
    }

    fn was_last(&self, key: &(String, String)) -> bool {
        let mut watched = self.edge.listeners.watched.lock();
        let Some(count) = watched.get_mut(key) else { return false };
        *count = count.saturating_sub(1);
        let last = *count == 0;
        if last {
            watched.remove(key);
        }
        last
    }
}
