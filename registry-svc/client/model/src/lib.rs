//! The very files of registry-client, with loom's atomics in the place of std's, in every order
//! that the memory model allows.

mod sync {
    pub(crate) use loom::{
        hint::spin_loop,
        sync::atomic::{AtomicU64, Ordering, fence},
    };
}

mod map;

#[allow(dead_code, reason = "the models use a part of each file")]
#[path = "../../src/tiers/epochs.rs"]
mod epochs;

#[allow(dead_code, clippy::unwrap_used, reason = "the models use a part of each file")]
#[path = "../../src/tiers/handles.rs"]
mod handles;
