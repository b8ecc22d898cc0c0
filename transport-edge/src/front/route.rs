//! Where a request goes: which backend, under which name.

use super::{
    edge::Edge,
    lists::{self, of_scope},
    problems,
};
use crate::{
    backend::{Backend, Core},
    core::{
        catalog::{Catalog, Hints},
        codes::{self, Problem},
        json::member,
        jsonrpc::{Envelope, Field, Span, text},
        splice::{Edit, Edits},
    },
    session::Scope,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;

/// Longest name that is remembered, as written.
const NAME_MAX: usize = 256;

/// A request's way to a backend.
pub(crate) struct Route {
    to: Arc<Destination>,
    /// What is spliced into the body for it.
    pub(crate) edits: Edits,
}

/// Where requests for one thing go.
pub(crate) struct Destination {
    /// The backend.
    pub(crate) backend: Arc<Backend>,
    /// Sending it twice does no harm.
    pub(crate) repeatable: bool,
    /// What the tool says of itself.
    pub(crate) hints: Hints,
}

impl std::ops::Deref for Route {
    type Target = Destination;

    fn deref(&self) -> &Destination {
        &self.to
    }
}

/// The tool that a session called last and where that was: sessions call few tools, often, and
/// what is looked up is counted in memory that all cores share.
#[derive(Default)]
pub(crate) struct Memo(Mutex<Option<Called>>);

struct Called {
    /// Of the catalogue; a backend that is replaced changes it too.
    revision: u64,
    name: Bytes,
    written: Option<Bytes>,
    to: Arc<Destination>,
}

impl Memo {
    fn route(&self, revision: u64, body: &[u8], envelope: &Envelope) -> Option<Route> {
        let last = self.0.lock();
        let called = last.as_ref().filter(|called| called.revision == revision)?;
        if envelope.raw(body, Field::Name) != Some(&called.name[..]) {
            return None;
        }
        let span = envelope.span(Field::Name);
        let edits = called.written.iter().map(|name| Edit::replace(span, name.clone())).collect();
        Some(Route { to: called.to.clone(), edits })
    }

    fn keep(&self, revision: u64, body: &[u8], envelope: &Envelope, route: &Route) {
        let name = envelope.raw(body, Field::Name).filter(|name| name.len() <= NAME_MAX);
        *self.0.lock() = name.map(|name| Called {
            revision,
            name: Bytes::copy_from_slice(name),
            written: route.edits.first().map(|edit| edit.with.clone()),
            to: route.to.clone(),
        });
    }
}

/// Finds the backend of a request that a backend has to answer. Waits for backends that are
/// starting only when the name is not known yet.
pub(crate) async fn find(
    edge: &Edge,
    core: usize,
    scope: &Scope,
    body: &Bytes,
    envelope: &Envelope,
    method: &str,
    memo: Option<&Memo>,
) -> Result<Route, Problem> {
    let route = find_here(edge, scope, body, envelope, method, memo).await?;
    match edge.backends.stands(Core(core), route.backend.name()).await {
        true => Ok(route),
        false => Err(deregistered(route.backend.name())),
    }
}

/// The registry knows before this edge has let the backend go.
fn deregistered(name: &str) -> Problem {
    Problem::new(codes::INVALID_PARAMS, format!("there is no backend {name} any more"))
}

async fn find_here(
    edge: &Edge,
    scope: &Scope,
    body: &Bytes,
    envelope: &Envelope,
    method: &str,
    memo: Option<&Memo>,
) -> Result<Route, Problem> {
    let memo = memo.filter(|_| method == "tools/call");
    let (problem, revision) = {
        let catalog = edge.backends.peek();
        if let Some(route) = memo.and_then(|memo| memo.route(catalog.revision, body, envelope)) {
            edge.kill.call(method, route.backend.name())?;
            return Ok(route);
        }
        match locate(edge, &catalog, scope, body, envelope, method) {
            Ok(route) => {
                if let Some(memo) = memo {
                    memo.keep(catalog.revision, body, envelope, &route);
                }
                return Ok(route);
            }
            Err(problem) if matches!(problem.code, codes::INVALID_PARAMS | codes::RESOURCE_NOT_FOUND) => {
                (problem, catalog.revision)
            }
            found => return found,
        }
    };
    // Boxed, as it is rare: a call's future is moved per request.
    let settled = Box::pin(lists::settled(edge)).await;
    match settled.revision == revision {
        true => Err(problem),
        false => locate(edge, &settled, scope, body, envelope, method),
    }
}

fn locate(
    edge: &Edge,
    catalog: &Catalog,
    scope: &Scope,
    body: &Bytes,
    envelope: &Envelope,
    method: &str,
) -> Result<Route, Problem> {
    let within = of_scope(scope);
    let (server, name, hints) = match method {
        "tools/call" => named(
            catalog.tool(within, &field(body, envelope, Field::Name)?),
            "tool",
            body,
            envelope,
            catalog,
            scope,
        )?,
        "prompts/get" => named(
            catalog.prompt(within, &field(body, envelope, Field::Name)?),
            "prompt",
            body,
            envelope,
            catalog,
            scope,
        )?,
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            let uri = field(body, envelope, Field::Uri)?;
            let server = catalog.resource(within, &uri).ok_or_else(|| no_resource(&uri, catalog, within))?;
            (server, None, Hints::default())
        }
        "completion/complete" => reference(catalog, within, body, envelope)?,
        _ => match scope {
            Scope::One(name) => (Arc::from(name.as_str()), None, Hints::default()),
            Scope::All => return Err(Problem::new(codes::METHOD_NOT_FOUND, "method not found")),
        },
    };
    edge.kill.call(method, &server)?;
    let backend = edge.backends.get(&server).ok_or_else(|| lists::no_server(scope))?;
    let edits = name.map(|(span, name)| Edit::replace(span, name)).into_iter().collect();
    let to = Arc::new(Destination { backend, repeatable: repeatable(method, &hints), hints });
    Ok(Route { to, edits })
}

/// Whether a request may be sent twice.
pub(crate) fn repeatable(method: &str, hints: &Hints) -> bool {
    match method {
        "tools/call" => hints.repeatable(),
        "ping" | "prompts/get" | "resources/read" | "completion/complete" => true,
        method => method.ends_with("/list"),
    }
}

type Place = (Arc<str>, Option<(Span, Bytes)>, Hints);

fn named(
    target: Option<crate::core::catalog::Target>,
    what: &str,
    body: &Bytes,
    envelope: &Envelope,
    catalog: &Catalog,
    scope: &Scope,
) -> Result<Place, Problem> {
    match (target, scope) {
        (Some(target), Scope::One(_)) => Ok((target.server, None, target.hints)),
        (Some(target), Scope::All) => {
            let name = quoted(&target.name);
            Ok((target.server, Some((envelope.span(Field::Name), name)), target.hints))
        }
        // The backend itself knows best, also what it added a moment ago.
        (None, Scope::One(server)) => Ok((Arc::from(server.as_str()), None, Hints::default())),
        (None, Scope::All) => {
            let name = field(body, envelope, Field::Name)?;
            Err(problems::unknown(what, &name, catalog, None))
        }
    }
}

/// A name as JSON; nearly none needs an escape.
fn quoted(name: &str) -> Bytes {
    let plain = |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    match name.bytes().all(plain) {
        true => ["\"", name, "\""].concat().into(),
        false => serde_json::Value::from(name).to_string().into(),
    }
}

fn no_resource(uri: &str, catalog: &Catalog, scope: Option<&str>) -> Problem {
    let problem = problems::unknown("resource", uri, catalog, scope);
    Problem { code: codes::RESOURCE_NOT_FOUND, ..problem }
}

/// The prompt or template that `completion/complete` refers to.
fn reference(
    catalog: &Catalog,
    scope: Option<&str>,
    body: &Bytes,
    envelope: &Envelope,
) -> Result<Place, Problem> {
    let span = envelope.span(Field::Reference);
    let raw = span.of(body);
    let value = |key: &str| member(raw, key).and_then(|inner| text(inner.of(raw)).map(|text| (inner, text)));
    let kind = value("type").map(|(_, kind)| kind.into_owned()).unwrap_or_default();
    let missing = || Problem::new(codes::INVALID_PARAMS, "ref is missing or not a prompt or resource");
    match kind.as_str() {
        "ref/prompt" => {
            let (inner, name) = value("name").ok_or_else(missing)?;
            let target = catalog
                .prompt(scope, &name)
                .ok_or_else(|| problems::unknown("prompt", &name, catalog, scope))?;
            let at = Span { start: span.start + inner.start, end: span.start + inner.end };
            Ok((target.server, Some((at, quoted(&target.name))), Hints::default()))
        }
        "ref/resource" => {
            let (_, uri) = value("uri").ok_or_else(missing)?;
            let server = catalog.resource(scope, &uri).or_else(|| template(catalog, &uri));
            Ok((server.ok_or_else(|| no_resource(&uri, catalog, scope))?, None, Hints::default()))
        }
        _ => Err(missing()),
    }
}

/// The backend that lists exactly this template.
fn template(catalog: &Catalog, uri: &str) -> Option<Arc<str>> {
    let mut servers = catalog.servers();
    servers
        .find(|(_, entry)| entry.templates.iter().any(|item| &*item.key == uri))
        .map(|(name, _)| name.clone())
}

fn field(body: &[u8], envelope: &Envelope, field: Field) -> Result<String, Problem> {
    let text = envelope.text(body, field);
    let name = if field == Field::Uri { "uri" } else { "name" };
    text.map(std::borrow::Cow::into_owned)
        .ok_or_else(|| Problem::new(codes::INVALID_PARAMS, format!("{name} is missing or not a string")))
}
