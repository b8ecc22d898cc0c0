//! What a shard is asked, and what it answers.

use crate::core::check::Malformed;
use proto::registry::{Registration, Removed};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Causes of a removal.
pub(crate) const DEREGISTERED: &str = "deregistered";
pub(crate) const EXPIRED: &str = "expired";

/// A write by a client.
#[derive(Debug, Clone)]
pub(crate) struct Register {
    pub(crate) request_id: String,
    /// Name, kind, owner, labels, spec, durability, ttl_ms and registered_at_ms; checked.
    pub(crate) registration: Registration,
    pub(crate) replace: bool,
    /// Its holder had a lease of it that the registry has forgotten.
    pub(crate) returns: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Deregister {
    pub(crate) request_id: String,
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) force: bool,
}

/// What a peer says, or what is found out about it.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    Put(Box<Registration>),
    Removed(Removed),
    /// The origin has told its whole state: its ephemeral names beside these run out.
    Complete {
        origin: Arc<str>,
        listed: Arc<BTreeSet<String>>,
    },
    /// The origin is dead: nobody renews its leases.
    OriginDown(Arc<str>),
    OriginUp(Arc<str>),
}

/// What was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) lease_id: u64,
    pub(crate) version: u64,
    pub(crate) created: bool,
}

/// What was renewed, of the leases of one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Renewed {
    pub(crate) renewed: Vec<u64>,
    pub(crate) unknown: Vec<u64>,
    /// A lease of another owner, with that owner.
    pub(crate) foreign: Option<(u64, String)>,
    pub(crate) ttl: Option<Duration>,
}

/// Why a write is refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("{name:?} is registered by {owner:?} with {difference}")]
    AlreadyRegistered { name: String, owner: String, difference: &'static str },
    #[error("{name:?} is not registered")]
    NotFound { name: String },
    #[error("{name:?} belongs to {owner:?}")]
    OtherOwner { name: String, owner: String },
    #[error("request id {request_id:?} was used for another kind of request")]
    RequestIdReused { request_id: String },
}
