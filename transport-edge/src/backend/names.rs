//! Which backends the registry names at this moment, as each event loop asks.

use super::Core;
use parking_lot::Mutex;
use registry_client::{
    Tiers,
    tiers::{Known, Local},
};
use std::{collections::BTreeSet, fmt, thread::available_parallelism, time::Instant};

/// Nobody is authenticated yet.
const TENANT: &str = "anonymous";

/// Lookups in three tiers, with handles for each event loop.
pub(crate) struct Names {
    tiers: Tiers,
    // By event loop; a lock that nobody else takes while there are as many as loops.
    locals: Box<[Mutex<Local>]>,
    // Named by the configuration, whatever the registry says.
    fixed: BTreeSet<String>,
}

impl Names {
    pub(crate) fn new(tiers: Tiers, fixed: BTreeSet<String>) -> Self {
        let loops = available_parallelism().map_or(1, usize::from) + 1;
        let locals = (0..loops).map(|_| Mutex::new(tiers.local(TENANT))).collect();
        Self { tiers, locals, fixed }
    }

    /// Whether a backend that is alive here still stands in the registry. While no registry
    /// answers, the last view holds.
    pub(crate) async fn has(&self, core: Core, name: &str, now: Instant) -> bool {
        if self.fixed.contains(name) {
            return true;
        }
        match self.known(core, name, now) {
            Some(known) => known,
            None => self.tiers.ask(name).await.map_or(true, |answer| answer.registration.is_some()),
        }
    }

    fn known(&self, core: Core, name: &str, now: Instant) -> Option<bool> {
        let mut local = self.locals.get(core.0 % self.locals.len())?.lock();
        match local.get(name, now) {
            Known::Found(_) => Some(true),
            Known::Absent => Some(false),
            Known::Ask => None,
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("tiers", &self.tiers).finish_non_exhaustive()
    }
}
