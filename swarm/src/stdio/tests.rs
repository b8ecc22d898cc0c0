use super::*;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{DuplexStream, ReadHalf, WriteHalf};

/// A server with one session, scripted by method.
#[derive(Clone, Default)]
struct Server {
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    gone: Arc<Mutex<bool>>,
    dropped: Arc<tokio::sync::Notify>,
}

/// Tells when an answer that never comes is given up.
struct Dropped(Arc<tokio::sync::Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn answer(State(server): State<Server>, headers: HeaderMap, body: String) -> Response {
    let message: Value = serde_json::from_str(&body).expect("json");
    let method = message["method"].as_str().unwrap_or("response").to_owned();
    server.seen.lock().push((method.clone(), headers));
    let id = &message["id"];
    let result = |value: Value| json!({"jsonrpc": "2.0", "id": id, "result": value}).to_string();
    if *server.gone.lock() && method != "initialize" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let kind = ("content-type", "application/json");
    match method.as_str() {
        "initialize" => {
            let body = result(json!({"protocolVersion": "2025-06-18"}));
            ([kind, ("mcp-session-id", "s-1")], body).into_response()
        }
        "tools/call" => {
            let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress"});
            let first = format!("id: a.1\nretry: 10\ndata:\n\nid: a.2\ndata: {progress}\n\n");
            // Broken off before the answer: the rest comes to whoever resumes.
            ([("content-type", "text/event-stream")], first).into_response()
        }
        "prompts/get" => {
            let _dropped = Dropped(server.dropped.clone());
            std::future::pending().await
        }
        "tools/list" => ([kind], result(json!({"tools": []}))).into_response(),
        _ => StatusCode::ACCEPTED.into_response(),
    }
}

async fn listen(State(server): State<Server>, headers: HeaderMap) -> Response {
    let resumed = headers.get("last-event-id").is_some_and(|id| id == "a.2");
    server.seen.lock().push(("GET".to_owned(), headers));
    if !resumed {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let rest = "id: a.3\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"id\":2,\"result\":{}}\n\n";
    ([("content-type", "text/event-stream")], rest).into_response()
}

struct Host {
    server: Server,
    input: WriteHalf<DuplexStream>,
    output: BufReader<ReadHalf<DuplexStream>>,
}

impl Host {
    async fn start() -> Host {
        let server = Server::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
        let router = Router::new()
            .route("/mcp", post(answer).get(listen).delete(StatusCode::OK))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let (near, far) = tokio::io::duplex(1 << 20);
        let (output, input) = tokio::io::split(near);
        let (bridge_in, bridge_out) = tokio::io::split(far);
        tokio::spawn(serve(url, HeaderMap::new(), BufReader::new(bridge_in), bridge_out));
        Host { server, input, output: BufReader::new(output) }
    }

    async fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("written");
    }

    async fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).await.expect("read");
        serde_json::from_str(&line).expect("one line is one message")
    }

    fn header(&self, method: &str, name: &str) -> Option<String> {
        let seen = self.server.seen.lock();
        let (_, headers) = seen.iter().rev().find(|(seen, _)| seen == method)?;
        Some(headers.get(name)?.to_str().ok()?.to_owned())
    }
}

#[tokio::test]
async fn a_legacy_session_keeps_its_id_and_a_broken_stream_is_resumed() {
    let mut host = Host::start().await;
    host.say(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#).await;
    assert_eq!(host.hear().await["result"]["protocolVersion"], "2025-06-18");
    host.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    host.say(r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"x"}}"#).await;
    assert_eq!(host.hear().await["method"], "notifications/progress");
    assert_eq!(host.hear().await["id"], 2);
    assert_eq!(host.header("tools/call", "mcp-session-id").as_deref(), Some("s-1"));
    assert_eq!(host.header("tools/call", "mcp-protocol-version").as_deref(), Some("2025-06-18"));
    let get = host.server.seen.lock().iter().any(|(method, headers)| {
        method == "GET" && headers.get("last-event-id").is_some_and(|id| id == "a.2")
    });
    assert!(get, "the stream was not resumed");
}

#[tokio::test]
async fn a_lost_session_is_told_and_never_opened_again_by_itself() {
    let mut host = Host::start().await;
    host.say(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#).await;
    host.hear().await;
    *host.server.gone.lock() = true;
    host.say(r#"{"jsonrpc":"2.0","id":"b","method":"tools/list"}"#).await;
    let answer = host.hear().await;
    assert_eq!(answer["id"], "b");
    assert_eq!(answer["error"]["data"]["reason"], "SESSION_GONE");
    let initialized = host.server.seen.lock().iter().filter(|(method, _)| method == "initialize").count();
    assert_eq!(initialized, 1);
    *host.server.gone.lock() = false;
    host.say(r#"{"jsonrpc":"2.0","id":3,"method":"initialize","params":{}}"#).await;
    assert_eq!(host.hear().await["id"], 3);
}

#[tokio::test]
async fn a_modern_request_carries_its_headers_and_no_session() {
    let mut host = Host::start().await;
    host.say(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
    )
    .await;
    assert_eq!(host.hear().await["id"], 1);
    assert_eq!(host.header("tools/list", "mcp-method").as_deref(), Some("tools/list"));
    assert_eq!(host.header("tools/list", "mcp-session-id"), None);
}

#[tokio::test]
async fn what_is_no_json_is_answered_with_a_parse_error_and_the_end_of_input_ends_the_bridge() {
    let mut host = Host::start().await;
    host.say("{nope").await;
    assert_eq!(host.hear().await["error"]["code"], -32700);
    host.say(r#"{"jsonrpc":"2.0","id":9,"method":"tools/list"}"#).await;
    host.input.shutdown().await.expect("closed");
    let mut rest = String::new();
    host.output.read_to_string(&mut rest).await.expect("read to the end");
    assert!(rest.contains("\"id\":9"), "the last answer is lost: {rest:?}");
}

#[tokio::test]
async fn a_cancelled_modern_request_is_given_up_by_closing_its_answer() {
    let mut host = Host::start().await;
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    host.say(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{{{meta}}}}}"#)).await;
    let seen = host.server.seen.clone();
    kit::test::eventually("the request is there", Duration::from_secs(5), || async {
        (!seen.lock().is_empty()).then_some(())
    })
    .await;
    host.say(&format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":1,{meta}}}}}"#
    ))
    .await;
    let dropped = tokio::time::timeout(Duration::from_secs(5), host.server.dropped.notified()).await;
    assert!(dropped.is_ok(), "the server still works on it");
    assert_eq!(host.server.seen.lock().len(), 1, "the cancellation itself was posted");
}
