//! What other services may import of registry-svc: typed calls, lookups in three tiers
//! ([`tiers`]), a node-wide mirror of the names, and a keeper of ephemeral registrations.
//!
//! Calls go to the node's own instance when it is up and move to another one when it is not.
//! Every write ends as OK, as a refusal, as [`Error::Unavailable`] (nothing was applied) or as
//! [`Error::Unknown`] (it may have been; repeating it is safe).

#![warn(missing_docs)]

mod batch;
mod client;
mod error;
mod follow;
mod keeper;
pub mod map;
mod mirror;
mod route;
mod shared;
mod sync;
pub mod tiers;
mod waiting;

pub use client::{Filter, Page, RegistryClient, SERVICE};
pub use error::Error;
pub use keeper::Keeper;
pub use mirror::Mirror;
pub use route::{Direct, Door};
pub use tiers::Tiers;
pub use waiting::{End, Found};
