//! Taking over a session whose anchor is gone (DESIGN K29, K30).

use super::{
    live::{Live, Start},
    store::{EventKind, Replayed, SessionStore, StoreError, Stored},
    stream::{OpenRequest, OpenStream, Source, Stream},
};
use crate::core::stream::{CONTROL, STANDING};
use bytes::Bytes;
use prost::Message as _;
use proto::edge::SessionRecord;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Tries to win the record, and how long one lost race is waited out.
const TRIES: usize = 5;

/// Why a session was not adopted.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum AdoptError {
    /// Another edge adopted it first.
    #[error("session is at {anchor} now")]
    Elsewhere {
        /// Its name.
        anchor: String,
        /// Its epoch.
        epoch: u64,
    },
    /// The store failed, or the session ended.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A session taken over, and what its former anchor left open.
pub(crate) struct Adopted {
    /// Live here now.
    pub(crate) live: Arc<Live>,
    /// Streams whose request has no answer yet.
    pub(crate) open: Vec<(Arc<Stream>, OpenRequest)>,
}

/// Makes `edge` the anchor of a session last seen at `seen` (its epoch), and fences the logs.
pub(crate) async fn adopt(
    store: &Arc<dyn SessionStore>,
    edge: &str,
    id: &str,
    principal: &str,
    seen: u64,
    now: Instant,
) -> Result<Adopted, AdoptError> {
    let (mut record, stored) = win(store, edge, id, principal, seen).await?;
    let epoch = record.epoch;
    let standing = replay(store, id, STANDING, epoch).await?;
    heard_up_to(&mut record, &standing);
    let control = replay(store, id, CONTROL, epoch).await?;
    let noted = control.events.iter().rev().find(|event| event.kind() == EventKind::Open);
    let noted: Vec<OpenStream> =
        noted.and_then(|event| serde_json::from_slice(&event.data).ok()).unwrap_or_default();
    let start = Start {
        id: id.to_owned(),
        principal: principal.to_owned(),
        record,
        version: stored.version,
        control: control.last_sequence,
        store: store.clone(),
        now,
    };
    let live = Arc::new(Live::new(start));
    if standing.known {
        live.add_stream(Stream::new(STANDING.into(), String::new(), standing.last_sequence));
    }
    let mut open = Vec::new();
    for stream in noted {
        open.extend(reopen(store, &live, stream).await?);
    }
    Ok(Adopted { live, open })
}

/// The backends' streams go on after what the log of the standing stream holds: nothing is lost
/// between the backend and the log, and nothing comes twice.
fn heard_up_to(record: &mut SessionRecord, standing: &Replayed) {
    for event in standing.events.iter().filter(|event| event.kind() == EventKind::Open) {
        let Ok(source) = serde_json::from_slice::<Source>(&event.data) else { continue };
        if let Some(upstream) =
            record.upstreams.iter_mut().find(|upstream| upstream.backend == source.backend)
        {
            upstream.last_event_id = source.event;
        }
    }
}

/// Writes this edge into the record, unless another did since `seen`.
async fn win(
    store: &Arc<dyn SessionStore>,
    edge: &str,
    id: &str,
    principal: &str,
    seen: u64,
) -> Result<(SessionRecord, Stored), AdoptError> {
    for _ in 0..TRIES {
        let stored = store.get(id, principal, None).await?;
        let mut record = SessionRecord::decode(stored.value.clone()).map_err(broken)?;
        if record.epoch > seen {
            if record.anchor == edge {
                // Our own write of an earlier try, whose outcome was unknown.
                return Ok((record, stored));
            }
            return Err(AdoptError::Elsewhere { anchor: record.anchor, epoch: record.epoch });
        }
        record.epoch = seen + 1;
        record.anchor = edge.to_owned();
        let value = Bytes::from(record.encode_to_vec());
        match store.put(id, principal, &stored.version, value.clone()).await {
            Ok(version) => return Ok((record, Stored { version, value, lease_until: None })),
            Err(StoreError::Mismatch | StoreError::Unknown(_)) => {
                tokio::time::sleep(Duration::from_millis(10)).await
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Unavailable("the session's record is contended".into()).into())
}

fn broken(error: prost::DecodeError) -> AdoptError {
    StoreError::Other(format!("the session's record does not decode: {error}")).into()
}

async fn replay(
    store: &Arc<dyn SessionStore>,
    id: &str,
    stream: &str,
    epoch: u64,
) -> Result<Replayed, StoreError> {
    store.replay(id, stream, 0, Some(epoch)).await
}

/// A POST stream as its log tells; nothing when it ended. One whose log has lost its beginning
/// cannot be sent again, but is answered.
async fn reopen(
    store: &Arc<dyn SessionStore>,
    live: &Live,
    noted: OpenStream,
) -> Result<Option<(Arc<Stream>, OpenRequest)>, StoreError> {
    let OpenStream { name, id } = noted;
    let log = replay(store, &live.id, &name, live.epoch).await?;
    if !log.known || log.events.iter().any(|event| event.kind() == EventKind::End) {
        return Ok(None);
    }
    let open = log.events.iter().find(|event| event.kind() == EventKind::Open);
    let open = open.and_then(|event| serde_json::from_slice(&event.data).ok());
    let request = open.unwrap_or_else(|| OpenRequest { id: id.clone(), ..OpenRequest::default() });
    Ok(Some((live.add_stream(Stream::new(name, id, log.last_sequence)), request)))
}
