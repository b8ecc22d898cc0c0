//! The contract of a bus, run against the in-process one and a real nats-server.

#![allow(clippy::unwrap_used)]

#[path = "common/nats.rs"]
mod nats_server;

use bytes::Bytes;
use kit::{
    bus::{Bus, BusError, InProcBus, MAX_PAYLOAD, NatsBus, SUBSCRIPTION_CAPACITY},
    test::eventually,
};
use nats_server::NatsServer;
use std::{sync::Arc, time::Duration};

const SOON: Duration = Duration::from_secs(5);

/// Two clients of one bus, and whatever must outlive them.
struct Bench {
    a: Arc<dyn Bus>,
    b: Arc<dyn Bus>,
    _server: Option<NatsServer>,
}

fn in_process() -> Option<Bench> {
    let bus = InProcBus::new();
    Some(Bench { a: Arc::new(bus.clone()), b: Arc::new(bus), _server: None })
}

async fn nats() -> Option<Bench> {
    let mut server = NatsServer::find()?;
    server.start();
    let (a, b) = (client(&server, "a").await, client(&server, "b").await);
    connected(&*a).await;
    connected(&*b).await;
    Some(Bench { a, b, _server: Some(server) })
}

async fn client(server: &NatsServer, name: &str) -> Arc<dyn Bus> {
    Arc::new(NatsBus::connect(&server.url(), name).await.unwrap())
}

async fn connected(bus: &dyn Bus) {
    eventually("bus connected", SOON, || async { bus.connected().then_some(()) }).await;
}

macro_rules! contract {
    ($($test:ident),+ $(,)?) => {
        mod in_process_bus {
            $(#[tokio::test] async fn $test() {
                super::$test(super::in_process().unwrap()).await;
            })+
        }
        mod nats_bus {
            $(#[tokio::test] async fn $test() {
                let Some(bench) = super::nats().await else { return };
                super::$test(bench).await;
            })+
        }
    };
}

contract!(
    every_matching_subscription_gets_each_message_once_in_order,
    a_subscription_is_in_force_when_subscribe_returns,
    a_request_gets_the_first_answer,
    a_request_that_nobody_hears_fails_at_once,
    a_request_that_nobody_answers_ends_at_its_deadline,
    bad_subjects_and_large_payloads_are_refused,
    a_slow_reader_loses_messages_and_is_told_how_many,
    a_dropped_subscription_receives_nothing_more,
);

async fn every_matching_subscription_gets_each_message_once_in_order(bench: Bench) {
    let mut one_token = bench.b.subscribe("swarm.v1.t.*.node.died").await.unwrap();
    let mut rest = bench.b.subscribe("swarm.v1.t.>").await.unwrap();
    let mut other = bench.b.subscribe("swarm.v1.u.>").await.unwrap();
    for n in 0..100_u32 {
        let payload = Bytes::copy_from_slice(&n.to_be_bytes());
        bench.a.publish("swarm.v1.t.gossip.node.died", payload).await.unwrap();
    }
    bench.a.publish("swarm.v1.u.end", Bytes::new()).await.unwrap();
    for n in 0..100_u32 {
        for subscription in [&mut one_token, &mut rest] {
            let message = tokio::time::timeout(SOON, subscription.next()).await.unwrap().unwrap();
            assert_eq!(message.payload.as_ref(), n.to_be_bytes());
            assert_eq!(message.subject, "swarm.v1.t.gossip.node.died");
            assert_eq!(message.reply, None);
        }
    }
    assert_eq!(other.next().await.unwrap().subject, "swarm.v1.u.end");
    assert_eq!(rest.dropped(), 0);
}

async fn a_subscription_is_in_force_when_subscribe_returns(bench: Bench) {
    for n in 0..20 {
        let subject = format!("t.ready.{n}");
        let mut subscription = bench.b.subscribe(&subject).await.unwrap();
        bench.a.publish(&subject, Bytes::from_static(b"x")).await.unwrap();
        let message = tokio::time::timeout(SOON, subscription.next()).await.unwrap();
        assert!(message.is_some());
    }
}

async fn a_request_gets_the_first_answer(bench: Bench) {
    let mut requests = bench.b.subscribe("t.echo").await.unwrap();
    let server = bench.b.clone();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let reply = request.reply.unwrap();
            server.publish(&reply, request.payload.clone()).await.unwrap();
            server.publish(&reply, Bytes::from_static(b"second")).await.unwrap();
        }
    });
    for _ in 0..10 {
        let answer = bench.a.request("t.echo", Bytes::from_static(b"hello"), SOON).await.unwrap();
        assert_eq!(answer.as_ref(), b"hello");
    }
}

async fn a_request_that_nobody_hears_fails_at_once(bench: Bench) {
    let asking = bench.a.request("t.nobody", Bytes::new(), Duration::from_secs(60));
    let error = tokio::time::timeout(SOON, asking).await.unwrap().unwrap_err();
    assert_eq!(error, BusError::NoResponders("t.nobody".into()));
}

async fn a_request_that_nobody_answers_ends_at_its_deadline(bench: Bench) {
    let _deaf = bench.b.subscribe("t.deaf").await.unwrap();
    let error = bench.a.request("t.deaf", Bytes::new(), Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error, BusError::TimedOut("t.deaf".into()));
}

async fn bad_subjects_and_large_payloads_are_refused(bench: Bench) {
    for bad in ["", "t..x", "t.*", "t.>", "t x"] {
        let error = bench.a.publish(bad, Bytes::new()).await.unwrap_err();
        assert_eq!(error, BusError::InvalidSubject(bad.into()));
        assert!(bench.a.request(bad, Bytes::new(), SOON).await.is_err());
    }
    assert!(bench.a.subscribe("t.>.x").await.is_err());
    let large = Bytes::from(vec![0; MAX_PAYLOAD + 1]);
    let error = bench.a.publish("t.large", large.clone()).await.unwrap_err();
    assert_eq!(error, BusError::TooLarge(MAX_PAYLOAD + 1));
    let mut largest = bench.b.subscribe("t.large").await.unwrap();
    bench.a.publish("t.large", large.slice(1..)).await.unwrap();
    let message = tokio::time::timeout(SOON, largest.next()).await.unwrap().unwrap();
    assert_eq!(message.payload.len(), MAX_PAYLOAD);
}

async fn a_slow_reader_loses_messages_and_is_told_how_many(bench: Bench) {
    let slow = bench.b.subscribe("t.flood").await.unwrap();
    for _ in 0..SUBSCRIPTION_CAPACITY + 100 {
        bench.a.publish("t.flood", Bytes::new()).await.unwrap();
    }
    eventually("100 dropped", SOON, || async { (slow.dropped() == 100).then_some(()) }).await;
}

async fn a_dropped_subscription_receives_nothing_more(bench: Bench) {
    drop(bench.b.subscribe("t.gone").await.unwrap());
    // The server hears of it a moment later.
    eventually("nobody left", SOON, || async {
        let asked = bench.a.request("t.gone", Bytes::new(), Duration::from_millis(50)).await;
        (asked == Err(BusError::NoResponders("t.gone".into()))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nats_may_come_late_and_go_away_and_come_back() {
    let Some(mut server) = NatsServer::find() else {
        return;
    };
    let bus = client(&server, "late").await;
    assert!(!bus.connected());
    assert_eq!(bus.publish("t.x", Bytes::new()).await, Err(BusError::Disconnected));
    let mut subscription = bus.subscribe("t.>").await.unwrap();
    for _round in 0..3 {
        server.start();
        let start = tokio::time::Instant::now();
        eventually("message after a start", SOON, || async {
            let sent = bus.publish("t.hello", Bytes::new()).await;
            sent.ok()
        })
        .await;
        let message = tokio::time::timeout(SOON, subscription.next()).await.unwrap().unwrap();
        assert_eq!(message.subject, "t.hello");
        assert!(start.elapsed() < Duration::from_secs(2), "took {:?}", start.elapsed());
        server.kill();
        eventually("loss noticed", SOON, || async { (!bus.connected()).then_some(()) }).await;
        let start = tokio::time::Instant::now();
        assert_eq!(bus.publish("t.lost", Bytes::new()).await, Err(BusError::Disconnected));
        let asked = bus.request("t.lost", Bytes::new(), SOON).await;
        assert_eq!(asked, Err(BusError::Disconnected));
        assert!(start.elapsed() < Duration::from_millis(100), "a lost server made callers wait");
    }
}

#[tokio::test]
async fn a_nats_url_that_does_not_parse_is_an_error_and_not_a_retry() {
    let error = NatsBus::connect("nats://:::::", "x").await.unwrap_err();
    assert!(matches!(error, BusError::Failed(_)), "{error}");
}
