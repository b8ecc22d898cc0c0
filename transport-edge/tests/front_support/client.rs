//! A bare HTTP client that shows what an MCP client would see.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use transport_edge::core::sse::{Event, Parser};

/// No test waits longer for one message.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub struct Client {
    pub pool: Pool<HttpConnector, Full<Bytes>>,
    pub path: &'static str,
    pub session: String,
    pub version: &'static str,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    parser: Parser,
}

impl Client {
    pub fn new() -> Self {
        Client {
            pool: Pool::builder(TokioExecutor::new()).build_http(),
            path: "/mcp",
            session: String::new(),
            version: "2025-11-25",
        }
    }

    pub async fn send(
        &self,
        method: &str,
        edge: SocketAddr,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.try_send(method, edge, headers, body).await.unwrap()
    }

    pub async fn try_send(
        &self,
        method: &str,
        edge: SocketAddr,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, hyper_util::client::legacy::Error> {
        let mut request = Request::builder().method(method).uri(format!("http://{edge}{}", self.path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response =
            tokio::time::timeout(PATIENCE, self.pool.request(request)).await.expect("no head came")?;
        let (parts, body) = response.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body, parser: Parser::new(1 << 22) })
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        let mut headers =
            vec![("accept", "application/json, text/event-stream"), ("content-type", "application/json")];
        if !self.session.is_empty() {
            headers
                .extend([("mcp-session-id", self.session.as_str()), ("mcp-protocol-version", self.version)]);
        }
        headers
    }

    pub async fn post(&self, edge: SocketAddr, body: Value) -> Answer {
        self.send("POST", edge, &self.headers(), body.to_string()).await
    }

    pub async fn try_post(&self, edge: SocketAddr, body: Value) -> Option<Answer> {
        self.try_send("POST", edge, &self.headers(), body.to_string()).await.ok()
    }

    /// Opens a session: `initialize` and `notifications/initialized`.
    pub async fn initialize(&mut self, edge: SocketAddr) -> Value {
        let answer = self.post(edge, json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": self.version, "capabilities": {"elicitation": {}}, "clientInfo": {"name": "test", "version": "1"},
        }})).await;
        assert_eq!(answer.status, 200);
        let session =
            answer.headers.get("mcp-session-id").expect("a session id").to_str().unwrap().to_owned();
        let result = answer.json().await;
        self.session = session;
        let answer = self.post(edge, json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        assert_eq!(answer.status, 202);
        result
    }

    pub async fn call(&self, edge: SocketAddr, id: u64, tool: &str, arguments: Value) -> Answer {
        self.post(edge, call(id, tool, arguments)).await
    }

    pub async fn get(&self, edge: SocketAddr, last_event_id: Option<&str>) -> Answer {
        let mut headers = self.headers();
        headers.extend(last_event_id.map(|id| ("last-event-id", id)));
        self.send("GET", edge, &headers, "").await
    }

    pub async fn delete(&self, edge: SocketAddr) -> Answer {
        self.send("DELETE", edge, &self.headers(), "").await
    }

    /// A request of the modern era.
    pub async fn modern(&self, edge: SocketAddr, id: Value, method: &str, mut params: Value) -> Answer {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "progressToken": 5,
        });
        let name = params["name"].as_str().or(params["uri"].as_str()).unwrap_or_default().to_owned();
        let mut headers = vec![
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", method),
        ];
        if !name.is_empty() {
            headers.push(("mcp-name", &name));
        }
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send("POST", edge, &headers, body.to_string()).await
    }
}

pub fn call(id: u64, tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments, "_meta": {"progressToken": id}}})
}

impl Answer {
    pub fn is_stream(&self) -> bool {
        self.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream")
    }

    pub async fn bytes(self) -> Bytes {
        tokio::time::timeout(PATIENCE, self.body.collect()).await.expect("no body came").unwrap().to_bytes()
    }

    pub async fn json(self) -> Value {
        let bytes = self.bytes().await;
        serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"))
    }

    /// The next event with data or an id; `None` at the end of the stream.
    pub async fn event(&mut self) -> Option<Event> {
        tokio::time::timeout(PATIENCE, self.next_event()).await.expect("no event came")
    }

    async fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.parser.next().unwrap() {
                return Some(event);
            }
            let Ok(frame) = self.body.frame().await? else { return None };
            if let Ok(data) = frame.into_data() {
                self.parser.push(&data);
            }
        }
    }

    /// The next message, with its event id.
    pub async fn message(&mut self) -> Option<(String, Value)> {
        loop {
            let event = self.event().await?;
            if !event.data.is_empty() {
                return Some((event.id.unwrap_or_default(), serde_json::from_slice(&event.data).unwrap()));
            }
        }
    }

    /// The next message with this method.
    pub async fn next(&mut self, method: &str) -> (String, Value) {
        loop {
            let (id, message) = self.message().await.expect("the stream ended");
            if message["method"] == method {
                return (id, message);
            }
        }
    }

    /// Everything to the end.
    pub async fn messages(mut self) -> Vec<(String, Value)> {
        let mut all = Vec::new();
        while let Some(message) = self.message().await {
            all.push(message);
        }
        all
    }
}
