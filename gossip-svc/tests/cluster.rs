//! Nodes in one process over loopback UDP, each with its own ports, driven through gRPC.

use gossip_client::{GossipClient, MemberState, View};
use gossip_svc::{Config, Running, start};
use kit::{
    bus::{Bus, InProcBus},
    config::NodeConfig,
    directory::{Directory, Instance, State},
    host::{Context, Host, Parts, Served},
    test::eventually,
};
use rand::Rng as _;
use std::{net::SocketAddr, sync::Arc, time::Duration};

const CONVERGE: Duration = Duration::from_secs(3);
const DETECT: Duration = Duration::from_secs(4);

struct Node {
    served: Served,
    running: Running,
    client: GossipClient,
}

impl Node {
    async fn start(name: &str, join: &[SocketAddr]) -> Node {
        Node::start_with(name, join, Config::for_test(), Parts::default(), |_, _| ()).await
    }

    async fn start_with(
        name: &str,
        join: &[SocketAddr],
        config: Config,
        parts: Parts,
        before_serving: impl FnOnce(&mut Host, &Running),
    ) -> Node {
        let mut host = Host::bind(&NodeConfig::for_test(name), parts).await.expect("ports on loopback");
        let join = join.iter().map(ToString::to_string).collect();
        let running = start(Config { join, ..config }, host.context()).await.expect("gossip starts");
        before_serving(&mut host, &running);
        let endpoint = running.addr.to_string();
        let client = GossipClient::connect(host.context().channels.clone(), vec![endpoint]);
        Node { served: host.serve().await, running, client }
    }

    fn context(&self) -> &Context {
        self.served.context()
    }

    async fn view(&self) -> Option<View> {
        self.client.members().await.ok()
    }

    async fn state_of(&self, node: &str) -> Option<MemberState> {
        Some(self.view().await?.member(node)?.state)
    }

    async fn stop(self) {
        self.served.shutdown();
        self.served.stopped().await.expect("a clean end");
    }
}

async fn cluster(size: usize) -> Vec<Node> {
    let mut nodes = vec![Node::start("n1", &[]).await];
    let seed = nodes[0].running.gossip_addr;
    for index in 2..=size {
        nodes.push(Node::start(&format!("n{index}"), &[seed]).await);
    }
    nodes
}

fn alive(view: &View) -> usize {
    view.members.iter().filter(|member| member.state == MemberState::Alive).count()
}

async fn converged(nodes: &[Node], size: usize) {
    for node in nodes {
        let name = &node.context().node;
        eventually(&format!("{name} sees {size} alive"), CONVERGE, async || {
            node.view().await.filter(|view| alive(view) == size)
        })
        .await;
    }
}

async fn all_see(nodes: &[Node], node: &str, state: MemberState, within: Duration) {
    for observer in nodes {
        let name = &observer.context().node;
        eventually(&format!("{name} sees {node} {state:?}"), within, async || {
            observer.state_of(node).await.filter(|seen| *seen == state)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_converge_a_killed_one_dies_and_returns_alive() {
    let mut nodes = cluster(3).await;
    converged(&nodes, 3).await;
    let ready = nodes[0].context().readiness.clone();
    assert!(ready.ready(), "{:?}", ready.unmet());

    let killed = nodes.pop().expect("three nodes");
    let old = killed.view().await.and_then(|view| Some(view.member("n3")?.generation));
    killed.served.kill().await;
    all_see(&nodes, "n3", MemberState::Dead, DETECT).await;

    let back = Node::start("n3", &[nodes[0].running.gossip_addr]).await;
    nodes.push(back);
    converged(&nodes, 3).await;
    let view = nodes[0].view().await.expect("n1 answers");
    assert!(view.member("n3").map(|member| member.generation) > old);
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_expects_three_is_ready_when_it_saw_three_and_stays_so() {
    let config = NodeConfig { expect: 3, ..NodeConfig::for_test("n1") };
    let host = Host::bind(&config, Parts::default()).await.expect("ports on loopback");
    let seed = start(Config::for_test(), host.context()).await.expect("starts").gossip_addr;
    let (readiness, served) = (host.context().readiness.clone(), host.serve().await);
    let unmet = || readiness.unmet().into_iter().find(|(name, _)| name == "gossip").map(|(_, why)| why);
    eventually("it says whom it misses", CONVERGE, async || unmet().filter(|why| why == "1 of 3 nodes seen"))
        .await;
    let others = [Node::start("n2", &[seed]).await, Node::start("n3", &[seed]).await];
    tokio::time::timeout(CONVERGE, readiness.wait_ready()).await.expect("ready in time");
    for other in &others {
        other.served.kill().await;
    }
    all_see_from(&served, "n3", MemberState::Dead).await;
    assert!(readiness.ready(), "the death of others does not take this node out");
    served.kill().await;
}

async fn all_see_from(served: &Served, node: &str, state: MemberState) {
    let ctx = served.context();
    let client = GossipClient::connect(ctx.channels.clone(), vec![ctx.grpc_addr.to_string()]);
    eventually(&format!("{node} is {state:?}"), DETECT, async || {
        client.members().await.ok()?.member(node).filter(|member| member.state == state).map(|_| ())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_converge_and_a_leaver_is_left_at_once_everywhere() {
    let mut nodes = cluster(5).await;
    converged(&nodes, 5).await;
    let leaver = nodes.pop().expect("five nodes");
    leaver.stop().await;
    // It spread the word before it ended, so there is nothing to detect.
    all_see(&nodes, "n5", MemberState::Left, Duration::from_secs(1)).await;
    assert_eq!(nodes[0].view().await.map(|view| alive(&view)), Some(4));
    nodes[0].client.leave().await.expect("leave by call");
    all_see(&nodes, "n1", MemberState::Left, Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_oversized_datagrams_do_not_stop_the_loop() {
    let nodes = cluster(2).await;
    converged(&nodes, 2).await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let target = nodes[0].running.gossip_addr;
    let mut rng = kit::test::rng(kit::test::seed());
    for round in 0..3_000usize {
        let length = [0, 1, 3, 5, 16, 64, 300, 1_400, 9_000, 65_000][round % 10];
        let mut datagram = vec![0; length];
        rng.fill(datagram.as_mut_slice());
        // Half of them start as the engine's messages do: magic number, version, kind.
        let head = [0x53, 0xb0, rng.random_range(0..2), rng.random_range(0..4)];
        let place = datagram.iter_mut().zip(head);
        place.filter(|_| round % 2 == 0).for_each(|(byte, right)| *byte = right);
        // The kernel may be out of buffers: then there was one datagram less.
        let _ = socket.send_to(&datagram, target).await;
    }
    let late = Node::start("n3", &[target]).await;
    eventually("a node still joins through the bombed one", CONVERGE, async || {
        late.view().await.filter(|view| alive(view) == 3)
    })
    .await;
    assert_eq!(nodes[0].state_of("n2").await, Some(MemberState::Alive));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lease_takes_the_instance_down_and_a_withdrawal_takes_it_away() {
    let nodes = cluster(2).await;
    converged(&nodes, 2).await;
    let session = Instance { addr: "127.0.0.1:9".into(), ..nodes[0].context().instance("session") };
    let task = Instance { service: "coordinator".into(), ..session.clone() };
    let lease = Duration::from_secs(1);
    nodes[0].client.publish(&[session.clone(), task.clone()], &[], lease).await.expect("published");

    let older = Instance { generation: session.generation - 1, ..session.clone() };
    let refused = nodes[0].client.publish(&[older], &[], lease).await.expect_err("an older process");
    assert_eq!(proto::error::Code::of(&refused), proto::error::Code::Fenced);

    let at_n2 = async |service: &str| {
        let view = nodes[1].view().await?;
        gossip_client::instances(&view.members).into_iter().find(|instance| instance.service == service)
    };
    eventually("n2 sees the session service up", CONVERGE, async || {
        at_n2("session").await.filter(|instance| instance.state == State::Up)
    })
    .await;
    nodes[0].client.publish(&[], &[task], lease).await.expect("withdrawn");
    eventually("n2 no longer sees the withdrawn one", CONVERGE, async || {
        at_n2("coordinator").await.is_none().then_some(())
    })
    .await;
    eventually("n2 sees the session service down", CONVERGE, async || {
        at_n2("session").await.filter(|instance| instance.state == State::Down)
    })
    .await;
    assert_eq!(nodes[1].state_of("n1").await, Some(MemberState::Alive), "its node lives");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_follows_announcements_and_survives_the_loss_of_gossip() {
    let gossip = Node::start("n1", &[]).await;
    let other = Node::start("n2", &[gossip.running.gossip_addr]).await;
    // A service in a process of its own, without gossip in it.
    let mut host = Host::for_test("n1").await;
    let ctx = host.context().clone();
    let endpoints = vec![gossip.running.addr.to_string(), other.running.addr.to_string()];
    let writer = host.directory_writer().expect("once");
    let mut members = GossipClient::connect(ctx.channels.clone(), endpoints).spawn(&ctx, writer);
    ctx.announce.set(ctx.instance("registry"));
    let state = |directory: &Directory| directory.get("registry", "n1").map(|instance| instance.state);
    eventually("its own announcement comes back", CONVERGE, async || {
        state(&ctx.directory).filter(|state| *state == State::Up)
    })
    .await;
    assert!(ctx.directory.get("gossip", "n1").is_some(), "gossip speaks for itself");

    gossip.served.kill().await;
    members.changed().await;
    eventually("it fails over to the other endpoint and publishes there", DETECT + CONVERGE, async || {
        let fresh = members.view().stale_since.is_none() && members.view().own == "n2";
        state(&ctx.directory).filter(|state| fresh && *state == State::Up)
    })
    .await;

    other.served.kill().await;
    eventually("the view says that it is old", DETECT, async || members.view().stale_since).await;
    assert!(state(&ctx.directory).is_some(), "the last known directory stays");
    ctx.shutdown.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_service_is_down_before_its_lease_ends() {
    let gossip = Node::start("n1", &[]).await;
    let mut host = Host::for_test("n1").await;
    let ctx = host.context().clone();
    let endpoint = vec![gossip.running.addr.to_string()];
    GossipClient::connect(ctx.channels.clone(), endpoint).spawn(&ctx, host.directory_writer().expect("once"));
    ctx.announce.set(ctx.instance("edge"));
    let edge = async || {
        let view = gossip.view().await?;
        gossip_client::instances(&view.members).into_iter().find(|instance| instance.service == "edge")
    };
    eventually("published", CONVERGE, async || edge().await.filter(|i| i.state == State::Up)).await;
    ctx.shutdown.trigger();
    eventually("down", Duration::from_secs(1), async || edge().await.filter(|i| i.state == State::Down))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_suspicions_deaths_and_departures_are_told_on_the_bus() {
    let bus = Arc::new(InProcBus::new());
    let mut told = bus.subscribe("swarm.v1.local.gossip.member.*").await.expect("subscribed");
    let parts = Parts { bus: Some(bus), ..Parts::default() };
    let n1 = Node::start_with("n1", &[], Config::for_test(), parts, |_, _| ()).await;
    let n2 = Node::start("n2", &[n1.running.gossip_addr]).await;
    converged(std::slice::from_ref(&n1), 2).await;
    n2.served.kill().await;
    all_see(std::slice::from_ref(&n1), "n2", MemberState::Dead, DETECT).await;
    let n2 = Node::start("n2", &[n1.running.gossip_addr]).await;
    converged(std::slice::from_ref(&n1), 2).await;
    n2.stop().await;
    let mut verbs = Vec::new();
    while verbs.last().is_none_or(|verb| verb != "left") {
        let message =
            tokio::time::timeout(CONVERGE, told.next()).await.expect("in time").expect("the bus lives");
        let member: proto::gossip::Member = prost::Message::decode(message.payload).expect("a member");
        assert_eq!(member.node, "n2");
        verbs.push(message.subject.rsplit('.').next().unwrap_or_default().to_owned());
    }
    assert_eq!(verbs, ["joined", "suspected", "died", "joined", "left"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_and_a_taken_port_are_kept_out() {
    let n1 = Node::start("n1", &[]).await;
    let strangers = NodeConfig { cluster: "other".into(), ..NodeConfig::for_test("x1") };
    let host = Host::bind(&strangers, Parts::default()).await.expect("ports");
    let join = vec![n1.running.gossip_addr.to_string()];
    let taken = Config { listen: n1.running.gossip_addr, ..Config::for_test() };
    let error = start(taken, host.context()).await.expect_err("the port is taken").to_string();
    assert!(error.contains(&n1.running.gossip_addr.to_string()), "{error}");

    start(Config { join, ..Config::for_test() }, host.context()).await.expect("starts");
    let friend = Node::start("n2", &[n1.running.gossip_addr]).await;
    converged(&[n1, friend], 2).await;
    host.context().shutdown.abort();
}
