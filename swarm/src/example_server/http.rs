//! Streamable HTTP at `/mcp`: sessions with a resumable standing stream for legacy clients,
//! stateless requests for modern ones.

use super::{
    peer::Outlet,
    protocol::{MODERN, Refusal, Server, is_modern},
    session::Session,
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::stream;
use parking_lot::Mutex;
use serde_json::Value;
use std::{
    collections::HashMap, convert::Infallible, io::Write as _, net::SocketAddr, sync::Arc, time::Duration,
};
use tokio::{net::TcpListener, sync::mpsc};
use transport_edge::core::sse;

const SESSION_ID: &str = "mcp-session-id";
const QUEUE: usize = 64;
const MAX_SESSIONS: usize = 20_000;
const MAX_BODY: usize = 4 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const RETRY_MS: u64 = 500;

struct App {
    server: Arc<Server>,
    stateless: bool,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
}

/// Serves until the process ends. The ready line names the bound address.
pub(super) async fn serve(server: Arc<Server>, addr: SocketAddr, stateless: bool) -> anyhow::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    let mut out = std::io::stdout();
    writeln!(out, "ready http://{}/mcp", listener.local_addr()?)?;
    out.flush()?;
    let app = Arc::new(App { server, stateless, sessions: Mutex::default() });
    let router = Router::new()
        .route("/mcp", post(take).get(stand).delete(end))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app);
    axum::serve(listener, router).await?;
    Ok(())
}

async fn take(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    if !is_local(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            &Refusal { code: -32700, message: "parse error".into(), data: Value::Null },
        );
    };
    let is_request = message.get("method").is_some() && message.get("id").is_some();
    if is_modern(&message) || header(&headers, "mcp-protocol-version") == MODERN {
        return match check_modern(&headers, &message) {
            Err(refusal) => refuse(StatusCode::BAD_REQUEST, &refusal),
            Ok(()) if is_request => answer(app.server.clone(), app.server.session(), message, None).await,
            Ok(()) => StatusCode::ACCEPTED.into_response(),
        };
    }
    if message["method"] == "initialize" {
        return open(&app, message).await;
    }
    let session = match app.find(&headers) {
        Ok(session) => session,
        Err(status) => return refuse(status, &Refusal::invalid("no such session")),
    };
    if is_request {
        return answer(app.server.clone(), session, message, None).await;
    }
    app.server.take(&session, message);
    StatusCode::ACCEPTED.into_response()
}

impl App {
    fn find(&self, headers: &HeaderMap) -> Result<Arc<Session>, StatusCode> {
        if self.stateless {
            return Ok(self.server.session());
        }
        let id = headers.get(SESSION_ID).ok_or(StatusCode::BAD_REQUEST)?;
        let id = id.to_str().map_err(|_| StatusCode::BAD_REQUEST)?;
        self.sessions.lock().get(id).cloned().ok_or(StatusCode::NOT_FOUND)
    }
}

async fn open(app: &App, message: Value) -> Response {
    let session = app.server.session();
    if app.stateless {
        return answer(app.server.clone(), session, message, None).await;
    }
    let id = format!("{:032x}", rand::random::<u128>());
    {
        let mut sessions = app.sessions.lock();
        if sessions.len() >= MAX_SESSIONS {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        sessions.insert(id.clone(), session.clone());
    }
    answer(app.server.clone(), session, message, Some(id)).await
}

fn check_modern(headers: &HeaderMap, message: &Value) -> Result<(), Refusal> {
    let version = &message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"];
    let differs = |name: &str| Refusal {
        code: -32020,
        message: format!("header {name} does not match the body"),
        data: Value::Null,
    };
    if message.get("id").is_some()
        && header(headers, "mcp-protocol-version") != version.as_str().unwrap_or_default()
    {
        return Err(differs("MCP-Protocol-Version"));
    }
    if message.get("id").is_some()
        && header(headers, "mcp-method") != message["method"].as_str().unwrap_or_default()
    {
        return Err(differs("Mcp-Method"));
    }
    Ok(())
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// No page of another site talks to a local server through the user's browser.
fn is_local(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = origin.to_str().unwrap_or_default().split("//").nth(1).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

fn refuse(status: StatusCode, refusal: &Refusal) -> Response {
    json_response(status, &refusal.body(&Value::Null), None)
}

fn json_response(status: StatusCode, body: &Value, session_id: Option<String>) -> Response {
    let mut response =
        (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
    name_session(&mut response, session_id);
    response
}

fn name_session(response: &mut Response, session_id: Option<String>) {
    if let Some(id) = session_id.and_then(|id| HeaderValue::from_str(&id).ok()) {
        response.headers_mut().insert(SESSION_ID, id);
    }
}

/// Plain JSON when the answer is the first thing to say, else events up to the answer.
async fn answer(
    server: Arc<Server>,
    session: Arc<Session>,
    message: Value,
    session_id: Option<String>,
) -> Response {
    let (outlet, mut inbox) = mpsc::channel::<String>(QUEUE);
    let modern = is_modern(&message);
    let id = message["id"].clone();
    let cancel = CancelOnDrop { session: session.clone(), id, armed: modern };
    let (done, mut result) = mpsc::channel::<Value>(1);
    tokio::spawn(work(server, session, message, outlet, done));
    let first = tokio::select! {
        biased;
        Some(said) = inbox.recv() => said,
        Some(body) = result.recv() => {
            return json_response(status_of(&body, modern), &body, session_id);
        }
        else => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    let mut response = events(stream::unfold(
        (Some(first), inbox, result, false, cancel),
        |(first, mut inbox, mut result, over, cancel)| async move {
            if over {
                return None;
            }
            if let Some(first) = first {
                let event = sse::encode(None, first.as_bytes());
                return Some((Ok::<_, Infallible>(event), (None, inbox, result, false, cancel)));
            }
            let (event, over) = tokio::select! {
                biased;
                Some(said) = inbox.recv() => (sse::encode(None, said.as_bytes()), false),
                Some(body) = result.recv() => (sse::encode(None, body.to_string().as_bytes()), true),
                () = tokio::time::sleep(KEEP_ALIVE) => (sse::keep_alive(), false),
                else => return None,
            };
            Some((Ok(event), (None, inbox, result, over, cancel)))
        },
    ));
    name_session(&mut response, session_id);
    response
}

/// A modern client that goes away has cancelled; a legacy one has not.
struct CancelOnDrop {
    session: Arc<Session>,
    id: Value,
    armed: bool,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if self.armed {
            self.session.cancel(&self.id);
        }
    }
}

async fn work(
    server: Arc<Server>,
    session: Arc<Session>,
    message: Value,
    outlet: Outlet,
    done: mpsc::Sender<Value>,
) {
    let reply = server.request(&session, &message, outlet).await;
    for (method, params) in reply.after {
        session.say(&method, params);
    }
    let _ = done.send(reply.body).await;
}

fn status_of(body: &Value, modern: bool) -> StatusCode {
    match body["error"]["code"].as_i64() {
        Some(-32601) if modern => StatusCode::NOT_FOUND,
        Some(-32602 | -32600 | -32020 | -32021 | -32022) if modern => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

fn events<S>(stream: S) -> Response
where
    S: futures::Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
{
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(stream)).into_response()
}

/// The standing stream. One reader at a time: a newer one takes over. Event ids are the
/// messages' numbers; `Last-Event-ID` goes on behind one.
async fn stand(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if app.stateless || !is_local(&headers) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let session = match app.find(&headers) {
        Ok(session) => session,
        Err(status) => return status.into_response(),
    };
    let after = header(&headers, "last-event-id").strip_prefix("g-").and_then(|number| number.parse().ok());
    let reader = session.standing.read(after);
    let prime = sse::prime(&format!("g-{}", after.unwrap_or_else(|| session.standing.newest())), RETRY_MS);
    events(stream::unfold((Some(prime), reader, session), |(prime, mut reader, session)| async move {
        if let Some(prime) = prime {
            return Some((Ok::<_, Infallible>(prime), (None, reader, session)));
        }
        let event = tokio::select! {
            message = reader.next(&session.standing) => {
                let (number, message) = message?;
                sse::encode(Some(&format!("g-{number}")), message.as_bytes())
            }
            () = tokio::time::sleep(KEEP_ALIVE) => sse::keep_alive(),
        };
        Some((Ok(event), (None, reader, session)))
    }))
}

async fn end(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if app.stateless {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let removed = app.sessions.lock().remove(header(&headers, SESSION_ID));
    match removed {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
