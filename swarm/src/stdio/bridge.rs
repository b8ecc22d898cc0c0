//! Lines in, HTTP out, lines back.
//!
//! Legacy: the session id of `initialize` goes with every later request; the session's own stream
//! is held and resumed where it broke. A session that the server no longer knows is told to the
//! host and never opened again behind its back. Modern: each request stands alone, and a cancelled
//! one has its answer's stream closed.

use super::message::{Message, error_line, one_line};
use crate::client::{Http, HttpError, Parser, Reply};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use kit::clock::Clock;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc},
    task::AbortHandle,
};

/// Requests in flight at once; further lines wait in the pipe.
const MAX_IN_FLIGHT: usize = 64;
/// The longest a request may wait for its first byte.
const ANSWER_DEADLINE: Duration = Duration::from_secs(300);
/// How long a server that cannot be reached is tried again; nothing was sent then.
const RECONNECT_FOR: Duration = Duration::from_secs(10);
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);
/// Tries to resume a broken stream before its request is answered with an error.
const RESUMES: u32 = 20;

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// JSON-RPC codes of the bridge's own errors: "server error" of JSON-RPC 2.0.
const UNREACHABLE: i32 = -32000;
const SESSION_GONE: i32 = -32001;
const PARSE_ERROR: i32 = -32700;

/// The bridge; clones share one session.
#[derive(Clone)]
pub(super) struct Bridge {
    shared: Arc<Shared>,
}

struct Shared {
    http: Http,
    url: String,
    extra: HeaderMap,
    out: mpsc::Sender<String>,
    clock: Arc<dyn Clock>,
    session: Mutex<Session>,
    in_flight: Mutex<HashMap<String, AbortHandle>>,
    permits: Arc<Semaphore>,
}

#[derive(Default)]
struct Session {
    id: Option<HeaderValue>,
    version: Option<HeaderValue>,
    stream: Option<AbortHandle>,
}

impl Bridge {
    /// A bridge to `url`; what the server says goes to `out`, a line each.
    pub(super) fn new(
        url: String,
        extra: HeaderMap,
        out: mpsc::Sender<String>,
        clock: Arc<dyn Clock>,
    ) -> Bridge {
        let shared = Shared {
            http: Http::pooled(),
            url,
            extra,
            out,
            clock,
            session: Mutex::default(),
            in_flight: Mutex::default(),
            permits: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        };
        Bridge { shared: Arc::new(shared) }
    }

    /// Takes one line of the host. Requests are answered in their own time; everything else is
    /// delivered before the next line is read, so that the order stays.
    pub(super) async fn take(&self, line: String) {
        if line.trim().is_empty() {
            return;
        }
        let message = match Message::parse(&line) {
            Ok(message) => message,
            Err(error) => return self.say(error_line(None, PARSE_ERROR, &error, "PARSE")).await,
        };
        if message.is("notifications/cancelled") && self.cancel_modern(&message) {
            return;
        }
        if message.is("initialize") {
            self.forget_session();
            return self.exchange(message, line).await;
        }
        if !message.is_request() {
            return self.exchange(message, line).await;
        }
        let Ok(permit) = self.shared.permits.clone().acquire_owned().await else { return };
        let key = message.id.clone().unwrap_or_default();
        let (bridge, done) = (self.clone(), key.clone());
        let modern = message.modern.is_some();
        // Held until the entry is there: the task that removes it may be done at once.
        let mut in_flight = self.shared.in_flight.lock();
        let task = tokio::spawn(async move {
            bridge.exchange(message, line).await;
            bridge.shared.in_flight.lock().remove(&done);
            drop(permit);
        });
        if modern {
            in_flight.insert(key, task.abort_handle());
        }
    }

    /// Waits for every answer that is due, then ends the session.
    pub(super) async fn finish(&self, deadline: Duration) {
        let all = self.shared.permits.acquire_many(MAX_IN_FLIGHT as u32);
        let _ = tokio::time::timeout(deadline, all).await;
        self.close().await;
    }

    /// Ends the session at the server, as far as it can be reached at once.
    pub(super) async fn close(&self) {
        let headers = self.headers(None);
        let had_session = headers.contains_key(SESSION);
        self.forget_session();
        if had_session {
            let (shared, wait) = (&self.shared, Duration::from_secs(1));
            let _ = shared.http.send(Method::DELETE, &shared.url, headers, Bytes::new(), wait).await;
        }
    }

    fn forget_session(&self) {
        let session = std::mem::take(&mut *self.shared.session.lock());
        if let Some(stream) = session.stream {
            stream.abort();
        }
    }

    /// In the modern era closing the answer's stream is the cancellation.
    fn cancel_modern(&self, message: &Message) -> bool {
        let Some(id) = &message.cancels else { return false };
        let Some(task) = self.shared.in_flight.lock().remove(id) else { return false };
        task.abort();
        true
    }

    async fn exchange(&self, message: Message, line: String) {
        let id = message.is_request().then_some(message.id.as_deref()).flatten();
        let headers = self.headers(Some(&message));
        let reply = match self.send(Method::POST, headers, line.into()).await {
            Ok(reply) => reply,
            Err(error) => return self.fail(id, UNREACHABLE, &error.to_string(), "UNREACHABLE").await,
        };
        if reply.status == StatusCode::NOT_FOUND && self.lost_session(&message) {
            let words = "the server has ended the session; initialize again";
            return self.fail(id, SESSION_GONE, words, "SESSION_GONE").await;
        }
        if message.is("initialize") && reply.status.is_success() {
            self.begin_session(&reply);
        }
        self.relay(reply, id).await;
        if message.is("notifications/initialized") {
            self.hold_stream();
        }
    }

    /// True when a legacy message met a session that is no more; it is forgotten then.
    fn lost_session(&self, message: &Message) -> bool {
        let lost = message.modern.is_none() && self.shared.session.lock().id.is_some();
        if lost {
            self.forget_session();
        }
        lost
    }

    fn begin_session(&self, reply: &Reply) {
        self.shared.session.lock().id = reply.headers.get(SESSION).cloned();
    }

    /// Passes the answer on; the id says whether one is due.
    async fn relay(&self, reply: Reply, id: Option<&str>) {
        if reply.media_type() == "text/event-stream" {
            return self.unfold(reply, id).await;
        }
        let status = reply.status;
        let body = match reply.whole(ANSWER_DEADLINE).await {
            Ok(body) => String::from_utf8_lossy(&body).into_owned(),
            Err(error) => return self.fail(id, UNREACHABLE, &error.to_string(), "BROKEN").await,
        };
        if serde_json::from_str::<serde::de::IgnoredAny>(&body).is_ok() {
            self.learn_version(&body);
            // An error about a notification has no id that the host could know.
            if id.is_some() || status.is_success() {
                self.say(one_line(&body).into_owned()).await;
            }
        } else if !status.is_success() || id.is_some() {
            self.fail(id, UNREACHABLE, &format!("the server answered {status}"), "STATUS").await;
        }
    }

    /// The negotiated version goes into a header from now on.
    fn learn_version(&self, body: &str) {
        let mut session = self.shared.session.lock();
        if session.id.is_none() || session.version.is_some() {
            return;
        }
        let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let version = value.pointer("/result/protocolVersion").and_then(|v| v.as_str());
        session.version = version.and_then(|version| HeaderValue::from_str(version).ok());
    }

    /// A request's stream: every message a line; resumed where it broke until the answer came.
    async fn unfold(&self, reply: Reply, id: Option<&str>) {
        let mut stream = Stream::new(reply);
        let mut resumes = 0;
        loop {
            match self.pump(&mut stream, id).await {
                Pumped::Answered => return,
                Pumped::Broke if id.is_none() => return,
                Pumped::Broke => {}
            }
            let resumed = match &stream.last_event {
                Some(last) if resumes < RESUMES => self.resume(last.clone(), &stream).await,
                _ => None,
            };
            let Some(reply) = resumed else {
                let words = "the connection broke before the answer; it may have been done";
                return self.fail(id, UNREACHABLE, words, "BROKEN").await;
            };
            resumes += 1;
            stream.continue_with(reply);
        }
    }

    async fn pump(&self, stream: &mut Stream, id: Option<&str>) -> Pumped {
        while let Ok(Some(chunk)) = stream.reply.chunk().await {
            let Some(events) = stream.parser.feed(&chunk) else { return Pumped::Broke };
            for event in events {
                stream.last_event = event.id.or(stream.last_event.take());
                stream.retry = event.retry.unwrap_or(stream.retry);
                if event.data.is_empty() {
                    continue;
                }
                let answers = id.is_some_and(|id| is_answer(&event.data, id));
                self.learn_version(&event.data);
                self.say(one_line(&event.data).into_owned()).await;
                if answers {
                    return Pumped::Answered;
                }
            }
        }
        Pumped::Broke
    }

    /// Opens a stream again after `last_event`, or says that the server does not want to.
    async fn resume(&self, last_event: String, stream: &Stream) -> Option<Reply> {
        tokio::time::sleep(stream.retry).await;
        let reply = self.listen(Some(&last_event)).await.ok()?;
        (reply.status.is_success() && reply.media_type() == "text/event-stream").then_some(reply)
    }

    async fn listen(&self, last_event: Option<&str>) -> Result<Reply, HttpError> {
        let mut headers = self.headers(None);
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(last) = last_event.and_then(|last| HeaderValue::from_str(last).ok()) {
            headers.insert(LAST_EVENT, last);
        }
        self.send(Method::GET, headers, Bytes::new()).await
    }

    /// Holds the session's own stream as long as the session lives.
    fn hold_stream(&self) {
        let bridge = self.clone();
        let task = tokio::spawn(async move { bridge.follow_session().await });
        let mut session = self.shared.session.lock();
        match session.id {
            Some(_) => session.stream = Some(task.abort_handle()),
            None => task.abort(),
        }
    }

    async fn follow_session(&self) {
        let mut last_event: Option<String> = None;
        let mut pause = RECONNECT_PAUSE;
        loop {
            match self.listen(last_event.as_deref()).await {
                Ok(reply) if reply.media_type() == "text/event-stream" => {
                    let mut stream = Stream::new(reply);
                    stream.last_event = last_event.take();
                    self.pump(&mut stream, None).await;
                    (last_event, pause) = (stream.last_event, stream.retry);
                }
                // No such stream here (405), or no such session any more: the next request says so.
                Ok(reply) if reply.status.is_client_error() => return,
                _ => {}
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends, trying again only where surely nothing was sent.
    async fn send(&self, method: Method, headers: HeaderMap, body: Bytes) -> Result<Reply, HttpError> {
        let shared = &self.shared;
        let give_up = shared.clock.now() + RECONNECT_FOR;
        loop {
            let sending =
                shared.http.send(method.clone(), &shared.url, headers.clone(), body.clone(), ANSWER_DEADLINE);
            match sending.await {
                Err(error @ HttpError::Connect { .. }) if shared.clock.now() >= give_up => {
                    return Err(error);
                }
                Err(HttpError::Connect { .. }) => tokio::time::sleep(RECONNECT_PAUSE).await,
                other => return other,
            }
        }
    }

    fn headers(&self, message: Option<&Message>) -> HeaderMap {
        let mut headers = self.shared.extra.clone();
        let both = HeaderValue::from_static("application/json, text/event-stream");
        headers.insert(header::ACCEPT, both);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(message) = message.filter(|message| message.modern.is_some()) {
            headers.extend(message.modern_headers());
            return headers;
        }
        let session = self.shared.session.lock();
        if let Some(id) = &session.id {
            headers.insert(SESSION, id.clone());
        }
        if let Some(version) = &session.version {
            headers.insert(PROTOCOL, version.clone());
        }
        headers
    }

    /// Answers a request with an error; trouble with anything else goes to stderr.
    async fn fail(&self, id: Option<&str>, code: i32, message: &str, reason: &str) {
        match id {
            Some(id) => self.say(error_line(Some(id), code, message, reason)).await,
            None => tracing::warn!(reason, "{message}"),
        }
    }

    async fn say(&self, line: String) {
        // The writer is gone when the host is: there is nobody to tell.
        let _ = self.shared.out.send(line).await;
    }
}

enum Pumped {
    Answered,
    Broke,
}

struct Stream {
    reply: Reply,
    parser: Parser,
    last_event: Option<String>,
    retry: Duration,
}

impl Stream {
    fn new(reply: Reply) -> Stream {
        Stream { reply, parser: Parser::default(), last_event: None, retry: RECONNECT_PAUSE }
    }

    fn continue_with(&mut self, reply: Reply) {
        self.reply = reply;
        self.parser = Parser::default();
    }
}

fn is_answer(data: &str, id: &str) -> bool {
    Message::parse(data).is_ok_and(|message| message.method.is_none() && message.id.as_deref() == Some(id))
}
