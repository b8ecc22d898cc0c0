//! A raw MCP client over Streamable HTTP that hides nothing: status, headers, every event.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The legacy version spoken here.
pub const LEGACY: &str = "2025-11-25";

/// One legacy session, usable at any edge's URL.
#[derive(Debug, Clone)]
pub struct Session {
    /// The `Mcp-Session-Id`.
    pub id: String,
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// HTTP headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
}

impl Answer {
    /// The JSON-RPC message: the body, or the last event with data of an SSE answer.
    pub fn message(&self) -> Result<Value> {
        let sse = self
            .headers
            .get("content-type")
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if !sse {
            return serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {:?}", self.body));
        }
        let events = parse_events(std::str::from_utf8(&self.body)?);
        let last = events.into_iter().rev().find(|event| !event.data.is_empty());
        Ok(serde_json::from_str(&last.context("no event with data")?.data)?)
    }
}

/// One server-sent event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its `id:`, empty when there is none.
    pub id: String,
    /// Its `data:` lines joined.
    pub data: String,
}

impl Event {
    /// The data as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or(Value::Null)
    }
}

/// An open event stream.
pub struct Stream {
    body: Incoming,
    buffer: String,
    _connection: JoinHandle<()>,
}

impl Stream {
    /// The next event with data; nothing when the stream ended.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        // Keep-alives are no events: the patience is for all of them together.
        timeout(PATIENCE, self.next_event()).await.context("the stream is silent")?
    }

    async fn next_event(&mut self) -> Result<Option<Event>> {
        loop {
            while let Some(end) = self.buffer.find("\n\n") {
                let block: String = self.buffer.drain(..end + 2).collect();
                if let Some(event) = parse_events(&block).into_iter().find(|event| !event.data.is_empty()) {
                    return Ok(Some(event));
                }
            }
            let Some(Ok(frame)) = self.body.frame().await else { return Ok(None) };
            if let Some(data) = frame.data_ref() {
                self.buffer.push_str(&String::from_utf8_lossy(data).replace("\r\n", "\n"));
            }
        }
    }
}

fn parse_events(text: &str) -> Vec<Event> {
    let text = text.replace("\r\n", "\n");
    text.split("\n\n")
        .filter(|block| !block.trim().is_empty())
        .map(|block| {
            let mut event = Event::default();
            for line in block.lines() {
                if let Some(data) = line.strip_prefix("data:") {
                    event.data.push_str(data.strip_prefix(' ').unwrap_or(data));
                } else if let Some(id) = line.strip_prefix("id:") {
                    event.id = id.trim().to_owned();
                }
            }
            event
        })
        .collect()
}

/// Any HTTP request; headers as pairs.
pub async fn http(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Answer> {
    let (response, connection) =
        timeout(PATIENCE, send(method, url, headers, body.into())).await.context("no answer")??;
    let (head, body) = response.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.context("the answer hangs")??.to_bytes();
    connection.abort();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

async fn send(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<(http::Response<Incoming>, JoinHandle<()>)> {
    let uri: http::Uri = url.parse()?;
    let authority = uri.authority().context("a URL without a host")?.as_str();
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(path).header("host", authority);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok((sender.send_request(request.body(Full::new(body))?).await?, connection))
}

const JSON: [(&str, &str); 2] =
    [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];

impl Session {
    /// `initialize` and `notifications/initialized` at an edge.
    pub async fn open(url: &str) -> Result<Session> {
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": LEGACY, "capabilities": {"elicitation": {}, "sampling": {}},
            "clientInfo": {"name": "tests", "version": "1"}}});
        let answer = http(Method::POST, url, &JSON, hello.to_string()).await?;
        ensure!(answer.status == StatusCode::OK, "initialize: {} {:?}", answer.status, answer.body);
        let id = answer.headers.get("mcp-session-id").context("no Mcp-Session-Id")?.to_str()?.to_owned();
        let session = Session { id };
        let ready =
            session.post(url, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        ensure!(ready.status == StatusCode::ACCEPTED, "initialized: {}", ready.status);
        Ok(session)
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        let mut headers = JSON.to_vec();
        headers.extend([("mcp-session-id", self.id.as_str()), ("mcp-protocol-version", LEGACY)]);
        headers
    }

    /// One POST of this session.
    pub async fn post(&self, url: &str, message: &Value) -> Result<Answer> {
        http(Method::POST, url, &self.headers(), message.to_string()).await
    }

    /// A request, and its result; a JSON-RPC error is an error.
    pub async fn request(&self, url: &str, id: u64, method: &str, params: Value) -> Result<Value> {
        let answer =
            self.post(url, &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await?;
        let mut message = answer.message()?;
        ensure!(message["id"] == id, "asked {id}, answered {message}");
        match message.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => bail!("{method}: {message}"),
        }
    }

    /// The text of a tool's first content block.
    pub async fn call(&self, url: &str, id: u64, tool: &str, arguments: Value) -> Result<String> {
        let result =
            self.request(url, id, "tools/call", json!({"name": tool, "arguments": arguments})).await?;
        ensure!(result["isError"] != true, "{tool}: {result}");
        Ok(result["content"][0]["text"].as_str().unwrap_or_default().to_owned())
    }

    /// The GET stream, from the start or after an event.
    pub async fn listen(&self, url: &str, last_event_id: Option<&str>) -> Result<Stream> {
        let mut headers = vec![
            ("accept", "text/event-stream"),
            ("mcp-session-id", &self.id),
            ("mcp-protocol-version", LEGACY),
        ];
        headers.extend(last_event_id.map(|id| ("last-event-id", id)));
        let (response, connection) = timeout(PATIENCE, send(Method::GET, url, &headers, Bytes::new()))
            .await
            .context("no stream")??;
        ensure!(response.status() == StatusCode::OK, "GET: {}", response.status());
        Ok(Stream { body: response.into_body(), buffer: String::new(), _connection: connection })
    }

    /// A POST whose answer is read as a stream.
    pub async fn stream(&self, url: &str, message: &Value) -> Result<Stream> {
        let headers = self.headers();
        let send = send(Method::POST, url, &headers, Bytes::from(message.to_string()));
        let (response, connection) = timeout(PATIENCE, send).await.context("no stream")??;
        ensure!(response.status() == StatusCode::OK, "POST: {}", response.status());
        Ok(Stream { body: response.into_body(), buffer: String::new(), _connection: connection })
    }

    /// Ends the session.
    pub async fn delete(&self, url: &str) -> Result<()> {
        let Answer { status, body, .. } = http(Method::DELETE, url, &self.headers(), Bytes::new()).await?;
        ensure!(status.is_success(), "DELETE was answered {status}: {}", String::from_utf8_lossy(&body));
        Ok(())
    }
}
