//! Many at once: batches of writes, pages of a filter.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use kit::rpc::with_deadline;
use proto::{
    error::{Code, detail},
    registry::{
        BackendReport, BackendStatus, DeregisterBatchRequest, DeregisterRequest, HttpTransport, Kind,
        ListRequest, RegisterBatchRequest, RegisterRequest, RegisterResponse, Registration,
        ReportStatusRequest, backend_spec::Transport, register_outcome, registration::Spec,
    },
};
use registry_client::{Error, Filter, Keeper, Page, RegistryClient};
use registry_svc::Config;
use std::{collections::BTreeMap, time::Duration};
use support::{Cluster, SOON, durable, ephemeral, names, until};

fn entry(request_id: &str, registration: Registration) -> RegisterRequest {
    RegisterRequest {
        request_id: request_id.into(),
        ttl_ms: registration.ttl_ms,
        registration: Some(registration),
        ..RegisterRequest::default()
    }
}

/// Reason and message of each refused entry, or the answer.
async fn batch(
    cluster: &Cluster,
    entries: Vec<RegisterRequest>,
) -> Vec<Result<RegisterResponse, (String, String)>> {
    let request = with_deadline(RegisterBatchRequest { entries }, SOON);
    let answer = cluster.stub("n1").register_batch(request).await.unwrap().into_inner();
    let read = |outcome| match outcome {
        Some(register_outcome::Outcome::Registered(registered)) => Ok(registered),
        Some(register_outcome::Outcome::Error(error)) => Err((error.reason, error.message)),
        None => panic!("an entry without an answer"),
    };
    answer.outcomes.into_iter().map(|outcome| read(outcome.outcome)).collect()
}

/// Transactions of a node's disk.
fn commits(cluster: &Cluster, node: &str) -> u32 {
    let metrics = cluster.node(node).context().metrics.encode();
    let name = "swarm_registry_commit_duration_seconds_count ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().parse().unwrap()
}

/// Calls of one method that a node has answered since its start.
fn calls(cluster: &Cluster, method: &str) -> u32 {
    let metrics = cluster.node("n1").context().metrics.encode();
    let counts = metrics.lines().filter(|line| {
        line.starts_with("rpc_server_call_duration_seconds_count{") && line.contains(&format!("/{method}\""))
    });
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_entry_of_a_batch_is_answered_in_its_place() {
    let cluster = Cluster::of(1, Config::default()).await;
    let entries = vec![
        entry("1", durable("a", "o", "x")),
        entry("2", durable("b c", "o", "x")),
        entry("3", durable("a", "p", "y")),
        entry("4", ephemeral("w", "o", SOON)),
        RegisterRequest { request_id: "5".into(), ..RegisterRequest::default() },
    ];
    let first = batch(&cluster, entries.clone()).await;
    assert!(matches!(&first[0], Ok(answer) if answer.created && answer.version > 0));
    assert!(
        matches!(&first[1], Err((reason, why)) if reason == "INVALID_ARGUMENT" && why.contains("' ' at position 1"))
    );
    assert!(
        matches!(&first[2], Err((reason, why)) if reason == "ALREADY_REGISTERED" && why.contains("\"o\""))
    );
    assert!(matches!(&first[3], Ok(answer) if answer.lease_id > 0));
    assert!(matches!(&first[4], Err((_, why)) if why == "registration is missing"));
    let again = batch(&cluster, entries).await;
    let answers = |outcomes: &[Result<RegisterResponse, _>]| -> Vec<(u64, u64, bool)> {
        let known = outcomes.iter().filter_map(|outcome: &Result<_, (String, String)>| outcome.as_ref().ok());
        known.map(|answer| (answer.lease_id, answer.version, answer.created)).collect()
    };
    assert_eq!(answers(&again), answers(&first), "each request id has its answer");
    assert_eq!(names(&cluster.client("n1")).await, ["a", "w"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_durable_entries_are_one_commit_and_survive_a_crash() {
    let cluster = Cluster::of(1, Config { shards: 1, ..Config::default() }).await;
    let before = commits(&cluster, "n1");
    let entries: Vec<_> = (0..10_000).map(|n| entry("", durable(&format!("b{n:04}"), "o", "x"))).collect();
    assert!(batch(&cluster, entries).await.iter().all(Result::is_ok));
    assert_eq!(commits(&cluster, "n1") - before, 1);
    cluster.kill("n1").await;
    cluster.start("n1").await;
    let client = cluster.client("n1");
    assert_eq!(client.list(&Filter::default()).await.unwrap().len(), 10_000);

    let all = (0..10_000).map(|n| format!("b{n:04}")).collect();
    let before = commits(&cluster, "n1");
    assert!(client.deregister_batch(Kind::Unspecified, all, "o", false).await.iter().all(Result::is_ok));
    assert_eq!(commits(&cluster, "n1") - before, 1);
    assert_eq!(client.list(&Filter::default()).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_over_a_limit_applies_nothing_or_what_there_is_room_for() {
    let config = Config { max_batched: 3, max_registrations: 2, ..Config::default() };
    let cluster = Cluster::of(1, config).await;
    let client = cluster.client("n1");
    let wanted = |count: usize| (0..count).map(|n| durable(&format!("b{n}"), "o", "x")).collect::<Vec<_>>();
    let over = client.register_batch(wanted(4), false).await;
    assert!(
        over.iter()
            .all(|answer| matches!(answer, Err(Error::Exhausted(why)) if why.contains("max_batched of 3")))
    );
    assert!(names(&client).await.is_empty());

    let cluster = Cluster::of(1, Config { shards: 1, max_registrations: 2, ..Config::default() }).await;
    let client = cluster.client("n1");
    let answers = client.register_batch(wanted(3), false).await;
    assert!(answers[0].is_ok() && answers[1].is_ok());
    assert!(matches!(&answers[2], Err(Error::Exhausted(why)) if why.contains("max_registrations of 2")));
    assert_eq!(names(&client).await, ["b0", "b1"]);

    let entries = vec![RegisterRequest::default(); 10_001];
    let request = with_deadline(RegisterBatchRequest { entries }, SOON);
    let refused = cluster.stub("n1").register_batch(request).await.unwrap_err();
    assert!(refused.message().contains("entries is \"10001\"; at most 10000"), "{refused}");
    let entries = vec![DeregisterRequest::default(); 10_001];
    let request = with_deadline(DeregisterBatchRequest { entries }, SOON);
    let refused = cluster.stub("n1").deregister_batch(request).await.unwrap_err();
    assert_eq!(detail(&refused, "field").as_deref(), Some("entries"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_frees_tells_each_that_is_not_there_or_anothers() {
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    client.register(durable("a", "o", "x"), false).await.unwrap();
    client.register(durable("b", "p", "x"), false).await.unwrap();
    let all = ["a", "b", "c"].map(str::to_owned).to_vec();
    let answers = client.deregister_batch(Kind::Unspecified, all, "o", false).await;
    assert!(answers[0].is_ok());
    assert!(matches!(&answers[1], Err(Error::Denied { owner, .. }) if owner == "p"));
    assert!(matches!(&answers[2], Err(Error::NotFound(why)) if why.contains("\"c\"")));
}

async fn selected(client: &RegistryClient, filter: Filter) -> Vec<String> {
    let all = client.list(&filter).await.unwrap();
    all.into_iter().map(|registration| registration.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_are_selected_by_label_tool_transport_and_zone_at_any_instance() {
    let cluster = Cluster::of(2, Config::default()).await;
    let (n1, n2) = (cluster.client("n1"), cluster.client("n2"));
    for (name, zone, team) in [("git", "z1", "a"), ("time", "z2", "a"), ("web", "z2", "b")] {
        let mut backend = durable(name, "o", "x");
        backend.labels = [("team".to_owned(), team.to_owned())].into();
        if let Some(Spec::Backend(spec)) = &mut backend.spec {
            spec.zone = zone.into();
            if name == "web" {
                let http = HttpTransport { url: "http://web/mcp".into(), ..HttpTransport::default() };
                spec.transport = Some(Transport::Http(http));
            }
        }
        n1.register(backend, false).await.unwrap();
    }
    let report = |name: &str, tools: &[&str]| {
        let tool_names = tools.iter().map(|tool| tool.to_string()).collect();
        let status = BackendStatus { state: "ready".into(), tool_names, ..BackendStatus::default() };
        BackendReport { name: name.into(), status: Some(status) }
    };
    n1.report_status("e1", vec![report("git", &["log", "diff"]), report("time", &["now"])]).await.unwrap();
    let by_tool = |tool: &str| Filter { tool: tool.into(), ..Filter::default() };
    until("n2 has heard what e1 reports", || async { selected(&n2, by_tool("log")).await == ["git"] }).await;
    for client in [&n1, &n2] {
        assert_eq!(selected(client, by_tool("now")).await, ["time"]);
        assert!(selected(client, by_tool("nothing")).await.is_empty());
        let team = |team: &str| [("team".to_owned(), team.to_owned())].into();
        assert_eq!(
            selected(client, Filter { labels: team("a"), ..Filter::default() }).await,
            ["git", "time"]
        );
        assert_eq!(selected(client, Filter { transport: "http".into(), ..Filter::default() }).await, ["web"]);
        assert_eq!(
            selected(client, Filter { zone: "z2".into(), ..Filter::default() }).await,
            ["time", "web"]
        );
        let both = Filter { zone: "z2".into(), labels: team("a"), ..Filter::default() };
        assert_eq!(selected(client, both).await, ["time"]);
    }
    let looked_up = n2.lookup("git").await.unwrap();
    assert_eq!(looked_up.statuses[0].tool_names, ["log", "diff"]);
    let listed = n2.list(&by_tool("log")).await.unwrap();
    assert!(listed[0].statuses[0].tool_names.is_empty(), "a list does not carry them");
}

/// All pages of a filter, and what is done after each.
async fn paged<F: Future<Output = ()>>(
    client: &RegistryClient,
    filter: &Filter,
    mut between: impl FnMut(usize) -> F,
) -> Vec<String> {
    let (mut seen, mut token) = (Vec::new(), String::new());
    for page in 0.. {
        let Page { registrations, next } = client.page(filter, 10, token).await.unwrap();
        seen.extend(registrations.into_iter().map(|registration| registration.name));
        let Some(next) = next else { break };
        token = next;
        between(page).await;
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_all_the_time_is_on_one_page_whatever_comes_and_goes() {
    let cluster = Cluster::of(2, Config::default()).await;
    let (n1, n2) = (cluster.client("n1"), cluster.client("n2"));
    let name = |kind: &str, n: usize| format!("b{n:03}-{kind}");
    let (standing, going): (Vec<String>, Vec<String>) =
        (0..60).map(|n| (name("stands", n), name("goes", n))).unzip();
    let all = standing.iter().chain(&going).map(|name| durable(name, "o", "x")).collect();
    assert!(n1.register_batch(all, false).await.iter().all(Result::is_ok));
    until("n2 has all", || async { names(&n2).await.len() == 120 }).await;
    let prefix = Filter { name_prefix: "b".into(), ..Filter::default() };
    // Between two pages names go and come on both sides of the place, the last one seen too.
    let change = |page: usize| {
        let n1 = n1.clone();
        let gone: Vec<String> = (0..60).filter(|n| n % 10 == page).map(|n| name("goes", n)).collect();
        let come = (0..60).filter(|n| n % 10 == page % 10);
        let come = come.map(|n| durable(&format!("b{n:03}-comes-{page}"), "o", "x")).collect();
        async move {
            n1.deregister_batch(Kind::Unspecified, gone, "o", false).await;
            n1.register_batch(come, false).await;
        }
    };
    let seen = paged(&n1, &prefix, change).await;
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(seen, sorted, "in order, none twice");
    assert!(standing.iter().all(|name| seen.contains(name)), "none missed");

    // A token of one instance goes on at the other one.
    let first = n1.page(&prefix, 10, String::new()).await.unwrap();
    let here = n1.page(&prefix, 10, first.next.clone().unwrap()).await.unwrap();
    until("n2 has heard all", || async {
        let there = n2.page(&prefix, 10, first.next.clone().unwrap()).await.unwrap();
        there.registrations.iter().map(|r| &r.name).eq(here.registrations.iter().map(|r| &r.name))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_filter_or_page_token_is_told_precisely() {
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    let labels = |key: &str| BTreeMap::from([(key.to_owned(), "a".to_owned())]);
    let backends: Vec<_> = (0..20)
        .map(|n| Registration { labels: labels("team"), ..durable(&format!("b{n}"), "o", "x") })
        .collect();
    assert!(client.register_batch(backends, false).await.iter().all(Result::is_ok));
    let refused = async |request: ListRequest| {
        let status = cluster.stub("n1").list(with_deadline(request, SOON)).await.unwrap_err();
        assert_eq!(Code::of(&status), Code::InvalidArgument);
        (detail(&status, "field").unwrap(), status.message().to_owned())
    };
    let unknown = ListRequest { labels: labels("taem"), known_labels: true, ..Default::default() };
    let (field, why) = refused(unknown).await;
    assert_eq!(
        (field.as_str(), why.as_str()),
        ("labels", "no registration has a label \"taem\"; known are team")
    );
    let lenient = Filter { labels: labels("taem"), ..Filter::default() };
    assert!(client.list(&lenient).await.unwrap().is_empty());
    let many = (0..65).map(|n| (n.to_string(), String::new())).collect();
    assert!(refused(ListRequest { labels: many, ..Default::default() }).await.1.contains("at most 64"));

    let page = client.page(&Filter::default(), 10, String::new()).await.unwrap();
    let token = page.next.unwrap();
    let with = |page_token: &str| ListRequest { page_token: page_token.into(), ..Default::default() };
    let mut forged = token.clone();
    forged.replace_range(34..36, if &token[34..36] == "00" { "01" } else { "00" });
    for forged in ["b1", &forged, &token[..20]] {
        let (field, why) = refused(with(forged)).await;
        assert_eq!(
            (field.as_str(), why.as_str()),
            ("page_token", "page token is not one that was given out")
        );
    }
    let other = ListRequest { zone: "z1".into(), ..with(&token) };
    assert!(refused(other).await.1.contains("belongs to another request"));
    assert!(
        refused(with(&format!("09{}", &token[2..]))).await.1.contains("of format 9; this instance reads 1")
    );

    let tool_names = vec!["x".repeat(100); 200];
    let status = BackendStatus { state: "ready".into(), tool_names, ..BackendStatus::default() };
    let reports = vec![BackendReport { name: "b1".into(), status: Some(status) }];
    let request = ReportStatusRequest { edge: "e1".into(), reports };
    let refused = cluster.stub("n1").report_status(with_deadline(request, SOON)).await.unwrap_err();
    assert!(refused.message().contains("tool_names has 20000 bytes; at most 16384"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_lost_by_a_restart_come_back_in_a_batch() {
    let cluster = Cluster::of(1, Config::default()).await;
    let keeper = Keeper::new(cluster.roaming("n1", "n1"));
    let workers = (0..5000).map(|n| ephemeral(&format!("w{n:04}"), "o", Duration::from_secs(3))).collect();
    assert_eq!(keeper.keep_all(workers).await, Ok(vec![]));
    cluster.kill("n1").await;
    cluster.start("n1").await;
    let client = cluster.client("n1");
    until("all are back", || async { names(&client).await.len() == 5000 }).await;
    let batches = calls(&cluster, "RegisterBatch");
    assert!((1..=5).contains(&batches), "{batches} calls for 5000 leases");
}
