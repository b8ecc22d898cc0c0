//! What makes a registration the same as another one.

use proto::registry::{Durability, Registration, registration::Spec};

pub(super) fn is_durable(registration: &Registration) -> bool {
    registration.durability() == Durability::Durable
}

/// Whether two registrations of one name differ in nothing that was asked for.
pub(super) fn same_value(a: &Registration, b: &Registration) -> bool {
    a.kind == b.kind && a.durability == b.durability && a.labels == b.labels && same_spec(a, b)
}

/// Whether a later version is the same registration going on: a counter that was added to, or a
/// lease that another instance took over.
pub(crate) fn continues(old: &Registration, new: &Registration) -> bool {
    old.owner == new.owner && same_value(old, new)
}

/// A counter's number is what became of it, not what was asked for.
fn same_spec(a: &Registration, b: &Registration) -> bool {
    match (&a.spec, &b.spec) {
        (Some(Spec::Counter(a)), Some(Spec::Counter(b))) => (a.min, a.max) == (b.min, b.max),
        (a, b) => a == b,
    }
}
