//! Bodies of answers: whole, or a stream of server-sent events with a bound on what waits.

use super::io::Phase;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    convert::Infallible,
    future::Future as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep},
};

/// Most events that wait for a client (RELIABILITY.md O7).
const WAITING_MAX: usize = 256;
/// Most bytes that wait for a client, unless it is a single event.
const BYTES_MAX: usize = 1 << 20;
/// A comment goes out when a stream was silent for this long (MCP.md 1.2, 21).
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const COMMENT: Bytes = Bytes::from_static(b": ping\n\n");

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Nothing, or everything at once; hyper writes it together with the head.
    Whole(Option<Bytes>),
    /// Events as they come.
    Events(Box<Events>),
}

impl Answer {
    /// No body.
    pub(crate) const EMPTY: Answer = Answer::Whole(None);

    /// The bytes, if it is whole.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        match self {
            Answer::Whole(bytes) => Some(bytes.clone().unwrap_or_default()),
            Answer::Events(_) => None,
        }
    }
}

impl From<Bytes> for Answer {
    fn from(bytes: Bytes) -> Self {
        Answer::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

/// The reading end of an event stream.
#[derive(Debug)]
pub(crate) struct Events {
    first: Option<Bytes>,
    queue: mpsc::Receiver<Bytes>,
    waiting: Arc<AtomicUsize>,
    keep_alive: Pin<Box<Sleep>>,
    phase: Option<Phase>,
}

/// The writing end of an event stream; dropping it ends the body.
#[derive(Debug, Clone)]
pub(crate) struct Outlet {
    queue: mpsc::Sender<Bytes>,
    waiting: Arc<AtomicUsize>,
}

/// An event stream that begins with `first`.
pub(crate) fn events(first: Bytes) -> (Outlet, Answer) {
    let (sender, queue) = mpsc::channel(WAITING_MAX);
    let waiting = Arc::new(AtomicUsize::new(0));
    let keep_alive = Box::pin(tokio::time::sleep(KEEP_ALIVE));
    let first = Some(first).filter(|first| !first.is_empty());
    let events = Events { first, queue, waiting: waiting.clone(), keep_alive, phase: None };
    (Outlet { queue: sender, waiting }, Answer::Events(Box::new(events)))
}

impl Outlet {
    /// Hands bytes to the client. False when it is gone or too slow: the outlet is then of no
    /// more use and the client has to come back with `Last-Event-ID`.
    pub(crate) fn send(&self, bytes: Bytes) -> bool {
        let size = bytes.len();
        let before = self.waiting.fetch_add(size, Ordering::Relaxed);
        if before > 0 && before + size > BYTES_MAX {
            return false;
        }
        self.queue.try_send(bytes).is_ok()
    }

    /// Waits until the client is gone.
    pub(crate) async fn closed(&self) {
        self.queue.closed().await;
    }

    /// Whether the client is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some(phase) = &self.phase {
            phase.idle();
        }
    }
}

impl Events {
    /// The connection with this phase is at work until the stream ends.
    pub(crate) fn works(&mut self, phase: Phase) {
        self.phase = Some(phase);
    }

    /// The next bytes, or a comment when it was silent for long.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        if let Poll::Ready(next) = self.queue.poll_recv(context) {
            if let Some(bytes) = &next {
                self.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
                self.keep_alive.as_mut().reset(Instant::now() + KEEP_ALIVE);
            }
            return Poll::Ready(next);
        }
        ready!(self.keep_alive.as_mut().poll(context));
        self.keep_alive.as_mut().reset(Instant::now() + KEEP_ALIVE);
        context.waker().wake_by_ref();
        Poll::Ready(Some(COMMENT))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Answer::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Answer::Events(events) => {
                events.poll_next(context).map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Answer::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Answer::Events(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn a_reader_that_stalls_loses_the_outlet_and_memory_stays_bounded() {
        let (outlet, _answer) = events(Bytes::new());
        let sent = (0..10_000).take_while(|_| outlet.send(Bytes::from_static(&[b'x'; 8192]))).count();
        assert!(sent <= 128, "{sent}");
        let (outlet, _answer) = events(Bytes::new());
        let sent = (0..10_000).take_while(|_| outlet.send(Bytes::from_static(b"x"))).count();
        assert_eq!(sent, WAITING_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_kept_alive_by_comments() {
        let (outlet, mut answer) = events(Bytes::from_static(b"first"));
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), COMMENT);
        assert!(outlet.send(Bytes::from_static(b"second")));
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "second");
        drop(outlet);
        assert!(answer.frame().await.is_none());
    }
}
