//! The bus over a NATS server that may come late, go away and come back.

use super::{Bus, BusError, Feed, Message, Subscription, check_pattern, check_payload, check_subject};
use async_nats::{
    Client, ConnectOptions, client::PublishErrorKind, client::RequestErrorKind, connection::State,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest pause between two attempts to reach the server.
const RECONNECT_MAX: Duration = Duration::from_millis(500);
const RECONNECT_FIRST: Duration = Duration::from_millis(20);
/// How long a call of ours may wait for the connection's queue or a round trip.
const LOCAL_DEADLINE: Duration = Duration::from_secs(1);

/// A client of one NATS server or cluster.
#[derive(Debug, Clone)]
pub struct NatsBus {
    client: Client,
}

impl NatsBus {
    /// Returns at once, connected or not, and keeps trying for ever. `url` may list several
    /// servers, separated by commas. An error means that the URL does not parse.
    pub async fn connect(url: &str, name: &str) -> Result<Self, BusError> {
        let options = ConnectOptions::new()
            .name(name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(reconnect_delay)
            .connection_timeout(LOCAL_DEADLINE)
            .ping_interval(Duration::from_secs(2))
            .request_timeout(None)
            .client_capacity(4096)
            .event_callback(|event| async move { tracing::info!(%event, "nats") });
        let servers: Vec<&str> = url.split(',').map(str::trim).collect();
        let client =
            options.connect(servers).await.map_err(|error| BusError::Failed(format!("{url}: {error}")))?;
        Ok(Self { client })
    }

    /// Waits until the server has taken every subscription made so far: a request that nobody
    /// can answer travels behind them and comes back as "no responders".
    async fn round_trip(&self) {
        if self.connected() {
            let subject = format!("{}.probe", self.client.new_inbox());
            let probe = self.client.request(subject, Bytes::new());
            let _ = tokio::time::timeout(LOCAL_DEADLINE, probe).await;
        }
    }
}

fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.min(10)).unwrap_or(10);
    (RECONNECT_FIRST * 2_u32.pow(doublings)).min(RECONNECT_MAX)
}

#[async_trait]
impl Bus for NatsBus {
    async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), BusError> {
        check_subject(subject)?;
        check_payload(&payload)?;
        if !self.connected() {
            return Err(BusError::Disconnected);
        }
        let sending = self.client.publish(subject.to_owned(), payload);
        match tokio::time::timeout(LOCAL_DEADLINE, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == PublishErrorKind::Send => Err(BusError::Disconnected),
            Ok(Err(error)) => Err(BusError::Failed(error.to_string())),
            Err(_) => Err(BusError::Disconnected),
        }
    }

    async fn subscribe(&self, pattern: &str) -> Result<Subscription, BusError> {
        check_pattern(pattern)?;
        let subscribing = self.client.subscribe(pattern.to_owned());
        let mut messages = tokio::time::timeout(LOCAL_DEADLINE, subscribing)
            .await
            .map_err(|_| BusError::Disconnected)?
            .map_err(|error| BusError::Failed(error.to_string()))?;
        let stop = CancellationToken::new();
        let (feed, subscription) = Feed::channel(Some(stop.clone().drop_guard()));
        tokio::spawn(async move {
            let forward = async {
                while let Some(message) = messages.next().await {
                    if !feed.offer(ours(message)) {
                        break;
                    }
                }
            };
            stop.run_until_cancelled(forward).await;
        });
        self.round_trip().await;
        Ok(subscription)
    }

    async fn request(&self, subject: &str, payload: Bytes, deadline: Duration) -> Result<Bytes, BusError> {
        check_subject(subject)?;
        check_payload(&payload)?;
        if !self.connected() {
            return Err(BusError::Disconnected);
        }
        let asking = self.client.request(subject.to_owned(), payload);
        match tokio::time::timeout(deadline, asking).await {
            Ok(Ok(answer)) => Ok(answer.payload),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::NoResponders => BusError::NoResponders(subject.into()),
                RequestErrorKind::TimedOut => BusError::TimedOut(subject.into()),
                _ => BusError::Failed(error.to_string()),
            }),
            Err(_) => Err(BusError::TimedOut(subject.into())),
        }
    }

    fn connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }
}

fn ours(message: async_nats::Message) -> Message {
    Message {
        subject: message.subject.to_string(),
        payload: message.payload,
        reply: message.reply.map(|reply| reply.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnects_are_never_further_apart_than_the_maximum() {
        assert_eq!(reconnect_delay(0), RECONNECT_FIRST);
        assert!((0..100).all(|attempts| reconnect_delay(attempts) <= RECONNECT_MAX));
    }
}
