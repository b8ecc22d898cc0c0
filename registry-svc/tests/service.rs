//! One instance over gRPC.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use kit::{
    host::Host,
    rpc::{CallPolicy, with_deadline},
};
use proto::{
    error::{Code, detail},
    ids::ShardId,
    registry::{
        Kind, ListRequest, LookupRequest, PackedLookup, RegisterRequest, Registration, RenewRequest,
        RouteRequest, WatchRequest, WatchResponse, registry_service_client::RegistryServiceClient,
        watch_response::Event,
    },
};
use registry_client::{Error, Filter};
use registry_svc::{Config, start};
use std::time::Duration;
use support::{Cluster, SOON, durable, ephemeral, until};
use tokio::time::Instant;
use tonic::{Status, Streaming};

async fn watch(cluster: &Cluster, request: WatchRequest) -> Result<Streaming<WatchResponse>, Status> {
    let answer = cluster.stub("n1").watch(with_deadline(request, SOON)).await?;
    Ok(answer.into_inner())
}

async fn next(stream: &mut Streaming<WatchResponse>) -> Result<Option<WatchResponse>, Status> {
    tokio::time::timeout(SOON, stream.message()).await.unwrap()
}

/// The next event as text, with its revision.
async fn told(stream: &mut Streaming<WatchResponse>) -> (String, u64) {
    let response = next(stream).await.unwrap().unwrap();
    let text = match response.event.unwrap() {
        Event::Put(registration) => format!("+{}", registration.name),
        Event::Removed(removed) => format!("-{} {}", removed.name, removed.cause),
        Event::Synced(synced) => format!("synced {}", synced.count),
        Event::Status(report) => format!("status {}", report.name),
        Event::Progress(_) => "progress".into(),
    };
    (text, response.revision)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_gives_the_state_then_each_change_once_and_resumes_without_a_gap() {
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    for name in ["b", "a"] {
        client.register(durable(name, "o", "x"), false).await.unwrap();
    }
    let mut stream = watch(&cluster, WatchRequest::default()).await.unwrap();
    let mut state = Vec::new();
    for _ in 0..3 {
        state.push(told(&mut stream).await.0);
    }
    assert_eq!(state, ["+a", "+b", "synced 2"]);
    client.register(durable("c", "o", "x"), false).await.unwrap();
    client.deregister("a", "o", false).await.unwrap();
    client.register(ephemeral("w", "o", Duration::from_secs(1)), false).await.unwrap();
    let mut changes = Vec::new();
    for _ in 0..4 {
        changes.push(told(&mut stream).await);
    }
    let texts: Vec<&str> = changes.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, ["+c", "-a deregistered", "+w", "-w expired"]);
    assert!(changes.windows(2).all(|pair| pair[1].1 == pair[0].1 + 1), "no gap: {changes:?}");

    let from_revision = changes[0].1;
    let mut resumed = watch(&cluster, WatchRequest { from_revision, ..Default::default() }).await.unwrap();
    assert_eq!(told(&mut resumed).await, changes[1]);
    let kind = Kind::Worker.into();
    let mut workers =
        watch(&cluster, WatchRequest { from_revision, kind, ..Default::default() }).await.unwrap();
    assert_eq!(told(&mut workers).await, changes[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_watch_tells_how_far_it_is_also_past_changes_that_were_not_asked_for() {
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    let asked = WatchRequest { kind: Kind::Worker.into(), progress_ms: 50, ..Default::default() };
    let mut stream = watch(&cluster, asked).await.unwrap();
    assert_eq!(told(&mut stream).await.0, "synced 0");
    let revision = client.register(durable("a", "o", "x"), false).await.unwrap().revision;
    let past = loop {
        let (text, at) = told(&mut stream).await;
        assert_eq!(text, "progress");
        if at >= revision {
            break at;
        }
    };
    assert_eq!(past, revision);
    let mut plain = watch(&cluster, WatchRequest::default()).await.unwrap();
    assert_eq!((told(&mut plain).await.0, told(&mut plain).await.0), ("+a".into(), "synced 1".into()));
    let silence = tokio::time::timeout(Duration::from_millis(200), plain.message()).await;
    assert!(silence.is_err(), "progress comes only where it is asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_does_not_own_the_shard_names_the_owner_and_the_epoch() {
    let owners = [("n1".to_owned(), "0-7".to_owned()), ("n2".to_owned(), "8-15".to_owned())].into();
    let cluster = Cluster::of(1, Config { owners, owners_epoch: 3, ..Config::default() }).await;
    let client = cluster.client("n1");
    let names: Vec<String> = (0..24).map(|n| format!("name-{n}")).collect();
    for name in &names {
        client.register(durable(name, "o", "x"), false).await.unwrap();
    }
    let mut stub = cluster.stub("n1");
    let route = stub.route(with_deadline(RouteRequest {}, SOON)).await.unwrap().into_inner();
    assert_eq!((route.epoch, route.shards, route.owners.len()), (3, 16, 16));
    let (mut own, mut others) = (0, 0);
    for name in &names {
        let owner = &route.owners[usize::from(ShardId::of(name, 16).0)];
        let ask = |route_epoch| with_deadline(LookupRequest { name: name.into(), route_epoch }, SOON);
        assert!(stub.lookup(ask(0)).await.is_ok(), "a caller without a map is answered");
        match stub.lookup(ask(3)).await {
            Ok(answer) => {
                assert_eq!((owner.as_str(), answer.into_inner().route_epoch), ("n1", 3));
                own += 1;
            }
            Err(refused) => {
                assert_eq!(Code::of(&refused), Code::NotOwner);
                let of = |key| detail(&refused, key).unwrap();
                assert_eq!((of("owner"), of("epoch"), owner.as_str()), ("n2".into(), "3".into(), "n2"));
                others += 1;
            }
        }
        let refused = stub.lookup(ask(4)).await.unwrap_err();
        assert_eq!(Code::of(&refused), Code::NotOwner, "it may have lost the shard");
    }
    assert!(own > 0 && others > 0, "{own} own, {others} of others");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_below_the_history_or_of_another_start_is_compacted() {
    let cluster = Cluster::of(1, Config { history: 4, ..Config::default() }).await;
    let client = cluster.client("n1");
    let first = client.register(durable("a", "o", "x"), false).await.unwrap().revision;
    for n in 0..5 {
        client.register(durable(&format!("b{n}"), "o", "x"), false).await.unwrap();
    }
    for from_revision in [first, 1, u64::MAX] {
        let refused =
            watch(&cluster, WatchRequest { from_revision, ..Default::default() }).await.unwrap_err();
        assert_eq!(Code::of(&refused), Code::Compacted);
        let oldest = detail(&refused, "oldest").unwrap().parse().unwrap();
        assert!(watch(&cluster, WatchRequest { from_revision: oldest, ..Default::default() }).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_is_cut_and_costs_no_memory() {
    let cluster = Cluster::of(1, Config { history: 8, ..Config::default() }).await;
    let client = cluster.client("n1");
    let mut stream = watch(&cluster, WatchRequest::default()).await.unwrap();
    assert_eq!(told(&mut stream).await.0, "synced 0");
    // More than the windows of the connection hold, and than the history keeps.
    let registration = |n: u32| Registration {
        labels: (0..60).map(|key| (format!("{key}"), format!("{n}").repeat(200))).collect(),
        ..ephemeral("w", "o", SOON)
    };
    let writer = tokio::spawn(async move {
        for n in 10_000..11_500 {
            client.register(registration(n), true).await.unwrap();
        }
    });
    writer.await.unwrap();
    let cut = loop {
        match next(&mut stream).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(Code::of(&cut), Code::Exhausted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lives_at_least_its_time_and_is_gone_a_second_after() {
    let ttl = Duration::from_secs(1);
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    let lease = client.register(ephemeral("w", "o", ttl), false).await.unwrap().lease_id;
    tokio::time::sleep(ttl / 2).await;
    let before_renewal = Instant::now();
    let renewed = client.renew(&[lease, lease + (1 << 20)], "o").await.unwrap();
    let after_renewal = Instant::now();
    assert_eq!((renewed.renewed, renewed.unknown.len(), renewed.ttl_ms), (vec![lease], 1, 1000));
    until("the name is gone", || {
        let client = client.clone();
        async move { client.lookup("w").await.is_err() }
    })
    .await;
    assert!(before_renewal.elapsed() >= ttl, "expired early");
    assert!(after_renewal.elapsed() < ttl + Duration::from_secs(1), "gone late");
    assert_eq!(client.renew(&[lease], "o").await.unwrap().unknown, [lease]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_request_gets_a_precise_answer() {
    let cluster = Cluster::of(1, Config { max_registrations: 2, ..Config::default() }).await;
    let client = cluster.client("n1");
    let message =
        |outcome: Result<_, Error>| outcome.map(|_: proto::registry::RegisterResponse| ()).unwrap_err();

    let space = message(client.register(durable("a b", "o", "x"), false).await);
    assert!(matches!(space, Error::Invalid(text) if text.contains("' ' at position 1")));
    let long = message(client.register(durable(&"a".repeat(129), "o", "x"), false).await);
    assert!(matches!(long, Error::Invalid(text) if text.contains("129 characters; at most 128")));
    let large = message(client.register(durable("a", "o", &"x".repeat(70_000)), false).await);
    assert!(matches!(large, Error::Invalid(text) if text.contains("at most 65536 are allowed")));
    let brief = message(client.register(ephemeral("a", "o", Duration::from_millis(10)), false).await);
    assert!(matches!(brief, Error::Invalid(text) if text.contains("ttl_ms is 10")));
    assert!(
        matches!(client.lookup("nobody").await, Err(Error::NotFound(text)) if text.contains("\"nobody\""))
    );
    assert!(matches!(client.deregister("nobody", "o", false).await, Err(Error::NotFound(_))));

    client.register(durable("a", "o", "x"), false).await.unwrap();
    let taken = message(client.register(durable("a", "p", "y"), true).await);
    assert!(matches!(taken, Error::AlreadyRegistered { owner, .. } if owner == "o"));
    let theirs = client.deregister("a", "p", false).await;
    assert!(matches!(theirs, Err(Error::Denied { owner, .. }) if owner == "o"));
    let lease = client.register(ephemeral("w", "o", SOON), false).await.unwrap().lease_id;
    let theirs = client.renew(&[lease], "p").await;
    assert!(matches!(theirs, Err(Error::Denied { owner, .. }) if owner == "o"));
    let full = message(client.register(durable("c", "o", "x"), false).await);
    assert!(matches!(full, Error::Exhausted(text) if text.contains("max_registrations of 2")));

    let many = RenewRequest { lease_ids: vec![1; 10_001], owner: String::new() };
    let refused = cluster.stub("n1").renew(with_deadline(many, SOON)).await.unwrap_err();
    assert!(refused.message().contains("lease_ids is \"10001\""), "{refused}");
    let token = ListRequest { page_token: "not a token".into(), ..Default::default() };
    let refused = cluster.stub("n1").list(with_deadline(token, SOON)).await.unwrap_err();
    assert_eq!(detail(&refused, "field").as_deref(), Some("page_token"));
    let refused = cluster.stub("n1").list(ListRequest::default()).await.unwrap_err();
    assert_eq!(Code::of(&refused), Code::DeadlineRequired);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_register_gets_the_answer_of_the_first() {
    let cluster = Cluster::of(1, Config::default()).await;
    let request = RegisterRequest {
        request_id: "once".into(),
        registration: Some(durable("a", "o", "x")),
        ..Default::default()
    };
    let mut stub = cluster.stub("n1");
    let first = stub.register(with_deadline(request.clone(), SOON)).await.unwrap().into_inner();
    let again = stub.register(with_deadline(request, SOON)).await.unwrap().into_inner();
    assert!(first.created);
    assert_eq!(again, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_pages_in_name_order_and_filters() {
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    let names: Vec<String> = (0..1234).map(|n| format!("b{n:04}")).collect();
    let even = |name: &str| name.ends_with(['0', '2', '4', '6', '8']).to_string();
    let writes = names.iter().rev().map(|name| {
        let labels = [("even".to_owned(), even(name))].into();
        Registration { labels, ..durable(name, "o", "x") }
    });
    assert!(client.register_batch(writes.collect(), false).await.iter().all(Result::is_ok));
    let all = client.list(&Filter::default()).await.unwrap();
    assert!(all.iter().map(|registration| &registration.name).eq(&names));
    let even = Filter { labels: [("even".to_owned(), "true".to_owned())].into(), ..Default::default() };
    assert_eq!(client.list(&even).await.unwrap().len(), 617);
    let prefix = Filter { name_prefix: "b00".into(), ..Default::default() };
    assert_eq!(client.list(&prefix).await.unwrap().len(), 100);
    let workers = Filter { kind: Kind::Worker, ..Default::default() };
    assert_eq!(client.list(&workers).await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_reach_the_bus_and_metrics_are_named() {
    let host = Host::for_test("n1").await;
    let context = host.context().clone();
    let mut facts = context.bus.subscribe("swarm.v1.local.registry.>").await.unwrap();
    start(Config::default(), &context).await.unwrap();
    let served = host.serve().await;
    context.readiness.wait_ready().await;
    let channels = context.channels.clone();
    let policy = CallPolicy::idempotent(SOON);
    let request = RegisterRequest { registration: Some(durable("a", "o", "x")), ..Default::default() };
    kit::rpc::call(&policy, &channels, &context.advertise, |channel, left| {
        let request = with_deadline(request.clone(), left);
        async move { RegistryServiceClient::new(channel).register(request).await }
    })
    .await
    .unwrap();
    let fact = tokio::time::timeout(SOON, facts.next()).await.unwrap().unwrap();
    assert_eq!(fact.subject, "swarm.v1.local.registry.registration.put");
    let metrics = context.metrics.encode();
    for name in [
        "swarm_registry_shard_keys{shard=\"15\"}",
        "swarm_registry_shard_ops_total{shard=\"0\",op=\"return\"}",
        "swarm_registry_leases",
        "swarm_registry_expirations_total",
        "swarm_registry_lease_overrun_seconds_bucket",
        "swarm_registry_watchers_cut_total",
        "swarm_registry_commit_duration_seconds_bucket",
        "swarm_registry_commit_records_bucket",
    ] {
        assert!(metrics.contains(name), "{name} is missing");
    }
    served.shutdown();
    served.stopped().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_batch_tells_each_name_in_order_and_a_broken_one_ends_the_stream() {
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    let long = "x".repeat(100);
    for name in ["a", &long] {
        client.register(durable(name, "o", "x"), false).await.unwrap();
    }
    let names: Vec<u8> = ["a", "b", &long].iter().flat_map(|name| pack(name)).collect();
    let batches =
        [(7, names), (8, vec![5, b'a'])].map(|(id, names)| PackedLookup { id, names: names.into() });
    let request = with_deadline(tokio_stream::iter(batches), SOON);
    let mut answers = cluster.stub("n1").lookup_stream(request).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let words: Vec<u64> =
        answer.answers.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    let of = async |name| (1 << 63) | client.lookup(name).await.unwrap().version;
    assert_eq!((answer.id, words), (7, vec![of("a").await, 0, of(&long).await]));
    let broken = answers.message().await.unwrap_err();
    assert_eq!(Code::of(&broken), Code::InvalidArgument);
    assert_eq!(detail(&broken, "field").as_deref(), Some("names"));
}

fn pack(name: &str) -> Vec<u8> {
    [&[name.len() as u8], name.as_bytes()].concat()
}
