//! Wiring: binds the port, finds the own address, starts engine and loop, mounts the RPCs.

use crate::{
    Config, Error,
    config::Timing,
    core::{
        facts,
        facts::{ServiceFact, ServiceKey},
        leases::Leases,
        members::{Members, Own, Settings},
    },
    driver::{Driver, Gate},
    events::Events,
    membership::{Bound, Identity, Membership},
    metrics::{GossipMetrics, Traffic},
    rpc::{self, Rpc},
};
use kit::host::Context;
use proto::gossip::gossip_service_server::GossipServiceServer;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};
use tokio::sync::{mpsc, watch};

/// Requests that wait for the loop; more wait in their callers.
const REQUESTS: usize = 256;

/// A started service.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    /// Where its gRPC answers.
    pub addr: SocketAddr,
    /// The bound gossip address (UDP).
    pub gossip_addr: SocketAddr,
    /// The gossip address the others are told.
    pub advertise: SocketAddr,
}

/// Starts gossiping and serves the view. Returns when the port is bound.
///
/// # Errors
/// When the configuration makes no sense, the port is taken or the own address is not found.
pub async fn start(config: Config, ctx: &Context) -> Result<Running, Error> {
    config.validate()?;
    let timing = config.timing()?;
    let traffic = Traffic::new(&ctx.metrics);
    let bound = Bound::bind(config.listen, traffic.clone())
        .await
        .map_err(|error| Error::Bind { addr: config.listen, why: format!("{error:#}") })?;
    let listen = bound.addr;
    let advertise = advertise(config.advertise.as_deref(), listen).await?;
    let identity = Identity {
        node: ctx.node.clone(),
        generation: ctx.generation,
        advertise,
        cluster: ctx.cluster.clone(),
        seeds: config.join,
    };
    let running = Running { addr: ctx.grpc_addr, gossip_addr: listen, advertise };
    let driver = assemble(ctx, timing, traffic, bound, identity).await?;
    ctx.tasks.spawn("gossip", driver.run(ctx.shutdown.clone()));
    tracing::info!(%listen, %advertise, "gossip started");
    Ok(running)
}

async fn assemble(
    ctx: &Context,
    timing: Timing,
    traffic: Traffic,
    bound: Bound,
    identity: Identity,
) -> Result<Driver, Error> {
    let own = Own { node: identity.node.clone(), generation: identity.generation, addr: identity.advertise };
    let own_ip = identity.advertise.ip();
    let members = Members::new(settings(&timing), own);
    let mut leases = Leases::new(timing.forget_dead);
    let (key, fact) = own_service(ctx, own_ip);
    leases.hold(key, fact);
    let own_facts = vec![
        (facts::ZONE.to_owned(), ctx.zone.clone()),
        (facts::VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let listen = bound.addr;
    let all = own_facts.iter().cloned().chain(leases.facts()).collect();
    let engine = Membership::start(bound, identity.clone(), &timing, all)
        .await
        .map_err(|error| Error::Engine(format!("{error:#}")))?;

    let metrics = GossipMetrics::new(&ctx.metrics);
    let (events, telling) = Events::new(ctx.bus.clone(), ctx.cluster.clone(), metrics.facts_dropped.clone());
    let (views, shown) = watch::channel(Arc::new(members.view()));
    let (requests, asked) = mpsc::channel(REQUESTS);
    let expect = ctx.expect.max(1) as usize;
    let ready = Gate { condition: ctx.readiness.condition("gossip"), expect, seen: false };
    let handler = Rpc { views: shown, requests, own_ip };
    ctx.rpc.add(GossipServiceServer::new(handler).max_decoding_message_size(kit::rpc::MAX_MESSAGE));
    ctx.tasks.detach("gossip-events", telling);
    let clock = ctx.clock.clone();
    Ok(Driver {
        timing,
        clock,
        identity,
        listen,
        members,
        leases,
        engine,
        own_facts,
        views,
        requests: asked,
        events,
        metrics,
        traffic,
        ready,
    })
}

fn settings(timing: &Timing) -> Settings {
    Settings {
        interval: timing.interval,
        phi: timing.phi,
        phi_suspect: timing.phi_suspect,
        forget_dead: timing.forget_dead,
        forget_left: timing.forget_left,
    }
}

/// gossip-svc speaks for itself without a lease: it lives exactly as long as what tells of it.
fn own_service(ctx: &Context, own_ip: IpAddr) -> (ServiceKey, ServiceFact) {
    let key = ServiceKey { service: "gossip".into(), instance: ctx.node.clone() };
    let fact = ServiceFact {
        addr: rpc::reachable(&ctx.advertise, own_ip).unwrap_or_else(|| ctx.advertise.clone()),
        generation: ctx.generation,
        zone: ctx.zone.clone(),
        meta: BTreeMap::new(),
        down: false,
    };
    (key, fact)
}

/// The address the others are told: as configured, else as bound, else as routed.
async fn advertise(configured: Option<&str>, bound: SocketAddr) -> Result<SocketAddr, Error> {
    if let Some(name) = configured {
        let resolved = resolve(name).await.map_err(|why| Error::Resolve { name: name.into(), why })?;
        let port = if resolved.port() == 0 { bound.port() } else { resolved.port() };
        return Ok(SocketAddr::new(resolved.ip(), port));
    }
    if !bound.ip().is_unspecified() {
        return Ok(bound);
    }
    let ip = routed_ip(bound.is_ipv6()).await.ok_or(Error::Advertise(bound))?;
    Ok(SocketAddr::new(ip, bound.port()))
}

async fn resolve(name: &str) -> Result<SocketAddr, String> {
    let mut found = tokio::net::lookup_host(name).await.map_err(|error| error.to_string())?;
    found.next().ok_or_else(|| "no address".into())
}

/// The source address of the default route. Connecting a datagram socket sends nothing; the
/// targets are documentation addresses (RFC 5737, RFC 3849).
async fn routed_ip(v6: bool) -> Option<IpAddr> {
    let (any, target): (IpAddr, IpAddr) = if v6 {
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
    } else {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
    };
    let socket = tokio::net::UdpSocket::bind((any, 0)).await.ok()?;
    socket.connect((target, 9)).await.ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::test::eventually;
    use std::time::Duration;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_engine_that_ends_is_started_again_on_its_port_with_its_facts() {
        let ctx = Context::for_test("n1");
        let timing = Config::for_test().timing().expect("presets are legal");
        let traffic = Traffic::new(&ctx.metrics);
        let bound = Bound::bind((Ipv4Addr::LOCALHOST, 0).into(), traffic.clone()).await.expect("a port");
        let identity = Identity {
            node: "n1".into(),
            generation: 1,
            advertise: bound.addr,
            cluster: ctx.cluster.clone(),
            seeds: Vec::new(),
        };
        let addr = bound.addr;
        let driver = assemble(&ctx, timing, traffic, bound, identity).await.expect("starts");
        let views = driver.views.subscribe();
        driver.engine.kill();
        ctx.tasks.spawn("gossip", driver.run(ctx.shutdown.clone()));

        let other = Context::for_test("n2");
        let join = vec![addr.to_string()];
        start(Config { join, ..Config::for_test() }, &other).await.expect("n2 starts");
        let sees = async || {
            let view = views.borrow().clone();
            let reborn = view
                .members
                .first()
                .is_some_and(|own| own.generation > 1 && own.facts.contains_key("svc/gossip/n1"));
            (reborn && view.members.len() == 2).then_some(())
        };
        eventually("the new engine gossips", Duration::from_secs(5), sees).await;
        assert_eq!(ctx.shutdown.failure(), None);
        ctx.shutdown.abort();
        other.shutdown.abort();
    }

    #[tokio::test]
    async fn the_own_address_is_configured_bound_or_routed() {
        let bound: SocketAddr = "127.0.0.1:7620".parse().expect("an address");
        assert_eq!(advertise(None, bound).await.expect("bound"), bound);
        let translated = advertise(Some("127.0.0.9:0"), bound).await.expect("configured");
        assert_eq!(translated, "127.0.0.9:7620".parse().expect("an address"));
        assert!(advertise(Some("no.such.host.invalid:1"), bound).await.is_err());
    }
}
