//! A node as its peers, its clients and its operator see it.

#![allow(clippy::unwrap_used)]

#[path = "common/echo.rs"]
mod echo;

use echo::{Echo, ask};
use kit::{
    Host, NodeConfig,
    config::DataDir,
    host::{Parts, Served},
    rpc::{CallPolicy, call, status, with_deadline},
    test::{MemNet, eventually},
};
use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

const SOON: Duration = Duration::from_secs(5);

async fn echo_node(name: &str) -> (Served, Echo) {
    let host = Host::for_test(name).await;
    let echo = Echo::default();
    host.context().rpc.add(echo.clone());
    (host.serve().await, echo)
}

async fn http(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(addr: SocketAddr, path: &str) -> String {
    http(addr, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
}

async fn health(served: &Served, service: &str) -> ServingStatus {
    let channel = served.context().channels.get(&served.context().advertise);
    let request = HealthCheckRequest { service: service.into() };
    let answer = HealthClient::new(channel).check(request).await.unwrap();
    answer.into_inner().status()
}

#[tokio::test]
async fn a_call_with_a_deadline_is_answered_and_one_without_is_refused() {
    let (served, _) = echo_node("n1").await;
    let channel = served.context().channels.get(&served.context().advertise);
    let answer = ask(channel.clone(), with_deadline("echo".to_owned(), SOON)).await.unwrap();
    assert_eq!(answer.into_inner(), "echo");
    let refused = ask(channel, tonic::Request::new("echo".to_owned())).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(status::reason(&refused).as_deref(), Some("DEADLINE_REQUIRED"));
    served.kill().await;
}

#[tokio::test]
async fn a_handler_that_panics_costs_one_call_and_not_the_connection() {
    let (served, _) = echo_node("n1").await;
    let channel = served.context().channels.get(&served.context().advertise);
    let broken = ask(channel.clone(), with_deadline("panic".to_owned(), SOON)).await.unwrap_err();
    assert_eq!(broken.code(), Code::Internal);
    ask(channel, with_deadline("echo".to_owned(), SOON)).await.unwrap();
    let metrics = get(served.context().admin_addr, "/metrics").await;
    for (code, count) in [("OK", 1), ("INTERNAL", 1)] {
        let line = format!(
            "rpc_server_call_duration_seconds_count{{rpc_method=\"swarm.test.v1.EchoService/Echo\",rpc_response_status_code=\"{code}\"}} {count}"
        );
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    assert!(!metrics.contains("CANCELLED"), "{metrics}");
    served.kill().await;
}

#[tokio::test]
async fn health_follows_readiness_and_names_every_service() {
    let host = Host::for_test("n1").await;
    host.context().rpc.add(Echo::default());
    let disk = host.context().readiness.condition("disk");
    let served = host.serve().await;
    for service in ["", "swarm.test.v1.EchoService"] {
        assert_eq!(health(&served, service).await, ServingStatus::NotServing);
    }
    let ready = get(served.context().admin_addr, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(ready.ends_with(r#"{"ready":false,"unmet":[{"condition":"disk","why":"starting"}]}"#), "{ready}");
    disk.met();
    eventually("serving", SOON, || async {
        (health(&served, "swarm.test.v1.EchoService").await == ServingStatus::Serving).then_some(())
    })
    .await;
    let ready = get(served.context().admin_addr, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    served.kill().await;
}

#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let (served, _) = echo_node("n1").await;
    let channel = served.context().channels.get(&served.context().advertise);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::once(list)).await;
    let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("not a list: {answer:?}");
    };
    assert!(list.service.iter().any(|service| service.name == "grpc.health.v1.Health"), "{list:?}");
    served.kill().await;
}

#[tokio::test]
async fn the_admin_port_answers_its_own_names_only_and_errors_are_json() {
    let (served, _) = echo_node("n1").await;
    let addr = served.context().admin_addr;
    assert!(get(addr, "/livez").await.ends_with("ok\n"));
    let missing = get(addr, "/nothing").await;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    assert!(missing.ends_with(r#"{"error":{"code":"NOT_FOUND","message":"no /nothing"}}"#), "{missing}");
    let rebound =
        http(addr, "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").await;
    assert!(rebound.starts_with("HTTP/1.1 403"), "{rebound}");
    let nameless = http(addr, "GET /metrics HTTP/1.0\r\n\r\n").await;
    assert!(nameless.starts_with("HTTP/1.0 403"), "{nameless}");
    let metrics = get(addr, "/metrics").await;
    for line in ["swarm_build_info{version=", "swarm_config_info{sha256=", "swarm_node_ready 1"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    served.kill().await;
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for_and_pass_the_linter() {
    let (served, _) = echo_node("n1").await;
    let addr = served.context().admin_addr;
    let channel = served.context().channels.get(&served.context().advertise);
    ask(channel, with_deadline("echo".to_owned(), SOON)).await.unwrap();
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{accept}\r\nConnection: close\r\n\r\n");
    assert!(http(addr, &request).await.ends_with("# EOF\n"));
    let text = get(addr, "/metrics").await;
    assert!(text.contains("text/plain; version=0.0.4"), "{text}");
    let Some(promtool) = kit::test::tool("promtool") else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, text.split_once("\r\n\r\n").unwrap().1).unwrap();
    let mut lint = std::process::Command::new(promtool);
    let lint = lint.args(["check", "metrics"]).stdin(file.reopen().unwrap()).output().unwrap();
    let words = String::from_utf8_lossy(&lint.stderr);
    assert!(lint.status.success(), "{words}");
    served.kill().await;
}

#[tokio::test]
async fn merged_admin_routes_are_served_behind_the_same_check() {
    let host = Host::for_test("n1").await;
    let api = axum::Router::new().route("/api/v1/members", axum::routing::get(|| async { "[]" }));
    host.context().admin.merge(api);
    let served = host.serve().await;
    assert!(get(served.context().admin_addr, "/api/v1/members").await.ends_with("[]"));
    served.kill().await;
}

#[tokio::test]
async fn a_refused_connection_is_unavailable_at_once_and_says_where() {
    let (served, _) = echo_node("n1").await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let start = Instant::now();
    let channels = &served.context().channels;
    let refused = call(&CallPolicy::once(SOON), channels, &free, |channel, left| {
        ask(channel, with_deadline("echo".to_owned(), left))
    })
    .await
    .unwrap_err();
    assert_eq!(status::reason(&refused).as_deref(), Some("UNAVAILABLE"));
    assert!(refused.message().contains(&free), "{refused}");
    assert!(start.elapsed() < Duration::from_millis(500), "took {:?}", start.elapsed());
    let nonsense = call(&CallPolicy::once(SOON), channels, "no address", |channel, left| {
        ask(channel, with_deadline("echo".to_owned(), left))
    })
    .await
    .unwrap_err();
    assert_eq!(nonsense.code(), Code::Unavailable);
    served.kill().await;
}

#[tokio::test]
async fn what_was_not_applied_is_tried_again_and_what_may_have_been_is_not() {
    let (served, echo) = echo_node("n1").await;
    let context = served.context();
    let ask_for = |asked: &'static str, policy: CallPolicy| async move {
        call(&policy, &context.channels, &context.advertise, |channel, left| {
            ask(channel, with_deadline(asked.to_owned(), left))
        })
        .await
    };
    let failed = ask_for("unavailable", CallPolicy::new(SOON)).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    assert_eq!(echo.calls.swap(0, Ordering::Relaxed), 3);
    let late = ask_for("slow", CallPolicy::new(Duration::from_millis(50))).await.unwrap_err();
    assert_eq!(echo.calls.swap(0, Ordering::Relaxed), 1);
    assert_ne!(late.code(), Code::Unavailable);
    eventually("the late call is counted", SOON, || async {
        let metrics = get(context.admin_addr, "/metrics").await;
        metrics.contains("rpc_response_status_code=\"CANCELLED\"} 1").then_some(())
    })
    .await;
    served.kill().await;
}

#[tokio::test]
async fn a_call_in_flight_when_the_node_dies_has_an_unknown_outcome() {
    let (served, echo) = echo_node("n1").await;
    let (other, _) = echo_node("n2").await;
    let addr = served.context().advertise.clone();
    let channels = other.context().channels.clone();
    let calling = tokio::spawn(async move {
        call(&CallPolicy::new(SOON), &channels, &addr, |channel, left| {
            ask(channel, with_deadline("slow".to_owned(), left))
        })
        .await
    });
    eventually("call arrived", SOON, || async { (echo.calls.load(Ordering::Relaxed) == 1).then_some(()) })
        .await;
    served.kill().await;
    let broken = tokio::time::timeout(SOON, calling).await.unwrap().unwrap().unwrap_err();
    assert_eq!(status::reason(&broken).as_deref(), Some("OUTCOME_UNKNOWN"), "{broken}");
    assert_eq!(echo.calls.load(Ordering::Relaxed), 1);
    other.kill().await;
}

#[tokio::test]
async fn a_killed_node_frees_its_port_and_a_new_one_is_reached_over_the_same_channel() {
    let (served, _) = echo_node("n1").await;
    let (other, _) = echo_node("n2").await;
    let addr = served.context().advertise.clone();
    let policy = CallPolicy::idempotent(SOON);
    let ask_n1 = || {
        call(&policy, &other.context().channels, &addr, |channel, left| {
            ask(channel, with_deadline("echo".to_owned(), left))
        })
    };
    ask_n1().await.unwrap();
    let grpc = served.context().grpc_addr;
    served.kill().await;
    // Refused, or, where the first attempt broke on the old connection, unknown.
    let nobody = ask_n1().await.unwrap_err().code();
    assert!(matches!(nobody, Code::Unavailable | Code::Unknown), "{nobody}");
    let config = NodeConfig { grpc, ..NodeConfig::for_test("n1") };
    let host = Host::bind(&config, Parts::default()).await.unwrap();
    host.context().rpc.add(Echo::default());
    let served = host.serve().await;
    eventually("n1 answers again", SOON, || async { ask_n1().await.ok() }).await;
    served.kill().await;
    other.kill().await;
}

#[tokio::test]
async fn while_tasks_drain_the_node_is_not_ready_and_still_answers() {
    let host = Host::for_test("n1").await;
    host.context().rpc.add(Echo::default());
    let context = host.context().clone();
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let shutdown = context.shutdown.clone();
    context.tasks.spawn("driver", async move {
        shutdown.wait().await;
        let _ = finished.await;
    });
    let served = host.serve().await;
    served.shutdown();
    eventually("not serving", SOON, || async {
        (health(&served, "").await == ServingStatus::NotServing).then_some(())
    })
    .await;
    assert!(!context.readiness.ready());
    let channel = context.channels.get(&context.advertise);
    ask(channel, with_deadline("echo".to_owned(), SOON)).await.unwrap();
    finish.send(()).unwrap();
    assert_eq!(served.stopped().await, Ok(()));
    assert!(TcpStream::connect(context.grpc_addr).await.is_err());
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_aborted_and_told() {
    let config = NodeConfig { drain: Duration::from_millis(50), ..NodeConfig::for_test("n1") };
    let host = Host::bind(&config, Parts::default()).await.unwrap();
    host.context().tasks.spawn("stuck", std::future::pending::<()>());
    let served = host.serve().await;
    served.shutdown();
    let end = tokio::time::timeout(SOON, served.stopped()).await.unwrap();
    assert_eq!(end.unwrap_err().code, 1);
}

#[tokio::test]
async fn an_open_call_does_not_hold_up_the_end_for_long() {
    let (served, echo) = echo_node("n1").await;
    let (other, _) = echo_node("n2").await;
    let channel = other.context().channels.get(&served.context().advertise);
    let calling = tokio::spawn(ask(channel, with_deadline("slow".to_owned(), Duration::from_secs(20))));
    eventually("call arrived", SOON, || async { (echo.calls.load(Ordering::Relaxed) == 1).then_some(()) })
        .await;
    served.shutdown();
    assert_eq!(tokio::time::timeout(SOON, served.stopped()).await.unwrap(), Ok(()));
    assert!(calling.await.unwrap().is_err());
    other.kill().await;
}

#[tokio::test]
async fn two_nodes_do_not_share_a_data_directory_or_a_port() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::Path(dir.path().join("n1"));
    let config = NodeConfig { data, ..NodeConfig::for_test("n1") };
    let first = Host::bind(&config, Parts::default()).await.unwrap().serve().await;
    let generation = first.context().generation;
    let Err(second) = Host::bind(&config, Parts::default()).await else { panic!("shared a directory") };
    assert!(second.to_string().contains("in use by another process"), "{second}");
    let grpc = first.context().grpc_addr;
    let Err(taken) = Host::bind(&NodeConfig { grpc, ..NodeConfig::for_test("n2") }, Parts::default()).await
    else {
        panic!("shared a port")
    };
    assert!(taken.to_string().starts_with(&format!("cannot listen on {grpc} (grpc): ")), "{taken}");
    first.kill().await;
    let again = Host::bind(&config, Parts::default()).await.unwrap();
    assert!(again.context().generation > generation);
}

#[tokio::test]
async fn an_essential_task_that_dies_stops_the_node_with_its_reason() {
    let host = Host::for_test("n1").await;
    let context = host.context().clone();
    let served = host.serve().await;
    context.tasks.spawn("driver", async { Err::<(), _>("the disk is gone") });
    let failure = served.stopped().await.unwrap_err();
    assert_eq!((failure.code, failure.why.as_str()), (1, "task driver: the disk is gone"));
}

#[tokio::test]
async fn a_node_on_a_simulated_network_is_cut_off_and_comes_back() {
    let net = MemNet::new();
    let node = async |name: &str| {
        let parts = Parts { net: net.node(name), ..Parts::default() };
        let host = Host::bind(&NodeConfig::for_test(name), parts).await.unwrap();
        host.context().rpc.add(Echo::default());
        host.serve().await
    };
    let (n1, n2) = (node("n1").await, node("n2").await);
    let addr = n2.context().advertise.clone();
    let policy = CallPolicy::once(Duration::from_millis(200));
    let ask_n2 = || {
        call(&policy, &n1.context().channels, &addr, |channel, left| {
            ask(channel, with_deadline("echo".to_owned(), left))
        })
    };
    ask_n2().await.unwrap();
    net.cut("n1", "n2");
    let lost = ask_n2().await.unwrap_err();
    assert_eq!(status::reason(&lost).as_deref(), Some("OUTCOME_UNKNOWN"), "{lost}");
    net.heal("n1", "n2");
    eventually("n2 answers again", SOON, || async { ask_n2().await.ok() }).await;
    n1.kill().await;
    n2.kill().await;
}

#[tokio::test(start_paused = true)]
async fn keep_alive_ends_a_call_over_a_dead_link_long_before_its_deadline() {
    let net = MemNet::new();
    let node = async |name: &str| {
        let parts = Parts { net: net.node(name), ..Parts::default() };
        let host = Host::bind(&NodeConfig::for_test(name), parts).await.unwrap();
        host.context().rpc.add(Echo::default());
        host.serve().await
    };
    let (n1, n2) = (node("n1").await, node("n2").await);
    let channel = n1.context().channels.get(&n2.context().advertise);
    ask(channel.clone(), with_deadline("echo".to_owned(), SOON)).await.unwrap();
    net.cut("n1", "n2");
    let start = Instant::now();
    let lost = ask(channel, with_deadline("slow".to_owned(), Duration::from_secs(3600))).await.unwrap_err();
    assert_eq!(status::reason(&status::settle(lost)).as_deref(), Some("OUTCOME_UNKNOWN"));
    assert!(start.elapsed() <= Duration::from_secs(5), "took {:?}", start.elapsed());
    n1.kill().await;
    n2.kill().await;
}
