//! The client as a tool sees it.

use super::{protocol::Refusal, session::Session};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Messages on their way to the client.
pub(super) type Outlet = mpsc::Sender<String>;

/// The client of one request.
pub(super) struct Peer {
    /// Modern: it cannot be asked in between, the request comes again with the answers.
    pub(super) modern: bool,
    pub(super) session: Arc<Session>,
    pub(super) cancelled: CancellationToken,
    /// The stream of this request.
    pub(super) outlet: Outlet,
    pub(super) progress_token: Option<Value>,
    pub(super) capabilities: Value,
    /// `params.inputResponses` and `params.requestState` of a modern retry.
    pub(super) responses: Value,
    pub(super) state: Value,
    /// Log messages are wanted on this request.
    pub(super) logs: bool,
}

/// What a question gave.
pub(super) enum Answer {
    /// The client's result.
    Given(Value),
    /// To be returned as the result of the tool: the client will call again.
    AskFirst(Value),
}

impl Peer {
    /// Sends a notification of this request.
    pub(super) async fn notify(&self, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        let _ = self.outlet.send(message.to_string()).await;
    }

    pub(super) async fn progress(&self, done: u64, total: u64) {
        if let Some(token) = &self.progress_token {
            let params = json!({"progressToken": token, "progress": done, "total": total});
            self.notify("notifications/progress", params).await;
        }
    }

    /// Asks the client; `capability` is what it must have declared.
    pub(super) async fn ask(&self, capability: &str, method: &str, params: Value) -> Result<Answer, Refusal> {
        if self.capabilities.get(capability).is_none() {
            return Err(self.incapable(capability));
        }
        if self.modern {
            return Ok(self.ask_modern(method, params));
        }
        let (id, answer) = self.session.question();
        let question = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let _ = self.outlet.send(question.to_string()).await;
        let response = tokio::select! {
            response = answer => response.map_err(|_| Refusal::internal("the client went away"))?,
            () = self.cancelled.cancelled() => return Err(Refusal::internal("cancelled")),
        };
        match response.get("error") {
            Some(error) => Err(Refusal::internal(&format!("the client refused: {}", error["message"]))),
            None => Ok(Answer::Given(response["result"].clone())),
        }
    }

    fn ask_modern(&self, method: &str, params: Value) -> Answer {
        match self.responses.get("question") {
            Some(response) if self.state == json!("asked") => Answer::Given(response.clone()),
            _ => Answer::AskFirst(json!({
                "resultType": "input_required",
                "inputRequests": {"question": {"method": method, "params": params}},
                "requestState": "asked",
            })),
        }
    }

    fn incapable(&self, capability: &str) -> Refusal {
        let message = format!("this needs a client with `{capability}`");
        match self.modern {
            true => {
                Refusal { code: -32021, message, data: json!({"requiredCapabilities": {capability: {}}}) }
            }
            false => Refusal { code: -32602, message, data: Value::Null },
        }
    }
}
