//! What lives between the requests of one client.

use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Messages that can be read again.
const KEPT: usize = 4096;

/// One client's session; over stdio the only one.
#[derive(Default)]
pub(super) struct Session {
    /// What is said outside of requests.
    pub(super) standing: Standing,
    /// Log messages below this are not sent.
    pub(super) level: Mutex<Option<String>>,
    pub(super) subscriptions: Mutex<BTreeSet<String>>,
    /// `capabilities` of its initialize.
    pub(super) capabilities: Mutex<Value>,
    questions: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    running: Mutex<HashMap<String, CancellationToken>>,
    next: AtomicU64,
}

impl Session {
    /// Registers a question; its id and where the answer will come.
    pub(super) fn question(&self) -> (String, oneshot::Receiver<Value>) {
        let id = format!("ask-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = oneshot::channel();
        self.questions.lock().insert(id.clone(), sender);
        (id, answer)
    }

    /// The client's response to a question. False when nobody asked.
    pub(super) fn answered(&self, response: Value) -> bool {
        let id = response["id"].as_str().unwrap_or_default();
        let asker = self.questions.lock().remove(id);
        asker.is_some_and(|asker| asker.send(response).is_ok())
    }

    /// A request begins; its token is cancelled when the client cancels it.
    pub(super) fn begin(&self, id: &Value) -> CancellationToken {
        let token = CancellationToken::new();
        self.running.lock().insert(id.to_string(), token.clone());
        token
    }

    pub(super) fn end(&self, id: &Value) {
        self.running.lock().remove(&id.to_string());
    }

    pub(super) fn running(&self) -> usize {
        self.running.lock().len()
    }

    pub(super) fn cancel(&self, id: &Value) {
        if let Some(token) = self.running.lock().get(&id.to_string()) {
            token.cancel();
        }
    }

    pub(super) fn say(&self, method: &str, params: Value) {
        self.standing.push(json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string());
    }
}

/// A numbered log of messages. Whoever reads it says after which number to go on.
pub(super) struct Standing {
    log: Mutex<Log>,
    bell: watch::Sender<u64>,
}

#[derive(Default)]
struct Log {
    messages: VecDeque<String>,
    /// Number of the first kept message.
    first: u64,
    /// Whose turn it is to read; an older reader ends.
    reader: u64,
}

impl Default for Standing {
    fn default() -> Self {
        Standing { log: Mutex::new(Log { first: 1, ..Log::default() }), bell: watch::Sender::new(0) }
    }
}

impl Standing {
    fn push(&self, message: String) {
        let mut log = self.log.lock();
        if log.messages.len() == KEPT {
            log.messages.pop_front();
            log.first += 1;
        }
        log.messages.push_back(message);
        drop(log);
        self.bell.send_modify(|rings| *rings += 1);
    }

    /// Becomes the reader, from the message after number `after`, or from what comes next.
    pub(super) fn read(&self, after: Option<u64>) -> Reader {
        let mut log = self.log.lock();
        log.reader += 1;
        let end = log.first + log.messages.len() as u64;
        let next = after.map_or(end, |after| after + 1).clamp(log.first, end);
        let reader = Reader { turn: log.reader, next, bell: self.bell.subscribe() };
        drop(log);
        self.bell.send_modify(|rings| *rings += 1);
        reader
    }

    /// Number of the newest message.
    pub(super) fn newest(&self) -> u64 {
        let log = self.log.lock();
        log.first + log.messages.len() as u64 - 1
    }
}

/// A place in the log.
pub(super) struct Reader {
    turn: u64,
    next: u64,
    bell: watch::Receiver<u64>,
}

impl Reader {
    /// The next message with its number; `None` when somebody else reads now.
    pub(super) async fn next(&mut self, standing: &Standing) -> Option<(u64, String)> {
        loop {
            {
                let log = standing.log.lock();
                if log.reader != self.turn {
                    return None;
                }
                let number = self.next.max(log.first);
                let index = usize::try_from(number - log.first).unwrap_or(usize::MAX);
                if let Some(message) = log.messages.get(index) {
                    self.next = number + 1;
                    return Some((number, message.clone()));
                }
            }
            self.bell.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_goes_on_where_another_stopped() {
        let session = Session::default();
        let mut first = session.standing.read(None);
        for n in 1..=5 {
            session.say("m", json!(n));
        }
        assert_eq!(first.next(&session.standing).await.map(|(number, _)| number), Some(1));
        let mut second = session.standing.read(Some(3));
        assert_eq!(first.next(&session.standing).await, None);
        assert_eq!(second.next(&session.standing).await.map(|(number, _)| number), Some(4));
    }
}
