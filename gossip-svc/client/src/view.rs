//! The membership as clients see it, and what the directory makes of it.

use kit::directory::{Instance, State};
use proto::gossip::{self as wire, ServiceInstance};
use std::{collections::BTreeMap, sync::Arc, time::Instant};
use tokio::sync::watch;

/// The membership as the endpoint's node saw it last.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// Ordered by name.
    pub members: Vec<Member>,
    /// The node that looks.
    pub own: String,
    /// Grows with every change at that node; 0 before the first view.
    pub version: u64,
    /// Since when no endpoint answers; `None` while the view is kept up to date.
    pub stale_since: Option<Instant>,
}

impl View {
    /// A member by name.
    pub fn member(&self, node: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its name.
    pub node: String,
    /// Grows with every start.
    pub generation: u64,
    /// How alive it seems.
    pub state: MemberState,
    /// Where it gossips.
    pub gossip_addr: String,
    /// Failure domain.
    pub zone: String,
    /// Suspicion when the view was made; it changes between views too.
    pub phi: f64,
    /// Software version.
    pub version: String,
    /// What runs there.
    pub services: Vec<ServiceInstance>,
}

/// State of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// Heard of in time.
    Alive,
    /// Silent for longer than usual.
    Suspect,
    /// Given up.
    Dead,
    /// Went on purpose.
    Left,
}

impl MemberState {
    /// The word for people: "alive", "suspect", "dead", "left".
    pub fn as_str(self) -> &'static str {
        match self {
            MemberState::Alive => "alive",
            MemberState::Suspect => "suspect",
            MemberState::Dead => "dead",
            MemberState::Left => "left",
        }
    }
}

impl From<wire::Member> for Member {
    fn from(member: wire::Member) -> Self {
        let state = match member.state() {
            wire::MemberState::Alive => MemberState::Alive,
            wire::MemberState::Dead => MemberState::Dead,
            wire::MemberState::Left => MemberState::Left,
            // A state of a later version is one we cannot rely on.
            wire::MemberState::Suspect | wire::MemberState::Unspecified => MemberState::Suspect,
        };
        let wire::Member { node, generation, gossip_addr, zone, phi, version, services, .. } = member;
        Self { node, generation, state, gossip_addr, zone, phi, version, services }
    }
}

/// The newest view, for operators and whoever wants more than the directory tells.
#[derive(Debug, Clone)]
pub struct Members {
    shown: watch::Receiver<Arc<View>>,
}

impl Members {
    pub(crate) fn new(shown: watch::Receiver<Arc<View>>) -> Self {
        Self { shown }
    }

    /// The last known view.
    pub fn view(&self) -> Arc<View> {
        self.shown.borrow().clone()
    }

    /// Resolves at the next view not yet seen by this clone; pends once the node stops.
    pub async fn changed(&mut self) {
        if self.shown.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The views as a channel.
    pub fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.shown.clone()
    }
}

/// The directory of a membership.
///
/// * alive: up; suspect: suspect; dead, left, or its lease ran out: down;
/// * a node that gossip-svc forgot is not listed. One that left is listed for a while, because a
///   restart is a leave and a return: whoever places data by the directory must not move it then;
/// * one instance told of by two nodes (its own gossip-svc was away for a while): the higher
///   generation counts, then the more alive.
pub fn instances(members: &[Member]) -> Vec<Instance> {
    let mut best: BTreeMap<(String, String), Instance> = BTreeMap::new();
    for member in members {
        for service in &member.services {
            let instance = instance(member.state, service);
            let key = (instance.service.clone(), instance.name.clone());
            if best.get(&key).is_none_or(|known| rank(known) < rank(&instance)) {
                best.insert(key, instance);
            }
        }
    }
    best.into_values().collect()
}

fn rank(instance: &Instance) -> (u64, u8) {
    let liveness = match instance.state {
        State::Up => 2,
        State::Suspect => 1,
        State::Down => 0,
    };
    (instance.generation, liveness)
}

fn instance(member: MemberState, service: &ServiceInstance) -> Instance {
    let state = match member {
        MemberState::Alive if !service.down => State::Up,
        MemberState::Suspect if !service.down => State::Suspect,
        _ => State::Down,
    };
    Instance {
        service: service.service.clone(),
        name: service.instance.clone(),
        addr: service.grpc_addr.clone(),
        generation: service.generation,
        zone: service.zone.clone(),
        state,
        meta: service.meta.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, generation: u64, down: bool) -> ServiceInstance {
        ServiceInstance {
            service: "session".into(),
            instance: name.into(),
            grpc_addr: "127.0.0.1:7610".into(),
            generation,
            down,
            ..Default::default()
        }
    }

    fn member(node: &str, state: MemberState, services: Vec<ServiceInstance>) -> Member {
        Member {
            node: node.into(),
            generation: 1,
            state,
            gossip_addr: "127.0.0.1:7620".into(),
            zone: String::new(),
            phi: 0.0,
            version: String::new(),
            services,
        }
    }

    fn states(members: &[Member]) -> Vec<(String, State)> {
        instances(members).into_iter().map(|i| (i.name, i.state)).collect()
    }

    #[test]
    fn an_instance_is_as_alive_as_its_node_and_its_lease() {
        let members = [
            member("n1", MemberState::Alive, vec![service("n1", 1, false)]),
            member("n2", MemberState::Suspect, vec![service("n2", 1, false)]),
            member("n3", MemberState::Dead, vec![service("n3", 1, false)]),
            member("n4", MemberState::Alive, vec![service("n4", 1, true)]),
            member("n5", MemberState::Left, vec![service("n5", 1, false)]),
        ];
        let expected = [
            ("n1", State::Up),
            ("n2", State::Suspect),
            ("n3", State::Down),
            ("n4", State::Down),
            ("n5", State::Down),
        ];
        assert_eq!(states(&members), expected.map(|(name, state)| (name.to_owned(), state)));
    }

    #[test]
    fn of_two_tales_of_one_instance_the_newer_or_livelier_counts() {
        let dead = member("n1", MemberState::Dead, vec![service("s1", 1, false)]);
        let stand_in = member("n2", MemberState::Alive, vec![service("s1", 1, false)]);
        assert_eq!(states(&[dead.clone(), stand_in.clone()]), [("s1".to_owned(), State::Up)]);
        let newer = member("n3", MemberState::Dead, vec![service("s1", 2, false)]);
        assert_eq!(states(&[dead, stand_in, newer]), [("s1".to_owned(), State::Down)]);
    }
}
