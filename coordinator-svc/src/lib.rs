//! coordinator-svc

pub mod core;
pub mod raft;
