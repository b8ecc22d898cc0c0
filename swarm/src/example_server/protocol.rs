//! One message in, its answer out.

use super::{
    content,
    peer::{Outlet, Peer},
    session::Session,
    tools,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};
use tokio::sync::broadcast;

pub(super) const MODERN: &str = "2026-07-28";
pub(super) const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// A JSON-RPC error.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) code: i64,
    pub(super) message: String,
    pub(super) data: Value,
}

impl Refusal {
    pub(super) fn invalid(message: &str) -> Self {
        Refusal { code: -32602, message: message.into(), data: Value::Null }
    }

    pub(super) fn internal(message: &str) -> Self {
        Refusal { code: -32603, message: message.into(), data: Value::Null }
    }

    pub(super) fn body(&self, id: &Value) -> Value {
        let mut error = json!({"code": self.code, "message": self.message});
        if !self.data.is_null() {
            error["data"] = self.data.clone();
        }
        json!({"jsonrpc": "2.0", "id": id, "error": error})
    }
}

/// The server: what all clients share.
pub(super) struct Server {
    pub(super) notes: Mutex<BTreeMap<String, String>>,
    /// URIs of resources that changed; an empty one means that the list did.
    changes: broadcast::Sender<String>,
    sessions: Mutex<Vec<Weak<Session>>>,
}

/// An answer, and what is said on the standing stream after it.
pub(super) struct Reply {
    pub(super) body: Value,
    pub(super) after: Vec<(String, Value)>,
}

impl Server {
    pub(super) fn new() -> Arc<Self> {
        let notes = BTreeMap::from([("welcome".to_owned(), "This server is an example.".to_owned())]);
        Arc::new(Server {
            notes: Mutex::new(notes),
            changes: broadcast::Sender::new(256),
            sessions: Mutex::default(),
        })
    }

    pub(super) fn session(&self) -> Arc<Session> {
        let session = Arc::new(Session::default());
        let mut sessions = self.sessions.lock();
        sessions.retain(|session| session.strong_count() > 0);
        sessions.push(Arc::downgrade(&session));
        session
    }

    /// A resource changed: tells who subscribed.
    pub(super) fn changed(&self, uri: &str, is_new: bool) {
        let _ = self.changes.send(uri.to_owned());
        if is_new {
            let _ = self.changes.send(String::new());
        }
        for session in self.sessions.lock().iter().filter_map(Weak::upgrade) {
            if session.subscriptions.lock().contains(uri) {
                session.say("notifications/resources/updated", json!({"uri": uri}));
            }
            if is_new {
                session.say("notifications/resources/list_changed", json!({}));
            }
        }
    }

    /// Answers a request. What belongs to it goes to `outlet` before.
    pub(super) async fn request(&self, session: &Arc<Session>, message: &Value, outlet: Outlet) -> Reply {
        let id = &message["id"];
        let params = &message["params"];
        let meta = &params["_meta"];
        let modern = is_modern(message);
        let peer = Peer {
            modern,
            session: session.clone(),
            cancelled: session.begin(id),
            outlet,
            progress_token: meta.get("progressToken").cloned(),
            capabilities: match modern {
                true => meta[META_CAPABILITIES].clone(),
                false => session.capabilities.lock().clone(),
            },
            responses: params["inputResponses"].clone(),
            state: params["requestState"].clone(),
            logs: !modern || meta.get(META_LOG_LEVEL).is_some(),
        };
        let mut after = Vec::new();
        let method = message["method"].as_str().unwrap_or_default();
        let answer = self.answer(&peer, id, method, params, &mut after).await;
        session.end(id);
        let body = match answer {
            Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": complete(result, method, modern)}),
            Err(refusal) => refusal.body(id),
        };
        Reply { body, after }
    }

    async fn answer(
        &self,
        peer: &Peer,
        id: &Value,
        method: &str,
        params: &Value,
        after: &mut Vec<(String, Value)>,
    ) -> Result<Value, Refusal> {
        check_version(peer, params)?;
        match method {
            "initialize" if !peer.modern => Ok(initialize(&peer.session, params)),
            "server/discover" if peer.modern => Ok(discover()),
            "subscriptions/listen" if peer.modern => self.listen(peer, id, params).await,
            "ping" if !peer.modern => Ok(json!({})),
            "logging/setLevel" if !peer.modern => {
                *peer.session.level.lock() = params["level"].as_str().map(str::to_owned);
                Ok(json!({}))
            }
            "resources/subscribe" if !peer.modern => self.subscribe(peer, params, true),
            "resources/unsubscribe" if !peer.modern => self.subscribe(peer, params, false),
            "tools/list" => Ok(json!({"tools": tools::list()})),
            "tools/call" => tools::call(self, peer, params, after).await,
            "prompts/list" => Ok(json!({"prompts": content::prompts()})),
            "prompts/get" => content::prompt(params),
            "completion/complete" => Ok(content::complete(params)),
            "resources/list" => Ok(json!({"resources": content::resources(&self.notes.lock())})),
            "resources/templates/list" => Ok(json!({"resourceTemplates": content::templates()})),
            "resources/read" => content::read(&self.notes.lock(), params, peer.modern),
            _ => Err(Refusal {
                code: -32601,
                message: format!("unknown method `{method}`"),
                data: Value::Null,
            }),
        }
    }

    fn subscribe(&self, peer: &Peer, params: &Value, on: bool) -> Result<Value, Refusal> {
        let uri = params["uri"].as_str().ok_or_else(|| Refusal::invalid("`uri` is missing"))?.to_owned();
        let mut subscriptions = peer.session.subscriptions.lock();
        match on {
            true => subscriptions.insert(uri),
            false => subscriptions.remove(&uri),
        };
        Ok(json!({}))
    }

    /// The modern way to hear of changes: a request whose answer ends it.
    async fn listen(&self, peer: &Peer, id: &Value, params: &Value) -> Result<Value, Refusal> {
        let mut changes = self.changes.subscribe();
        let filter = &params["notifications"];
        let mut honoured = json!({});
        for key in ["resourcesListChanged", "resourceSubscriptions"] {
            if let Some(wanted) = filter.get(key) {
                honoured[key] = wanted.clone();
            }
        }
        let meta = json!({META_SUBSCRIPTION: id});
        peer.notify(
            "notifications/subscriptions/acknowledged",
            json!({"notifications": honoured, "_meta": meta}),
        )
        .await;
        let wants = |uri: &str| match uri.is_empty() {
            true => filter["resourcesListChanged"] == true,
            false => filter["resourceSubscriptions"]
                .as_array()
                .is_some_and(|uris| uris.iter().any(|wanted| wanted == uri)),
        };
        loop {
            let uri = tokio::select! {
                uri = changes.recv() => uri,
                () = peer.cancelled.cancelled() => return Ok(json!({"_meta": meta})),
                () = peer.outlet.closed() => return Ok(json!({"_meta": meta})),
            };
            match uri {
                Ok(uri) if wants(&uri) && uri.is_empty() => {
                    peer.notify("notifications/resources/list_changed", json!({"_meta": meta})).await;
                }
                Ok(uri) if wants(&uri) => {
                    peer.notify("notifications/resources/updated", json!({"uri": uri, "_meta": meta})).await;
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok(json!({"_meta": meta})),
            }
        }
    }

    /// Takes a notification or a response.
    pub(super) fn take(&self, session: &Session, message: Value) {
        match message["method"].as_str() {
            Some("notifications/cancelled") => session.cancel(&message["params"]["requestId"]),
            Some(_) => {}
            None => {
                session.answered(message);
            }
        }
    }
}

/// True when the request says itself that it is modern.
pub(super) fn is_modern(message: &Value) -> bool {
    message["params"]["_meta"].get(META_VERSION).is_some()
}

fn check_version(peer: &Peer, params: &Value) -> Result<(), Refusal> {
    let requested = &params["_meta"][META_VERSION];
    if !peer.modern || requested == MODERN {
        return Ok(());
    }
    let data = json!({"supported": [MODERN], "requested": requested});
    Err(Refusal { code: -32022, message: "unsupported protocol version".into(), data })
}

fn server_info() -> Value {
    json!({"name": "swarm-example", "version": env!("CARGO_PKG_VERSION")})
}

fn capabilities(modern: bool) -> Value {
    let mut all = json!({
        "tools": {"listChanged": true},
        "prompts": {},
        "resources": {"subscribe": true, "listChanged": true},
        "completions": {},
    });
    if !modern {
        all["logging"] = json!({});
    }
    all
}

fn initialize(session: &Session, params: &Value) -> Value {
    *session.capabilities.lock() = params["capabilities"].clone();
    let requested = params["protocolVersion"].as_str().unwrap_or_default();
    let version = LEGACY.iter().find(|version| **version == requested).unwrap_or(&LEGACY[0]);
    json!({
        "protocolVersion": version,
        "capabilities": capabilities(false),
        "serverInfo": server_info(),
        "instructions": "An example server: every tool does what its name says.",
    })
}

fn discover() -> Value {
    let versions: Vec<&str> = std::iter::once(MODERN).chain(LEGACY).collect();
    json!({
        "supportedVersions": versions,
        "capabilities": capabilities(true),
        "instructions": "An example server: every tool does what its name says.",
    })
}

/// What every modern result carries.
fn complete(mut result: Value, method: &str, modern: bool) -> Value {
    let Some(members) = result.as_object_mut().filter(|_| modern) else {
        return result;
    };
    let kind = members.entry("resultType").or_insert_with(|| json!("complete"));
    let cacheable = method.ends_with("/list") || matches!(method, "resources/read" | "server/discover");
    if cacheable && kind == "complete" {
        members.insert("ttlMs".into(), json!(0));
        members.insert("cacheScope".into(), json!("public"));
    }
    let meta = members.entry("_meta").or_insert_with(|| json!({}));
    meta["io.modelcontextprotocol/serverInfo"] = server_info();
    result
}
