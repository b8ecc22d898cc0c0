//! Which coordinator to ask next.

use kit::directory::{Directory, State};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// The service's name in the directory.
const SERVICE: &str = "coordinator";

/// Hints to an address that did not answer are not followed for so long: the others name a dead
/// or frozen leader until they have elected another one.
const SHUN: Duration = Duration::from_secs(1);

/// Remembers the leader; clones share what is known.
#[derive(Clone)]
pub(crate) struct Route {
    directory: Directory,
    local: Option<String>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    leader: Option<String>,
    silent: Option<(String, Instant)>,
}

impl Known {
    fn shuns(&self, addr: &str, now: Instant) -> bool {
        self.silent.as_ref().is_some_and(|(silent, since)| silent == addr && now < *since + SHUN)
    }
}

impl Route {
    pub(crate) fn new(directory: Directory, local: Option<String>) -> Route {
        Route { directory, local, known: Arc::default() }
    }

    /// The address for a try: the leader, then the local one, then the others in turn.
    pub(crate) fn target(&self, attempt: usize) -> Option<String> {
        let leader = self.known.lock().leader.clone();
        leader.or_else(|| self.any(attempt))
    }

    /// Any coordinator, the local one first.
    pub(crate) fn any(&self, attempt: usize) -> Option<String> {
        let all = self.all();
        all.get(attempt % all.len().max(1)).cloned()
    }

    /// `addr` answered as the leader.
    pub(crate) fn leads(&self, addr: &str) {
        let mut known = self.known.lock();
        if known.leader.as_deref() != Some(addr) {
            known.leader = Some(addr.to_owned());
        }
        known.silent = None;
    }

    /// `addr` does not lead (any more); perhaps it knows who does. Whether the hint is followed.
    pub(crate) fn moved(&self, addr: &str, hint: Option<String>, now: Instant) -> bool {
        let mut known = self.known.lock();
        let hint = hint.filter(|hint| hint != addr && !known.shuns(hint, now));
        let hinted = hint.is_some();
        if hinted || known.leader.as_deref() == Some(addr) {
            known.leader = hint;
        }
        hinted
    }

    /// `addr` did not answer.
    pub(crate) fn silent(&self, addr: &str, now: Instant) {
        let mut known = self.known.lock();
        known.silent = Some((addr.to_owned(), now));
        if known.leader.as_deref() == Some(addr) {
            known.leader = None;
        }
    }

    fn all(&self) -> Vec<String> {
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
        let now = Instant::now();
        assert!(route.moved("b", Some("c".into()), now));
        assert_eq!(route.target(0).as_deref(), Some("c"));
        assert!(!route.moved("b", None, now));
        assert_eq!(route.target(0).as_deref(), Some("c"));
        assert!(!route.moved("c", None, now));
        assert_eq!(route.target(0).as_deref(), Some("b"));
    }

    #[test]
    fn a_hint_to_a_silent_leader_is_not_followed_for_a_while() {
        let route = Route::new(Directory::fixed(vec![instance("n2", "b", State::Up)]), None);
        let now = Instant::now();
        route.leads("a");
        route.silent("a", now);
        assert!(!route.moved("b", Some("a".into()), now));
        assert_eq!(route.target(0).as_deref(), Some("b"));
        assert!(route.moved("b", Some("a".into()), now + SHUN));
    }

    #[test]
    fn nobody_is_known_without_a_directory() {
        let route = Route::new(Directory::fixed(Vec::new()), None);
        assert_eq!(route.target(3), None);
    }
}
