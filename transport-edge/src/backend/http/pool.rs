//! Idle HTTP/1.1 connections of one backend, one stack per core.

use super::{
    connection::{Connection, Failure},
    incoming::Incoming,
};
use crate::{backend::Core, core::http1::Head};
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

/// Stacks of cores; a core takes the one of its number.
const CORES: usize = 64;
/// And one for what is sent beside clients' requests, whichever thread sends it.
const SHARDS: usize = CORES + 1;
const CONNECT: Duration = Duration::from_secs(2);
/// Servers commonly close after 5 s (uvicorn, node); a connection is not trusted that long.
const IDLE: Duration = Duration::from_secs(4);
/// After this much silence, the event loop may know of an end that nobody has looked at.
const STALE: Duration = Duration::from_millis(10);

/// Connections to one address.
pub(super) struct Pool {
    address: String,
    net: Arc<dyn Net>,
    shards: Vec<Shard>,
    max_idle: usize,
}

/// What one core uses alone; no two share a cache line.
#[derive(Default)]
#[repr(align(128))]
struct Shard {
    /// The one used last is at the back.
    idle: Mutex<VecDeque<Idle>>,
    requests: AtomicU64,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection in use. Given back only after the answer was read to its end; dropped, it is
/// closed, and with it whatever still comes.
pub(super) struct Lease {
    pub(super) connection: Connection,
    pool: Arc<Pool>,
    shard: usize,
}

impl Pool {
    /// Without connections yet. Call it within the runtime that outlives the cores'.
    pub(super) fn new(address: String, net: Arc<dyn Net>, max_idle: usize) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        let pool = Arc::new(Pool { address, net, shards, max_idle });
        tokio::spawn(sweep(Arc::downgrade(&pool)));
        pool
    }

    /// A number for a request, unlike that of any other request to this backend that may still
    /// be under way; it fits into 31 bits, because some servers read no more.
    pub(super) fn next_id(&self, core: Core) -> u64 {
        const TURN: u64 = i32::MAX as u64 / SHARDS as u64;
        let shard = shard(core);
        let count = self.shards.get(shard).map_or(0, |shard| shard.requests.fetch_add(1, Ordering::Relaxed));
        (count % TURN) * SHARDS as u64 + shard as u64 + 1
    }

    /// Sends on an idle connection or a new one. A request is sent a second time only when the
    /// first connection provably took none of it.
    pub(super) async fn send(
        self: &Arc<Self>,
        core: Core,
        request: &[u8],
    ) -> Result<(Head, Incoming), Failure> {
        let shard = shard(core);
        while let Some(mut connection) = self.take(shard).await {
            match connection.exchange(request).await {
                Ok(head) => return Ok(self.answered(connection, shard, head)),
                Err(Failure::Unsent(_)) => {}
                Err(failure) => return Err(failure),
            }
        }
        let mut connection = self.connect().await?;
        let head = connection.exchange(request).await?;
        Ok(self.answered(connection, shard, head))
    }

    fn answered(self: &Arc<Self>, connection: Connection, shard: usize, head: Head) -> (Head, Incoming) {
        let lease = Lease { connection, pool: self.clone(), shard };
        Incoming::of(head, lease)
    }

    /// The connection used last, if it is still quiet.
    async fn take(&self, shard: usize) -> Option<Connection> {
        loop {
            let Idle { mut connection, since } = self.shards.get(shard)?.idle.lock().pop_back()?;
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

impl Lease {
    /// Gives the connection back, ready for another request.
    pub(super) fn release(mut self) {
        let Some(shard) = self.pool.shards.get(self.shard) else { return };
        self.connection.shrink();
        let mut stack = shard.idle.lock();
        if stack.len() < self.pool.max_idle {
            stack.push_back(Idle { connection: self.connection, since: Instant::now() });
        }
    }
}

fn shard(core: Core) -> usize {
    if core == Core::ASIDE { CORES } else { core.0 % CORES }
}

/// Idle connections do not outlive their time, also when nobody asks for one any more.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(IDLE).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.expire();
    }
}
