//! Where a request goes: which backend, under which name.

use super::{
    edge::Edge,
    lists::{self, of_scope},
    problems,
};
use crate::{
    backend::Backend,
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
use std::sync::Arc;

/// A request's way to a backend.
pub(crate) struct Route {
    /// The backend.
    pub(crate) backend: Arc<Backend>,
    /// What is spliced into the body for it.
    pub(crate) edits: Edits,
    /// Sending it twice does no harm.
    pub(crate) repeatable: bool,
    /// What the tool says of itself.
    pub(crate) hints: Hints,
}

/// Finds the backend of a request that a backend has to answer. Waits for backends that are
/// starting only when the name is not known yet.
pub(crate) async fn find(
    edge: &Edge,
    scope: &Scope,
    body: &Bytes,
    envelope: &Envelope,
    method: &str,
) -> Result<Route, Problem> {
    let catalog = edge.backends.catalog();
    match locate(edge, &catalog, scope, body, envelope, method) {
        Err(problem) if matches!(problem.code, codes::INVALID_PARAMS | codes::RESOURCE_NOT_FOUND) => {
            let settled = lists::settled(edge).await;
            match settled.revision == catalog.revision {
                true => Err(problem),
                false => locate(edge, &settled, scope, body, envelope, method),
            }
        }
        found => found,
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
    Ok(Route { backend, edits, repeatable: repeatable(method, &hints), hints })
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
            let name = serde_json::Value::from(&*target.name).to_string();
            Ok((target.server, Some((envelope.span(Field::Name), name.into())), target.hints))
        }
        // The backend itself knows best, also what it added a moment ago.
        (None, Scope::One(server)) => Ok((Arc::from(server.as_str()), None, Hints::default())),
        (None, Scope::All) => {
            let name = field(body, envelope, Field::Name)?;
            Err(problems::unknown(what, &name, catalog, None))
        }
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
            let own = serde_json::Value::from(&*target.name).to_string();
            Ok((target.server, Some((at, own.into())), Hints::default()))
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
