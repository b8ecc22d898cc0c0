//! The network as a seam: TCP here, a simulated network in tests.

use async_trait::async_trait;
use futures::Stream;
use std::{
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// A connection, whatever carries it.
pub type BoxedStream = Box<dyn Duplex>;

/// Binds and connects.
#[async_trait]
pub trait Net: Send + Sync + 'static {
    /// Listens on an address; port 0 takes a free one.
    async fn bind(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>>;
    /// Connects to `host:port`.
    async fn connect(&self, addr: &str) -> io::Result<BoxedStream>;
}

/// Accepts connections.
#[async_trait]
pub trait Listener: Send + Sync + 'static {
    /// The next connection and who is behind it.
    async fn accept(&self) -> io::Result<(BoxedStream, SocketAddr)>;
    /// The bound address.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// The listener itself, where it is of TCP: its connections may be driven by other runtimes.
    fn tcp(&self) -> Option<&TcpListener> {
        None
    }
}

/// TCP with nodelay.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNet;

#[async_trait]
impl Net for TcpNet {
    async fn bind(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(TcpListener::bind(addr).await?))
    }

    async fn connect(&self, addr: &str) -> io::Result<BoxedStream> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

#[async_trait]
impl Listener for TcpListener {
    async fn accept(&self) -> io::Result<(BoxedStream, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }

    fn tcp(&self) -> Option<&TcpListener> {
        Some(self)
    }
}

/// A TCP listener that shares its port with other processes (`SO_REUSEPORT`).
pub fn reuse_port(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

/// An accepted connection that breaks when its node aborts, as it would if the process died.
pub struct Accepted {
    stream: BoxedStream,
    aborted: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Accepted {
    pub(crate) fn new(stream: BoxedStream, abort: &CancellationToken) -> Self {
        Self { stream, aborted: Box::pin(abort.clone().cancelled_owned()) }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.aborted.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Accepts for ever: a failed accept (no file descriptor left, a client gone) is logged and
/// followed by a short pause, never by the end of the loop (RELIABILITY F40).
pub fn incoming(
    listener: Arc<dyn Listener>,
    abort: CancellationToken,
) -> impl Stream<Item = Accepted> + Send {
    futures::stream::unfold((listener, abort), |(listener, abort)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Accepted::new(stream, &abort), (listener, abort))),
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_listeners_share_a_port() {
        let first = reuse_port("127.0.0.1:0".parse().unwrap()).unwrap();
        let second = reuse_port(first.local_addr().unwrap()).unwrap();
        assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
    }
}
