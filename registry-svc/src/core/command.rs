//! What a shard is asked, and what it answers.

use crate::core::{check::Malformed, key::told, name::Name, table::Entry};
use proto::registry::{Registration, Removed};
use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc, time::Duration};

/// Causes of a removal.
pub(crate) const DEREGISTERED: &str = "deregistered";
pub(crate) const EXPIRED: &str = "expired";

/// A write by a client.
#[derive(Debug, Clone)]
pub(crate) struct Register {
    pub(crate) request_id: String,
    /// The entry's.
    pub(crate) name: Name,
    /// Name (its key), kind, owner, labels, spec, durability, ttl_ms and registered_at_ms; checked.
    pub(crate) entry: Arc<Entry>,
    pub(crate) replace: bool,
    /// Its holder had a lease of it that the registry has forgotten.
    pub(crate) returns: bool,
}

impl Register {
    /// Of a name that is free, or of an owner who has it already with the same value.
    pub(crate) fn new(registration: Registration) -> Self {
        let name = Name::new(&registration.name);
        let entry = Entry::new(registration);
        Self { request_id: String::new(), name, entry, replace: false, returns: false }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Deregister {
    pub(crate) request_id: String,
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) force: bool,
}

/// Adds to a counter.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    pub(crate) request_id: String,
    /// The counter's key.
    pub(crate) name: String,
    pub(crate) delta: i64,
}

/// One entry of a batch of writes.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    Register(Register),
    Deregister(Deregister),
}

impl Order {
    /// Whether it comes again because its lease was lost: before new work.
    pub(crate) fn returns(&self) -> bool {
        matches!(self, Order::Register(Register { returns: true, .. }))
    }

    /// The key that it writes.
    pub(crate) fn name(&self) -> &str {
        match self {
            Order::Register(register) => &register.entry.name,
            Order::Deregister(deregister) => &deregister.name,
        }
    }
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Registered(Registered),
    Deregistered,
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
    #[error("{} is registered by {owner:?} with {difference}", told(name))]
    AlreadyRegistered { name: String, owner: String, difference: &'static str },
    #[error("{} is not registered", told(name))]
    NotFound { name: String },
    #[error("{} belongs to {owner:?}", told(name))]
    OtherOwner { name: String, owner: String },
    #[error("{} is {value}; adding {delta} leaves {bounds:?}", told(name))]
    OutOfBounds { name: String, value: i64, delta: i64, bounds: RangeInclusive<i64> },
    #[error("request id {request_id:?} was used for another kind of request")]
    RequestIdReused { request_id: String },
}
