//! The pool against a scripted server: what goes on which connection, and who gets which answer.

use super::{
    asked::{Asked, Failure},
    incoming::Incoming,
    pool::Pool,
};
use crate::{backend::Core, core::http1::Head};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use kit::net::{BoxedStream, Listener, Net};
use proptest::prelude::*;
use std::{io, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
};

const CORE: Core = Core(0);
const LIMIT: usize = 1 << 20;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\nok";

/// Hands the server's end of each connection to the test.
struct Scripted(mpsc::Sender<DuplexStream>);

#[async_trait]
impl Net for Scripted {
    async fn bind(&self, _: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, _: &str) -> io::Result<BoxedStream> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        self.0.send(theirs).await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(Box::new(ours))
    }
}

/// The server's side of the pool's connections.
struct Server(mpsc::Receiver<DuplexStream>);

fn pool() -> (Arc<Pool>, Server) {
    let (sender, connections) = mpsc::channel(64);
    (Pool::new("backend:80".into(), Arc::new(Scripted(sender)), 8), Server(connections))
}

impl Server {
    async fn accept(&mut self) -> DuplexStream {
        self.0.recv().await.unwrap()
    }

    fn has_another(&mut self) -> bool {
        self.0.try_recv().is_ok()
    }
}

async fn heard(connection: &mut DuplexStream) -> String {
    let mut buffer = vec![0; 1024];
    let read = connection.read(&mut buffer).await.unwrap();
    String::from_utf8(buffer[..read].to_vec()).unwrap()
}

async fn send(pool: &Arc<Pool>, request: &str) -> Result<(Head, Incoming), Failure> {
    pool.send(CORE, &Bytes::copy_from_slice(request.as_bytes())).await
}

async fn ask(pool: &Arc<Pool>, request: &str) -> Bytes {
    let (_, body) = send(pool, request).await.unwrap();
    body.whole(LIMIT).await.unwrap()
}

/// Asks; the server says `answer` on the next connection, which is returned.
async fn on_a_new_connection(pool: &Arc<Pool>, server: &mut Server, answer: &[u8]) -> (Bytes, DuplexStream) {
    tokio::join!(ask(pool, "request"), async {
        let mut connection = server.accept().await;
        heard(&mut connection).await;
        connection.write_all(answer).await.unwrap();
        connection
    })
}

#[tokio::test]
async fn one_connection_serves_one_request_after_the_other() {
    let (pool, mut server) = pool();
    let (_, mut connection) = on_a_new_connection(&pool, &mut server, OK).await;
    for round in 0..3 {
        let request = format!("request {round}");
        let (body, seen) = tokio::join!(ask(&pool, &request), async {
            let seen = heard(&mut connection).await;
            connection.write_all(OK).await.unwrap();
            seen
        });
        assert_eq!((&body[..], seen), (&b"ok"[..], request));
    }
    assert!(!server.has_another());
}

#[tokio::test]
async fn requests_under_way_have_a_connection_each_and_the_last_one_used_is_taken_first() {
    let (pool, mut server) = pool();
    let (first, second) = (send(&pool, "first"), send(&pool, "second"));
    let (first, second, mut connections) = tokio::join!(first, second, async {
        let mut both = [server.accept().await, server.accept().await];
        for connection in &mut both {
            connection.write_all(OK).await.unwrap();
            heard(connection).await;
        }
        both
    });
    first.unwrap().1.whole(LIMIT).await.unwrap();
    second.unwrap().1.whole(LIMIT).await.unwrap();
    let (_, seen) = tokio::join!(ask(&pool, "third"), async {
        let seen = heard(&mut connections[1]).await;
        connections[1].write_all(OK).await.unwrap();
        seen
    });
    assert_eq!(seen, "third");
}

/// Reads a head while giving up at every wait and coming back.
async fn in_glimpses(asked: &mut Asked) -> Head {
    loop {
        if let Some(head) = asked.head().now_or_never() {
            return head.unwrap();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_larger_than_the_socket_takes_goes_out_whole_however_often_its_reader_looks_away() {
    let (pool, mut server) = pool();
    let (_, mut connection) = on_a_new_connection(&pool, &mut server, OK).await;
    let request = Bytes::from(vec![b'x'; 200_000]);
    let mut asked = pool.ask(CORE, &request).unwrap();
    assert!(pool.ask(CORE, &request).is_none(), "its only connection is in use");
    let (head, ()) = tokio::join!(in_glimpses(&mut asked), async {
        let mut seen = vec![0; request.len()];
        connection.read_exact(&mut seen).await.unwrap();
        assert!(seen == request);
        for byte in OK {
            connection.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let (head, mut body) = asked.body(head);
    assert!(head.keep_alive);
    assert_eq!(body.piece(LIMIT).await.unwrap(), "ok");
    assert!(pool.ask(CORE, &request).is_some(), "read to its end, it is free");
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_a_request_is_its_answer() {
    let (pool, mut server) = pool();
    let (_, mut connection) = on_a_new_connection(&pool, &mut server, OK).await;
    let mut asked = pool.ask(CORE, &Bytes::from(vec![b'x'; 200_000])).unwrap();
    connection.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    drop(connection);
    let head = asked.head().await.unwrap();
    assert_eq!((head.status.as_u16(), head.keep_alive), (413, false));
}

#[tokio::test]
async fn other_cores_do_not_take_it() {
    let (pool, mut server) = pool();
    let (_, _first) = on_a_new_connection(&pool, &mut server, OK).await;
    let request = Bytes::from_static(b"request");
    let (answer, ()) = tokio::join!(pool.send(Core(1), &request), async {
        server.accept().await.write_all(OK).await.unwrap();
    });
    answer.unwrap();
}

/// Bytes after an answer, or before the next question, are nobody's answer.
#[tokio::test]
async fn what_a_backend_says_unasked_goes_to_nobody() {
    let forged = [OK, b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"].concat();
    let (pool, mut server) = pool();
    let (body, _) = on_a_new_connection(&pool, &mut server, &forged).await;
    assert_eq!(body, "ok");
    let (body, mut connection) = on_a_new_connection(&pool, &mut server, OK).await;
    assert_eq!(body, "ok");
    connection.write_all(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let (body, _) = on_a_new_connection(&pool, &mut server, OK).await;
    assert_eq!(body, "ok");
}

#[tokio::test]
async fn an_answer_that_nobody_waited_for_does_not_reach_the_next_request() {
    let (pool, mut server) = pool();
    let given_up = send(&pool, "slow");
    let mut slow = tokio::select! {
        _ = given_up => panic!("it was not answered"),
        connection = async {
            let mut connection = server.accept().await;
            heard(&mut connection).await;
            connection
        } => connection,
    };
    // The connection is closed at our end, so this may fail; the pool must not read it.
    let _ = slow.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate").await;
    let (body, _) = on_a_new_connection(&pool, &mut server, OK).await;
    assert_eq!(body, "ok");
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf";
    let ((), mut connection) = tokio::join!(
        async {
            // The one above is still idle: it takes this request.
            let (_, mut body) = send(&pool, "read half").await.unwrap();
            assert_eq!(body.next().await.unwrap().unwrap(), "half");
        },
        async {
            let mut connection = server.accept().await;
            heard(&mut connection).await;
            connection.write_all(half).await.unwrap();
            connection
        }
    );
    let _ = connection.write_all(b"rest").await;
    let (body, _) = on_a_new_connection(&pool, &mut server, OK).await;
    assert_eq!(body, "ok");
}

#[tokio::test]
async fn a_connection_that_closed_while_idle_is_passed_over() {
    let (pool, mut server) = pool();
    let (_, connection) = on_a_new_connection(&pool, &mut server, OK).await;
    drop(connection);
    let (body, _) = on_a_new_connection(&pool, &mut server, OK).await;
    assert_eq!(body, "ok");
}

#[tokio::test]
async fn a_request_that_was_written_is_not_written_again() {
    let (pool, mut server) = pool();
    let (_, mut connection) = on_a_new_connection(&pool, &mut server, OK).await;
    let (answer, seen) = tokio::join!(send(&pool, "not twice"), async {
        let seen = heard(&mut connection).await;
        drop(connection);
        seen
    });
    assert_eq!(seen, "not twice");
    assert!(matches!(answer.map(|_| ()), Err(Failure::Unknown(_))));
    assert!(!server.has_another());
}

#[tokio::test]
async fn answers_that_end_their_connection_end_it() {
    let answers: [&[u8]; 2] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ];
    let (pool, mut server) = pool();
    for answer in answers {
        let (body, mut connection) = on_a_new_connection(&pool, &mut server, answer).await;
        assert_eq!(body, "ok");
        assert_eq!(connection.read(&mut [0; 8]).await.unwrap(), 0);
    }
    let (body, ()) = tokio::join!(ask(&pool, "request"), async {
        let mut connection = server.accept().await;
        connection.write_all(b"HTTP/1.1 200 OK\r\n\r\nup to ").await.unwrap();
        connection.write_all(b"the end").await.unwrap();
    });
    assert_eq!(body, "up to the end");
}

#[tokio::test]
async fn an_answer_over_the_limit_is_refused_before_it_is_read() {
    let (pool, mut server) = pool();
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1048577\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n{:x}\r\n", LIMIT)
            + &"x".repeat(LIMIT),
    ] {
        let (read, _) =
            tokio::join!(async { send(&pool, "request").await.unwrap().1.whole(LIMIT).await }, async {
                let mut connection = server.accept().await;
                let _ = connection.write_all(answer.as_bytes()).await;
            });
        assert_eq!(read, Err(crate::backend::BackendError::TooLarge));
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_after_their_time() {
    let (pool, mut server) = pool();
    let (_, mut connection) = on_a_new_connection(&pool, &mut server, OK).await;
    assert_eq!(connection.read(&mut [0; 8]).await.unwrap(), 0, "nobody asks for it any more");
}

#[tokio::test]
async fn ids_differ_between_cores_and_fit_into_31_bits() {
    let (pool, _server) = pool();
    let mut seen = std::collections::HashSet::new();
    for core in [Core(0), Core(1), Core(63), Core::ASIDE] {
        for _ in 0..1000 {
            let id = pool.next_id(core);
            assert!((1..=i32::MAX as u64).contains(&id));
            assert!(seen.insert(id));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever bytes a backend answers with, in whatever pieces, the next request gets the
    /// answer to itself.
    #[test]
    fn garbage_stays_with_the_request_it_answers(
        begin in 0_usize..4,
        garbage in prop::collection::vec(any::<u8>(), 0..80),
        piece in 1_usize..40,
    ) {
        let begins: [&[u8]; 4] = [
            b"",
            b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ];
        let answer = [begins[begin], &garbage].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (pool, mut server) = pool();
            let garbled = async {
                if let Ok((_, body)) = send(&pool, "garbled").await {
                    let _ = body.whole(LIMIT).await;
                }
            };
            tokio::join!(garbled, async {
                let mut connection = server.accept().await;
                heard(&mut connection).await;
                for piece in answer.chunks(piece) {
                    if connection.write_all(piece).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            });
            let (body, _) = on_a_new_connection(&pool, &mut server, OK).await;
            assert_eq!(body, "ok");
        });
    }
}
