//! One POST and its answer: JSON, or events up to the response.

use super::{
    LAST_EVENT_ID, Origin,
    asked::{Asked, Failure},
    failed,
    incoming::Incoming,
    session::{Shared, Spoken},
};
use crate::{
    backend::{BackendError, CallMeta, Core, Era, FromBackend, RawId, rewrite},
    core::{
        codes,
        http1::{Content, Head},
        jsonrpc::{self, Envelope, Field, Kind},
        splice::Edits,
        sse,
    },
};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// Times that a polled stream is taken up again without a message in between.
const RESUMES: u32 = 5;
const RETRY: Duration = Duration::from_secs(1);

/// What a POST gave.
pub(super) enum Answer {
    Json(Bytes),
    Events(Incoming),
}

/// The whole answer to a request of ours.
pub(super) struct Whole {
    pub(super) body: Bytes,
    pub(super) session_id: Option<String>,
}

type Sending = BoxFuture<'static, Result<Answer, BackendError>>;

/// What a POST says, kept until its answer begins: it may have to be said again.
struct Message {
    body: Bytes,
    extra: Vec<(HeaderName, HeaderValue)>,
}

enum State {
    /// The way of nearly every call: it was written at once on a connection that was there.
    Asked(Asked, Arc<Spoken>, Message),
    /// Its answer is JSON of a known length.
    Json(Incoming),
    /// Whatever takes more steps, in a future of its own.
    Sending(Sending),
    Reading(Incoming),
    /// Everything was read; what is left is in `ready`.
    Read,
    Done,
}

/// A request under way. Dropped before its answer, it is cancelled.
pub(crate) struct HttpExchange {
    shared: Arc<Shared>,
    origin: rewrite::Origin,
    id: u64,
    core: Core,
    state: State,
    parser: sse::Parser,
    ready: VecDeque<FromBackend>,
    last_event_id: Option<String>,
    retry: Duration,
    resumes: u32,
}

impl HttpExchange {
    /// Starts it. It is sent now if that goes without waiting, else when [`HttpExchange::next`]
    /// is first polled.
    pub(crate) fn start(
        shared: Arc<Shared>,
        core: Core,
        raw: &Bytes,
        envelope: &Envelope,
        edits: Edits,
        meta: &CallMeta,
    ) -> Result<Self, BackendError> {
        if !shared.origin.enter() {
            return Err(BackendError::not_ready("too many requests in flight", Duration::from_millis(100)));
        }
        let id = shared.origin.pool.next_id(core);
        let mut extra = shared.mirrored(raw, envelope, &edits);
        if shared.settings.era == Era::Modern {
            extra.extend(meta.headers.iter().cloned());
        }
        shared.remember(raw, envelope);
        let who = match shared.settings.era {
            Era::Modern => shared.introduction(),
            Era::Legacy => rewrite::Introduction::default(),
        };
        let info = shared.settings.server_info.clone();
        let out = rewrite::outbound(raw, envelope, edits, id, shared.settings.era, &who, info);
        let state = begin(&shared, core, Message { body: out.body, extra });
        let parser = sse::Parser::new(shared.origin.max_message);
        Ok(HttpExchange {
            shared,
            origin: out.origin,
            id,
            core,
            state,
            parser,
            ready: VecDeque::new(),
            last_event_id: None,
            retry: RETRY,
            resumes: 0,
        })
    }

    /// The next message; `None` after the answer. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Result<FromBackend, BackendError>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                if matches!(item, FromBackend::Response { .. }) {
                    self.ready.clear();
                    self.state = State::Done;
                }
                return Some(Ok(item));
            }
            if let Err(error) = self.step().await? {
                self.state = State::Done;
                return Some(Err(error));
            }
        }
    }

    /// Waits for one thing: the head of the answer or a piece of it.
    async fn step(&mut self) -> Option<Result<(), BackendError>> {
        Some(match &mut self.state {
            State::Done => return None,
            State::Read => Err(BackendError::protocol("answered with something that is no answer")),
            State::Asked(asked, ..) => {
                let head = asked.head().await;
                self.begun(head)
            }
            State::Json(body) => {
                let answer = body.piece(self.shared.origin.max_message).await;
                answer.map(|answer| self.answered(Answer::Json(answer)))
            }
            State::Sending(sending) => sending.await.map(|answer| self.answered(answer)),
            State::Reading(body) => match body.next().await {
                Some(Ok(piece)) => {
                    self.parser.push(&piece);
                    self.events()
                }
                Some(Err(error)) => self.take_up(&error.to_string()),
                // A legacy backend that gave event ids is polled (2025-11-25, "polling").
                None => self.take_up("the stream ended without an answer"),
            },
        })
    }

    /// The answer begins, or there is none.
    fn begun(&mut self, head: Result<Head, Failure>) -> Result<(), BackendError> {
        let State::Asked(asked, spoken, message) = std::mem::replace(&mut self.state, State::Done) else {
            return Ok(());
        };
        let shared = self.shared.clone();
        let (head, body) = match head {
            Ok(head) => asked.body(head),
            Err(Failure::Unsent(_)) => {
                self.state = State::Sending(Box::pin(post(shared, self.core, message)));
                return Ok(());
            }
            Err(failure) => return Err(failed(failure)),
        };
        self.state = match head.content {
            Content::Events if head.status.is_success() => State::Reading(body),
            Content::Json if head.status.is_success() && body.announced() > 0 => State::Json(body),
            _ => State::Sending(Box::pin(judge(shared, self.core, spoken, message, (head, body)))),
        };
        Ok(())
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Json(body) => {
                self.state = State::Read;
                self.messages(&body);
            }
            Answer::Events(body) => self.state = State::Reading(body),
        }
    }

    /// Takes what the parser has; after the answer nothing of the stream matters any more.
    fn events(&mut self) -> Result<(), BackendError> {
        while let Some(event) = self.parser.next().map_err(|_| BackendError::TooLarge)? {
            self.retry = event.retry.map_or(self.retry, Duration::from_millis);
            self.last_event_id = event.id.or(self.last_event_id.take());
            if !event.data.is_empty() && matches!(event.name.as_str(), "" | "message") {
                self.resumes = 0;
                self.messages(&event.data);
            }
        }
        if self.has_answer()
            && let State::Reading(body) = std::mem::replace(&mut self.state, State::Read)
        {
            leave(body);
        }
        Ok(())
    }

    fn has_answer(&self) -> bool {
        self.ready.iter().any(|item| matches!(item, FromBackend::Response { .. }))
    }

    fn messages(&mut self, body: &Bytes) {
        if !jsonrpc::is_batch(body) {
            return self.message(body);
        }
        for span in jsonrpc::scan_batch(body).unwrap_or_default() {
            self.message(&body.slice_ref(span.of(body)));
        }
    }

    fn message(&mut self, raw: &Bytes) {
        let Ok(envelope) = jsonrpc::scan_backend(raw) else {
            self.shared.origin.meter.dropped.inc();
            return;
        };
        match envelope.kind {
            Kind::Response | Kind::Error => {
                let ours = rewrite::number(envelope.id(raw)) == Some(self.id);
                let unaddressed = envelope.kind == Kind::Error && !envelope.has(Field::Id)
                    || envelope.id(raw) == Some(b"null");
                if ours || unaddressed {
                    self.ready.push_back(self.origin.response(raw, &envelope));
                }
            }
            Kind::Notification => {
                let raw = self.origin.notification(raw, &envelope);
                self.ready.push_back(FromBackend::Notification { raw });
            }
            Kind::Request => {
                let id = RawId(envelope.id(raw).map(|id| raw.slice_ref(id)).unwrap_or_default());
                if envelope.method(raw) == "ping" {
                    self.shared.post_aside(codes::result(&id.0, b"{}"));
                } else {
                    self.ready.push_back(FromBackend::Request { raw: raw.clone(), id });
                }
            }
        }
    }

    /// The stream ended without the answer: it goes on where it broke, or the answer is lost.
    fn take_up(&mut self, reason: &str) -> Result<(), BackendError> {
        let legacy = self.shared.settings.era == Era::Legacy;
        match self.last_event_id.clone() {
            Some(last) if legacy && self.resumes < RESUMES => {
                self.resumes += 1;
                self.parser = sse::Parser::new(self.shared.origin.max_message);
                let resumed = resume(self.shared.clone(), self.core, last, self.retry);
                self.state = State::Sending(Box::pin(resumed));
                Ok(())
            }
            _ => Err(BackendError::gone(reason)),
        }
    }

    /// Ends the request; a legacy backend is told, a modern one sees its stream close.
    pub(crate) fn cancel(&mut self, reason: &str) {
        let sent = !matches!(self.state, State::Done);
        self.state = State::Done;
        if sent && self.shared.settings.era == Era::Legacy {
            let params = serde_json::json!({"requestId": self.id, "reason": reason});
            let body = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#);
            self.shared.post_aside(body.into());
        }
    }
}

impl Drop for HttpExchange {
    fn drop(&mut self) {
        if !matches!(self.state, State::Done) && !self.has_answer() {
            self.cancel("the client went away");
        }
        self.shared.origin.leave();
    }
}

/// Reads the end of a stream whose answer is there, so that its connection can be used again.
/// Most backends have sent it along.
fn leave(mut body: Incoming) {
    while let Ok(Some(_)) = body.ready() {}
    if !body.is_done() {
        tokio::spawn(async move {
            let _ = tokio::time::timeout(RETRY, body.drain()).await;
        });
    }
}

/// Writes a POST if that goes without waiting.
fn begin(shared: &Arc<Shared>, core: Core, message: Message) -> State {
    let spoken = shared.spoken();
    let request = shared.request(&spoken, &Method::POST, &message.body, &message.extra);
    match shared.origin.pool.ask(core, &request) {
        Some(asked) => State::Asked(asked, spoken, message),
        None => State::Sending(Box::pin(post(shared.clone(), core, message))),
    }
}

/// Posts, from the beginning.
async fn post(shared: Arc<Shared>, core: Core, message: Message) -> Result<Answer, BackendError> {
    let spoken = shared.spoken();
    let answer = once(&shared, core, &spoken, &message).await;
    unless_forgotten(&shared, core, &spoken, &message, answer).await
}

/// The same, after the head of the first answer.
async fn judge(
    shared: Arc<Shared>,
    core: Core,
    spoken: Arc<Spoken>,
    message: Message,
    (head, body): (Head, Incoming),
) -> Result<Answer, BackendError> {
    let answer = read(&shared.origin, &head, body, spoken.session_id.is_some()).await;
    unless_forgotten(&shared, core, &spoken, &message, answer).await
}

/// When the backend has forgotten the session (404, so it processed nothing), opens it again and
/// posts once more.
async fn unless_forgotten(
    shared: &Shared,
    core: Core,
    spoken: &Spoken,
    message: &Message,
    answer: Result<Answer, BackendError>,
) -> Result<Answer, BackendError> {
    match answer {
        Err(BackendError::SessionExpired) => {
            shared.reopen(spoken).await?;
            once(shared, core, &shared.spoken(), message).await
        }
        answer => answer,
    }
}

async fn once(
    shared: &Shared,
    core: Core,
    spoken: &Spoken,
    message: &Message,
) -> Result<Answer, BackendError> {
    let request = shared.request(spoken, &Method::POST, &message.body, &message.extra);
    let (head, body) = shared.origin.pool.send(core, &request).await.map_err(failed)?;
    read(&shared.origin, &head, body, spoken.session_id.is_some()).await
}

async fn resume(
    shared: Arc<Shared>,
    core: Core,
    last: String,
    pause: Duration,
) -> Result<Answer, BackendError> {
    tokio::time::sleep(pause.min(Duration::from_secs(30))).await;
    let value = HeaderValue::from_str(&last).map_err(|_| BackendError::protocol("gave a bad event id"))?;
    let request = shared.request(&shared.spoken(), &Method::GET, b"", &[(LAST_EVENT_ID, value)]);
    let (head, body) = shared.origin.pool.send(core, &request).await.map_err(failed)?;
    let lost = |error| BackendError::gone(format!("the stream could not be taken up again: {error}"));
    read(&shared.origin, &head, body, true).await.map_err(lost)
}

/// What a status and a content type mean.
async fn read(
    origin: &Origin,
    head: &Head,
    body: Incoming,
    in_session: bool,
) -> Result<Answer, BackendError> {
    let status = head.status;
    if status.is_success() && head.content == Content::Events {
        return Ok(Answer::Events(body));
    }
    let json = head.content == Content::Json;
    let body = body.whole(origin.max_message).await?;
    if status.is_success() {
        return match json && !body.is_empty() {
            true => Ok(Answer::Json(body)),
            false => Err(BackendError::protocol(format!("answered a request with {status} and no JSON"))),
        };
    }
    if status == StatusCode::NOT_FOUND && in_session {
        return Err(BackendError::SessionExpired);
    }
    if json && jsonrpc::scan_backend(&body).is_ok_and(|envelope| envelope.kind == Kind::Error) {
        return Ok(Answer::Json(body));
    }
    Err(refusal(status, Duration::from_secs(head.retry_after.unwrap_or(1).clamp(1, 60))))
}

fn refusal(status: StatusCode, retry_after: Duration) -> BackendError {
    let reason = status.canonical_reason().unwrap_or("refused").to_ascii_lowercase();
    match status.as_u16() {
        429 | 503 => BackendError::not_ready(format!("it answered {status}"), retry_after),
        400..=499 => BackendError::Refused { status: status.as_u16(), reason },
        // It may have failed half-way.
        _ => BackendError::gone(format!("it answered {status}")),
    }
}

/// The whole answer to a request of ours (initialize, a replayed setting), whether it comes as
/// JSON or as events.
pub(super) async fn answer(origin: &Origin, request: &Bytes, core: Core) -> Result<Whole, BackendError> {
    let (mut head, body) = origin.pool.send(core, request).await.map_err(failed)?;
    let session_id = head.session_id.take();
    let body = match read(origin, &head, body, false).await? {
        Answer::Json(body) => body,
        Answer::Events(body) => first_answer(origin, body).await?,
    };
    Ok(Whole { body, session_id })
}

async fn first_answer(origin: &Origin, mut body: Incoming) -> Result<Bytes, BackendError> {
    let mut parser = sse::Parser::new(origin.max_message);
    while let Some(piece) = body.next().await {
        parser.push(&piece?);
        while let Some(event) = parser.next().map_err(|_| BackendError::TooLarge)? {
            let kind = jsonrpc::scan_backend(&event.data).map(|envelope| envelope.kind);
            if matches!(kind, Ok(Kind::Response | Kind::Error)) {
                leave(body);
                return Ok(event.data);
            }
        }
    }
    Err(BackendError::gone("the stream ended without an answer"))
}
