//! A client's socket: a head that was begun has to be finished in time (RELIABILITY.md O9).
//!
//! hyper's own limit counts from the end of the last request, so it would close idle keep-alive
//! connections as well; it is set to what an idle connection may live.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

/// Where a connection is: idle, within a head, or at work. Written by one task only.
#[derive(Clone, Default)]
pub(crate) struct Phase(Arc<AtomicU8>);

impl Phase {
    /// A head is complete.
    pub(crate) fn busy(&self) {
        self.0.store(BUSY, Relaxed);
    }

    /// The answer is made; the next bytes begin a head.
    pub(crate) fn idle(&self) {
        self.0.store(IDLE, Relaxed);
    }

    fn is(&self, phase: u8) -> bool {
        self.0.load(Relaxed) == phase
    }
}

/// The socket with its watch.
pub(crate) struct Watched {
    stream: TcpStream,
    phase: Phase,
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    /// A head may take `patience` from its first byte.
    pub(crate) fn new(stream: TcpStream, phase: Phase, patience: Duration) -> Self {
        Watched { stream, phase, patience, timer: None }
    }

    /// Ready when an unfinished head is late. Armed when more of it is asked for, so that a head
    /// that comes at once costs no timer.
    fn late(&mut self, context: &mut Context<'_>) -> bool {
        if !self.phase.is(HEAD) {
            self.timer = None;
            return false;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience)));
        timer.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.late(context) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the head did not come in time",
            )));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && this.phase.is(IDLE) {
            this.phase.0.store(HEAD, Relaxed);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
