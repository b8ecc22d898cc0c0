//! Facts between services: [`InProcBus`] in one process, [`NatsBus`] between processes.
//!
//! At most once: a fact may be lost (a full queue, a reconnect), never repeated or reordered
//! for one publisher. Whoever needs more repairs by watch or anti-entropy. The contract is
//! `kit/tests/bus_contract.rs`, run against both.

mod inproc;
mod nats;
mod subject;

pub use inproc::InProcBus;
pub use nats::NatsBus;
pub use subject::{check_pattern, check_subject, matches};

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

/// Longest payload in bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// Messages that a subscription holds; the newest is dropped and counted when it is full.
pub const SUBSCRIPTION_CAPACITY: usize = 1024;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub subject: String,
    /// Its bytes.
    pub payload: Bytes,
    /// Where an answer is awaited, if it is a request.
    pub reply: Option<String>,
}

/// Why the bus did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// Empty tokens, white space, or a wildcard where none may be.
    #[error("subject {0:?} is not valid")]
    InvalidSubject(String),
    /// More than [`MAX_PAYLOAD`] bytes.
    #[error("payload has {0} bytes; at most {MAX_PAYLOAD} are allowed")]
    TooLarge(usize),
    /// No connection to the server; nothing was sent.
    #[error("bus is not connected")]
    Disconnected,
    /// Nobody listens to the subject of a request.
    #[error("nobody answers on {0:?}")]
    NoResponders(String),
    /// No answer by the deadline; the request may have been handled.
    #[error("no answer on {0:?} by the deadline")]
    TimedOut(String),
    /// Anything else, in words.
    #[error("bus: {0}")]
    Failed(String),
}

/// Publish, subscribe, request.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Sends to every subscription that matches. Does not wait for them.
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError>;
    /// Receives what is published from now on: `*` stands for one token, `>` for the rest.
    /// While the server is away the subscription stays and goes on afterwards.
    async fn subscribe(&self, pattern: &str) -> Result<Subscription, BusError>;
    /// Publishes with a reply subject and waits for the first answer.
    async fn request(&self, subject: &str, payload: Bytes, deadline: Duration) -> Result<Bytes, BusError>;
    /// Whether messages flow now.
    fn connected(&self) -> bool;
    /// Whether anybody may hear what is published on a subject: for what is made only to be
    /// published. A bus that does not know says yes.
    fn is_heard(&self, _subject: &str) -> bool {
        true
    }
}

/// A bounded stream of messages; dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    messages: mpsc::Receiver<Message>,
    dropped: Arc<AtomicU64>,
    // Stops whatever feeds the stream.
    _guard: Option<DropGuard>,
}

impl Subscription {
    /// The next message; `None` once the bus is gone.
    pub async fn next(&mut self) -> Option<Message> {
        self.messages.recv().await
    }

    /// Messages lost because this subscription was not read fast enough.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Stream for Subscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        self.messages.poll_recv(cx)
    }
}

/// The feeding end of a [`Subscription`].
#[derive(Debug, Clone)]
struct Feed {
    messages: mpsc::Sender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Feed {
    fn channel(guard: Option<DropGuard>) -> (Feed, Subscription) {
        let (sender, receiver) = mpsc::channel(SUBSCRIPTION_CAPACITY);
        let dropped = Arc::new(AtomicU64::new(0));
        let feed = Feed { messages: sender, dropped: dropped.clone() };
        (feed, Subscription { messages: receiver, dropped, _guard: guard })
    }

    /// False when the subscription is gone.
    fn offer(&self, message: Message) -> bool {
        match self.messages.try_send(message) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

fn check_payload(payload: &Bytes) -> Result<(), BusError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(BusError::TooLarge(payload.len()));
    }
    Ok(())
}
