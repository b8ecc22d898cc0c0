//! The ring in force, and those before it for as long as sessions may still be on their way.

use kit::Instance;
use session_client::{Member, Ring, SessionId, members};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the owners of an earlier ring are asked too (double read). The walk over all sessions
/// that a move starts is over much sooner.
const MOVE_WINDOW: Duration = Duration::from_secs(60);
/// Earlier rings kept; of more moves within the window the oldest are given up.
const FORMER_MAX: usize = 8;

/// Immutable; replaced at each move.
#[derive(Clone)]
pub(super) struct Rings {
    pub(super) current: Arc<Ring>,
    former: Vec<(Instant, Arc<Ring>)>,
}

impl Rings {
    /// A ring of one.
    pub(super) fn alone(me: &Instance, replication_factor: usize) -> Rings {
        let current = Arc::new(Ring::build([member(me)], replication_factor));
        Rings { current, former: Vec::new() }
    }

    /// The rings after the directory changed, or `None` when the ring stays.
    pub(super) fn follow(
        &self,
        me: &Instance,
        instances: &[Instance],
        replication_factor: usize,
        now: Instant,
    ) -> Option<Rings> {
        // This instance is on the ring whether the directory shows it already or not.
        let ring = Ring::build(members(instances).chain([member(me)]), replication_factor);
        if ring.version() == self.current.version() {
            return None;
        }
        let kept = self.former.iter().filter(|(until, _)| *until > now).cloned();
        let mut former: Vec<_> = kept.chain([(now + MOVE_WINDOW, self.current.clone())]).collect();
        former.drain(..former.len().saturating_sub(FORMER_MAX));
        Some(Rings { current: Arc::new(ring), former })
    }

    /// Instances that owned the session lately and do not any more.
    pub(super) fn former_owners(&self, id: &SessionId, now: Instant) -> Vec<&str> {
        let rings = self.former.iter().filter(|(until, _)| *until > now);
        let mut names: Vec<&str> =
            rings.flat_map(|(_, ring)| ring.owners_of(id)).map(|member| member.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !self.current.is_owner(id, name));
        names
    }
}

fn member(instance: &Instance) -> Member {
    Member { name: instance.name.clone(), zone: instance.zone.clone() }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use kit::Context;

    #[tokio::test]
    async fn former_owners_are_known_for_the_window() {
        let instances: Vec<Instance> =
            (1..=6).map(|i| Context::for_test(&format!("n{i}")).instance("session")).collect();
        let now = Instant::now();
        let rings = Rings::alone(&instances[0], 3);
        let three = rings.follow(&instances[0], &instances[..3], 3, now).expect("moved");
        assert!(three.follow(&instances[0], &instances[..3], 3, now).is_none());
        let six = three.follow(&instances[0], &instances, 3, now).expect("moved");
        let mut moved = 0;
        for _ in 0..100 {
            let id = SessionId::mint(&six.current, None);
            let former = six.former_owners(&id, now);
            let owners = six.current.owners_of(&id).filter(|m| ["n1", "n2", "n3"].contains(&m.name.as_str()));
            assert_eq!(former.len() + owners.count(), 3);
            moved += former.len();
            assert!(six.former_owners(&id, now + MOVE_WINDOW).is_empty());
        }
        assert!(moved > 0);
    }
}
