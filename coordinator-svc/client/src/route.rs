//! Which coordinator to ask next.

use kit::directory::{Directory, State};
use parking_lot::Mutex;
use std::sync::Arc;

/// The service's name in the directory.
const SERVICE: &str = "coordinator";

/// Remembers the leader; clones share what is known.
#[derive(Clone)]
pub(crate) struct Route {
    directory: Directory,
    local: Option<String>,
    leader: Arc<Mutex<Option<String>>>,
}

impl Route {
    pub(crate) fn new(directory: Directory, local: Option<String>) -> Route {
        Route { directory, local, leader: Arc::default() }
    }

    /// The address for a try: the leader, then the local one, then the others in turn.
    pub(crate) fn target(&self, attempt: usize) -> Option<String> {
        if let Some(leader) = self.leader.lock().clone() {
            return Some(leader);
        }
        let known = self.known();
        known.get(attempt % known.len().max(1)).cloned()
    }

    /// Any coordinator, the local one first.
    pub(crate) fn any(&self, attempt: usize) -> Option<String> {
        let known = self.known();
        known.get(attempt % known.len().max(1)).cloned()
    }

    /// `addr` answered as the leader.
    pub(crate) fn leads(&self, addr: &str) {
        let mut leader = self.leader.lock();
        if leader.as_deref() != Some(addr) {
            *leader = Some(addr.to_owned());
        }
    }

    /// `addr` does not lead (any more); perhaps it knows who does.
    pub(crate) fn moved(&self, addr: &str, hint: Option<String>) {
        let mut leader = self.leader.lock();
        if hint.is_some() || leader.as_deref() == Some(addr) {
            *leader = hint.filter(|hint| hint != addr && !hint.is_empty());
        }
    }

    fn known(&self) -> Vec<String> {
        let mut instances = self.directory.of(SERVICE);
        instances.sort_by_key(|instance| match instance.state {
            State::Up => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        let others = instances.into_iter().map(|instance| instance.addr);
        let others = others.filter(|addr| Some(addr) != self.local.as_ref());
        self.local.iter().cloned().chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::Instance;

    fn instance(name: &str, addr: &str, state: State) -> Instance {
        let (service, meta) = (SERVICE.into(), Default::default());
        Instance {
            service,
            name: name.into(),
            addr: addr.into(),
            generation: 1,
            zone: String::new(),
            state,
            meta,
        }
    }

    #[test]
    fn the_leader_is_asked_first_and_the_dead_last() {
        let all = vec![
            instance("n1", "a", State::Down),
            instance("n2", "b", State::Up),
            instance("n3", "c", State::Up),
        ];
        let route = Route::new(Directory::fixed(all), Some("b".into()));
        let turn: Vec<_> = (0..3).filter_map(|attempt| route.target(attempt)).collect();
        assert_eq!(turn, ["b", "c", "a"]);
        route.moved("b", Some("c".into()));
        assert_eq!(route.target(0).as_deref(), Some("c"));
        route.moved("b", None);
        assert_eq!(route.target(0).as_deref(), Some("c"));
        route.moved("c", None);
        assert_eq!(route.target(0).as_deref(), Some("b"));
    }

    #[test]
    fn nobody_is_known_without_a_directory() {
        let route = Route::new(Directory::fixed(Vec::new()), None);
        assert_eq!(route.target(3), None);
    }
}
