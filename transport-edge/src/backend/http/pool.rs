//! Idle HTTP/1.1 connections of one backend, one stack per core.

use crate::backend::Core;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use kit::net::Net;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

type Sender = SendRequest<Full<Bytes>>;

/// Stacks; a core takes the one of its number.
const SHARDS: usize = 65;
const CONNECT: Duration = Duration::from_secs(2);
/// Servers commonly close after 5 s (uvicorn, node); a connection is not trusted that long.
const IDLE: Duration = Duration::from_secs(4);

/// After this much silence, a connection is looked at before it is used.
const STALE: Duration = Duration::from_millis(10);

/// A request that got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// No byte of it was sent.
    Unsent(String),
    /// It may have been processed.
    Unknown(String),
}

/// Connections to one address.
pub(crate) struct Pool {
    address: String,
    net: Arc<dyn Net>,
    shards: Vec<Mutex<Vec<Idle>>>,
    max_idle: usize,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

/// A connection in use. Give it back with [`Lease::release`] after the answer was read to its
/// end; dropped, it is closed.
pub(crate) struct Lease {
    sender: Sender,
    shard: usize,
}

impl Pool {
    pub(super) fn new(address: String, net: Arc<dyn Net>, max_idle: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Pool { address, net, shards, max_idle }
    }

    /// Sends on an idle connection or a new one. A request is sent a second time only when the
    /// first connection provably took none of it.
    pub(super) async fn send(
        &self,
        core: Core,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        let shard = core.0 % SHARDS;
        loop {
            let idle = self.take(shard);
            let fresh = idle.is_none();
            let mut sender = match idle {
                Some(idle) => {
                    // Its end may have come and nobody has looked yet: let the driver look.
                    if idle.since.elapsed() > STALE {
                        tokio::task::yield_now().await;
                    }
                    idle.sender
                }
                None => self.connect().await?,
            };
            if sender.ready().await.is_err() {
                if fresh {
                    return Err(Failure::Unsent("the connection closed at once".into()));
                }
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, Lease { sender, shard })),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    Some(_) => return Err(Failure::Unsent(error.into_error().to_string())),
                    None => return Err(Failure::Unknown(error.into_error().to_string())),
                },
            }
        }
    }

    fn take(&self, shard: usize) -> Option<Idle> {
        let mut stack = self.shards.get(shard)?.lock();
        while let Some(idle) = stack.pop() {
            if idle.since.elapsed() > IDLE {
                stack.clear();
                return None;
            }
            if !idle.sender.is_closed() {
                return Some(idle);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        let unsent = |why: String| Failure::Unsent(format!("cannot connect to {}: {why}", self.address));
        let connected = timeout(CONNECT, self.net.connect(&self.address)).await;
        let stream =
            connected.map_err(|_| unsent("no answer".into()))?.map_err(|error| unsent(error.to_string()))?;
        let handshake = Builder::new().writev(false).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| unsent(error.to_string()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a backend broke");
            }
        });
        Ok(sender)
    }

    pub(super) fn release(&self, lease: Lease) {
        if lease.sender.is_closed() {
            return;
        }
        if let Some(stack) = self.shards.get(lease.shard) {
            let mut stack = stack.lock();
            if stack.len() < self.max_idle {
                stack.push(Idle { sender: lease.sender, since: Instant::now() });
            }
        }
    }
}
