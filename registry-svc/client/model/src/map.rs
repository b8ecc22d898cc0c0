//! `map` of registry-client, as far as it is modelled.

#[allow(dead_code, reason = "the models use a part of it")]
#[path = "../../src/map/hints.rs"]
mod hints;
#[allow(dead_code, reason = "the models use a part of it")]
#[path = "../../src/map/slot.rs"]
mod slot;

pub(crate) use slot::Key;

#[cfg(test)]
mod models;
