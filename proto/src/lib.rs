//! The contract: generated messages and services, id types, NATS subjects, error codes.
//!
//! Everything that crosses a process boundary is named here and nowhere else. Changes are
//! additive; `tests/golden.rs` fails on a removed, renumbered or retyped field, and
//! `SWARM_UPDATE_GOLDEN=1 cargo test -p proto` writes additions down.

#![warn(missing_docs)]

mod codec;
pub mod error;
pub mod ids;
pub mod subjects;

/// The encoded descriptor set of every package, for reflection and the golden test.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `swarm.registry.v1`: names and registrations.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod registry {
    tonic::include_proto!("swarm.registry.v1");
}

/// `swarm.gossip.v1`: membership and facts.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod gossip {
    tonic::include_proto!("swarm.gossip.v1");
}

/// `swarm.session.v1`: state by handle and event logs.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod session {
    tonic::include_proto!("swarm.session.v1");
}

/// `swarm.coordinator.v1`: the Raft-backed control plane.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod coordinator {
    tonic::include_proto!("swarm.coordinator.v1");
}

/// `swarm.edge.v1`: edge to edge, and the edge's record of a session.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod edge {
    tonic::include_proto!("swarm.edge.v1");
}
