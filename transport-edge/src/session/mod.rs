//! Sessions of the legacy era: the live part at the anchor edge, and what of it is kept.
//!
//! A session has one anchor, the edge that holds its upstreams and writes its streams, named
//! with an epoch in its record. An edge that adopts a session writes a higher epoch first and
//! fences the logs, so that the former anchor cannot write any more (DESIGN K29, K30).

mod adopt;
mod keeper;
mod live;
mod local;
mod map;
mod service_store;
mod store;
mod stream;
mod upstreams;

pub(crate) use adopt::AdoptError;
pub(crate) use live::{InFlight, Live, Scope, Start};
pub use local::LocalStore;
pub(crate) use map::Sessions;
pub(crate) use service_store::ServiceStore;
pub use store::{Event, EventKind, Replayed, SessionStore, StoreError, Stored, Version};
pub(crate) use stream::{OpenRequest, Stream, StreamError};

pub(crate) use adopt::adopt;
pub(crate) use keeper::keep;
pub(crate) use upstreams::{tell, to_standing};

use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// How a session is named in logs, views and towards backends: the id itself is a secret.
pub(crate) fn hash(id: &str) -> String {
    let digest = Sha256::digest(id.as_bytes());
    digest.iter().take(8).fold(String::with_capacity(16), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
