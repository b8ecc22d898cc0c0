//! Properties and counters over gRPC, on one instance and between several.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use kit::rpc::with_deadline;
use proto::{
    error::{Code, detail},
    registry::{
        Counter, Durability, HoldersRequest, Kind, Registration, TotalResponse, UpdateCounterRequest,
        WatchRequest, registration::Spec, watch_response::Event,
    },
};
use registry_client::{Error, Filter, Keeper, RegistryClient};
use registry_svc::Config;
use std::time::Duration;
use support::{Cluster, SOON, durable, names, until};

const TTL: Duration = Duration::from_secs(1);

fn property(name: &str, owner: &str, value: &str) -> Registration {
    Registration {
        name: name.into(),
        kind: Kind::Property.into(),
        owner: owner.into(),
        spec: Some(Spec::Opaque(value.to_owned().into_bytes().into())),
        durability: Durability::Durable.into(),
        ..Registration::default()
    }
}

fn counter(name: &str, owner: &str, counter: Counter) -> Registration {
    let spec = Some(Spec::Counter(counter));
    Registration { kind: Kind::Counter.into(), spec, ..property(name, owner, "") }
}

fn leased(registration: Registration) -> Registration {
    let ttl_ms = TTL.as_millis() as u64;
    Registration { durability: Durability::Ephemeral.into(), ttl_ms, ..registration }
}

/// Owner and value of each holder, in their order.
async fn held(client: &RegistryClient, kind: Kind, name: &str) -> Vec<(String, String)> {
    let holders = client.holders(kind, name).await.unwrap();
    holders
        .into_iter()
        .map(|held| {
            assert_eq!(held.name, name, "people know it by its name");
            let value = match held.spec {
                Some(Spec::Opaque(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
                Some(Spec::Counter(counter)) => counter.value.to_string(),
                other => panic!("{other:?}"),
            };
            (held.owner, value)
        })
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(owner, value)| (owner.to_string(), value.to_string())).collect()
}

async fn holds(client: &RegistryClient, kind: Kind, name: &str, expected: &[(&str, &str)]) {
    until(&format!("{name} is held by {expected:?}"), || async {
        held(client, kind, name).await == pairs(expected)
    })
    .await;
}

fn total(sum: i64, holders: u64) -> TotalResponse {
    TotalResponse { sum, holders, saturated: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_owners_hold_one_property_each_with_its_own_value() {
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    for (owner, value) in [("w/2", "b"), ("w/1", "a"), ("w/10", "c")] {
        client.register(property("gpu", owner, value), false).await.unwrap();
    }
    client.register(durable("gpu", "operator", "x"), false).await.unwrap();
    assert_eq!(
        held(&client, Kind::Property, "gpu").await,
        pairs(&[("w/1", "a"), ("w/10", "c"), ("w/2", "b")])
    );
    let other = client.register(property("gpu", "w/1", "z"), false).await;
    assert!(matches!(other, Err(Error::AlreadyRegistered { owner, message }) if owner == "w/1"
        && message.starts_with(r#""gpu" of "w/1" is registered"#)));
    client.register(property("gpu", "w/1", "z"), true).await.unwrap();
    let one = client.held(Kind::Property, "gpu", "w/1").await.unwrap();
    assert_eq!((one.name.as_str(), one.spec), ("gpu", Some(Spec::Opaque(b"z".to_vec().into()))));
    assert!(matches!(client.held(Kind::Property, "gpu", "w").await, Err(Error::NotFound(_))));

    assert_eq!(names(&client).await, ["gpu"], "a list of names has the unique one only");
    let by_prefix = Filter { kind: Kind::Property, name_prefix: "gp".into(), ..Filter::default() };
    assert_eq!(client.list(&by_prefix).await.unwrap().len(), 3);
    assert_eq!(client.lookup("gpu").await.unwrap().owner, "operator");

    client.deregister_held(Kind::Property, "gpu", "w/10").await.unwrap();
    assert_eq!(held(&client, Kind::Property, "gpu").await, pairs(&[("w/1", "z"), ("w/2", "b")]));
    client.deregister("gpu", "operator", false).await.unwrap();
    assert_eq!(held(&client, Kind::Property, "gpu").await.len(), 2, "names and properties do not meet");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_adds_once_per_request_and_its_total_follows_every_owner() {
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    for owner in ["w/1", "w/2"] {
        client
            .register(counter("jobs", owner, Counter { value: 1, ..Counter::default() }), false)
            .await
            .unwrap();
    }
    assert_eq!(client.update_counter("jobs", "w/1", 41).await, Ok(42));
    assert_eq!(client.update_counter("jobs", "w/2", -3).await, Ok(-2));
    let request = UpdateCounterRequest {
        request_id: "once".into(),
        name: "jobs".into(),
        owner: "w/2".into(),
        delta: 5,
    };
    for _ in 0..2 {
        let answer = cluster.stub("n1").update_counter(with_deadline(request.clone(), SOON)).await.unwrap();
        assert_eq!(answer.into_inner().value, 3);
    }
    assert_eq!(client.total("jobs").await.unwrap(), total(45, 2));
    assert_eq!(held(&client, Kind::Counter, "jobs").await, pairs(&[("w/1", "42"), ("w/2", "3")]));

    let again = client.register(counter("jobs", "w/1", Counter::default()), false).await.unwrap();
    assert!(!again.created);
    assert_eq!(client.update_counter("jobs", "w/1", 0).await, Ok(42), "it goes on from where it was");
    client.deregister_held(Kind::Counter, "jobs", "w/1").await.unwrap();
    assert_eq!(client.total("jobs").await.unwrap(), total(3, 1));
    assert_eq!(client.total("nobody").await.unwrap(), total(0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_counter_and_its_last_requests_survive_a_crash() {
    let cluster = Cluster::of(1, Config::default()).await;
    cluster.client("n1").register(counter("jobs", "w", Counter::default()), false).await.unwrap();
    let request =
        UpdateCounterRequest { request_id: "once".into(), name: "jobs".into(), owner: "w".into(), delta: 5 };
    for _ in 0..2 {
        let answer = cluster.stub("n1").update_counter(with_deadline(request.clone(), SOON)).await.unwrap();
        assert_eq!(answer.into_inner().value, 5);
        cluster.kill("n1").await;
        cluster.start("n1").await;
    }
    assert_eq!(cluster.client("n1").total("jobs").await.unwrap(), total(5, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instance_has_all_holders_and_the_same_total() {
    let cluster = Cluster::of(3, Config::default()).await;
    for n in 1..=3 {
        let (client, owner) = (cluster.client(&format!("n{n}")), format!("w/{n}"));
        client.register(property("gpu", &owner, "a100"), false).await.unwrap();
        client.register(leased(counter("jobs", &owner, Counter::default())), false).await.unwrap();
        client.update_counter("jobs", &owner, n).await.unwrap();
    }
    for n in 1..=3 {
        let client = cluster.client(&format!("n{n}"));
        holds(&client, Kind::Property, "gpu", &[("w/1", "a100"), ("w/2", "a100"), ("w/3", "a100")]).await;
        until("the total of all", || async { client.total("jobs").await.unwrap() == total(6, 3) }).await;
    }
    cluster.client("n2").deregister_held(Kind::Property, "gpu", "w/1").await.unwrap();
    holds(&cluster.client("n3"), Kind::Property, "gpu", &[("w/2", "a100"), ("w/3", "a100")]).await;

    // Leased ones end with the instance that granted the lease; durable ones stay.
    cluster.kill("n1").await;
    let n2 = cluster.client("n2");
    until("nobody renews w/2 and w/3 either", || async { n2.total("jobs").await.unwrap() == total(0, 0) })
        .await;
    holds(&n2, Kind::Property, "gpu", &[("w/2", "a100"), ("w/3", "a100")]).await;
    cluster.start("n1").await;
    holds(&cluster.client("n1"), Kind::Property, "gpu", &[("w/2", "a100"), ("w/3", "a100")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_counters_of_two_owners_move_with_their_values() {
    let cluster = Cluster::of(2, Config::default()).await;
    let client = cluster.roaming("n2", "n1");
    let keeper = Keeper::new(client.clone());
    let both = ["w/1", "w/2"].map(|owner| leased(counter("jobs", owner, Counter::default())));
    assert_eq!(keeper.keep_all(both.to_vec()).await, Ok(vec![]));
    client.update_counter("jobs", "w/1", 4).await.unwrap();
    client.update_counter("jobs", "w/2", 5).await.unwrap();
    let n2 = cluster.client("n2");
    holds(&n2, Kind::Counter, "jobs", &[("w/1", "4"), ("w/2", "5")]).await;
    cluster.kill("n1").await;
    until("n2 grants both leases", || async {
        let holders = n2.holders(Kind::Counter, "jobs").await.unwrap();
        holders.len() == 2 && holders.iter().all(|held| held.origin == "n2")
    })
    .await;
    assert_eq!(held(&n2, Kind::Counter, "jobs").await, pairs(&[("w/1", "4"), ("w/2", "5")]));
    keeper.release_held(Kind::Counter, "jobs", "w/2").await.unwrap();
    assert_eq!(n2.total("jobs").await.unwrap(), total(4, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_of_them_by_name_and_only_when_asked() {
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    let watch = async |kind: Kind| {
        let request = WatchRequest { kind: kind.into(), ..WatchRequest::default() };
        cluster.stub("n1").watch(with_deadline(request, SOON)).await.unwrap().into_inner()
    };
    let (mut properties, mut all) = (watch(Kind::Property).await, watch(Kind::Unspecified).await);
    client.register(property("gpu", "w/1", "a"), false).await.unwrap();
    client.deregister_held(Kind::Property, "gpu", "w/1").await.unwrap();
    client.register(durable("time", "operator", "x"), false).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        let event = tokio::time::timeout(SOON, properties.message()).await.unwrap().unwrap().unwrap();
        told.push(match event.event.unwrap() {
            Event::Put(put) => format!("+{} {}", put.name, put.owner),
            Event::Removed(removed) => format!("-{} {} {}", removed.name, removed.owner, removed.cause),
            Event::Synced(_) => "synced".into(),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(told, ["synced", "+gpu w/1", "-gpu w/1 deregistered"]);
    let mut names = Vec::new();
    while names.is_empty() {
        let event = tokio::time::timeout(SOON, all.message()).await.unwrap().unwrap().unwrap();
        if let Some(Event::Put(put)) = event.event {
            names.push(put.name);
        }
    }
    assert_eq!(names, ["time"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_holders_goes_on_after_an_owner() {
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    let all: Vec<Registration> = (0..25).map(|n| property("gpu", &format!("w/{n:02}"), "a")).collect();
    assert!(client.register_batch(all, false).await.iter().all(Result::is_ok));
    let mut owners = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = HoldersRequest {
            kind: Kind::Property.into(),
            name: "gpu".into(),
            page_size: 10,
            page_token: page_token.clone(),
            ..HoldersRequest::default()
        };
        let page = cluster.stub("n1").holders(with_deadline(request, SOON)).await.unwrap().into_inner();
        owners.extend(page.registrations.into_iter().map(|held| held.owner));
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    assert!(owners.iter().eq((0..25).map(|n| format!("w/{n:02}")).collect::<Vec<_>>().iter()));
    let other =
        HoldersRequest { kind: Kind::Counter.into(), name: "gpu".into(), page_token, ..Default::default() };
    let refused = cluster.stub("n1").holders(with_deadline(other, SOON)).await.unwrap_err();
    assert!(refused.message().contains("belongs to another request"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_request_gets_a_precise_answer() {
    let cluster = Cluster::of(1, Config::default()).await;
    let client = cluster.client("n1");
    let refused = async |registration| match client.register(registration, false).await {
        Err(Error::Invalid(message)) => message,
        other => panic!("{other:?}"),
    };
    let long = "o".repeat(121);
    assert!(refused(property("gpu", &long, "a")).await.contains("owner has 121 bytes; at most 120"));
    assert_eq!(refused(property("gpu", "", "a")).await, "owner is missing");
    assert!(refused(property("a:b", "o", "a")).await.contains("':' at position 1"));
    assert_eq!(
        refused(Registration { spec: None, ..counter("c", "o", Counter::default()) }).await,
        "counter is missing"
    );
    let crossed = Counter { min: 2, max: 1, ..Counter::default() };
    assert!(refused(counter("c", "o", crossed)).await.contains("min must not be above max"));
    let worker = Registration { kind: Kind::Worker.into(), ..counter("c", "o", Counter::default()) };
    assert!(refused(worker).await.contains("only kind counter has one"));

    client
        .register(counter("c", "o", Counter { value: i64::MAX, ..Counter::default() }), false)
        .await
        .unwrap();
    let over = UpdateCounterRequest { name: "c".into(), owner: "o".into(), delta: 1, ..Default::default() };
    let over = cluster.stub("n1").update_counter(with_deadline(over, SOON)).await.unwrap_err();
    assert_eq!((Code::of(&over), detail(&over, "field").as_deref()), (Code::InvalidArgument, Some("delta")));
    let words =
        r#""c" of "o" is 9223372036854775807; adding 1 leaves -9223372036854775808..=9223372036854775807"#;
    assert_eq!(over.message(), words);
    assert_eq!(client.update_counter("c", "o", 0).await, Ok(i64::MAX), "nothing was added");
    assert!(
        matches!(client.update_counter("c", "p", 1).await, Err(Error::NotFound(message)) if message.contains(r#""c" of "p""#))
    );
    client.register(counter("c", "p", Counter { value: 1, ..Counter::default() }), false).await.unwrap();
    let sum = client.total("c").await.unwrap();
    assert_eq!(sum, TotalResponse { sum: i64::MAX, holders: 2, saturated: true });

    let lease = client.register(leased(property("gpu", "o", "a")), false).await.unwrap().lease_id;
    let theirs = client.renew(&[lease], "p").await;
    assert!(matches!(theirs, Err(Error::Denied { owner, .. }) if owner == "o"));
    let unique = client.holders(Kind::Worker, "w").await;
    assert!(matches!(unique, Err(Error::Invalid(message)) if message.contains("kind is \"KIND_WORKER\"")));
}
