//! Waiting for a name to appear, and for a registration to go.

use crate::{
    Error, RegistryClient,
    client::{DEADLINE, Stub},
};
use kit::{backoff::Backoff, rpc::with_deadline};
use proto::registry::{
    AwaitRequest, AwaitResponse, LookupRequest, MonitorRequest, Registration, monitor_response::Outcome,
};
use std::time::Duration;
use tokio::time::Instant;

/// One call waits no longer, so that an instance that hangs is left for another one.
const ROUND: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A registration and where it was found: what [`RegistryClient::monitor`] goes on from.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// As it was answered.
    pub registration: Registration,
    revision: u64,
    node: String,
}

/// How a registration went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was freed.
    Deregistered,
    /// Its lease ran out.
    Expired,
    /// Another value or another owner stands in its place.
    Replaced,
    /// It is not there any more, and the instance that was asked does not know why.
    Gone,
}

impl RegistryClient {
    /// One registration, to be monitored.
    pub async fn find(&self, name: &str) -> Result<Found, Error> {
        let request = LookupRequest { name: name.to_owned(), ..LookupRequest::default() };
        let call = |mut stub: Stub, left| {
            let request = with_deadline(request.clone(), left);
            async move { stub.lookup(request).await }
        };
        let answer = self.anywhere(call).await?;
        found(answer.registration, answer.revision, answer.node)
    }

    /// Waits for a name to be registered. [`Error::NotFound`] when it is not within the time.
    pub async fn await_name(&self, name: &str, within: Duration) -> Result<Found, Error> {
        let end = Instant::now() + within;
        let mut backoff = Backoff::random(BACKOFF_FIRST, BACKOFF_MAX);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.await_once(name, left.min(ROUND)).await {
                Err(Error::NotFound(_)) if left > ROUND => {}
                Err(error) if error.is_transient() && !left.is_zero() => {
                    tokio::time::sleep(backoff.next().min(left)).await;
                }
                settled => return settled,
            }
        }
    }

    /// Waits for the end of a registration that was found, at whichever instance answers. Told
    /// once, and never missed: an end between the look-up and this call is told at once. An
    /// owner that moves its lease to another instance does not end its registration.
    pub async fn monitor(&self, mut found: Found) -> Result<End, Error> {
        let mut backoff = Backoff::random(BACKOFF_FIRST, BACKOFF_MAX);
        loop {
            match self.monitor_once(&found).await {
                Ok(Outcome::Ended(ended)) => return Ok(end(&ended.cause)),
                Ok(Outcome::Standing(standing)) => {
                    found = standing.try_into()?;
                    backoff.reset();
                }
                Err(error) if error.is_transient() => tokio::time::sleep(backoff.next()).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn await_once(&self, name: &str, wait: Duration) -> Result<Found, Error> {
        let request = AwaitRequest { name: name.to_owned(), wait_ms: millis(wait) };
        let call = |mut stub: Stub, left| {
            let request = with_deadline(request.clone(), left);
            async move { stub.r#await(request).await }
        };
        self.anywhere_within(wait + DEADLINE, call).await?.try_into()
    }

    async fn monitor_once(&self, found: &Found) -> Result<Outcome, Error> {
        let Found { registration, revision, node } = found.clone();
        let registration = Some(registration);
        let request = MonitorRequest { registration, revision, node, wait_ms: millis(ROUND) };
        let call = |mut stub: Stub, left| {
            let request = with_deadline(request.clone(), left);
            async move { stub.monitor(request).await }
        };
        // Twice: an instance waits first to hear of what it does not know.
        let answer = self.anywhere_within(ROUND + 2 * DEADLINE, call).await?;
        answer.outcome.ok_or_else(|| Error::Failed("an answer without an outcome".into()))
    }
}

impl TryFrom<AwaitResponse> for Found {
    type Error = Error;

    fn try_from(answer: AwaitResponse) -> Result<Self, Error> {
        found(answer.registration, answer.revision, answer.node)
    }
}

fn found(registration: Option<Registration>, revision: u64, node: String) -> Result<Found, Error> {
    let registration =
        registration.ok_or_else(|| Error::Failed("an answer without a registration".into()))?;
    Ok(Found { registration, revision, node })
}

fn end(cause: &str) -> End {
    match cause {
        "deregistered" => End::Deregistered,
        "expired" => End::Expired,
        "replaced" => End::Replaced,
        _ => End::Gone,
    }
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}
