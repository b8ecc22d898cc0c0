//! The client's end of a connection. A call goes straight into the HTTP/2 connection (h2): no
//! queue, worker or task of its own is between them, as there is in tonic's channel (ADR 14).

use super::{
    CONNECTION_WINDOW, STREAM_WINDOW,
    body::{Inbound, Outbound},
    deadline,
};
use crate::net::{BoxedStream, Net};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, Shared};
use h2::client::{Connection, SendRequest};
use http::{
    HeaderValue, Uri,
    header::USER_AGENT,
    uri::{Authority, InvalidUriParts, Parts, PathAndQuery, Scheme},
};
use http_body::Body as _;
use parking_lot::Mutex;
use std::{
    fmt, io,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{runtime::Handle, sync::oneshot, time::timeout};
use tonic::{ConnectError, Status, TimeoutExpired, body::Body};
use tower::BoxError;

/// A peer that does not accept within this time is unavailable.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A connection is asked for a sign of life so often, and ends when none comes for as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const SEND_BUFFER: usize = 1 << 20;
const HEADERS_MAX: u32 = 16 << 10;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("swarm/", env!("CARGO_PKG_VERSION")));

/// Calls to one address over one connection, made at the first call and again after it broke.
/// Clones share it; its tasks live in the runtime in which the channel was made.
#[derive(Clone)]
pub struct Channel {
    link: Arc<Link>,
}

struct Link {
    addr: String,
    authority: Authority,
    net: Arc<dyn Net>,
    runtime: Handle,
    line: Mutex<Line>,
    // That were made so far.
    connections: AtomicU64,
}

type Dialling = Shared<BoxFuture<'static, Result<Sender, Refused>>>;

enum Line {
    Down,
    /// Everybody who calls meanwhile waits for the one attempt.
    Dialling(Dialling),
    Up(Sender),
}

/// The way into a connection.
#[derive(Clone)]
struct Sender {
    // Tells connections apart.
    number: u64,
    send: SendRequest<Bytes>,
}

/// Why there is no connection, for all who waited for it.
#[derive(Debug, Clone)]
struct Refused(Arc<io::Error>);

impl Channel {
    /// A channel to `host:port`. Does not connect; an address that cannot be dialled shows as
    /// `UNAVAILABLE` at the call. Must be called within a tokio runtime.
    pub fn new(net: Arc<dyn Net>, addr: &str) -> Self {
        // The connection is dialled by the address; the authority only names it.
        let authority = addr.parse().unwrap_or_else(|_| Authority::from_static("invalid"));
        let (addr, runtime, line) = (addr.to_owned(), Handle::current(), Mutex::new(Line::Down));
        let connections = AtomicU64::new(0);
        Self { link: Arc::new(Link { addr, authority, net, runtime, line, connections }) }
    }
}

impl tower::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Inbound>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let link = self.link.clone();
        Box::pin(async move {
            // For the head of the answer: a stream may last longer.
            match deadline::of(request.headers()) {
                Some(left) => timeout(left, link.ask(request)).await.map_err(|_| TimeoutExpired(()))?,
                None => link.ask(request).await,
            }
        })
    }
}

impl Link {
    async fn ask(self: Arc<Self>, request: http::Request<Body>) -> Result<http::Response<Inbound>, BoxError> {
        let mut sender = self.sender().await?;
        let (mut head, body) = request.into_parts();
        head.uri = self.uri(&head.uri)?;
        head.headers.insert(USER_AGENT, AGENT);
        let ends = body.is_end_stream();
        let (answer, stream) = sender.send.send_request(http::Request::from_parts(head, ()), ends)?;
        let wanted = if ends { None } else { self.send(Outbound::new(body, stream))? };
        Ok(answer.await?.map(|stream| Inbound::of_open_request(stream, wanted)))
    }

    /// Sends a request. Most are one message that is there already; what is left of another is sent
    /// by a task for as long as what is answered here lives.
    fn send(&self, mut outbound: Outbound) -> Result<Option<oneshot::Sender<()>>, Status> {
        if let Some(sent) = (&mut outbound).now_or_never() {
            return sent.map(|()| None);
        }
        let (wanted, unwanted) = oneshot::channel();
        self.runtime.spawn(async move {
            tokio::select! {
                sent = outbound => if let Err(error) = sent {
                    tracing::debug!(%error, "a request broke off");
                },
                _ = unwanted => {}
            }
        });
        Ok(Some(wanted))
    }

    fn uri(&self, path: &Uri) -> Result<Uri, InvalidUriParts> {
        let mut parts = Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        let root = || PathAndQuery::from_static("/");
        parts.path_and_query = Some(path.path_and_query().cloned().unwrap_or_else(root));
        Uri::from_parts(parts)
    }

    /// A connection that takes a call. What is told of here was never sent.
    async fn sender(self: &Arc<Self>) -> Result<Sender, ConnectError> {
        // A connection may have ended without its task having been told of it.
        for _ in 0..2 {
            let Sender { number, send } =
                self.line().await.map_err(|refused| ConnectError(refused.into()))?;
            match send.ready().await {
                Ok(send) => return Ok(Sender { number, send }),
                Err(_) => self.hang_up(number),
            }
        }
        Err(ConnectError(format!("{}: the connection breaks at once", self.addr).into()))
    }

    async fn line(self: &Arc<Self>) -> Result<Sender, Refused> {
        let dialling = match &mut *self.line.lock() {
            Line::Up(sender) => return Ok(sender.clone()),
            Line::Dialling(dialling) => dialling.clone(),
            down => {
                let dialling = self.clone().dial();
                *down = Line::Dialling(dialling.clone());
                dialling
            }
        };
        dialling.await
    }

    /// An attempt that goes on by itself, whoever still waits for it.
    fn dial(self: Arc<Self>) -> Dialling {
        let runtime = self.runtime.clone();
        let attempt = runtime.spawn(async move {
            let connected = self.connect().await;
            *self.line.lock() = match &connected {
                Ok(sender) => Line::Up(sender.clone()),
                Err(_) => Line::Down,
            };
            connected
        });
        let ended = |_| Err(Refused(Arc::new(io::Error::other("the runtime of the channel has ended"))));
        attempt.map(move |attempt| attempt.unwrap_or_else(ended)).boxed().shared()
    }

    async fn connect(self: &Arc<Self>) -> Result<Sender, Refused> {
        let refused = |kind, words: String| Refused(Arc::new(io::Error::new(kind, words)));
        let addr = &self.addr;
        let connecting = async {
            let stream = self.net.connect(addr).await?;
            client().handshake(stream).await.map_err(io::Error::other)
        };
        let (send, connection) = match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(refused(error.kind(), format!("{addr}: {error}"))),
            Err(_) => {
                return Err(refused(io::ErrorKind::TimedOut, format!("{addr}: no connection within 500 ms")));
            }
        };
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(drive(connection, Arc::downgrade(self), number));
        Ok(Sender { number, send })
    }

    /// Lets go of a connection that has ended.
    fn hang_up(&self, number: u64) {
        let mut line = self.line.lock();
        if matches!(&*line, Line::Up(sender) if sender.number == number) {
            *line = Line::Down;
        }
    }
}

fn client() -> h2::client::Builder {
    let mut client = h2::client::Builder::new();
    client
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEADERS_MAX)
        .enable_push(false);
    client
}

/// Drives a connection until it ends: when it breaks, when it is dead, or when the channel and
/// its calls are gone.
async fn drive(mut connection: Connection<BoxedStream, Bytes>, link: Weak<Link>, number: u64) {
    let pings = connection.ping_pong();
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        },
        () = super::alive::until_dead(pings, KEEP_ALIVE, KEEP_ALIVE) => {
            tracing::debug!("a connection gave no sign of life");
        }
    }
    if let Some(link) = link.upgrade() {
        link.hang_up(number);
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Refused {}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("addr", &self.link.addr).finish_non_exhaustive()
    }
}
