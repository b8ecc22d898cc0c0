//! Kill switches that share a prefix, for a request path.

use super::{Flags, Inner};
use arc_swap::ArcSwap;
use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, atomic::Ordering},
};

/// The switches of a `prefix.*` definition: which names are thrown. Asking costs the comparison of
/// a counter while nothing changes.
#[derive(Clone)]
pub struct Switches {
    inner: Arc<Inner>,
    prefix: Arc<str>,
    cached: Arc<ArcSwap<Thrown>>,
}

struct Thrown {
    generation: u64,
    names: BTreeSet<String>,
}

impl Flags {
    /// The switches whose keys start with a prefix, such as `kill.backend.`
    pub fn switches(&self, prefix: &str) -> Switches {
        let cached = ArcSwap::from_pointee(Thrown::of(&self.inner, prefix));
        Switches { inner: self.inner.clone(), prefix: prefix.into(), cached: Arc::new(cached) }
    }
}

impl Thrown {
    fn of(inner: &Inner, prefix: &str) -> Self {
        // Read before the snapshot: at worst the next question looks again.
        let generation = inner.generation.load(Ordering::Acquire);
        let published = inner.published.load();
        let switches = published.snapshot.flags.range(prefix.to_owned()..);
        let thrown = switches
            .map_while(|(key, flag)| Some((key.strip_prefix(prefix)?, flag)))
            .filter(|(_, flag)| flag.definition.as_ref().is_some_and(|known| *flag.variant != *known.safe()));
        Self { generation, names: thrown.map(|(name, _)| name.to_owned()).collect() }
    }
}

impl Switches {
    /// Whether the switch of this name is thrown.
    pub fn thrown(&self, name: &str) -> bool {
        let mut cached = self.cached.load();
        if cached.generation != self.inner.generation.load(Ordering::Acquire) {
            self.cached.store(Arc::new(Thrown::of(&self.inner, &self.prefix)));
            cached = self.cached.load();
        }
        !cached.names.is_empty() && cached.names.contains(name)
    }
}

impl fmt::Debug for Switches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Switches({}*)", self.prefix)
    }
}
