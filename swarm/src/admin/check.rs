//! Checks that do the real thing: a commit, a session, the ring, every backend.

use super::{Admin, views};
use crate::api::{Check, CheckGroup, CheckResult};
use session_client::{Binding, Read, SessionError};
use std::time::Duration;

/// Test sessions end by themselves if the check cannot delete them.
const TEST_SESSION_TTL: Duration = Duration::from_secs(30);
/// The heaviest node may own this much more than its fair share of the ring.
const RING_LIMIT: f64 = 1.4;

/// Runs every check of the cluster.
pub(super) async fn run(admin: &Admin) -> Check {
    let (nodes, raft, session, backends) =
        tokio::join!(nodes(admin), raft(admin), session(admin), backends(admin));
    let mut cluster = nodes;
    cluster.push(raft);
    cluster.push(ring(admin));
    let group = |name: &str, results| CheckGroup { name: name.to_owned(), results };
    Check {
        groups: vec![
            group("cluster", cluster),
            group("sessions", vec![session]),
            group("backends", backends),
        ],
    }
}

async fn nodes(admin: &Admin) -> Vec<CheckResult> {
    let nodes = match views::members(&admin.clients).await {
        Ok(nodes) => nodes,
        Err(problem) => {
            let words = format!("gossip does not answer: {}", problem.message);
            return vec![CheckResult::error(words, "look at the node's log")];
        }
    };
    let known: Vec<_> = nodes.iter().filter(|node| node.state != "left").collect();
    let alive = known.iter().filter(|node| node.state == "alive").count();
    let phi = known.iter().map(|node| node.phi).fold(0.0, f64::max);
    let mut results = Vec::new();
    let sick: Vec<_> = known.iter().filter(|node| node.state != "alive").collect();
    if sick.is_empty() {
        let words = format!("{alive}/{} nodes alive, max φ {phi:.1}", known.len());
        results.push(CheckResult::ok(words));
    }
    for node in sick {
        let words = format!("{alive}/{} nodes alive: {} is {}", known.len(), node.name, node.state);
        let hint = "start it again; its data directory has its state";
        results.push(CheckResult::error(words, hint));
    }
    if alive < usize::try_from(admin.context.expect).unwrap_or(usize::MAX) {
        let words = format!("{alive} nodes alive, {} are expected", admin.context.expect);
        results.push(CheckResult::warning(words, "start the others with --join"));
    }
    results
}

async fn raft(admin: &Admin) -> CheckResult {
    let clock = &admin.context.clock;
    let start = clock.now();
    let value = format!("checked by {} at {}", admin.context.node, clock.timestamp().0);
    let key = format!("swarm/check/{}", admin.context.node);
    let committed = admin.clients.commit(&key, value).await;
    let took = clock.now().saturating_duration_since(start);
    match (committed, admin.clients.raft().await) {
        (Ok(commit), Ok(raft)) => CheckResult::ok(format!(
            "raft: leader {}, term {}, test entry {} committed in {}",
            raft.leader_instance,
            commit.term,
            commit.log_index,
            milliseconds(took)
        )),
        (Err(status), _) | (_, Err(status)) => CheckResult::error(
            format!("raft: the test entry was not committed: {}", status.message()),
            "a majority of the coordinators must be up",
        ),
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

fn ring(admin: &Admin) -> CheckResult {
    let Some(ring) = views::ring(&admin.clients) else {
        return CheckResult::error("ring: no session service is known", "start one");
    };
    let fair = 100.0 / ring.members as f64;
    let words = format!(
        "ring: {} vnodes, heaviest node {} {:.1} % (fair {fair:.1} %)",
        ring.vnodes,
        ring.heaviest,
        fair * ring.max_to_mean
    );
    if ring.max_to_mean <= RING_LIMIT {
        return CheckResult::ok(words);
    }
    CheckResult::warning(words, "names hash to the ring: another --name moves it")
}

/// Creates, reads and ends a session on its owners.
async fn session(admin: &Admin) -> CheckResult {
    let clock = &admin.context.clock;
    let start = clock.now();
    match session_round(admin).await {
        Ok(()) => {
            let took = milliseconds(clock.now().saturating_duration_since(start));
            CheckResult::ok(format!("a test session was written, read and ended in {took}"))
        }
        Err(error) => CheckResult::error(
            format!("a test session failed: {error}"),
            "two of its three owners must be up for writes",
        ),
    }
}

async fn session_round(admin: &Admin) -> Result<(), SessionError> {
    let client = &admin.clients.session;
    let binding = Binding { tenant: "swarm".into(), principal: "check".into() };
    let id = client.mint();
    client.create(&id, &binding, "check".into(), TEST_SESSION_TTL).await?;
    client.get(id.as_str(), &binding, &Read::quorum()).await?;
    client.delete(id.as_str(), &binding, "").await
}

async fn backends(admin: &Admin) -> Vec<CheckResult> {
    let backends = match views::backends(&admin.clients).await {
        Ok(backends) => backends,
        Err(problem) => {
            let words = format!("the registry does not answer: {}", problem.message);
            return vec![CheckResult::error(words, "look at the node's log")];
        }
    };
    if backends.is_empty() {
        let hint = "register some: swarm registry import .mcp.json";
        return vec![CheckResult::warning("no backend is registered", hint)];
    }
    backends
        .into_iter()
        .map(|backend| match backend.state.as_str() {
            "ready" => {
                let era = if backend.era.is_empty() { "" } else { &backend.era };
                CheckResult::ok(format!("{}: ready, {} tools ({era})", backend.name, backend.tools))
            }
            state => {
                let words = format!("{}: {state}: {}", backend.name, backend.reason);
                CheckResult::warning(words, format!("swarm registry get {}", backend.name))
            }
        })
        .collect()
}
