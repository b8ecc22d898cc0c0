//! A network in memory whose links can be cut: a fake that is real enough for a node.
//!
//! A cut is a partition, not a reset: bytes stop and connects hang, as with lost packets;
//! after [`MemNet::heal`] they go on. Order is kept, buffers are bounded.

use crate::net::{BoxedStream, Listener, Net};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    sync::{Mutex as AsyncMutex, mpsc, watch},
};

/// Bytes on the way in one direction of a connection, at most twice this.
const BUFFER: usize = 64 * 1024;
/// Connections that wait to be accepted; more are refused.
const BACKLOG: usize = 128;
const FIRST_FREE_PORT: u16 = 20_000;

/// The whole network. Clones are the same one; each node gets its end by [`MemNet::node`].
#[derive(Clone)]
pub struct MemNet {
    listeners: Arc<Mutex<BTreeMap<SocketAddr, Bound>>>,
    cuts: Arc<watch::Sender<BTreeSet<Link>>>,
}

struct Bound {
    node: String,
    accept: mpsc::Sender<(BoxedStream, SocketAddr)>,
}

/// Two nodes, the lesser name first.
type Link = (String, String);

fn link(a: &str, b: &str) -> Link {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    (low.to_owned(), high.to_owned())
}

impl Default for MemNet {
    fn default() -> Self {
        Self::new()
    }
}

impl MemNet {
    /// A network without nodes.
    pub fn new() -> Self {
        Self { listeners: Arc::default(), cuts: Arc::new(watch::Sender::new(BTreeSet::new())) }
    }

    /// The network as one node sees it.
    pub fn node(&self, name: &str) -> Arc<dyn Net> {
        Arc::new(NodeNet { net: self.clone(), node: name.into() })
    }

    /// Stops what two nodes say to each other.
    pub fn cut(&self, a: &str, b: &str) {
        self.cuts.send_if_modified(|cuts| cuts.insert(link(a, b)));
    }

    /// Lets two nodes talk again.
    pub fn heal(&self, a: &str, b: &str) {
        self.cuts.send_if_modified(|cuts| cuts.remove(&link(a, b)));
    }

    fn free_address(&self, wanted: SocketAddr) -> io::Result<SocketAddr> {
        let listeners = self.listeners.lock();
        let free = |addr: &SocketAddr| listeners.get(addr).is_none_or(|bound| bound.accept.is_closed());
        let ports =
            if wanted.port() == 0 { FIRST_FREE_PORT..=u16::MAX } else { wanted.port()..=wanted.port() };
        let mut addresses = ports.map(|port| SocketAddr::new(wanted.ip(), port));
        addresses.find(free).ok_or_else(|| io::ErrorKind::AddrInUse.into())
    }
}

struct NodeNet {
    net: MemNet,
    node: String,
}

#[async_trait]
impl Net for NodeNet {
    async fn bind(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let addr = self.net.free_address(addr)?;
        let (accept, accepted) = mpsc::channel(BACKLOG);
        self.net.listeners.lock().insert(addr, Bound { node: self.node.clone(), accept });
        Ok(Box::new(MemListener { addr, accepted: AsyncMutex::new(accepted) }))
    }

    async fn connect(&self, addr: &str) -> io::Result<BoxedStream> {
        let addr: SocketAddr = addr.parse().map_err(|_| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        let (peer, accept) = match self.net.listeners.lock().get(&addr) {
            Some(bound) => (bound.node.clone(), bound.accept.clone()),
            None => return Err(io::ErrorKind::ConnectionRefused.into()),
        };
        let mut gate = Gate { link: link(&self.node, &peer), cuts: self.net.cuts.subscribe() };
        gate.open().await;
        let (near, near_end) = duplex(BUFFER);
        let (far, far_end) = duplex(BUFFER);
        join(near_end, far_end, gate);
        let from = SocketAddr::new(addr.ip(), 0);
        accept
            .try_send((Box::new(far), from))
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(Box::new(near))
    }
}

struct MemListener {
    addr: SocketAddr,
    accepted: AsyncMutex<mpsc::Receiver<(BoxedStream, SocketAddr)>>,
}

#[async_trait]
impl Listener for MemListener {
    async fn accept(&self) -> io::Result<(BoxedStream, SocketAddr)> {
        let next = self.accepted.lock().await.recv().await;
        next.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

/// Opens while a link is not cut.
#[derive(Clone)]
struct Gate {
    link: Link,
    cuts: watch::Receiver<BTreeSet<Link>>,
}

impl Gate {
    async fn open(&mut self) {
        let Gate { link, cuts } = self;
        // An error means that the network is gone, and with it its cuts.
        let _ = cuts.wait_for(|cuts| !cuts.contains(link)).await;
    }
}

fn join(near: DuplexStream, far: DuplexStream, gate: Gate) {
    let (near_read, near_write) = split(near);
    let (far_read, far_write) = split(far);
    tokio::spawn(carry(near_read, far_write, gate.clone()));
    tokio::spawn(carry(far_read, near_write, gate));
}

/// Carries bytes, and the end of the stream, through an open gate.
async fn carry(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, mut gate: Gate) {
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(length) = from.read(&mut chunk).await {
        gate.open().await;
        if length == 0 || to.write_all(chunk.get(..length).unwrap_or_default()).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    async fn pair(net: &MemNet) -> (BoxedStream, BoxedStream) {
        let listener = net.node("n2").bind("10.0.0.2:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let near = net.node("n1").connect(&addr).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_holds_bytes_back_and_healing_lets_them_through_in_order() {
        let net = MemNet::new();
        let (mut near, mut far) = pair(&net).await;
        net.cut("n2", "n1");
        near.write_all(b"one two").await.unwrap();
        let mut got = [0; 7];
        assert!(timeout(Duration::from_secs(5), far.read_exact(&mut got)).await.is_err());
        net.heal("n1", "n2");
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"one two");
        drop(near);
        assert_eq!(far.read(&mut got).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn connects_hang_over_a_cut_and_are_refused_where_nobody_listens() {
        let net = MemNet::new();
        let n1 = net.node("n1");
        assert!(n1.connect("10.0.0.2:1").await.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused));
        let listener = net.node("n2").bind("10.0.0.2:1".parse().unwrap()).await.unwrap();
        net.cut("n1", "n2");
        assert!(timeout(Duration::from_secs(5), n1.connect("10.0.0.2:1")).await.is_err());
        assert!(net.node("n3").connect("10.0.0.2:1").await.is_ok());
        let taken = net.node("n3").bind("10.0.0.2:1".parse().unwrap()).await;
        assert!(taken.is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse));
        drop(listener);
        assert!(net.node("n3").bind("10.0.0.2:1".parse().unwrap()).await.is_ok());
    }
}
