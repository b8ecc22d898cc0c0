//! What other services may import of registry-svc: typed calls, a node-wide mirror of the names,
//! and a keeper of ephemeral registrations.
//!
//! Calls go to the node's own instance when it is up and move to another one when it is not.
//! Every write ends as OK, as a refusal, as [`Error::Unavailable`] (nothing was applied) or as
//! [`Error::Unknown`] (it may have been; repeating it is safe).

#![warn(missing_docs)]

mod batch;
mod client;
mod error;
mod keeper;
pub mod map;
mod mirror;
mod shared;
mod waiting;

pub use client::{Filter, Page, RegistryClient, SERVICE};
pub use error::Error;
pub use keeper::Keeper;
pub use mirror::{Mirror, Names};
pub use waiting::{End, Found};
