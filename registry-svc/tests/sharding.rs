//! `registry.sharding` switched under load on two instances: no request fails, no name is lost,
//! doubled or given to two owners, and the two models never differ.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use futures::{StreamExt as _, stream};
use kit::{
    flags::{Change, Setting},
    rpc::with_deadline,
};
use proto::registry::{LookupRequest, PackedLookup};
use registry_client::{Error, RegistryClient};
use registry_svc::Config;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use support::{Cluster, SOON, durable, ephemeral, names, until};
use tokio::task::JoinHandle;
use tonic::metadata::MetadataValue;

const FLAG: &str = "registry.sharding";
const NODES: [&str; 2] = ["n1", "n2"];
/// Operations of the load that pass between two changes of the flag.
const STEP: u64 = 120;
const LONG: Duration = Duration::from_secs(60);

async fn set_on(cluster: &Cluster, node: &str, to: Setting) {
    let (reason, actor) = ("a test".into(), "tester".into());
    let change = Change { key: FLAG.into(), to, reason, actor, expected_revision: None, cascade: false };
    cluster.node(node).context().flags.change(change).await.unwrap();
}

async fn set(cluster: &Cluster, to: Setting) {
    for node in NODES {
        set_on(cluster, node, to.clone()).await;
    }
}

fn some(variant: &str, percent: u8) -> Setting {
    Setting::Variant { variant: variant.into(), percent: Some(percent), tenants: vec![] }
}

fn compared(cluster: &Cluster, node: &str, result: &str) -> u64 {
    let line = format!("swarm_shadow_compared_total{{flag=\"{FLAG}\",result=\"{result}\"}} ");
    let text = cluster.node(node).context().metrics.encode();
    text.lines().find_map(|found| found.strip_prefix(&line)).unwrap().parse().unwrap()
}

/// Load that counts what it did and ends when it is told.
#[derive(Clone, Default)]
struct Load {
    done: Arc<AtomicBool>,
    operations: Arc<AtomicU64>,
}

impl Load {
    fn goes_on(&self) -> bool {
        self.operations.fetch_add(1, Ordering::Relaxed);
        !self.done.load(Ordering::Relaxed)
    }

    async fn passes(&self, operations: u64) {
        let wanted = self.operations.load(Ordering::Relaxed) + operations;
        until("the load goes on", || async { self.operations.load(Ordering::Relaxed) >= wanted }).await;
    }
}

/// Registers, is found at once, keeps others out, renews, and frees every third name again.
/// Answers the names that must be there afterwards.
async fn owner(load: Load, client: RegistryClient, who: String) -> BTreeSet<String> {
    let (mut kept, mut leases) = (BTreeSet::new(), Vec::new());
    for n in 0.. {
        let name = format!("{who}-{n}");
        let registration = if n % 8 == 0 { durable(&name, &who, "x") } else { ephemeral(&name, &who, LONG) };
        let registered = client.register(registration.clone(), false).await.unwrap();
        assert!(registered.created, "{name} was there");
        assert_eq!(client.lookup(&name).await.unwrap().version, registered.version, "{name}");
        let taken = client.register(ephemeral(&name, "thief", LONG), false).await;
        assert!(matches!(&taken, Err(Error::AlreadyRegistered { .. })), "{name}: {taken:?}");
        let again = client.register(registration, false).await.unwrap();
        assert_eq!((again.created, again.version), (false, registered.version), "{name} again");
        if n % 3 == 0 {
            client.deregister(&name, &who, false).await.unwrap();
            assert!(matches!(client.lookup(&name).await, Err(Error::NotFound(_))), "{name} is still there");
        } else {
            kept.insert(name);
            leases.extend((registered.lease_id > 0).then_some(registered.lease_id));
        }
        let newest = &leases[leases.len().saturating_sub(50)..];
        let renewed = client.renew(newest, &who).await.unwrap();
        assert_eq!((renewed.renewed.len(), renewed.unknown.len()), (newest.len(), 0));
        if !load.goes_on() {
            break;
        }
    }
    kept
}

/// Two callers want each name at the same moment: one gets it.
async fn racers(load: Load, client: RegistryClient, node: &str) {
    for n in 0.. {
        let name = format!("{node}-race-{n}");
        let (a, b) = tokio::join!(
            client.register(ephemeral(&name, "a", LONG), false),
            client.register(ephemeral(&name, "b", LONG), false)
        );
        let refused = |answer: &Result<_, Error>| matches!(answer, Err(Error::AlreadyRegistered { .. }));
        assert!((a.is_ok() && refused(&b)) || (b.is_ok() && refused(&a)), "{name}: {a:?} and {b:?}");
        let winner = if a.is_ok() { "a" } else { "b" };
        assert_eq!(client.lookup(&name).await.unwrap().owner, winner);
        client.deregister(&name, winner, false).await.unwrap();
        if !load.goes_on() {
            return;
        }
    }
}

/// Packed batches over one stream that outlives every change, and pages, of names that stand.
async fn reader(load: Load, cluster: Arc<Cluster>, node: &'static str) {
    let mut names = Vec::new();
    for n in 0..20 {
        for name in [format!("standing-{n}"), format!("missing-{n}")] {
            names.push(u8::try_from(name.len()).unwrap());
            names.extend(name.bytes());
        }
    }
    let request = PackedLookup { id: 7, names: names.into() };
    let (send, batches) = tokio::sync::mpsc::channel(1);
    let batches = tokio_stream::wrappers::ReceiverStream::new(batches);
    let opened = cluster.stub(node).lookup_stream(with_deadline(batches, LONG)).await.unwrap();
    let mut answers = opened.into_inner();
    let client = cluster.client(node);
    while load.goes_on() {
        send.send(request.clone()).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap().answers;
        let found: Vec<bool> = answer.chunks(8).map(|word| word[7] & 0x80 != 0).collect();
        assert_eq!(found, [true, false].repeat(20));
        let filter = registry_client::Filter { name_prefix: "standing-".into(), ..Default::default() };
        assert_eq!(client.list(&filter).await.unwrap().len(), 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_under_load_fails_no_request_and_the_models_never_differ() {
    let cluster = Arc::new(Cluster::of(2, Config { shards: 4, ..Config::default() }).await);
    for n in 0..20 {
        cluster.client("n1").register(durable(&format!("standing-{n}"), "o", "x"), false).await.unwrap();
    }
    for node in NODES {
        let client = cluster.client(node);
        until("both know what stands", || async { names(&client).await.len() == 20 }).await;
    }
    let load = Load::default();
    let mut owners: Vec<JoinHandle<BTreeSet<String>>> = Vec::new();
    let mut others: Vec<JoinHandle<()>> = Vec::new();
    for node in NODES {
        for n in 0..2 {
            let client = cluster.client(node);
            owners.push(tokio::spawn(owner(load.clone(), client, format!("{node}-{n}"))));
        }
        others.push(tokio::spawn(racers(load.clone(), cluster.client(node), node)));
        others.push(tokio::spawn(reader(load.clone(), cluster.clone(), node)));
    }
    for _ in 0..3 {
        for to in [
            Setting::all("off"),
            Setting::all("shadow"),
            some("on", 50),
            Setting::all("on"),
            some("shadow", 30),
            Setting::all("off"),
            Setting::Kill,
            Setting::Revive,
        ] {
            set(&cluster, to).await;
            load.passes(STEP).await;
        }
    }
    load.done.store(true, Ordering::Relaxed);
    let mut expected: BTreeSet<String> = (0..20).map(|n| format!("standing-{n}")).collect();
    for owner in owners {
        expected.extend(owner.await.expect("no request of an owner failed"));
    }
    for other in others {
        other.await.expect("no request failed");
    }
    for variant in ["off", "shadow", "on"] {
        set(&cluster, Setting::all(variant)).await;
        for node in NODES {
            let client = cluster.client(node);
            until("both instances hold the same names, each once", || async {
                names(&client).await == expected.iter().cloned().collect::<Vec<_>>()
            })
            .await;
        }
    }
    for node in NODES {
        assert!(compared(&cluster, node, "match") > 100, "{}", compared(&cluster, node, "match"));
        for result in ["mismatch", "error", "timeout"] {
            assert_eq!(compared(&cluster, node, result), 0, "{node} {result}");
        }
    }
}

/// The tenant comes as metadata; a rule may send it another way.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_of_the_call_decides_where_the_flag_says_so() {
    let cluster = Cluster::of(1, Config::default()).await;
    cluster.client("n1").register(durable("a", "o", "x"), false).await.unwrap();
    let blue = Setting::Variant { variant: "shadow".into(), percent: None, tenants: vec!["blue".into()] };
    set_on(&cluster, "n1", blue).await;
    let ask = async |tenant: Option<&'static str>| {
        let mut request = with_deadline(LookupRequest { name: "a".into(), ..Default::default() }, SOON);
        if let Some(tenant) = tenant {
            request.metadata_mut().insert("swarm-tenant", MetadataValue::from_static(tenant));
        }
        cluster.stub("n1").lookup(request).await.unwrap();
        compared(&cluster, "n1", "match")
    };
    // The one map is filled beside the traffic, and until it is whole nothing is compared.
    kit::test::eventually("blue is in shadow", SOON, async || (ask(Some("blue")).await > 0).then_some(()))
        .await;
    let before = compared(&cluster, "n1", "match");
    assert_eq!((ask(None).await, ask(Some("red")).await), (before, before));
    assert_eq!(ask(Some("blue")).await, before + 1);
}

/// A flag that was off before the restart is obeyed from the first answer on.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_while_off_finds_every_durable_name() {
    let cluster = Cluster::of(1, Config::default()).await;
    set_on(&cluster, "n1", Setting::all("off")).await;
    let wanted: Vec<String> = (0..40).map(|n| format!("b{n:02}")).collect();
    let client = cluster.client("n1");
    stream::iter(&wanted)
        .for_each_concurrent(8, |name| async {
            client.register(durable(name, "o", "x"), false).await.unwrap();
        })
        .await;
    cluster.kill("n1").await;
    cluster.start("n1").await;
    let off = cluster.node("n1").context().flags.view(FLAG).unwrap();
    assert_eq!(off.setting, "off");
    assert_eq!(names(&cluster.client("n1")).await, wanted);
    set_on(&cluster, "n1", Setting::all("on")).await;
    assert_eq!(names(&cluster.client("n1")).await, wanted);
}
