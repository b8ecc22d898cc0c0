//! Results that the edge makes itself: `initialize`, `server/discover` and the merged lists.

use super::{edge::Edge, problems};
use crate::{
    core::{
        catalog::{Catalog, List},
        codes::{self, Problem},
        era::{Legacy, SUPPORTED},
        jsonrpc::{Envelope, Field},
    },
    session::Scope,
};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// How long a modern client may keep a list; a change is told to those who listen.
const LIST_TTL_MS: u64 = 10_000;
/// Longest merged instructions.
const INSTRUCTIONS_MAX: usize = 16 << 10;

/// The catalog, once every backend had its chance to start.
pub(crate) async fn settled(edge: &Edge) -> Arc<Catalog> {
    edge.backends.settled(edge.config.settle).await;
    edge.backends.catalog()
}

pub(super) fn of_scope(scope: &Scope) -> Option<&str> {
    match scope {
        Scope::All => None,
        Scope::One(name) => Some(name),
    }
}

/// What this edge is called.
pub(crate) fn server_info() -> Value {
    json!({ "name": "swarm", "title": "swarm edge", "version": env!("CARGO_PKG_VERSION") })
}

/// The result of `initialize` for the aggregate, or for one backend that knows no `initialize`.
pub(crate) fn initialized(catalog: &Catalog, version: Legacy, scope: Option<&str>) -> Bytes {
    let mut result = Map::new();
    result.insert("protocolVersion".into(), version.as_str().into());
    result.insert("capabilities".into(), capabilities(catalog, scope));
    result.insert("serverInfo".into(), server_info());
    result.extend(instructions(catalog, scope).map(|text| ("instructions".into(), text.into())));
    Value::from(result).to_string().into()
}

/// The result of `initialize` for one backend: its own, with the version agreed on here.
pub(crate) fn initialized_as(raw: &[u8], version: Legacy) -> Option<Bytes> {
    let mut result: Map<String, Value> = serde_json::from_slice(raw).ok()?;
    result.insert("protocolVersion".into(), version.as_str().into());
    Some(Value::from(result).to_string().into())
}

/// The result of `server/discover`.
pub(crate) fn discovered(catalog: &Catalog, scope: &Scope) -> Bytes {
    let name = of_scope(scope);
    let mut result = complete(LIST_TTL_MS);
    result.insert("supportedVersions".into(), json!(SUPPORTED));
    result.insert("capabilities".into(), capabilities(catalog, name));
    result.extend(instructions(catalog, name).map(|text| ("instructions".into(), text.into())));
    Value::from(result).to_string().into()
}

fn complete(ttl_ms: u64) -> Map<String, Value> {
    let meta = json!({ "io.modelcontextprotocol/serverInfo": server_info() });
    let members = [
        ("resultType", json!("complete")),
        ("ttlMs", json!(ttl_ms)),
        ("cacheScope", json!("private")),
        ("_meta", meta),
    ];
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What can really be relayed: the union of the backends' capabilities.
fn capabilities(catalog: &Catalog, scope: Option<&str>) -> Value {
    let mut all = Map::new();
    let changes = json!({ "listChanged": true });
    all.insert("tools".into(), changes.clone());
    if catalog.has_capability(scope, "prompts") {
        all.insert("prompts".into(), changes);
    }
    if catalog.has_capability(scope, "resources") {
        let subscribe = catalog.has_capability(scope, "resources.subscribe");
        all.insert("resources".into(), json!({ "listChanged": true, "subscribe": subscribe }));
    }
    for simple in ["logging", "completions"] {
        if catalog.has_capability(scope, simple) {
            all.insert(simple.into(), json!({}));
        }
    }
    all.into()
}

fn instructions(catalog: &Catalog, scope: Option<&str>) -> Option<String> {
    let mut text = String::new();
    for (name, entry) in catalog.servers().filter(|(name, _)| scope.is_none_or(|scope| scope == &***name)) {
        let Some(own) = &entry.instructions else { continue };
        match scope {
            Some(_) => text.push_str(own),
            None => text.push_str(&format!("{name}: {own}\n")),
        }
    }
    (!text.is_empty()).then(|| text.chars().take(INSTRUCTIONS_MAX).collect())
}

/// One page of a merged list as a result.
pub(crate) async fn page(
    edge: &Edge,
    list: List,
    scope: &Scope,
    body: &[u8],
    envelope: &Envelope,
    modern: bool,
) -> Result<Bytes, Problem> {
    let catalog = settled(edge).await;
    let name = of_scope(scope);
    if let Some(problem) = problems::all_out(&catalog, name)
        && catalog.count(list) == 0
    {
        return Err(problem);
    }
    let cursor = cursor(body, envelope)?;
    let page = catalog.page(list, name, cursor.as_deref());
    let page = page.map_err(|_| Problem::new(codes::INVALID_PARAMS, "unknown cursor"))?;
    let members = page.ok_or_else(|| no_server(scope))?;
    Ok(braced(&members, modern))
}

/// A scope that is not (or no longer) registered.
pub(crate) fn no_server(scope: &Scope) -> Problem {
    Problem::new(codes::INVALID_PARAMS, format!("there is no backend {}", scope.as_str()))
}

fn cursor(body: &[u8], envelope: &Envelope) -> Result<Option<String>, Problem> {
    match envelope.raw(body, Field::Cursor) {
        None | Some(b"null") => Ok(None),
        Some(_) => match envelope.text(body, Field::Cursor) {
            Some(text) => Ok(Some(text.into_owned())),
            None => Err(Problem::new(codes::INVALID_PARAMS, "cursor is not a string")),
        },
    }
}

fn braced(members: &[u8], modern: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(members.len() + 220);
    out.put_u8(b'{');
    if modern {
        let rest = Value::from(complete(LIST_TTL_MS)).to_string();
        out.put_slice(
            rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default().as_bytes(),
        );
        out.put_u8(b',');
    }
    out.put_slice(members);
    out.put_u8(b'}');
    out.freeze()
}

/// The kinds of lists in which two catalogs differ, as in `notifications/<kind>/list_changed`.
pub(crate) fn changed(before: &Catalog, after: &Catalog, scope: Option<&str>) -> Vec<&'static str> {
    let differs = |list: List| {
        before.count(list) != after.count(list)
            || before.page(list, scope, None) != after.page(list, scope, None)
    };
    let kinds = [
        ("tools", List::Tools),
        ("prompts", List::Prompts),
        ("resources", List::Resources),
        ("resources", List::Templates),
    ];
    let mut changed: Vec<_> =
        kinds.into_iter().filter(|(_, list)| differs(*list)).map(|(kind, _)| kind).collect();
    changed.dedup();
    changed
}
