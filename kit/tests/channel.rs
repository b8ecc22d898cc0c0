//! Both ends of a gRPC connection, against each other and against tonic's own.

#![allow(clippy::unwrap_used)]

#[path = "common/echo.rs"]
mod echo;

use echo::{Echo, ask, stream};
use futures::{StreamExt as _, future::join_all};
use kit::{
    Host,
    host::Served,
    net::{BoxedStream, Net, TcpNet},
    rpc::{Channel, MAX_MESSAGE, status, with_deadline},
};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Server};

const SOON: Duration = Duration::from_secs(10);

async fn node() -> (Served, Echo, Channel) {
    let host = Host::for_test("n1").await;
    let echo = Echo::default();
    host.context().rpc.add(echo.clone());
    let served = host.serve().await;
    let channel = served.context().channels.get(&served.context().advertise);
    (served, echo, channel)
}

/// Counts the connections that are made.
struct Counted(AtomicUsize);

#[async_trait::async_trait]
impl Net for Counted {
    async fn bind(&self, addr: SocketAddr) -> io::Result<Box<dyn kit::net::Listener>> {
        TcpNet.bind(addr).await
    }

    async fn connect(&self, addr: &str) -> io::Result<BoxedStream> {
        self.0.fetch_add(1, Ordering::Relaxed);
        TcpNet.connect(addr).await
    }
}

#[tokio::test]
async fn calls_that_begin_together_share_one_connection_and_each_gets_its_own_answer() {
    let (served, ..) = node().await;
    let net = Arc::new(Counted(AtomicUsize::new(0)));
    let channel = Channel::new(net.clone(), &served.context().advertise);
    let calls = (0..500).map(|n| ask(channel.clone(), with_deadline(format!("{n}"), SOON)));
    let answers: Vec<String> = join_all(calls).await.into_iter().map(|a| a.unwrap().into_inner()).collect();
    assert_eq!(answers, (0..500).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(net.0.load(Ordering::Relaxed), 1);
    served.kill().await;
}

#[tokio::test]
async fn calls_that_wait_for_a_connection_share_its_refusal() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let net = Arc::new(Counted(AtomicUsize::new(0)));
    let channel = Channel::new(net.clone(), &port.to_string());
    let calls = (0..100).map(|n| ask(channel.clone(), with_deadline(format!("{n}"), SOON)));
    for refused in join_all(calls).await {
        let refused = status::settle(refused.unwrap_err());
        assert_eq!(status::reason(&refused).as_deref(), Some("UNAVAILABLE"));
        assert!(refused.message().contains(&port.to_string()), "{refused}");
    }
    assert_eq!(net.0.load(Ordering::Relaxed), 1, "one attempt for all");
    ask(channel, with_deadline(String::new(), SOON)).await.unwrap_err();
    assert_eq!(net.0.load(Ordering::Relaxed), 2, "whoever comes later has another");
}

#[tokio::test]
async fn a_deadline_ends_a_call_at_either_end() {
    let (served, echo, channel) = node().await;
    let late = ask(channel, with_deadline("slow".to_owned(), Duration::from_millis(50))).await.unwrap_err();
    assert_eq!(late.code(), Code::Cancelled);
    assert_eq!(status::reason(&status::settle(late)).as_deref(), Some("OUTCOME_UNKNOWN"));
    // A client that does not look at the clock itself is told by the server.
    let (send, connection) =
        h2::client::handshake(TcpStream::connect(&served.context().advertise).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("http://n1/swarm.test.v1.EchoService/Echo")
        .header("grpc-timeout", "50m")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let (answer, mut body) = send.ready().await.unwrap().send_request(request, false).unwrap();
    body.send_data(bytes::Bytes::from_static(b"\0\0\0\0\x06\x0a\x04slow"), true).unwrap();
    let answer = tokio::time::timeout(SOON, answer).await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "1");
    assert_eq!(echo.calls.load(Ordering::Relaxed), 2);
    served.kill().await;
}

#[tokio::test]
async fn what_is_not_served_is_told_and_what_is_no_http2_is_let_go() {
    let (served, _, channel) = node().await;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/swarm.test.v1.Nobody/Ask");
    let codec = tonic_prost::ProstCodec::<String, String>::default();
    let unknown = grpc.unary(with_deadline(String::new(), SOON), path, codec).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
    let mut stranger = TcpStream::connect(&served.context().advertise).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // Closed, whatever it says before.
    let _ = tokio::time::timeout(SOON, stranger.read_to_end(&mut answer)).await.unwrap();
    served.kill().await;
}

#[tokio::test]
async fn a_stream_goes_both_ways_and_ends_as_it_is_told() {
    let (served, _, channel) = node().await;
    let numbers = || (0..1000).map(|n| n.to_string());
    let answers =
        stream(channel.clone(), with_deadline(futures::stream::iter(numbers()), SOON)).await.unwrap();
    let back: Vec<String> = answers.map(Result::unwrap).collect().await;
    assert!(back.into_iter().eq(numbers()));
    let (say, said) = mpsc::channel(1);
    let mut answers = stream(channel.clone(), with_deadline(ReceiverStream::new(said), SOON)).await.unwrap();
    for message in ["one", "two"] {
        say.send(message.to_owned()).await.unwrap();
        assert_eq!(answers.message().await.unwrap().as_deref(), Some(message), "at once, not at the end");
    }
    say.send("end".to_owned()).await.unwrap();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Aborted);
    let last = futures::stream::iter(["panic".to_owned()]);
    if let Ok(mut answers) = stream(channel.clone(), with_deadline(last, SOON)).await {
        answers.message().await.unwrap_err();
    }
    ask(channel, with_deadline("alive".to_owned(), SOON)).await.unwrap();
    served.kill().await;
}

#[tokio::test]
async fn a_message_larger_than_every_window_arrives_whole() {
    let (served, _, channel) = node().await;
    let large = "x".repeat(5 << 20);
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/swarm.test.v1.EchoService/Stream");
    // Over tonic's own limit of 4 MiB: refused by the server, and told.
    let codec = tonic_prost::ProstCodec::<String, String>::default();
    let one = futures::stream::iter([large.clone()]);
    let refused = grpc.streaming(with_deadline(one, SOON), path.clone(), codec.clone()).await;
    let refused = match refused {
        Ok(answers) => answers.into_inner().message().await.unwrap_err(),
        Err(refused) => refused,
    };
    assert_eq!(refused.code(), Code::OutOfRange);
    // What the client itself refuses to send is told as that.
    let mut small = tonic::client::Grpc::new(served.context().channels.get(&served.context().advertise));
    small = small.max_encoding_message_size(10);
    small.ready().await.unwrap();
    let echo = http::uri::PathAndQuery::from_static("/swarm.test.v1.EchoService/Echo");
    let refused = small.unary(with_deadline(large.clone(), SOON), echo, codec.clone()).await.unwrap_err();
    assert_eq!((refused.code(), status::settle(refused).code()), (Code::OutOfRange, Code::OutOfRange));
    let many = futures::stream::iter(vec![large[..3 << 20].to_owned(); 5]);
    let answers = grpc.streaming(with_deadline(many, SOON), path, codec).await.unwrap().into_inner();
    let lengths: Vec<usize> = answers.map(|message| message.unwrap().len()).collect().await;
    assert_eq!(lengths, [3 << 20; 5]);
    served.kill().await;
}

/// Nobody reads the answers: then the messages wait with their sender.
#[tokio::test]
async fn a_stream_whose_other_end_does_not_read_takes_no_more_than_the_windows_hold() {
    const MESSAGE: usize = 64 << 10;
    let (served, echo, channel) = node().await;
    let (say, said) = mpsc::channel(1);
    let request = with_deadline(ReceiverStream::new(said), SOON);
    let answers = stream(channel.clone(), request).await.unwrap();
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_secs(1), say.reserve())
        .await
        .map(|p| p.unwrap().send("x".repeat(MESSAGE)))
        .is_ok()
    {
        sent += 1;
        assert!(sent * MESSAGE < 64 << 20, "it never stops");
    }
    assert!(sent * MESSAGE > 4 << 20, "a window is there to be filled: {sent}");
    ask(channel, with_deadline("others".to_owned(), SOON)).await.unwrap();
    let before = echo.calls.load(Ordering::Relaxed);
    // Whoever goes away while messages wait is heard.
    drop(answers);
    tokio::time::timeout(SOON, say.closed()).await.unwrap();
    assert!(echo.calls.load(Ordering::Relaxed) <= before + 1);
    served.kill().await;
}

#[tokio::test]
async fn a_server_of_tonic_is_called_and_a_client_of_tonic_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let theirs = tokio::spawn(Server::builder().add_service(Echo::default()).serve_with_incoming(incoming));
    let channel = Channel::new(Arc::new(TcpNet), &addr);
    let answer = ask(channel.clone(), with_deadline("ours to theirs".to_owned(), SOON)).await.unwrap();
    assert_eq!(answer.into_inner(), "ours to theirs");
    let words = || ["a", "b"].map(str::to_owned);
    let answers = stream(channel.clone(), with_deadline(futures::stream::iter(words()), SOON)).await.unwrap();
    assert_eq!(answers.map(Result::unwrap).collect::<Vec<_>>().await, words());
    let refused = ask(channel, with_deadline("unavailable".to_owned(), SOON)).await.unwrap_err();
    assert_eq!(status::reason(&refused).as_deref(), Some("UNAVAILABLE"));
    theirs.abort();

    let (served, ..) = node().await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", served.context().advertise));
    let theirs = endpoint.unwrap().connect().await.unwrap();
    let answer = ask(theirs.clone(), with_deadline("theirs to ours".to_owned(), SOON)).await.unwrap();
    assert_eq!(answer.into_inner(), "theirs to ours");
    let answers = stream(theirs.clone(), with_deadline(futures::stream::iter(words()), SOON)).await.unwrap();
    assert_eq!(answers.map(Result::unwrap).collect::<Vec<_>>().await, words());
    assert_eq!(
        ask(theirs, with_deadline("panic".to_owned(), SOON)).await.unwrap_err().code(),
        Code::Internal
    );
    served.kill().await;
}
