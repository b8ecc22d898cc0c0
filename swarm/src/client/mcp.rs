//! One legacy MCP session: initialize, requests, streams that can be resumed, and its end.

use super::{
    http::{Http, HttpError, Reply},
    sse::{Event, Parser},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use std::{collections::VecDeque, net::SocketAddr, time::Duration};

/// The protocol version that is asked for.
pub const VERSION: &str = "2025-11-25";
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum McpError {
    /// No HTTP answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// An HTTP status that is no answer to a JSON-RPC request.
    #[error("the server answered {status}{}", details(.body))]
    Status {
        /// HTTP status.
        status: StatusCode,
        /// The start of the body.
        body: String,
    },
    /// A JSON-RPC error.
    #[error("{message}")]
    Rpc {
        /// Its code.
        code: i64,
        /// Its message.
        message: String,
        /// Its data.
        data: Option<Value>,
    },
    /// Something that is not MCP.
    #[error("the server did not speak MCP: {0}")]
    Protocol(String),
}

fn details(body: &str) -> String {
    if body.is_empty() { String::new() } else { format!(": {body}") }
}

/// A client with (after [`McpClient::initialize`]) one session.
#[derive(Clone)]
pub struct McpClient {
    http: Http,
    url: String,
    deadline: Duration,
    session: Option<String>,
    version: String,
    next_id: u64,
    /// The local end of the connection that served the last answer.
    pub last_local: Option<SocketAddr>,
}

impl McpClient {
    /// A client of the endpoint `url`; `deadline` bounds each request.
    pub fn new(http: Http, url: impl Into<String>, deadline: Duration) -> McpClient {
        McpClient {
            http,
            url: url.into(),
            deadline,
            session: None,
            version: VERSION.to_owned(),
            next_id: 1,
            last_local: None,
        }
    }

    /// The session id, once there is one.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// Opens the session and returns the server's answer.
    pub async fn initialize(&mut self) -> Result<Value, McpError> {
        let params = json!({
            "protocolVersion": VERSION,
            "capabilities": {},
            "clientInfo": { "name": "swarm", "version": env!("CARGO_PKG_VERSION") },
        });
        let (reply, id) = self.post("initialize", params).await?;
        self.session = reply.headers.get(SESSION).and_then(|id| id.to_str().ok()).map(str::to_owned);
        let result = self.result_of(reply, id).await?;
        if let Some(version) = result.get("protocolVersion").and_then(Value::as_str) {
            self.version = version.to_owned();
        }
        self.notify("notifications/initialized").await?;
        Ok(result)
    }

    /// Sends a request and waits for its result; what else comes on its stream is passed over.
    pub async fn request(&mut self, method: &str, params: Value) -> Result<Value, McpError> {
        let (reply, id) = self.post(method, params).await?;
        self.result_of(reply, id).await
    }

    /// Sends a request and returns its answer's stream as it comes.
    pub async fn stream(&mut self, method: &str, params: Value) -> Result<EventStream, McpError> {
        let (reply, _) = self.post(method, params).await?;
        EventStream::of(reply).await
    }

    /// Opens the session's own stream, or resumes any stream of it after `last_event_id`.
    pub async fn listen(&mut self, last_event_id: Option<&str>) -> Result<EventStream, McpError> {
        let mut headers = self.headers();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = last_event_id.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(LAST_EVENT, id);
        }
        let reply = self.send(Method::GET, headers, Bytes::new()).await?;
        EventStream::of(reply).await
    }

    /// Ends the session. Without one there is nothing to do.
    pub async fn close(&mut self) -> Result<(), McpError> {
        if self.session.is_none() {
            return Ok(());
        }
        let reply = self.send(Method::DELETE, self.headers(), Bytes::new()).await?;
        self.session = None;
        expect_success(reply).await.map(drop)
    }

    /// Every tool, all pages.
    pub async fn tools(&mut self) -> Result<Vec<Value>, McpError> {
        let mut tools = Vec::new();
        let mut params = json!({});
        loop {
            let mut page = self.request("tools/list", params).await?;
            if let Some(Value::Array(more)) = page.get_mut("tools").map(Value::take) {
                tools.extend(more);
            }
            match page.get_mut("nextCursor").map(Value::take) {
                Some(cursor @ Value::String(_)) => params = json!({ "cursor": cursor }),
                _ => return Ok(tools),
            }
        }
    }

    async fn notify(&mut self, method: &str) -> Result<(), McpError> {
        let body = json!({ "jsonrpc": "2.0", "method": method }).to_string();
        let reply = self.send(Method::POST, self.headers(), body.into()).await?;
        expect_success(reply).await.map(drop)
    }

    async fn post(&mut self, method: &str, params: Value) -> Result<(Reply, u64), McpError> {
        let id = self.next_id;
        self.next_id += 1;
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let reply = self.send(Method::POST, self.headers(), body.to_string().into()).await?;
        Ok((expect_success(reply).await?, id))
    }

    async fn send(&mut self, method: Method, headers: HeaderMap, body: Bytes) -> Result<Reply, McpError> {
        let reply = self.http.send(method, &self.url, headers, body, self.deadline).await?;
        self.last_local = reply.local;
        Ok(reply)
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let both = HeaderValue::from_static("application/json, text/event-stream");
        headers.insert(header::ACCEPT, both);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(session) = self.session.as_deref().and_then(|id| id.parse().ok()) {
            headers.insert(SESSION, session);
            if let Ok(version) = self.version.parse() {
                headers.insert(PROTOCOL, version);
            }
        }
        headers
    }

    async fn result_of(&self, reply: Reply, id: u64) -> Result<Value, McpError> {
        let mut messages = EventStream::of(reply).await?;
        let wait = async {
            while let Some(event) = messages.next().await? {
                if event.data.is_empty() {
                    continue;
                }
                let message = parse(event.data.as_bytes())?;
                if message.get("id").and_then(Value::as_u64) == Some(id) && message.get("method").is_none() {
                    return result(message);
                }
            }
            Err(McpError::Protocol("the stream ended without the answer".to_owned()))
        };
        match tokio::time::timeout(self.deadline, wait).await {
            Ok(result) => result,
            Err(_) => Err(McpError::Http(HttpError::Timeout {
                authority: self.url.clone(),
                deadline: self.deadline,
            })),
        }
    }
}

fn parse(body: &[u8]) -> Result<Value, McpError> {
    serde_json::from_slice(body).map_err(|error| McpError::Protocol(error.to_string()))
}

fn result(mut message: Value) -> Result<Value, McpError> {
    if let Some(result) = message.get_mut("result") {
        return Ok(result.take());
    }
    Err(rpc_error(&message).unwrap_or_else(|| McpError::Protocol(message.to_string())))
}

fn rpc_error(message: &Value) -> Option<McpError> {
    let error = message.get("error")?;
    Some(McpError::Rpc {
        code: error.get("code")?.as_i64()?,
        message: error.get("message")?.as_str()?.to_owned(),
        data: error.get("data").cloned(),
    })
}

/// A failing status often carries the JSON-RPC error that says why.
async fn expect_success(reply: Reply) -> Result<Reply, McpError> {
    if reply.status.is_success() {
        return Ok(reply);
    }
    let status = reply.status;
    let body = reply.whole(Duration::from_secs(5)).await.unwrap_or_default();
    let message = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Err(rpc_error(&message).unwrap_or_else(|| McpError::Status {
        status,
        body: String::from_utf8_lossy(&body).chars().take(200).collect(),
    }))
}

/// The messages of one answer, plain JSON or a stream of events.
pub struct EventStream {
    source: Option<Reply>,
    parser: Parser,
    ready: VecDeque<Event>,
}

impl EventStream {
    async fn of(reply: Reply) -> Result<EventStream, McpError> {
        let reply = expect_success(reply).await?;
        let mut ready = VecDeque::new();
        if reply.media_type() == "text/event-stream" {
            return Ok(EventStream { source: Some(reply), parser: Parser::default(), ready });
        }
        let body = reply.whole(Duration::from_secs(30)).await?;
        let data = String::from_utf8_lossy(&body).into_owned();
        ready.push_back(Event { data, ..Event::default() });
        Ok(EventStream { source: None, parser: Parser::default(), ready })
    }

    /// The next event; `None` when the stream ended, an error when it broke.
    pub async fn next(&mut self) -> Result<Option<Event>, McpError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(source) = &mut self.source else { return Ok(None) };
            let Some(chunk) = source.chunk().await? else { return Ok(None) };
            let events = self.parser.feed(&chunk);
            self.ready.extend(events.ok_or_else(|| McpError::Protocol("an event is too long".to_owned()))?);
        }
    }
}
