//! What the lock-free parts are built from. `client/model` puts loom's in its place and explores
//! every order that the memory model allows (`make test-loom`).

pub(crate) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
};
