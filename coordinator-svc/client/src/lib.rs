//! Typed calls to the coordinators: finds the leader, keeps deadlines, repeats with the same
//! request id.
//!
//! Every call ends by its deadline. A write answers what was committed, an error that says that
//! nothing was applied, or [`Error::Unknown`]: then it may be repeated under the same request id.

#![warn(missing_docs)]

mod calls;
mod error;
mod route;

pub use calls::{Change, Committed, CoordinatorClient, Found, NewTask, TaskWish};
pub use error::Error;
pub use proto::coordinator::{StatusResponse, Task, TaskState, Voter};
