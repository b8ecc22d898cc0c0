//! Bus facts: what this instance took itself, for whoever wants to hear early. A lost fact is
//! repaired by Watch.

use crate::{
    core::{
        history::{Change, Event},
        key,
    },
    handle::Handle,
};
use bytes::Bytes;
use kit::host::Context;
use prost::Message as _;
use proto::{registry::WatchResponse, subjects::Fact};

const CHUNK: usize = 256;

/// Publishes facts until the shutdown. When it falls behind the history, it goes on at the head;
/// what nobody can hear is not made.
pub(crate) async fn publish(context: Context, handle: Handle) {
    let mut head = handle.feed().subscribe();
    let mut revision = handle.feed().head();
    let subjects = Subjects::new(&context);
    loop {
        head.mark_unchanged();
        // Read first: what comes after it may have a listener that came after the question.
        let newest = handle.feed().head();
        if !subjects.heard(&context) {
            revision = newest;
        }
        match handle.feed().after(revision, CHUNK) {
            Ok(events) if events.is_empty() => tokio::select! {
                _ = head.changed() => {}
                () = context.shutdown.wait() => return,
            },
            Ok(events) => {
                for event in events {
                    revision = event.revision;
                    publish_one(&context, &handle, &subjects, event).await;
                }
            }
            Err(compacted) => {
                handle.metrics().facts_lost.inc_by(compacted.newest - revision.min(compacted.newest));
                revision = compacted.newest;
            }
        }
    }
}

struct Subjects {
    put: String,
    removed: String,
}

impl Subjects {
    fn new(context: &Context) -> Self {
        let of = |fact: Fact| fact.subject(&context.cluster);
        Self { put: of(Fact::RegistrationPut), removed: of(Fact::RegistrationRemoved) }
    }

    fn heard(&self, context: &Context) -> bool {
        [&self.put, &self.removed].into_iter().any(|subject| context.bus.is_heard(subject))
    }

    fn of(&self, change: &Change) -> &str {
        match change {
            Change::Put(_) => &self.put,
            Change::Removed(_) => &self.removed,
        }
    }
}

async fn publish_one(context: &Context, handle: &Handle, subjects: &Subjects, event: Event) {
    // Properties and counters change often and are asked for, not listened to.
    if event.change.origin() != context.node || key::is_shared_kind(event.change.kind()) {
        return;
    }
    let subject = subjects.of(&event.change);
    let response = WatchResponse { revision: event.revision, event: Some(event.change.into()) };
    let payload = Bytes::from(response.encode_to_vec());
    if let Err(error) = context.bus.publish(subject, payload).await {
        handle.metrics().facts_lost.inc();
        tracing::debug!(%error, "a fact was not published");
    }
}
