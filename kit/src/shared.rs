//! What the services of one node share by type, so that nothing is process-wide.

use parking_lot::Mutex;
use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    sync::Arc,
};

/// One value per type, made by whoever asks first. Clones are the same.
///
/// It is for what a client library keeps once per node: a copy of names, counters that several
/// services add to. Services find each other through the directory, not here.
#[derive(Clone, Default)]
pub struct Shared {
    values: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send + Sync>>>>,
}

impl Shared {
    /// The node's value of this type; `make` must not ask for another one.
    pub fn get<T: Clone + Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> T {
        let mut values = self.values.lock();
        let known = values.get(&TypeId::of::<T>()).and_then(|value| value.downcast_ref::<T>());
        if let Some(value) = known {
            return value.clone();
        }
        let value = make();
        values.insert(TypeId::of::<T>(), Box::new(value.clone()));
        value
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("values", &self.values.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The clone is what is tested.
    #[allow(clippy::redundant_clone)]
    #[test]
    fn a_value_is_made_once_for_each_type_and_node() {
        let (node, other) = (Shared::default(), Shared::default());
        assert_eq!(node.get(|| 1_u32), 1);
        assert_eq!(node.clone().get(|| 2_u32), 1, "a clone is the same node");
        assert_eq!(node.get(|| "text"), "text");
        assert_eq!(other.get(|| 3_u32), 3);
    }
}
