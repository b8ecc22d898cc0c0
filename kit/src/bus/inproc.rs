//! A bus inside one process, with the same contract as NATS.

use super::{
    Bus, BusError, Feed, Message, Subscription, check_pattern, check_payload, check_subject, matches,
};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Clones are the same bus; the nodes of one process share one.
#[derive(Debug, Clone, Default)]
pub struct InProcBus {
    subscribers: Arc<Mutex<Vec<Subscriber>>>,
    inboxes: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Subscriber {
    pattern: String,
    feed: Feed,
}

impl InProcBus {
    /// A bus without subscriptions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Delivers under the lock, so that every subscription sees one order; never waits.
    fn deliver(&self, message: &Message) -> usize {
        let mut delivered = 0;
        self.subscribers.lock().retain(|subscriber| {
            if !matches(&subscriber.pattern, &message.subject) {
                return !subscriber.feed.messages.is_closed();
            }
            let alive = subscriber.feed.offer(message.clone());
            delivered += usize::from(alive);
            alive
        });
        delivered
    }
}

#[async_trait]
impl Bus for InProcBus {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        check_subject(subject)?;
        check_payload(&payload)?;
        self.deliver(&Message { subject: subject.into(), payload, reply: None });
        Ok(())
    }

    async fn subscribe(&self, pattern: &str) -> Result<Subscription, BusError> {
        check_pattern(pattern)?;
        let (feed, subscription) = Feed::channel(None);
        self.subscribers.lock().push(Subscriber { pattern: pattern.into(), feed });
        Ok(subscription)
    }

    async fn request(&self, subject: &str, payload: Bytes, deadline: Duration) -> Result<Bytes, BusError> {
        check_subject(subject)?;
        check_payload(&payload)?;
        let inbox = format!("_INBOX.{}", self.inboxes.fetch_add(1, Ordering::Relaxed));
        let mut answers = self.subscribe(&inbox).await?;
        let message = Message { subject: subject.into(), payload, reply: Some(inbox) };
        if self.deliver(&message) == 0 {
            return Err(BusError::NoResponders(subject.into()));
        }
        match tokio::time::timeout(deadline, answers.next()).await {
            Ok(Some(answer)) => Ok(answer.payload),
            Ok(None) => Err(BusError::Disconnected),
            Err(_) => Err(BusError::TimedOut(subject.into())),
        }
    }

    fn connected(&self) -> bool {
        true
    }

    fn is_heard(&self, subject: &str) -> bool {
        let hears = |subscriber: &Subscriber| {
            !subscriber.feed.messages.is_closed() && matches(&subscriber.pattern, subject)
        };
        self.subscribers.lock().iter().any(hears)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_subject_is_heard_from_subscribe_until_the_subscription_is_dropped() {
        let bus = InProcBus::new();
        assert!(!bus.is_heard("a.b"));
        let subscription = bus.subscribe("a.*").await.unwrap();
        assert!(bus.is_heard("a.b") && !bus.is_heard("b.a"));
        drop(subscription);
        assert!(!bus.is_heard("a.b"));
    }
}
