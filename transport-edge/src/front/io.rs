//! A client's socket: a head that was begun has to be finished in time (RELIABILITY.md O9), and a
//! connection without a request ends some day.
//!
//! hyper's own limit counts from the end of the last request, so it would close idle keep-alive
//! connections as well, and it sets a timer for each request. Here one timer serves an idle
//! connection all its life: when it rings and there was a request meanwhile, it is set anew.

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
    time::{Instant, Sleep},
};

/// A connection without a request is closed after this time.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(300);

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

/// Where a connection is: idle, within a head, or at work. Written by one task only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Phase(Arc<AtomicU8>);

impl Phase {
    /// A head is complete.
    pub(crate) fn busy(&self) {
        self.0.store(BUSY, Relaxed);
    }

    /// There is no more of the answer to be made; the next bytes begin a head.
    pub(crate) fn idle(&self) {
        self.0.store(IDLE, Relaxed);
    }

    /// Bytes have come: true when they begin a head.
    fn begin(&self) -> bool {
        let idle = self.is(IDLE);
        if idle {
            self.0.store(HEAD, Relaxed);
        }
        idle
    }

    fn is(&self, phase: u8) -> bool {
        self.0.load(Relaxed) == phase
    }
}

/// The socket with its watch.
pub(crate) struct Watched<S> {
    stream: S,
    phase: Phase,
    patience: Duration,
    head: Option<Pin<Box<Sleep>>>,
    idle: Option<Pin<Box<Sleep>>>,
    /// A head has begun since `used`.
    worked: bool,
    /// Since when the connection is idle, if it is.
    used: Instant,
}

impl<S> Watched<S> {
    /// A head may take `patience` from its first byte.
    pub(crate) fn new(stream: S, phase: Phase, patience: Duration) -> Self {
        Watched { stream, phase, patience, head: None, idle: None, worked: false, used: Instant::now() }
    }

    /// Ready when an unfinished head is late. Armed when more of it is asked for, so that a head
    /// that comes at once costs no timer.
    fn late(&mut self, context: &mut Context<'_>) -> bool {
        if !self.phase.is(HEAD) {
            self.head = None;
            return false;
        }
        let timer = self.head.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience)));
        timer.as_mut().poll(context).is_ready()
    }

    /// Ready when no head has begun for too long.
    fn unused(&mut self, context: &mut Context<'_>) -> bool {
        if !self.phase.is(IDLE) {
            return false;
        }
        if std::mem::take(&mut self.worked) {
            self.used = Instant::now();
        }
        let until = self.used + IDLE_MAX;
        let timer = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        while timer.as_mut().poll(context).is_ready() {
            if timer.deadline() >= until {
                return true;
            }
            timer.as_mut().reset(until);
        }
        false
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
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
        if this.unused(context) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was asked for long")));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && this.phase.begin() {
            this.worked = true;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn refused(watched: &mut Watched<tokio::io::DuplexStream>) -> String {
        watched.read_u8().await.unwrap_err().to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_after_its_last_request_and_not_while_it_works() {
        let (mut client, server) = tokio::io::duplex(64);
        let phase = Phase::default();
        let mut watched = Watched::new(server, phase.clone(), PATIENCE);
        let begun = Instant::now();
        for _ in 0..3 {
            let idle = tokio::time::timeout(IDLE_MAX / 2, watched.read_u8());
            assert!(idle.await.is_err(), "it is not closed");
            client.write_u8(b'x').await.unwrap();
            assert_eq!(watched.read_u8().await.unwrap(), b'x');
            phase.busy();
            phase.idle();
        }
        let last = begun.elapsed();
        phase.busy();
        let stream = tokio::time::timeout(IDLE_MAX * 3, watched.read_u8());
        assert!(stream.await.is_err(), "an answer may take longer than that");
        phase.idle();
        assert_eq!(refused(&mut watched).await, "nothing was asked for long");
        let silent = begun.elapsed() - last - IDLE_MAX * 3;
        assert!((IDLE_MAX..IDLE_MAX + PATIENCE).contains(&silent), "{silent:?}");
        let (_client, server) = tokio::io::duplex(64);
        let begun = Instant::now();
        let mut silent = Watched::new(server, Phase::default(), PATIENCE);
        assert_eq!(refused(&mut silent).await, "nothing was asked for long");
        assert!(begun.elapsed() >= IDLE_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_was_begun_has_its_own_time() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut watched = Watched::new(server, Phase::default(), PATIENCE);
        client.write_u8(b'G').await.unwrap();
        watched.read_u8().await.unwrap();
        let begun = Instant::now();
        assert_eq!(refused(&mut watched).await, "the head did not come in time");
        assert!(begun.elapsed() < PATIENCE * 2);
    }
}
