//! A resumable stream: every message is in the log before it is sent (DESIGN K25).

use super::{
    live::Live,
    store::{Event, EventKind, StoreError, event},
};
use crate::{
    core::{
        era::Legacy,
        event::{message, priming},
        stream::{CONTROL, STANDING},
    },
    front::{Answer, Outlet, events},
};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::Mutex;

/// When a client whose stream broke should come back.
const RETRY_MS: u64 = 200;
/// Tries of one append; the same sequence is taken once, so trying again is safe.
const APPEND_TRIES: u32 = 5;

/// Why a stream cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StreamError {
    /// The log could not be written or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No such stream in this session.
    #[error("no such stream")]
    Unknown,
    /// Events after the one named are no longer held.
    #[error("events after {after} are lost, the oldest held is {first}")]
    Lost {
        /// What the client has.
        after: u64,
        /// What is still there.
        first: u64,
    },
    /// It ended.
    #[error("the stream ended")]
    Ended,
}

/// The request that opened a POST stream: enough to answer it on another node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenRequest {
    /// The client's id, as written.
    pub(crate) id: String,
    /// Where it went.
    pub(crate) backend: String,
    /// Method, for metrics.
    pub(crate) method: String,
    /// Tool or prompt as the client named it.
    pub(crate) name: String,
    /// Sending it twice does no harm (read-only or idempotent by its annotations).
    pub(crate) repeatable: bool,
    /// The body, kept only when it may be sent again.
    pub(crate) body: Option<String>,
}

/// Where a message of the standing stream came from: the event of the backend's own stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Source {
    /// Its name.
    pub(crate) backend: String,
    /// The backend's event id.
    pub(crate) event: String,
}

/// One stream of a session, live at the anchor.
pub(crate) struct Stream {
    name: String,
    request: String,
    writer: Mutex<Writer>,
}

struct Writer {
    last: u64,
    outlet: Option<Outlet>,
    ended: bool,
}

impl Stream {
    /// A stream whose log holds events up to `last`; `request` is the id of the request that
    /// opened it.
    pub(crate) fn new(name: String, request: String, last: u64) -> Self {
        Stream { name, request, writer: Mutex::new(Writer { last, outlet: None, ended: false }) }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Opens a POST stream: the open request is in the log, then the client gets the body.
    pub(crate) async fn open(
        live: &Live,
        request: &OpenRequest,
    ) -> Result<(std::sync::Arc<Stream>, Answer), StreamError> {
        let stream = live.add_stream(Stream::new(live.stream_name(), request.id.clone(), 0));
        let data = serde_json::to_vec(request).unwrap_or_default();
        let opened = async {
            stream
                .append(live, &mut *stream.writer.lock().await, vec![(EventKind::Open, data.into())])
                .await?;
            note_open_streams(live).await
        };
        if let Err(error) = opened.await {
            live.remove_stream(&stream.name);
            return Err(error);
        }
        let answer = stream.attach_fresh(live).await;
        Ok((stream, answer))
    }

    /// Opens or replaces the standing stream.
    pub(crate) async fn open_standing(live: &Live) -> Result<Answer, StreamError> {
        let stream = live.add_stream(Stream::new(STANDING.into(), String::new(), 0));
        let mut writer = stream.writer.lock().await;
        if writer.last == 0 {
            stream.append(live, &mut writer, vec![(EventKind::Open, Bytes::new())]).await?;
        }
        drop(writer);
        Ok(stream.attach_fresh(live).await)
    }

    async fn attach_fresh(&self, live: &Live) -> Answer {
        let mut writer = self.writer.lock().await;
        let first = match live.version >= Legacy::V2025_11_25 {
            true => priming(&self.name, writer.last, RETRY_MS),
            false => Bytes::from_static(b": open\n\n"),
        };
        let (outlet, answer) = events(first);
        writer.outlet = Some(outlet);
        answer
    }

    /// Goes on after `after`: what was missed, then what comes. A newer client replaces an
    /// older one.
    pub(crate) async fn resume(live: &Live, name: &str, after: u64) -> Result<Answer, StreamError> {
        let Some(stream) = live.stream(name) else {
            return Self::replay_ended(live, name, after).await;
        };
        let mut writer = stream.writer.lock().await;
        let (missed, ended) = missed(live, name, after).await?;
        let (outlet, answer) = events(missed);
        if !ended && !writer.ended {
            writer.outlet = Some(outlet);
        }
        Ok(answer)
    }

    async fn replay_ended(live: &Live, name: &str, after: u64) -> Result<Answer, StreamError> {
        let (missed, _) = missed(live, name, after).await?;
        let (_, answer) = events(missed);
        Ok(answer)
    }

    /// Logs a message, then sends it if a client is there. A `source` is logged with it in one
    /// append, so that an adopting edge knows up to where the backend was heard.
    pub(crate) async fn send(
        &self,
        live: &Live,
        data: Bytes,
        source: Option<Source>,
    ) -> Result<(), StreamError> {
        let mut writer = self.writer.lock().await;
        if writer.ended {
            return Err(StreamError::Ended);
        }
        let sequence = writer.last + 1;
        let mark =
            source.and_then(|source| Some((EventKind::Open, serde_json::to_vec(&source).ok()?.into())));
        let entries = [(EventKind::Message, data.clone())].into_iter().chain(mark).collect();
        self.append(live, &mut writer, entries).await?;
        self.emit(&mut writer, sequence, &data);
        Ok(())
    }

    /// Logs the last message (if any) and the end at once, then ends the body.
    pub(crate) async fn finish(&self, live: &Live, data: Option<Bytes>) -> Result<(), StreamError> {
        let mut writer = self.writer.lock().await;
        if writer.ended {
            return Ok(());
        }
        let last = data.clone().map(|data| (EventKind::Message, data));
        let entries = last.into_iter().chain([(EventKind::End, Bytes::new())]).collect();
        let appended = self.append(live, &mut writer, entries).await;
        if let (Ok(()), Some(data)) = (&appended, &data) {
            let sequence = writer.last - 1;
            self.emit(&mut writer, sequence, data);
        }
        writer.ended = true;
        writer.outlet = None;
        drop(writer);
        live.remove_stream(&self.name);
        appended?;
        note_open_streams(live).await
    }

    /// Whether a client reads it now; a stream that is being written has one.
    pub(crate) fn has_client(&self) -> bool {
        match self.writer.try_lock() {
            Ok(writer) => writer.outlet.as_ref().is_some_and(|outlet| !outlet.is_closed()),
            Err(_) => true,
        }
    }

    /// Ends the body but not the stream: the client comes back, here or elsewhere.
    pub(crate) async fn detach(&self) {
        self.writer.lock().await.outlet = None;
    }

    fn emit(&self, writer: &mut Writer, sequence: u64, data: &[u8]) {
        let Some(outlet) = &writer.outlet else { return };
        if !outlet.send(message(Some((&self.name, sequence)), data)) {
            writer.outlet = None;
        }
    }

    async fn append(
        &self,
        live: &Live,
        writer: &mut Writer,
        entries: Vec<(EventKind, Bytes)>,
    ) -> Result<(), StreamError> {
        let first = writer.last + 1;
        let events: Vec<Event> =
            (first..).zip(entries).map(|(sequence, (kind, data))| event(sequence, kind, data)).collect();
        let count = events.len() as u64;
        append(live, &self.name, events).await?;
        writer.last += count;
        Ok(())
    }
}

/// Appends under the session's epoch; a fenced edge ends the session here.
async fn append(live: &Live, stream: &str, events: Vec<Event>) -> Result<(), StreamError> {
    let mut pause = Duration::from_millis(20);
    for attempt in 1.. {
        match live.store.append(&live.id, stream, live.epoch, events.clone()).await {
            Ok(()) => return Ok(()),
            Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) if attempt < APPEND_TRIES => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(error) => {
                if matches!(error, StoreError::Fenced(_) | StoreError::NotFound) {
                    live.end();
                }
                return Err(error.into());
            }
        }
    }
    Err(StreamError::Ended)
}

/// What the control log says of one open stream: enough to answer it even when its own log has
/// lost its beginning.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OpenStream {
    /// Its name.
    pub(crate) name: String,
    /// The id of its request, as the client wrote it.
    pub(crate) id: String,
}

/// Writes which streams are open, so that an adopting edge knows what to answer.
async fn note_open_streams(live: &Live) -> Result<(), StreamError> {
    let mut last = live.control().lock().await;
    let open = live.open_streams();
    let open: Vec<_> = open
        .iter()
        .map(|stream| OpenStream { name: stream.name.clone(), id: stream.request.clone() })
        .collect();
    let data = serde_json::to_vec(&open).unwrap_or_default().into();
    append(live, CONTROL, vec![event(*last + 1, EventKind::Open, data)]).await?;
    *last += 1;
    Ok(())
}

/// The events after `after` as they are sent, and whether the stream ended with them.
async fn missed(live: &Live, name: &str, after: u64) -> Result<(Bytes, bool), StreamError> {
    let replayed = live.store.replay(&live.id, name, after, None).await?;
    if !replayed.known || after > replayed.last_sequence {
        return Err(StreamError::Unknown);
    }
    if replayed.first_sequence > after + 1 {
        return Err(StreamError::Lost { after, first: replayed.first_sequence });
    }
    let mut out = BytesMut::new();
    let mut ended = false;
    for event in &replayed.events {
        match event.kind() {
            EventKind::Message => {
                crate::core::event::write_message(&mut out, Some((name, event.sequence)), &event.data)
            }
            EventKind::End => ended = true,
            _ => {}
        }
    }
    Ok((out.freeze(), ended))
}
