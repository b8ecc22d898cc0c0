//! What a legacy backend says unasked: one GET stream per session, taken up again where it broke.

use super::{LAST_EVENT_ID, incoming::Incoming, session::Shared};
use crate::{
    backend::{Core, Said, Unsolicited},
    core::{
        codes,
        http1::Content,
        jsonrpc::{self, Kind},
        sse,
    },
};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use kit::backoff::Backoff;
use std::{sync::Arc, time::Duration};

/// Pauses between attempts when the backend does not say.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// Why one attempt ended.
enum End {
    /// It streamed and ended; come back after this pause.
    Again(Duration),
    /// It could not be opened.
    Failed,
    /// The backend has no such stream.
    Never,
}

/// Listens until it is dropped or the backend has no such stream.
pub(super) async fn listen(shared: Arc<Shared>) {
    let mut backoff = Backoff::random(FIRST, LONGEST);
    loop {
        let pause = tokio::select! {
            end = attempt(&shared) => match end {
                End::Again(pause) => { backoff.reset(); pause }
                End::Failed => backoff.next(),
                End::Never => {
                    shared.reopened.notified().await;
                    Duration::ZERO
                }
            },
            () = shared.reopened.notified() => Duration::ZERO,
        };
        tokio::time::sleep(pause).await;
    }
}

async fn attempt(shared: &Arc<Shared>) -> End {
    let last = shared.last_event_id.lock().clone();
    let last = last.and_then(|last| HeaderValue::from_str(&last).ok()).map(|last| (LAST_EVENT_ID, last));
    let spoken = shared.spoken();
    let request = shared.request(&spoken, &Method::GET, b"", last.as_slice());
    let Ok((head, body)) = shared.origin.pool.send(Core::ASIDE, &request).await else {
        return End::Failed;
    };
    match head.status {
        StatusCode::OK if head.content == Content::Events => follow(shared, body).await,
        // Taken by an older connection of ours that the backend has not seen end.
        StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS => End::Failed,
        status if status.is_server_error() => End::Failed,
        StatusCode::NOT_FOUND if spoken.session_id.is_some() => match shared.reopen(&spoken).await {
            Ok(()) => End::Again(Duration::ZERO),
            Err(_) => End::Failed,
        },
        _ => End::Never,
    }
}

async fn follow(shared: &Arc<Shared>, mut body: Incoming) -> End {
    let mut parser = sse::Parser::new(shared.origin.max_message);
    let mut pause = Duration::from_secs(1);
    while let Some(Ok(piece)) = body.next().await {
        parser.push(&piece);
        loop {
            match parser.next() {
                Ok(Some(event)) => {
                    pause = event.retry.map_or(pause, Duration::from_millis).min(LONGEST);
                    take(shared, event).await;
                }
                Ok(None) => break,
                Err(_) => return End::Failed,
            }
        }
    }
    End::Again(pause)
}

/// Waits for the reader: the stream is the session's own. The event counts as seen only after
/// it was handed over.
async fn take(shared: &Arc<Shared>, event: sse::Event) {
    if !event.data.is_empty() && matches!(event.name.as_str(), "" | "message") {
        hand_over(shared, event.data, event.id.clone()).await;
    }
    if let Some(id) = event.id {
        *shared.last_event_id.lock() = Some(id);
    }
}

async fn hand_over(shared: &Arc<Shared>, raw: Bytes, last_event_id: Option<String>) {
    let Ok(envelope) = jsonrpc::scan_backend(&raw) else {
        shared.origin.meter.dropped.inc();
        return;
    };
    if envelope.kind == Kind::Request && envelope.method(&raw) == "ping" {
        shared.post_aside(codes::result(envelope.id(&raw).unwrap_or(b"null"), b"{}"));
        return;
    }
    let message = Unsolicited::Message(Box::new(Said { raw, envelope, last_event_id }));
    let _ = shared.settings.events.send(message).await;
}
