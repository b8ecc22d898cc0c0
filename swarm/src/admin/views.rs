//! What services answered, put into the API's shapes.

use super::{Admin, Clients, Problem, clients::ByEdge, listing::Asked};
use crate::{
    api::{
        Backend, ImportServer, Member, Raft, Registry, Ring, Session, Sessions, Status, Tolerance, listing,
    },
    import::Entry,
    secret::Shown,
};
use gossip_client::MemberState;
use kit::directory::{Instance, State};
use proto::{
    coordinator::StatusResponse,
    edge::Backend as EdgeBackend,
    registry::{Kind, Registration, backend_spec::Transport, registration::Spec},
};
use registry_client::Filter;
use std::{collections::BTreeMap, time::Duration};

/// How long a list of tools waits for backends that are starting.
const SETTLE: Duration = Duration::from_secs(5);

/// Everything at a glance.
pub(super) async fn status(admin: &Admin) -> Result<Status, Problem> {
    let clients = &admin.clients;
    let (nodes, backends, sessions, raft) =
        tokio::join!(members(clients), backends(clients), sessions(clients), clients.raft());
    let nodes = nodes?;
    let mut reasons = Reasons::default();
    reasons.of_nodes(&nodes);
    let raft = reasons.of_raft(raft);
    let backends = reasons.of_backends(backends);
    reasons.of_readiness(admin.context.readiness.unmet());
    if !admin.context.bus.connected() {
        reasons.degraded.push("the bus (NATS) is not connected: events do not flow".to_owned());
    }
    let tolerance = Tolerance {
        coordinator: raft.as_ref().map_or(0, |raft| raft.failure_tolerance),
        ..tolerance(&clients.instances("session"), &clients.instances("edge"))
    };
    let uptime = admin.context.clock.now().saturating_duration_since(admin.started);
    Ok(Status {
        health: reasons.word().to_owned(),
        reasons: reasons.all(),
        node: admin.context.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: millis(uptime),
        endpoints: admin.endpoints.as_ref().clone(),
        failure_tolerance: tolerance,
        raft: raft.map(Raft::from),
        ring: ring(clients),
        nodes,
        backends,
        sessions: sessions.sessions.len(),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Why the cluster is not healthy: what stops work, and what only makes it weaker.
#[derive(Default)]
struct Reasons {
    unhealthy: Vec<String>,
    degraded: Vec<String>,
}

impl Reasons {
    fn of_nodes(&mut self, nodes: &[Member]) {
        let sick = nodes.iter().filter(|n| matches!(n.state.as_str(), "suspect" | "dead"));
        self.degraded.extend(sick.map(|node| format!("node {} is {}", node.name, node.state)));
    }

    fn of_raft(&mut self, raft: Result<StatusResponse, tonic::Status>) -> Option<StatusResponse> {
        match raft {
            Ok(raft) => {
                if raft.leader_instance.is_empty() {
                    self.unhealthy.push("the coordinator has no leader".to_owned());
                }
                Some(raft)
            }
            Err(status) => {
                self.unhealthy.push(format!("the coordinator does not answer: {}", status.message()));
                None
            }
        }
    }

    fn of_backends(&mut self, backends: Result<Vec<Backend>, Problem>) -> Vec<Backend> {
        let backends = match backends {
            Ok(backends) => backends,
            Err(problem) => {
                self.degraded.push(format!("the registry does not answer: {}", problem.message));
                return Vec::new();
            }
        };
        for failing in backends.iter().filter(|backend| backend.state == "failing") {
            let Backend { name, reason, .. } = failing;
            self.degraded.push(format!("backend {name} is failing: {reason}"));
        }
        backends
    }

    fn of_readiness(&mut self, unmet: Vec<(String, String)>) {
        self.unhealthy.extend(unmet.into_iter().map(|(name, why)| format!("{name}: {why}")));
    }

    fn word(&self) -> &'static str {
        match (self.unhealthy.is_empty(), self.degraded.is_empty()) {
            (false, _) => "unhealthy",
            (true, false) => "degraded",
            (true, true) => "healthy",
        }
    }

    fn all(self) -> Vec<String> {
        [self.unhealthy, self.degraded].concat()
    }
}

/// How many more nodes may be lost. Dead nodes stay owners of their sessions, so each of them
/// already costs some session one copy (DESIGN K4).
fn tolerance(sessions: &[Instance], edges: &[Instance]) -> Tolerance {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let down = |all: &[Instance]| count(all.iter().filter(|i| i.state == State::Down).count());
    let copies = count(sessions.len().min(session_client::REPLICATION_FACTOR));
    let quorum = copies / 2 + 1;
    let left = copies.saturating_sub(down(sessions));
    Tolerance {
        calls: count(edges.len()).saturating_sub(down(edges)).saturating_sub(1),
        session_reads: left.saturating_sub(1),
        session_writes: left.saturating_sub(quorum),
        coordinator: 0,
    }
}

impl From<StatusResponse> for Raft {
    fn from(status: StatusResponse) -> Raft {
        let leader = status.leader_instance;
        Raft {
            role: status.role,
            leader: (!leader.is_empty()).then_some(leader),
            term: status.term,
            committed_index: status.committed_index,
            applied_index: status.applied_index,
            voters: status.voters.into_iter().map(|voter| voter.instance).collect(),
        }
    }
}

/// The ring, when there is anyone on it.
pub(super) fn ring(clients: &Clients) -> Option<Ring> {
    let ring = clients.session.ring();
    let shares = ring.ownership();
    let (heaviest, share) = shares.iter().max_by(|a, b| a.1.total_cmp(b.1))?;
    Some(Ring {
        members: shares.len(),
        vnodes: shares.len() * session_client::ring::VNODES as usize,
        max_to_mean: share * shares.len() as f64,
        heaviest: (*heaviest).to_owned(),
    })
}

/// Every node in name order.
pub(super) async fn members(clients: &Clients) -> Result<Vec<Member>, Problem> {
    let view = clients.members().await?;
    Ok(view.members.into_iter().map(member).collect())
}

fn member(member: gossip_client::Member) -> Member {
    let state = match member.state {
        MemberState::Alive => "up",
        MemberState::Suspect => "suspect",
        MemberState::Dead | MemberState::Left => "down",
    };
    let meta = |key: &str| member.services.iter().find_map(|s| s.meta.get(key).cloned());
    Member {
        mcp: meta(transport_edge::META_MCP).map(|addr| format!("http://{addr}/mcp")),
        admin: meta("admin"),
        services: member.services.iter().map(|s| (s.service.clone(), state.to_owned())).collect(),
        state: member.state.as_str().to_owned(),
        name: member.node,
        generation: member.generation,
        phi: member.phi,
        zone: member.zone,
        version: member.version,
        gossip: member.gossip_addr,
    }
}

/// Waits until no backend is still starting, for a bounded time: right after the start of a node
/// its list of tools would be short without a word. Answers the backends as they are then.
pub(super) async fn settled(admin: &Admin) -> Vec<Backend> {
    let clock = &admin.context.clock;
    let give_up = clock.now() + SETTLE;
    loop {
        let backends = backends(&admin.clients).await.unwrap_or_default();
        let starting = backends.iter().any(|b| matches!(b.state.as_str(), "starting" | "unknown"));
        if !starting || clock.now() >= give_up {
            return backends;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every registered backend with what the edges say of it.
pub(super) async fn backends(clients: &Clients) -> Result<Vec<Backend>, Problem> {
    Ok(registry(clients, Asked::default()).await?.registrations)
}

/// What is asked for of the registry, backends with what the edges say of them.
pub(super) async fn registry(clients: &Clients, asked: Asked) -> Result<Registry, Problem> {
    // Boxed, for the views that hold this future beside others are large enough.
    let read = Box::pin(asked.read(&clients.registry));
    let (page, seen) = tokio::join!(read, clients.backends());
    let page = page?;
    let registrations = page.registrations.into_iter().map(|registration| backend(registration, &seen));
    Ok(Registry { registrations: registrations.collect(), next_page_token: page.next })
}

/// Every registered backend with how it is reached, secrets too.
pub(super) async fn specs(clients: &Clients) -> Result<Vec<ImportServer>, Problem> {
    let filter = Filter { kind: Kind::Backend, ..Filter::default() };
    let registered = clients.registry.list(&filter).await?.into_iter();
    let entries = registered.filter_map(|registration| match registration.spec {
        Some(Spec::Backend(spec)) if spec.transport.is_some() => {
            Some(Entry { name: registration.name, spec: *spec })
        }
        _ => None,
    });
    Ok(entries.map(ImportServer::from).collect())
}

fn backend(registration: Registration, seen: &ByEdge<Vec<EdgeBackend>>) -> Backend {
    let mut backend = registered(registration);
    if backend.kind != listing::word(Kind::Backend) {
        return backend;
    }
    backend.state = "unknown".to_owned();
    for (edge, views) in &seen.answers {
        if let Some(view) = views.iter().find(|view| view.name == backend.name) {
            add_view(&mut backend, edge, view);
        }
    }
    backend
}

/// What the registry alone knows.
fn registered(registration: Registration) -> Backend {
    let (transport, target) = transport(&registration);
    let kind = listing::word(registration.kind()).to_owned();
    let zone = match registration.spec {
        Some(Spec::Backend(spec)) => spec.zone,
        _ => String::new(),
    };
    Backend {
        name: registration.name,
        kind,
        transport,
        target,
        owner: registration.owner,
        zone,
        labels: registration.labels.into_iter().collect(),
        state: String::new(),
        reason: String::new(),
        era: String::new(),
        tools: 0,
        prompts: 0,
        resources: 0,
        calls: 0,
        errors: 0,
        restarts: 0,
        edges: BTreeMap::new(),
    }
}

/// The backend is shown as the edge sees it that sees it worst.
fn add_view(backend: &mut Backend, edge: &str, view: &EdgeBackend) {
    if severity(&view.state) >= severity(&backend.state) {
        backend.state = view.state.clone();
        backend.reason = view.reason.clone();
    }
    if backend.era.is_empty() {
        backend.era = view.era.clone();
    }
    backend.tools = backend.tools.max(view.tools);
    backend.prompts = backend.prompts.max(view.prompts);
    backend.resources = backend.resources.max(view.resources);
    backend.calls += view.calls;
    backend.errors += view.errors;
    backend.restarts += u64::from(view.restarts);
    backend.edges.insert(edge.to_owned(), view.state.clone());
}

fn severity(state: &str) -> u8 {
    match state {
        "failing" => 4,
        "stopped" => 3,
        "starting" => 2,
        "ready" => 1,
        _ => 0,
    }
}

fn transport(registration: &Registration) -> (String, String) {
    let Some(Spec::Backend(spec)) = &registration.spec else {
        let kind = if registration.kind() == Kind::Backend { "unknown" } else { "" };
        return (kind.to_owned(), String::new());
    };
    let kind = match &spec.transport {
        Some(Transport::Stdio(_)) => "stdio",
        Some(Transport::Http(_)) => "http",
        None => "unknown",
    };
    (kind.to_owned(), Shown::Masked.target(spec))
}

/// Every open session, the oldest first.
pub(super) async fn sessions(clients: &Clients) -> Sessions {
    let by_edge = clients.sessions().await;
    let mut sessions: Vec<Session> = by_edge
        .answers
        .into_values()
        .flatten()
        .map(|summary| Session {
            id_hash: summary.id_hash,
            anchor: summary.anchor,
            epoch: summary.epoch,
            protocol_version: summary.protocol_version,
            client: summary.client,
            age_ms: summary.age_ms,
            streams: summary.streams,
            in_flight: summary.in_flight,
        })
        .collect();
    sessions.sort_by_key(|session| std::cmp::Reverse(session.age_ms));
    Sessions { sessions, missing: by_edge.missing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instances(states: &[State]) -> Vec<Instance> {
        let instance = |(index, state): (usize, &State)| Instance {
            service: "session".into(),
            name: format!("n{index}"),
            addr: String::new(),
            generation: 1,
            zone: String::new(),
            state: *state,
            meta: BTreeMap::new(),
        };
        states.iter().enumerate().map(instance).collect()
    }

    fn sessions(states: &[State]) -> (u32, u32) {
        let tolerance = tolerance(&instances(states), &[]);
        (tolerance.session_reads, tolerance.session_writes)
    }

    #[test]
    fn three_copies_survive_two_losses_for_reads_and_one_for_writes() {
        use State::{Down, Up};
        assert_eq!(sessions(&[Up, Up, Up]), (2, 1));
        assert_eq!(sessions(&[Up, Up, Down]), (1, 0));
        assert_eq!(sessions(&[Up, Down, Down]), (0, 0));
        assert_eq!(sessions(&[Up]), (0, 0));
        assert_eq!(sessions(&[Up; 5]), (2, 1));
    }

    #[test]
    fn what_stops_work_is_worse_than_what_makes_it_weaker() {
        let mut reasons = Reasons::default();
        assert_eq!(reasons.word(), "healthy");
        reasons.degraded.push("a node is dead".into());
        assert_eq!(reasons.word(), "degraded");
        reasons.of_raft(Ok(StatusResponse::default()));
        assert_eq!(reasons.word(), "unhealthy");
        assert_eq!(reasons.all()[0], "the coordinator has no leader");
    }
}
