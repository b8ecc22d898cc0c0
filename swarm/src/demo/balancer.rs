//! A plain round-robin load balancer over TCP connections: it stands for the one a user has in
//! front of the nodes. No stickiness, no retry of anything that was sent.

use parking_lot::Mutex;
use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Connections served at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 4096;
/// Remembered connections, for [`Balancer::node_of`].
const MAX_ROUTES: usize = 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const NO_NODE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The balancer; clones are handles on the same one.
#[derive(Clone, Default)]
pub(super) struct Balancer {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    targets: Vec<(String, SocketAddr)>,
    next: usize,
    routes: VecDeque<(SocketAddr, String)>,
}

impl Balancer {
    /// Sends new connections to these nodes from now on.
    pub(super) fn set(&self, targets: Vec<(String, SocketAddr)>) {
        self.state.lock().targets = targets;
    }

    /// Which node a connection with this local end at the client went to.
    pub(super) fn node_of(&self, client: SocketAddr) -> Option<String> {
        let state = self.state.lock();
        let found = state.routes.iter().rev().find(|(peer, _)| *peer == client);
        found.map(|(_, node)| node.clone())
    }

    /// Serves until dropped.
    pub(super) async fn run(self, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(permit) = permits.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let balancer = self.clone();
                    tokio::spawn(async move {
                        // Either end may break at any time: that is the demo.
                        let _ = balancer.splice(stream, peer).await;
                        drop(permit);
                    });
                }
                // Out of descriptors, or the client is gone already: neither ends the balancer.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn splice(&self, mut client: TcpStream, peer: SocketAddr) -> io::Result<()> {
        client.set_nodelay(true)?;
        for (name, addr) in self.rotation() {
            let connect = TcpStream::connect(addr);
            let Ok(Ok(mut node)) = tokio::time::timeout(CONNECT_TIMEOUT, connect).await else {
                continue;
            };
            node.set_nodelay(true)?;
            self.remember(peer, name);
            copy_bidirectional(&mut client, &mut node).await?;
            return Ok(());
        }
        client.write_all(NO_NODE).await
    }

    /// All nodes, beginning with the one whose turn it is.
    fn rotation(&self) -> Vec<(String, SocketAddr)> {
        let mut state = self.state.lock();
        let mut targets = state.targets.clone();
        if !targets.is_empty() {
            let first = state.next % targets.len();
            state.next = state.next.wrapping_add(1);
            targets.rotate_left(first);
        }
        targets
    }

    fn remember(&self, peer: SocketAddr, node: String) {
        let mut state = self.state.lock();
        if state.routes.len() == MAX_ROUTES {
            state.routes.pop_front();
        }
        state.routes.push_back((peer, node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    async fn greeter(word: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(word.as_bytes()).await;
            }
        });
        addr
    }

    async fn greeting(addr: SocketAddr) -> (String, SocketAddr) {
        let mut stream = TcpStream::connect(addr).await.expect("connects");
        let local = stream.local_addr().expect("an address");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("reads");
        (text, local)
    }

    #[tokio::test]
    async fn connections_go_round_and_past_dead_nodes() {
        let (a, b) = (greeter("a").await, greeter("b").await);
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let dead = gone.local_addr().expect("an address");
        drop(gone);
        let balancer = Balancer::default();
        balancer.set(vec![("a".into(), a), ("dead".into(), dead), ("b".into(), b)]);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let front = listener.local_addr().expect("an address");
        tokio::spawn(balancer.clone().run(listener));
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (word, local) = greeting(front).await;
            assert_eq!(balancer.node_of(local).as_deref(), Some(word.as_str()));
            seen.push(word);
        }
        assert_eq!(seen, ["a", "b", "b"]);
    }

    #[tokio::test]
    async fn without_nodes_the_answer_is_503() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let front = listener.local_addr().expect("an address");
        tokio::spawn(Balancer::default().run(listener));
        assert!(greeting(front).await.0.starts_with("HTTP/1.1 503"));
    }
}
