//! The version tokens of the sessions this client wrote or read: what makes its reads monotonic.

use parking_lot::Mutex;
use proto::session::Version;
use std::collections::HashMap;

/// Sessions of one generation; two are kept, so the memory is bounded and the least recently
/// used go first. A forgotten token costs a quorum read, never an old answer.
const GENERATION: usize = 32_768;

#[derive(Default)]
pub(crate) struct Tokens(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<String, Version>,
    old: HashMap<String, Version>,
}

impl Tokens {
    pub(crate) fn get(&self, id: &str) -> Option<Version> {
        let mut all = self.0.lock();
        if let Some(version) = all.young.get(id) {
            return Some(version.clone());
        }
        let version = all.old.remove(id)?;
        all.insert(id, version.clone());
        Some(version)
    }

    /// Keeps the later of the version known and this one.
    pub(crate) fn observe(&self, id: &str, version: &Version) {
        let known = self.get(id);
        if known.is_none_or(|known| known.counter < version.counter) {
            self.0.lock().insert(id, version.clone());
        }
    }

    pub(crate) fn forget(&self, id: &str) {
        let mut all = self.0.lock();
        all.young.remove(id);
        all.old.remove(id);
    }
}

impl Generations {
    fn insert(&mut self, id: &str, version: Version) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id.to_owned(), version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(counter: u64) -> Version {
        Version { counter, writer: String::new() }
    }

    #[test]
    fn a_token_never_goes_back_and_memory_is_bounded() {
        let tokens = Tokens::default();
        tokens.observe("a", &version(2));
        tokens.observe("a", &version(1));
        assert_eq!(tokens.get("a"), Some(version(2)));
        for i in 0..3 * GENERATION {
            tokens.observe(&i.to_string(), &version(1));
        }
        let all = tokens.0.lock();
        assert!(all.young.len() + all.old.len() <= 2 * GENERATION);
    }
}
