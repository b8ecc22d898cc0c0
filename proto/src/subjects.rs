//! Every NATS subject: `swarm.v1.<cluster>.<service>.<noun>.<past-tense verb>`.
//!
//! A test keeps publishers inside this list; payloads are the named protobuf messages.

/// What happened. `Display` is not implemented on purpose: a subject needs a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fact {
    /// `swarm.registry.v1.WatchResponse`: a name was registered or changed.
    RegistrationPut,
    /// `swarm.registry.v1.WatchResponse`: a name was freed.
    RegistrationRemoved,
    /// `swarm.gossip.v1.Member`: a node came.
    MemberJoined,
    /// `swarm.gossip.v1.Member`: a node stopped answering.
    MemberSuspected,
    /// `swarm.gossip.v1.Member`: a node is given up.
    MemberDied,
    /// `swarm.gossip.v1.Member`: a node left on purpose.
    MemberLeft,
    /// `swarm.session.v1.Session` without its value: a session ended.
    SessionDeleted,
    /// `swarm.session.v1.Session` without its value: a session has a new anchor.
    SessionMoved,
    /// `swarm.coordinator.v1.StatusResponse`: a leader was elected.
    LeaderElected,
    /// `swarm.coordinator.v1.Task`: a task reached a terminal state.
    TaskCompleted,
    /// `swarm.edge.v1.Backend`: a backend changed its state.
    BackendChanged,
}

impl Fact {
    /// Every fact, for tables and tests.
    pub const ALL: [Fact; 11] = [
        Fact::RegistrationPut,
        Fact::RegistrationRemoved,
        Fact::MemberJoined,
        Fact::MemberSuspected,
        Fact::MemberDied,
        Fact::MemberLeft,
        Fact::SessionDeleted,
        Fact::SessionMoved,
        Fact::LeaderElected,
        Fact::TaskCompleted,
        Fact::BackendChanged,
    ];

    /// `<service>.<noun>.<verb>`.
    pub fn tail(self) -> &'static str {
        match self {
            Fact::RegistrationPut => "registry.registration.put",
            Fact::RegistrationRemoved => "registry.registration.removed",
            Fact::MemberJoined => "gossip.member.joined",
            Fact::MemberSuspected => "gossip.member.suspected",
            Fact::MemberDied => "gossip.member.died",
            Fact::MemberLeft => "gossip.member.left",
            Fact::SessionDeleted => "session.session.deleted",
            Fact::SessionMoved => "session.session.moved",
            Fact::LeaderElected => "coordinator.leader.elected",
            Fact::TaskCompleted => "coordinator.task.completed",
            Fact::BackendChanged => "edge.backend.changed",
        }
    }

    /// The subject in a cluster, e.g. `swarm.v1.prod.gossip.member.died`.
    pub fn subject(self, cluster: &str) -> String {
        format!("swarm.v1.{cluster}.{}", self.tail())
    }
}

/// The pattern of everything that a service says, e.g. `swarm.v1.prod.gossip.>`.
pub fn of_service(cluster: &str, service: &str) -> String {
    format!("swarm.v1.{cluster}.{service}.>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn subjects_are_unique_lower_case_and_have_six_tokens() {
        let subjects: BTreeSet<_> = Fact::ALL.iter().map(|fact| fact.subject("prod")).collect();
        assert_eq!(subjects.len(), Fact::ALL.len());
        for subject in subjects {
            assert_eq!(subject.split('.').count(), 6, "{subject}");
            assert!(subject.chars().all(|c| c.is_ascii_lowercase() || c == '.' || c == '1'));
        }
    }
}
