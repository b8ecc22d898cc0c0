//! Idle HTTP/1.1 connections of one backend, one stack per core.

use super::{
    asked::{Asked, Failure},
    connection::Connection,
    incoming::Incoming,
};
use crate::{backend::Core, core::http1::Head};
use bytes::Bytes;
use kit::net::Net;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout};

const CONNECT: Duration = Duration::from_secs(2);
/// Servers commonly close after 5 s (uvicorn, node); a connection is not trusted that long.
const IDLE: Duration = Duration::from_secs(4);
/// After this much silence, the event loop may know of an end that nobody has looked at.
const STALE: Duration = Duration::from_millis(10);

/// Connections to one address.
pub(super) struct Pool {
    address: String,
    net: Arc<dyn Net>,
    shards: Vec<Arc<Shard>>,
}

/// What one core uses alone, down to the count of references; no two share a cache line.
#[repr(align(128))]
struct Shard {
    /// The one used last is at the back.
    idle: Mutex<VecDeque<Idle>>,
    requests: AtomicU64,
    max_idle: usize,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection in use. Given back only after the answer was read to its end; dropped, it is
/// closed, and with it whatever still comes.
pub(super) struct Lease {
    pub(super) connection: Connection,
    shard: Arc<Shard>,
}

impl Pool {
    /// Without connections yet. Call it within the runtime that outlives the cores'.
    pub(super) fn new(address: String, net: Arc<dyn Net>, max_idle: usize) -> Arc<Self> {
        let shard = || Arc::new(Shard { idle: Mutex::default(), requests: AtomicU64::new(0), max_idle });
        let shards = std::iter::repeat_with(shard).take(Core::SLOTS).collect();
        let pool = Arc::new(Pool { address, net, shards });
        tokio::spawn(sweep(Arc::downgrade(&pool)));
        pool
    }

    fn shard(&self, core: Core) -> Option<&Arc<Shard>> {
        self.shards.get(core.slot())
    }

    /// A number for a request, unlike that of any other request to this backend that may still
    /// be under way; it fits into 31 bits, because some servers read no more.
    pub(super) fn next_id(&self, core: Core) -> u64 {
        const TURN: u64 = i32::MAX as u64 / Core::SLOTS as u64;
        let count = self.shard(core).map_or(0, |shard| shard.requests.fetch_add(1, Ordering::Relaxed));
        (count % TURN) * Core::SLOTS as u64 + core.slot() as u64 + 1
    }

    /// Begins a request on a connection that was in use a moment ago, without waiting. `None`
    /// when there is none: then [`Pool::send`] it.
    pub(super) fn ask(&self, core: Core, request: &Bytes) -> Option<Asked> {
        let shard = self.shard(core)?;
        let mut asked = shard.on(shard.fresh()?, request);
        asked.begin();
        Some(asked)
    }

    /// Sends on an idle connection or a new one. A request is sent a second time only when the
    /// first connection provably took none of it.
    pub(super) async fn send(&self, core: Core, request: &Bytes) -> Result<(Head, Incoming), Failure> {
        let shard = self.shard(core).ok_or_else(|| Failure::Unsent("no such core".into()))?;
        while let Some(connection) = shard.quiet().await {
            let mut asked = shard.on(connection, request);
            match asked.head().await {
                Ok(head) => return Ok(asked.body(head)),
                Err(Failure::Unsent(_)) => {}
                Err(failure) => return Err(failure),
            }
        }
        let mut asked = shard.on(self.connect().await?, request);
        let head = asked.head().await?;
        Ok(asked.body(head))
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let unsent = |why: String| Failure::Unsent(format!("cannot connect to {}: {why}", self.address));
        let connected = timeout(CONNECT, self.net.connect(&self.address)).await;
        let stream = connected.map_err(|_| unsent("no answer".into()))?;
        Ok(Connection::new(stream.map_err(|error| unsent(error.to_string()))?))
    }

    /// Closes what was idle for too long, in all stacks.
    fn expire(&self) {
        for shard in &self.shards {
            let mut idle = shard.idle.lock();
            let fresh = idle.partition_point(|idle| idle.since.elapsed() >= IDLE);
            idle.drain(..fresh);
        }
    }
}

impl Shard {
    fn on(self: &Arc<Self>, connection: Connection, request: &Bytes) -> Asked {
        Asked::new(Lease { connection, shard: self.clone() }, request.clone())
    }

    /// The connection used last, if that was so lately that its end would be known.
    fn fresh(&self) -> Option<Connection> {
        loop {
            let mut idle = self.idle.lock();
            if idle.back()?.since.elapsed() > STALE {
                return None;
            }
            let mut connection = idle.pop_back()?.connection;
            drop(idle);
            if connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    /// The connection used last, if it is still quiet.
    async fn quiet(&self) -> Option<Connection> {
        loop {
            let Idle { mut connection, since } = self.idle.lock().pop_back()?;
            let idle = since.elapsed();
            if idle > STALE {
                // Its end may have come and nobody has looked yet: let the driver look.
                tokio::task::yield_now().await;
            }
            if idle < IDLE && connection.is_quiet() {
                return Some(connection);
            }
        }
    }
}

impl Lease {
    /// Gives the connection back, ready for another request.
    pub(super) fn release(mut self) {
        self.connection.shrink();
        let mut idle = self.shard.idle.lock();
        if idle.len() < self.shard.max_idle {
            idle.push_back(Idle { connection: self.connection, since: Instant::now() });
        }
    }
}

/// Idle connections do not outlive their time, also when nobody asks for one any more.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(IDLE).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.expire();
    }
}
