//! Getting to know a backend: which era it speaks, what it says of itself.

use super::{
    BackendError, CallMeta, Core, Era, FromBackend,
    http::{HttpExchange, Origin, Session, Settings, initialize_body},
    link::Greeting,
    rewrite::{Introduction, LEGACY, MODERN},
    seat::Seat,
    upstream::{CallError, result_of},
};
use crate::core::{json::member, jsonrpc, splice::Edits};
use bytes::Bytes;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    time::{Instant as TokioInstant, timeout_at},
};

/// The error of a modern server that does not speak the version asked for.
const UNSUPPORTED_VERSION: i64 = -32022;
/// A server that does not know `server/discover` may not answer at all.
const PROBE: Duration = Duration::from_secs(5);

/// What a probe found.
pub(crate) enum Verdict {
    Modern(Greeting),
    Legacy,
}

/// How we introduce ourselves where no client stands behind a request.
pub(crate) fn ourselves() -> Introduction {
    Introduction {
        client_info: Bytes::from_static(
            concat!(r#"{"name":"swarm","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#).as_bytes(),
        ),
        capabilities: Bytes::from_static(b"{}"),
        log_level: None,
    }
}

fn discover() -> Bytes {
    let info = ourselves().client_info;
    Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"server/discover","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientInfo":{},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#,
        String::from_utf8_lossy(&info)
    ))
}

/// Probes a fresh process, modern first (MCP.md 1.2, 26), and opens the conversation.
pub(crate) async fn greet(seat: &Seat, within: Duration) -> Result<Greeting, BackendError> {
    let found = call(seat, discover(), deadline(PROBE.min(within))).await;
    match verdict(found)? {
        Verdict::Modern(greeting) => return Ok(greeting),
        Verdict::Legacy => {}
    }
    match initialize(seat, LEGACY, &ourselves(), within).await {
        // It was only slow: the probe that we gave up made it modern.
        Err(CallError::Refused { code: UNSUPPORTED_VERSION, .. }) => {
            match verdict(call(seat, discover(), deadline(within)).await)? {
                Verdict::Modern(greeting) => Ok(greeting),
                Verdict::Legacy => Err(BackendError::protocol("speaks no version that we speak")),
            }
        }
        greeting => greeting.map_err(refused),
    }
}

/// The legacy handshake.
pub(crate) async fn initialize(
    seat: &Seat,
    version: &str,
    who: &Introduction,
    within: Duration,
) -> Result<Greeting, CallError> {
    let result = call(seat, initialize_body(version, who), deadline(within)).await?;
    seat.send(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await?;
    let server_info = part(&result, "serverInfo");
    Ok(Greeting { era: Era::Legacy, server_info, result })
}

pub(crate) fn refused(error: CallError) -> BackendError {
    match error {
        CallError::Backend(error) => error,
        refused @ CallError::Refused { .. } => {
            BackendError::not_ready(format!("refused to initialize: {refused}"), Duration::from_secs(1))
        }
    }
}

/// Probes an HTTP backend.
pub(crate) async fn probe(
    origin: &Arc<Origin>,
    name: &str,
    within: Duration,
) -> Result<Verdict, BackendError> {
    let (events, _unused) = mpsc::channel(1);
    let settings = Settings {
        backend: name.to_owned(),
        era: Era::Modern,
        who: ourselves(),
        version: MODERN.into(),
        resume: None,
        events,
        open_timeout: within,
        listen: false,
        server_info: Bytes::new(),
    };
    let session = Session::open(origin.clone(), settings).await?;
    let raw = discover();
    let envelope = jsonrpc::scan(&raw).map_err(|error| BackendError::protocol(error.to_string()))?;
    let meta = CallMeta { deadline: deadline(within), headers: Vec::new() };
    let core = Core::ASIDE;
    let mut exchange =
        HttpExchange::start(session.shared.clone(), core, &raw, &envelope, Edits::new(), &meta)?;
    let mut answer = Err(CallError::Backend(BackendError::gone("no answer")));
    while let Some(item) = by(meta.deadline, exchange.next()).await {
        answer = match item {
            Ok(FromBackend::Response { raw, .. }) => result_of(&raw),
            Ok(_) => continue,
            Err(error) => Err(error.into()),
        };
        break;
    }
    verdict(answer)
}

/// A modern result is a modern server; only a refusal that names no version of ours is the end;
/// everything else is answered by the legacy handshake. Trouble with the connection is no verdict.
fn verdict(found: Result<Bytes, CallError>) -> Result<Verdict, BackendError> {
    match found {
        Ok(result)
            if part(&result, "supportedVersions")
                .windows(MODERN.len())
                .any(|part| part == MODERN.as_bytes()) =>
        {
            let meta = part(&result, "_meta");
            let server_info = match meta.is_empty() {
                true => part(&result, "serverInfo"),
                false => part(&meta, "io.modelcontextprotocol/serverInfo"),
            };
            Ok(Verdict::Modern(Greeting { era: Era::Modern, server_info, result }))
        }
        Err(CallError::Refused { code: UNSUPPORTED_VERSION, data, .. }) if !names_legacy(&data) => {
            Err(BackendError::protocol("speaks no version that we speak"))
        }
        Err(CallError::Backend(error @ BackendError::NotReady { .. })) => Err(error),
        _ => Ok(Verdict::Legacy),
    }
}

fn names_legacy(data: &[u8]) -> bool {
    let supported = part(&Bytes::copy_from_slice(data), "supported");
    let text = String::from_utf8_lossy(&supported).into_owned();
    supported.is_empty() || ["2024-", "2025-"].iter().any(|year| text.contains(year))
}

async fn call(seat: &Seat, raw: Bytes, deadline: Instant) -> Result<Bytes, CallError> {
    let envelope = jsonrpc::scan(&raw).map_err(|error| BackendError::protocol(error.to_string()))?;
    let mut exchange = seat.request(&raw, &envelope, Edits::new(), deadline, true).await?;
    while let Some(item) = by(deadline, exchange.next()).await {
        if let FromBackend::Response { raw, .. } = item? {
            return result_of(&raw);
        }
    }
    Err(BackendError::gone("no answer").into())
}

/// The next message, or that none came in time; the request is then cancelled by its drop.
async fn by(
    deadline: Instant,
    next: impl Future<Output = Option<Result<FromBackend, BackendError>>>,
) -> Option<Result<FromBackend, BackendError>> {
    timeout_at(deadline.into(), next).await.unwrap_or(Some(Err(BackendError::Timeout)))
}

/// A member of a raw object; empty when it is not there.
pub(crate) fn part(object: &Bytes, key: &str) -> Bytes {
    member(object, key).map(|span| object.slice_ref(span.of(object))).unwrap_or_default()
}

fn deadline(within: Duration) -> Instant {
    (TokioInstant::now() + within).into_std()
}
