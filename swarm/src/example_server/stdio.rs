//! One client over stdin and stdout, a message a line.

use super::{protocol::Server, session::Session};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, stdin, stdout},
    sync::mpsc,
    task::JoinSet,
};

const QUEUE: usize = 256;

/// Serves until stdin ends.
pub(super) async fn serve(server: Arc<Server>) -> anyhow::Result<()> {
    let session = server.session();
    let (outlet, inbox) = mpsc::channel::<String>(QUEUE);
    let writer = tokio::spawn(write(inbox));
    let standing = tokio::spawn(stand(session.clone(), outlet.clone()));
    let mut running = JoinSet::new();
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if line.trim().is_empty() {
            continue;
        }
        let Ok(message) = serde_json::from_str::<Value>(&line) else {
            let _ = outlet.send(unreadable()).await;
            continue;
        };
        while running.try_join_next().is_some() {}
        if message.get("method").is_some() && message.get("id").is_some() {
            running.spawn(answer(server.clone(), session.clone(), message, outlet.clone()));
        } else {
            server.take(&session, message);
        }
    }
    running.abort_all();
    standing.abort();
    drop(outlet);
    let _ = writer.await;
    Ok(())
}

fn unreadable() -> String {
    json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "parse error"}}).to_string()
}

/// A request that the client cancelled gets no answer.
async fn answer(server: Arc<Server>, session: Arc<Session>, message: Value, outlet: mpsc::Sender<String>) {
    let reply = server.request(&session, &message, outlet.clone()).await;
    if reply.body["error"]["message"] != "cancelled" {
        let _ = outlet.send(reply.body.to_string()).await;
    }
    for (method, params) in reply.after {
        session.say(&method, params);
    }
}

async fn stand(session: Arc<Session>, outlet: mpsc::Sender<String>) {
    let mut reader = session.standing.read(None);
    while let Some((_, message)) = reader.next(&session.standing).await {
        if outlet.send(message).await.is_err() {
            return;
        }
    }
}

async fn write(mut inbox: mpsc::Receiver<String>) {
    let mut out = stdout();
    while let Some(mut message) = inbox.recv().await {
        message.push('\n');
        if out.write_all(message.as_bytes()).await.is_err() || out.flush().await.is_err() {
            return;
        }
    }
}
