//! Which era a request belongs to, and where its session is.

use super::{
    answer::{self, Reply},
    conn::{Connection, Inbound},
    legacy, modern, problems,
};
use crate::{
    core::{
        codes::{self, Problem},
        era::{Legacy, MODERN},
        headers::{PROTOCOL_VERSION, SESSION_ID},
        jsonrpc::{Field, Kind, is_batch, scan},
    },
    relay,
    session::StoreError,
};
use http::{Method, StatusCode};

/// Answers a request whose outside is checked.
pub(crate) async fn handle(connection: &Connection, inbound: &mut Inbound) -> Reply {
    match inbound.method {
        Method::POST => post(connection, inbound).await,
        Method::GET | Method::DELETE if says_modern(inbound) && connection.edge.kill.serves_modern() => {
            answer::not_allowed("POST")
        }
        Method::GET | Method::DELETE => within_session(connection, inbound).await,
        _ => answer::not_allowed("GET, POST, DELETE"),
    }
}

async fn post(connection: &Connection, inbound: &mut Inbound) -> Reply {
    if is_batch(&inbound.body) {
        return Box::pin(batch(connection, inbound)).await;
    }
    let envelope = match scan(&inbound.body) {
        Ok(envelope) => envelope,
        Err(error) => return refuse(None, error.code, &error.to_string()),
    };
    let initialize = envelope.kind == Kind::Request && envelope.method(&inbound.body) == "initialize";
    let modern = envelope.has(Field::MetaProtocolVersion) || (says_modern(inbound) && !initialize);
    if modern && connection.edge.kill.serves_modern() {
        // Boxed like what is rare below: the future of a legacy call stays small, as it is moved
        // with each request and kept with each connection.
        return Box::pin(modern::handle(&connection.edge, connection.core, inbound, &envelope)).await;
    }
    if initialize && !inbound.headers.contains_key(&SESSION_ID) {
        return Box::pin(legacy::initialize(&connection.edge, connection.core, inbound, &envelope)).await;
    }
    inbound.envelope = Some(envelope);
    within_session(connection, inbound).await
}

/// Arrays exist in 2025-03-26 only, so within a session of that revision.
async fn batch(connection: &Connection, inbound: &mut Inbound) -> Reply {
    let version = inbound.headers.get(&PROTOCOL_VERSION);
    let may = version.is_none_or(|version| version == Legacy::V2025_03_26.as_str());
    match may && inbound.headers.contains_key(&SESSION_ID) {
        true => within_session(connection, inbound).await,
        false => refuse(None, codes::INVALID_REQUEST, "batches are not taken"),
    }
}

/// The header names the modern revision, or one that no session can have.
fn says_modern(inbound: &Inbound) -> bool {
    let Some(version) = inbound.headers.get(&PROTOCOL_VERSION) else { return false };
    let Ok(version) = version.to_str() else { return false };
    version == MODERN || (Legacy::parse(version).is_none() && !inbound.headers.contains_key(&SESSION_ID))
}

async fn within_session(connection: &Connection, inbound: &mut Inbound) -> Reply {
    let id = inbound.envelope.as_ref().and_then(|envelope| envelope.id(&inbound.body));
    let Some(header) = inbound.headers.get(&SESSION_ID) else {
        return refuse(id, codes::INVALID_REQUEST, "mcp-session-id is missing; send initialize first");
    };
    let edge = &connection.edge;
    let Some(session) = header.to_str().ok().filter(|session| edge.store.valid(session)) else {
        return problems::session_gone(id);
    };
    if let Some(live) = connection.session(session) {
        if live.principal != *inbound.principal.0 {
            return problems::session_gone(id);
        }
        if live.leased(edge.clock.now()) {
            return legacy::handle(edge, connection.core, &live, inbound).await;
        }
        match Box::pin(live.renew(edge.config.lease)).await {
            Ok(()) => return legacy::handle(edge, connection.core, &live, inbound).await,
            Err(StoreError::NotFound) => return problems::session_gone(id),
            // Another edge is the anchor now.
            Err(StoreError::Fenced(_)) => edge.sessions.remove(&live),
            Err(error) => return problems::unavailable(id, &error.to_string()),
        }
    }
    let session = session.to_owned();
    Box::pin(relay::serve(edge, connection.core, &session, inbound)).await
}

fn refuse(id: Option<&[u8]>, code: i32, why: &str) -> Reply {
    answer::problem(StatusCode::BAD_REQUEST, id, &Problem::new(code, why))
}
