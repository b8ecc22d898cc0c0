//! The tools.

use super::{
    content::uri,
    peer::{Answer, Peer},
    protocol::{Refusal, Server},
};
use serde_json::{Value, json};
use std::time::Duration;

/// Most bytes of `big`, messages of `emit` and time of `sleep`.
const MAX_BYTES: u64 = 16 << 20;
const MAX_MESSAGES: u64 = 4096;
const MAX_SLEEP: u64 = 600_000;
const PROGRESS_STEPS: u64 = 10;

/// How a tool presents itself: name, description, properties, required ones, read-only, idempotent.
type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
    bool,
    bool,
);

const ROWS: &[Row] = &[
    ("echo", "Says what it was told", &[("text", "string")], &["text"], true, true),
    ("add", "Adds two numbers", &[("a", "number"), ("b", "number")], &["a", "b"], true, true),
    ("sleep", "Takes its time and reports progress", &[("ms", "integer")], &["ms"], true, true),
    ("fail", "Fails as a tool does", &[("reason", "string")], &[], true, true),
    ("big", "Answers with so many bytes", &[("bytes", "integer")], &["bytes"], true, true),
    ("pid", "Tells its process id", &[], &[], true, true),
    ("running", "Tells how many requests of this session it works on", &[], &[], true, true),
    ("env", "Tells one of its environment variables", &[("name", "string")], &["name"], true, true),
    ("log", "Sends a log message", &[("message", "string"), ("level", "string")], &["message"], true, false),
    (
        "emit",
        "Sends numbered log messages on the session's own stream",
        &[("count", "integer"), ("from", "integer")],
        &["count"],
        false,
        false,
    ),
    ("elicit", "Asks the user", &[("message", "string")], &["message"], false, false),
    ("sample", "Asks the client's model", &[("prompt", "string")], &["prompt"], false, false),
    ("roots", "Asks the client for its roots", &[], &[], true, false),
    (
        "set_note",
        "Writes a note, a resource that can be subscribed to",
        &[("id", "string"), ("text", "string")],
        &["id", "text"],
        false,
        true,
    ),
    ("hang", "Never answers", &[], &[], false, false),
    ("crash", "Ends the process", &[("code", "integer")], &[], false, false),
    (
        "flood",
        "Fills the process's output: `line` without an end, `noise` for ever",
        &[("kind", "string")],
        &[],
        false,
        false,
    ),
];

pub(super) fn list() -> Value {
    ROWS.iter().map(present).collect()
}

fn present((name, description, properties, required, read_only, idempotent): &Row) -> Value {
    let properties: serde_json::Map<String, Value> =
        properties.iter().map(|(name, kind)| ((*name).to_owned(), json!({"type": kind}))).collect();
    json!({
        "name": name,
        "description": description,
        "inputSchema": {"type": "object", "properties": properties, "required": required},
        "annotations": {
            "readOnlyHint": read_only,
            "idempotentHint": idempotent,
            "destructiveHint": matches!(*name, "crash" | "flood"),
            "openWorldHint": false,
        },
    })
}

/// Runs one tool. What it wants to say on the standing stream goes to `after`.
pub(super) async fn call(
    server: &Server,
    peer: &Peer,
    params: &Value,
    after: &mut Vec<(String, Value)>,
) -> Result<Value, Refusal> {
    let arguments = &params["arguments"];
    let text = |key: &str| arguments[key].as_str().unwrap_or_default().to_owned();
    let name = params["name"].as_str().unwrap_or_default();
    if let Some((.., required, _, _)) = ROWS.iter().find(|row| row.0 == name)
        && let Some(missing) = required.iter().find(|key| arguments.get(**key).is_none())
    {
        return Ok(failed(&format!("argument `{missing}` is missing")));
    }
    match name {
        "echo" => Ok(said(&text("text"))),
        "add" => Ok(add(arguments)),
        "sleep" => sleep(peer, bounded(arguments, "ms", MAX_SLEEP)).await,
        "fail" => Ok(failed(&format!("failed: {}", text("reason")))),
        "big" => Ok(said(&"x".repeat(usize::try_from(bounded(arguments, "bytes", MAX_BYTES)).unwrap_or(0)))),
        "pid" => Ok(said(&std::process::id().to_string())),
        "running" => Ok(said(&peer.session.running().to_string())),
        "env" => Ok(said(&std::env::var(text("name")).unwrap_or_default())),
        "log" => Ok(log(peer, &text("level"), &text("message")).await),
        "emit" => Ok(emit(arguments, after)),
        "elicit" => elicit(peer, &text("message")).await,
        "sample" => sample(peer, &text("prompt")).await,
        "roots" => ask(peer, "roots", "roots/list", json!({})).await,
        "set_note" => Ok(set_note(server, &text("id"), text("text"))),
        "hang" => hang(peer).await,
        "crash" => crash(arguments),
        "flood" => flood(&text("kind")),
        _ => Err(Refusal::invalid(&format!("unknown tool `{name}`"))),
    }
}

fn said(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

fn failed(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}], "isError": true})
}

fn bounded(arguments: &Value, key: &str, most: u64) -> u64 {
    arguments[key].as_u64().unwrap_or(0).min(most)
}

fn add(arguments: &Value) -> Value {
    if let (Some(a), Some(b)) = (arguments["a"].as_i64(), arguments["b"].as_i64())
        && let Some(sum) = a.checked_add(b)
    {
        return said(&sum.to_string());
    }
    match (arguments["a"].as_f64(), arguments["b"].as_f64()) {
        (Some(a), Some(b)) => said(&(a + b).to_string()),
        _ => failed("`a` and `b` must be numbers"),
    }
}

async fn sleep(peer: &Peer, ms: u64) -> Result<Value, Refusal> {
    for step in 1..=PROGRESS_STEPS {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_micros(ms * 1000 / PROGRESS_STEPS)) => {}
            () = peer.cancelled.cancelled() => return Err(Refusal::internal("cancelled")),
        }
        if step < PROGRESS_STEPS {
            peer.progress(step, PROGRESS_STEPS).await;
        }
    }
    Ok(said(&format!("slept {ms} ms")))
}

async fn log(peer: &Peer, level: &str, message: &str) -> Value {
    let level = if level.is_empty() { "info" } else { level };
    if peer.logs {
        let params = json!({"level": level, "logger": "example", "data": message});
        peer.notify("notifications/message", params).await;
    }
    said("logged")
}

fn emit(arguments: &Value, after: &mut Vec<(String, Value)>) -> Value {
    let count = bounded(arguments, "count", MAX_MESSAGES);
    let from = arguments["from"].as_u64().unwrap_or(1);
    for n in from..from + count {
        let params = json!({"level": "info", "logger": "emit", "data": {"n": n}});
        after.push(("notifications/message".into(), params));
    }
    said(&format!("{count} messages from {from}"))
}

async fn elicit(peer: &Peer, message: &str) -> Result<Value, Refusal> {
    let schema =
        json!({"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]});
    let params = json!({"mode": "form", "message": message, "requestedSchema": schema});
    ask(peer, "elicitation", "elicitation/create", params).await
}

async fn sample(peer: &Peer, prompt: &str) -> Result<Value, Refusal> {
    let params = json!({
        "messages": [{"role": "user", "content": {"type": "text", "text": prompt}}],
        "maxTokens": 100,
    });
    ask(peer, "sampling", "sampling/createMessage", params).await
}

async fn ask(peer: &Peer, capability: &str, method: &str, params: Value) -> Result<Value, Refusal> {
    match peer.ask(capability, method, params).await? {
        Answer::Given(answer) => Ok(said(&answer.to_string())),
        Answer::AskFirst(result) => Ok(result),
    }
}

fn set_note(server: &Server, id: &str, text: String) -> Value {
    let is_new = server.notes.lock().insert(id.to_owned(), text).is_none();
    server.changed(&uri(id), is_new);
    said("written")
}

async fn hang(peer: &Peer) -> Result<Value, Refusal> {
    peer.cancelled.cancelled().await;
    Err(Refusal::internal("cancelled"))
}

fn crash(arguments: &Value) -> ! {
    let code = arguments["code"].as_i64().and_then(|code| i32::try_from(code).ok());
    std::process::exit(code.unwrap_or(3))
}

/// Writes past every protocol, as a broken server would.
fn flood(kind: &str) -> ! {
    use std::io::Write as _;
    let piece = match kind {
        "noise" => b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":0,\"progress\":1}}\n".to_vec(),
        _ => vec![b'x'; 64 << 10],
    };
    let mut out = std::io::stdout().lock();
    while out.write_all(&piece).is_ok() {}
    std::process::exit(4)
}
