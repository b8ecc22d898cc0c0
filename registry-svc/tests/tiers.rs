//! Lookups in three tiers, over gRPC and over a network that can be cut.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use futures::StreamExt as _;
use kit::{
    bus::{Bus, InProcBus},
    config::NodeConfig,
    directory::{Directory, DirectoryWriter, Instance, State},
    flags::{Change, Setting},
    host::{Context, Host, Parts, Served},
    test::MemNet,
};
use parking_lot::Mutex;
use proto::registry::{Kind, Registration};
use registry_client::{
    Error, RegistryClient, Tiers,
    tiers::{Answer, Known, Local, Lookups, STALENESS_BOUND, Tier},
};
use registry_svc::{Config, start};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use support::{durable, until};

/// Registry nodes and one caller that runs none, on a network in memory.
struct Net {
    net: MemNet,
    writer: DirectoryWriter,
    directory: Directory,
    instances: Mutex<Vec<Instance>>,
    bus: Option<Arc<dyn Bus>>,
}

impl Net {
    fn new(bus: Option<Arc<dyn Bus>>) -> Self {
        let (writer, directory) = Directory::channel();
        Self { net: MemNet::new(), writer, directory, instances: Mutex::default(), bus }
    }

    async fn host(&self, name: &str) -> Host {
        let parts = Parts {
            net: self.net.node(name),
            directory: Some(self.directory.clone()),
            bus: self.bus.clone(),
            ..Parts::default()
        };
        Host::bind(&NodeConfig::for_test(name), parts).await.unwrap()
    }

    async fn registry(&self, name: &str, config: Config) -> Served {
        let host = self.host(name).await;
        start(Config { sync_wait: Duration::from_millis(50), ..config }, host.context()).await.unwrap();
        let instance = host.context().instance("registry");
        let served = host.serve().await;
        let mut instances = self.instances.lock();
        instances.retain(|known| known.name != name);
        instances.push(instance);
        self.writer.set(instances.clone());
        served
    }

    fn down(&self, name: &str) {
        let mut instances = self.instances.lock();
        let gone = instances.iter_mut().find(|instance| instance.name == name);
        gone.unwrap().state = State::Down;
        self.writer.set(instances.clone());
    }

    async fn caller(&self) -> (Served, Tiers) {
        let served = self.host("caller").await.serve().await;
        let tiers = Tiers::of(served.context());
        (served, tiers)
    }
}

fn client(node: &Served) -> RegistryClient {
    RegistryClient::of(node.context())
}

fn backend(name: &str, command: &str) -> Registration {
    durable(name, "o", command)
}

async fn put(client: &RegistryClient, name: &str, command: &str) -> u64 {
    client.register(backend(name, command), true).await.unwrap().version
}

fn now(node: &Served) -> Instant {
    node.context().clock.now()
}

async fn synced(tiers: &Tiers) {
    tokio::time::timeout(support::SOON, tiers.mirror().synced()).await.unwrap();
}

/// Asks until an answer will do.
async fn answer(local: &mut Local, node: &Served, name: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let end = now(node) + support::SOON;
    loop {
        let answer = local.lookup(name, now(node)).await.unwrap();
        if wanted(&answer) {
            return answer;
        }
        assert!(now(node) < end, "the last answer is {answer:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn version(answer: &Answer) -> Option<u64> {
    answer.registration.as_ref().map(|registration| registration.version)
}

fn count(node: &Served, series: &str) -> f64 {
    let text = node.context().metrics.encode();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shard_answers_first_then_the_copy_then_the_handle_and_each_is_counted() {
    let net = Net::new(None);
    let n1 = net.registry("n1", Config::default()).await;
    let first = put(&client(&n1), "time", "a").await;
    let (caller, tiers) = net.caller().await;
    let mut local = tiers.local("t");
    let before = local.lookup("time", now(&caller)).await.unwrap();
    assert_eq!((version(&before), before.stale), (Some(first), None), "whoever answers, it is right");
    synced(&tiers).await;
    let mut next = async || {
        let answer = local.lookup("time", now(&caller)).await.unwrap();
        (version(&answer), answer.tier)
    };
    let copy = next().await;
    assert!(matches!(copy, (Some(v), Tier::L1 | Tier::L2) if v == first), "{copy:?}");
    assert_eq!(next().await, (Some(first), Tier::L1));

    let second = put(&client(&n1), "time", "b").await;
    answer(&mut local, &caller, "time", |answer| version(answer) == Some(second)).await;
    client(&n1).deregister("time", "o", false).await.unwrap();
    answer(&mut local, &caller, "time", |answer| answer.registration.is_none()).await;
    let absent = local.lookup("time", now(&caller)).await.unwrap();
    assert_eq!((absent.registration, absent.tier), (None, Tier::L1), "absence has a handle, too");

    let direct = tiers.ask("time").await.unwrap();
    assert_eq!((direct.registration, direct.tier), (None, Tier::L3));
    for series in ["tier=\"l1\",result=\"hit\"", "tier=\"l1\",result=\"miss\"", "tier=\"l2\",result=\"hit\""]
    {
        let series = format!("swarm_registry_lookups_total{{{series}}}");
        assert!(count(&caller, &series) > 0.0, "{series}");
    }
    assert!(count(&n1, "swarm_registry_lookups_total{tier=\"l3\",result=\"miss\"}") > 0.0);
    assert!(count(&caller, "swarm_registry_lookup_duration_seconds_count{tier=\"l3\"}") > 0.0);
    let age = count(&caller, "swarm_registry_staleness_seconds");
    assert!(age > 0.0 && age < STALENESS_BOUND.as_secs_f64(), "{age}");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_partition_no_answer_is_older_than_the_bound_without_saying_so_and_then_all_converge() {
    let net = Net::new(None);
    let n1 = net.registry("n1", Config::default()).await;
    let first = put(&client(&n1), "time", "a").await;
    let (caller, tiers) = net.caller().await;
    synced(&tiers).await;
    let mut local = tiers.local("t");
    answer(&mut local, &caller, "time", |answer| answer.tier == Tier::L1).await;

    net.net.cut("n1", "caller");
    let second = put(&client(&n1), "time", "b").await;
    let changed = now(&caller);
    let (mut fresh, mut stale) = (0, 0);
    while now(&caller) < changed + STALENESS_BOUND * 2 {
        let asked = now(&caller);
        let answer = local.lookup("time", asked).await.unwrap();
        assert_eq!(version(&answer), Some(first), "the change cannot have come");
        match answer.stale {
            None => {
                let age = asked.saturating_duration_since(changed);
                assert!(age < STALENESS_BOUND, "old for {age:?} without saying so");
                fresh += 1;
            }
            Some(age) => {
                assert!(age >= STALENESS_BOUND, "{age:?}");
                stale += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(fresh > 0 && stale > 0, "{fresh} fresh, {stale} stale");
    assert_eq!(count(&caller, "swarm_registry_stale_reads_total"), f64::from(stale));
    assert!(count(&caller, "swarm_registry_staleness_seconds") >= STALENESS_BOUND.as_secs_f64());

    net.net.heal("n1", "caller");
    // The change may come a moment before the proof that nothing else is missing.
    let is_healed = |answer: &Answer| version(answer) == Some(second) && answer.stale.is_none();
    answer(&mut local, &caller, "time", is_healed).await;
    answer(&mut local, &caller, "time", |answer| answer.tier == Tier::L1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_registry_dies_the_copy_answers_with_its_age_until_another_one_is_there() {
    let net = Net::new(None);
    let n1 = net.registry("n1", Config::default()).await;
    put(&client(&n1), "time", "a").await;
    let (caller, tiers) = net.caller().await;
    synced(&tiers).await;
    n1.kill().await;
    net.down("n1");
    let mut local = tiers.local("t");
    let old = answer(&mut local, &caller, "time", |answer| answer.stale.is_some()).await;
    assert!(old.registration.is_some() && old.stale.unwrap() >= STALENESS_BOUND);
    let n2 = net.registry("n2", Config::default()).await;
    put(&client(&n2), "git", "a").await;
    answer(&mut local, &caller, "time", |answer| answer.registration.is_none()).await;
    // What was registered a moment ago may come a moment later, and the proof that nothing else is
    // missing after that.
    let from_the_copy = |answer: &Answer| answer.tier != Tier::L3 && answer.stale.is_none();
    answer(&mut local, &caller, "git", |answer| from_the_copy(answer) && answer.registration.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_copy_and_without_a_shard_a_lookup_is_an_error() {
    let net = Net::new(None);
    let (caller, tiers) = net.caller().await;
    let asked = tiers.local("t").lookup("time", now(&caller)).await;
    assert!(matches!(asked, Err(Error::Unavailable(_))), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_known_as_absent_is_found_as_soon_as_this_node_has_registered_it() {
    let net = Net::new(None);
    let _n1 = net.registry("n1", Config::default()).await;
    let (caller, tiers) = net.caller().await;
    synced(&tiers).await;
    let mut local = tiers.local("t");
    let knows = |local: &mut Local, name: &str| match local.get(name, now(&caller)) {
        Known::Found(registration) => Some(registration.version),
        Known::Absent => None,
        Known::Ask => panic!("the copy is fresh"),
    };
    for n in 0..50 {
        let name = format!("name-{n}");
        assert_eq!((knows(&mut local, &name), knows(&mut local, &name)), (None, None));
        let answer = tiers.register(backend(&name, "a"), false).await.unwrap();
        assert_eq!(knows(&mut local, &name), Some(answer.version), "its own write is hidden");
        tiers.deregister(&name, "o", false).await.unwrap();
        assert_eq!(knows(&mut local, &name), None, "its own removal is hidden");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_is_heard_before_the_watch_and_what_the_watch_does_not_confirm_is_taken_back() {
    let net = Net::new(Some(Arc::new(InProcBus::new())));
    let n1 = net.registry("n1", Config::default()).await;
    let (caller, tiers) = net.caller().await;
    synced(&tiers).await;
    // The watch is cut, the bus is not.
    net.net.cut("n1", "caller");
    let mirror = tiers.mirror();
    let shows = async |what: &str, wanted: Option<u64>| {
        until(what, || {
            let shown = mirror.get("time").map(|held| held.version);
            async move { shown == wanted }
        })
        .await;
    };
    let written = put(&client(&n1), "time", "a").await;
    shows("the fact is shown", Some(written)).await;
    shows("the watch did not confirm it", None).await;
    net.net.heal("n1", "caller");
    shows("the watch brings it", Some(written)).await;
    drop(caller);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_route_is_told_not_owner_and_the_owner_is_asked_after_one_look_at_the_map() {
    let owned = |epoch: u64, owners: &[(&str, &str)]| Config {
        owners: owners.iter().map(|(node, shards)| ((*node).into(), (*shards).into())).collect(),
        owners_epoch: epoch,
        ..Config::default()
    };
    let all_at_n1 = owned(1, &[("n1", "0-15")]);
    let parted = owned(2, &[("n1", "0-7"), ("n2", "8-15")]);
    let net = Net::new(None);
    let n1 = net.registry("n1", all_at_n1.clone()).await;
    let (caller, _) = net.caller().await;
    let client = client(&caller);
    client.refresh_routes().await.unwrap();
    n1.kill().await;
    let n1 = net.registry("n1", parted.clone()).await;
    let n2 = net.registry("n2", parted).await;
    let names: Vec<String> = (0..24).map(|n| format!("name-{n}")).collect();
    for name in &names {
        put(&client, name, "a").await;
    }
    for node in [&n1, &n2] {
        until("both have heard of all names", || {
            let of_node = RegistryClient::of(node.context());
            let last = names.last().unwrap().clone();
            async move { of_node.list(&Default::default()).await.unwrap().iter().any(|r| r.name == last) }
        })
        .await;
    }
    let refused = "rpc_server_call_duration_seconds_count{rpc_method=\"swarm.registry.v1.RegistryService/Lookup\",rpc_response_status_code=\"FAILED_PRECONDITION\"}";
    for name in &names {
        assert_eq!(client.lookup(name).await.unwrap().name, *name);
    }
    assert_eq!(count(&n1, refused), 1.0, "the first wrong route mends the map for all");
    let answered = |node| count(node, "swarm_registry_lookups_total{tier=\"l3\",result=\"hit\"}");
    assert!(answered(&n1) > 0.0 && answered(&n2) > 0.0);
    assert_eq!(answered(&n1) + answered(&n2), 24.0);
}

fn set(node: &Served, to: Setting) {
    let (key, reason, actor) = ("registry.cache".into(), "a test".into(), "tester".into());
    let change = Change { key, to, reason, actor, expected_revision: None, cascade: false };
    node.context().flags.change_blocking(&change).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flag_sends_every_lookup_to_the_shard_and_back_at_once_and_by_tenant() {
    let net = Net::new(None);
    let n1 = net.registry("n1", Config::default()).await;
    put(&client(&n1), "time", "a").await;
    let (caller, tiers) = net.caller().await;
    synced(&tiers).await;
    let (mut one, mut two) = (tiers.local("one"), tiers.local("two"));
    let mut asks = || [&mut one, &mut two].map(|local| matches!(local.get("time", now(&caller)), Known::Ask));
    assert_eq!(asks(), [false, false], "it is on by default");
    set(&caller, Setting::all("off"));
    assert_eq!(asks(), [true, true]);
    let on_for_two = Setting::Variant { variant: "on".into(), percent: None, tenants: vec!["two".into()] };
    set(&caller, on_for_two);
    assert_eq!(asks(), [true, false]);
    set(&caller, Setting::all("on"));
    assert_eq!(asks(), [false, false]);
    set(&caller, Setting::Kill);
    let answer = tiers.local("one").lookup("time", now(&caller)).await.unwrap();
    assert_eq!((answer.tier, answer.registration.is_some()), (Tier::L3, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn handles_that_do_not_pay_are_left_out_and_the_copy_still_answers() {
    const NAMES: usize = 3000;
    let net = Net::new(None);
    let n1 = net.registry("n1", Config::default()).await;
    let writes = (0..NAMES).map(|n| {
        let client = client(&n1);
        async move { put(&client, &format!("name-{n}"), "a").await }
    });
    let mut writes = futures::stream::iter(writes).buffer_unordered(64);
    while writes.next().await.is_some() {}
    let (caller, tiers) = net.caller().await;
    synced(&tiers).await;
    let mut local = tiers.local("t");
    let names: Vec<String> = (0..NAMES).map(|n| format!("name-{n}")).collect();
    let mut found = 0;
    for round in 0..10 {
        // Another order each round, far more names than handles.
        let order = (0..NAMES).map(|n| names[(n * 7 + round) % NAMES].as_str());
        local.get_many(order, now(&caller), |known| found += usize::from(matches!(known, Known::Found(_))));
    }
    assert_eq!(found, 10 * NAMES);
    let l1 = count(&caller, "swarm_registry_lookups_total{tier=\"l1\",result=\"miss\"}");
    let l2 = count(&caller, "swarm_registry_lookups_total{tier=\"l2\",result=\"hit\"}");
    assert!(l1 < 0.2 * 10.0 * NAMES as f64, "{l1} questions to handles that do not pay");
    assert!(l2 > 0.9 * 10.0 * NAMES as f64, "{l2}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_beside_the_registry_asks_the_shard_without_a_call() {
    let net = Net::new(None);
    let n1 = net.registry("n1", Config::default()).await;
    put(&client(&n1), "time", "a").await;
    let context: &Context = n1.context();
    let tiers = Tiers::start(context, client(&n1), Kind::Backend, Lookups::of(context));
    let answer = tiers.ask("time").await.unwrap();
    assert_eq!((answer.tier, answer.registration.is_some()), (Tier::L3, true));
    let malformed = tiers.ask("a b").await;
    assert!(matches!(malformed, Err(Error::Invalid(_))), "{malformed:?}");
    let calls = n1.context().metrics.encode();
    assert!(!calls.contains("RegistryService/Lookup"), "{calls}");
}
