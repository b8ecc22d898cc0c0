//! An MCP server of the legacy era over HTTP, in this process, whose tools do what a test says.

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::HashMap, convert::Infallible, net::SocketAddr, sync::Arc};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
};

type Body = BoxBody<Bytes, Infallible>;

/// What a test looks at and turns.
#[derive(Default)]
pub struct State {
    /// Calls by tool.
    pub calls: Mutex<Vec<String>>,
    /// Notifications and other methods as they came.
    pub seen: Mutex<Vec<Value>>,
    /// Backend sessions that were opened, and those that were deleted.
    pub opened: Mutex<Vec<String>>,
    pub deleted: Mutex<Vec<String>>,
    waiting: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    streams: Mutex<Vec<(String, mpsc::Sender<Bytes>)>>,
}

pub struct Backend {
    pub url: String,
    pub state: Arc<State>,
    /// A permit lets one `slow` or `reader` call finish.
    pub gate: Arc<Semaphore>,
}

impl Backend {
    pub async fn start() -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr: SocketAddr = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let gate = Arc::new(Semaphore::new(0));
        let (shared, door) = (state.clone(), gate.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, gate) = (shared.clone(), door.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| serve(state.clone(), gate.clone(), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Backend { url: format!("http://{addr}/mcp"), state, gate }
    }

    pub fn calls(&self, tool: &str) -> usize {
        self.state.calls.lock().iter().filter(|call| *call == tool).count()
    }

    pub fn saw(&self, method: &str) -> Vec<Value> {
        self.state.seen.lock().iter().filter(|message| message["method"] == method).cloned().collect()
    }

    /// Sends on the GET stream of one of its sessions, once there is one.
    pub async fn push(&self, session: &str, message: Value) {
        kit::test::eventually("a stream of the session", super::PATIENCE, || async {
            let streams = self.state.streams.lock().clone();
            let mut sent = 0;
            for (_, stream) in streams.iter().filter(|(of, _)| of == session) {
                sent += usize::from(stream.send(event(&message)).await.is_ok());
            }
            (sent > 0).then_some(())
        })
        .await;
    }

    /// The session opened last.
    pub fn last_session(&self) -> String {
        self.state.opened.lock().last().cloned().unwrap_or_default()
    }
}

fn event(message: &Value) -> Bytes {
    format!("event: message\ndata: {message}\n\n").into()
}

fn whole(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    let body = http_body_util::Full::new(body.into()).boxed();
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn stream() -> (mpsc::Sender<Bytes>, Response<Body>) {
    let (sender, receiver) = mpsc::channel::<Bytes>(64);
    let frames = futures::StreamExt::map(tokio_stream::wrappers::ReceiverStream::new(receiver), |bytes| {
        Ok(Frame::data(bytes))
    });
    let response =
        Response::builder().header("content-type", "text/event-stream").body(StreamBody::new(frames).boxed());
    (sender, response.unwrap())
}

fn text(id: &Value, text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": text}]}})
}

async fn serve(
    state: Arc<State>,
    gate: Arc<Semaphore>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let session = request
        .headers()
        .get("mcp-session-id")
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    match request.method().as_str() {
        "GET" => {
            let (sender, response) = stream();
            state.streams.lock().push((session, sender));
            return Ok(response);
        }
        "DELETE" => {
            state.deleted.lock().push(session);
            return Ok(whole(200, ""));
        }
        _ => {}
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let message: Value = serde_json::from_slice(&body).unwrap();
    let id = message["id"].clone();
    state.seen.lock().push(message.clone());
    let method = message["method"].as_str().unwrap_or_default();
    let result =
        |result: Value| whole(200, json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string());
    Ok(match method {
        "" => {
            if let Some(waiting) = state.waiting.lock().remove(&id.to_string()) {
                let _ = waiting.send(message);
            }
            whole(202, "")
        }
        "initialize" => {
            let name = format!("backend-{}", state.opened.lock().len() + 1);
            state.opened.lock().push(name.clone());
            let mut response = result(json!({
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {"listChanged": true}, "logging": {}, "resources": {"subscribe": true}, "prompts": {}, "completions": {}},
                "serverInfo": {"name": "scripted", "version": "1"},
            }));
            response.headers_mut().insert("mcp-session-id", name.parse().unwrap());
            response
        }
        "tools/list" => result(json!({"tools": [
            {"name": "echo", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}},
            {"name": "slow", "inputSchema": {"type": "object"}},
            {"name": "reader", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": true}},
            {"name": "ask", "inputSchema": {"type": "object"}},
            {"name": "hang", "inputSchema": {"type": "object"}},
        ]})),
        "prompts/list" => result(json!({"prompts": [{"name": "greet"}]})),
        "resources/list" => result(json!({"resources": [{"uri": "note://1", "name": "one"}]})),
        "resources/templates/list" => result(json!({"resourceTemplates": []})),
        "resources/read" => result(json!({"contents": [{"uri": "note://1", "text": "one"}]})),
        "prompts/get" => result(json!({"messages": [], "description": message["params"]["name"]})),
        "completion/complete" => {
            result(json!({"completion": {"values": [message["params"]["ref"]["name"]]}}))
        }
        "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => result(json!({})),
        "tools/call" => call(state, gate, &session, message).await,
        method if method.starts_with("notifications/") => whole(202, ""),
        _ => whole(
            200,
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "method not found"}})
                .to_string(),
        ),
    })
}

async fn call(state: Arc<State>, gate: Arc<Semaphore>, session: &str, message: Value) -> Response<Body> {
    let id = message["id"].clone();
    let tool = message["params"]["name"].as_str().unwrap_or_default().to_owned();
    state.calls.lock().push(tool.clone());
    let arguments = message["params"]["arguments"].clone();
    if tool == "echo" {
        return whole(
            200,
            text(&id, &format!("{session} {}", arguments["text"].as_str().unwrap_or_default())).to_string(),
        );
    }
    let token = message["params"]["_meta"]["progressToken"].clone();
    let (sender, response) = stream();
    tokio::spawn(async move {
        let progress = |n: u32| json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": n}});
        match tool.as_str() {
            "ask" => {
                let (answered, answer) = oneshot::channel();
                state.waiting.lock().insert("77".into(), answered);
                let question = json!({"jsonrpc": "2.0", "id": 77, "method": "elicitation/create", "params": {"message": "who?", "requestedSchema": {"type": "object", "properties": {}}}});
                let _ = sender.send(event(&question)).await;
                let Ok(answer) = answer.await else { return };
                let _ = sender
                    .send(event(&text(&id, answer["result"]["content"]["name"].as_str().unwrap_or("nobody"))))
                    .await;
            }
            "hang" => sender.closed().await,
            _ => {
                let _ = sender.send(event(&progress(1))).await;
                let permit = tokio::select! {
                    permit = gate.acquire() => permit,
                    () = sender.closed() => return,
                };
                permit.unwrap().forget();
                let _ = sender.send(event(&progress(2))).await;
                let _ = sender.send(event(&text(&id, "done"))).await;
            }
        }
    });
    response
}
