//! Channels to other processes, and calls with a deadline that retry within a budget.

use super::{Channel, status};
use crate::{backoff::Backoff, clock::Clock, net::Net};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tonic::{Code, Request, Response, Status};

/// Addresses that are remembered; at the limit all are forgotten (open calls go on).
const CHANNELS_MAX: usize = 4096;

/// One channel per address, connected at first use and again after it broke.
#[derive(Clone)]
pub struct Channels {
    net: Arc<dyn Net>,
    clock: Arc<dyn Clock>,
    budget: RetryBudget,
    cache: Arc<Mutex<HashMap<String, Channel>>>,
}

impl Channels {
    /// No channels yet.
    pub fn new(net: Arc<dyn Net>, clock: Arc<dyn Clock>) -> Self {
        Self { net, clock, budget: RetryBudget::new(), cache: Arc::default() }
    }

    /// The channel to `host:port`. Does not connect; an address that cannot be dialled shows
    /// as `UNAVAILABLE` at the call. Must be called within a tokio runtime.
    pub fn get(&self, addr: &str) -> Channel {
        let mut cache = self.cache.lock();
        if let Some(channel) = cache.get(addr) {
            return channel.clone();
        }
        if cache.len() >= CHANNELS_MAX {
            cache.clear();
        }
        let channel = Channel::new(self.net.clone(), addr);
        cache.insert(addr.to_owned(), channel.clone());
        channel
    }

    /// Forgets a channel, when its address is gone for good.
    pub fn forget(&self, addr: &str) {
        self.cache.lock().remove(addr);
    }

    /// The retry budget that all calls over these channels share.
    pub fn budget(&self) -> &RetryBudget {
        &self.budget
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").field("open", &self.cache.lock().len()).finish_non_exhaustive()
    }
}

/// A request that carries its deadline (`grpc-timeout`). On a server stream the deadline is for
/// the head of the answer; the stream may last longer.
pub fn with_deadline<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// Retries cost: each first try earns a tenth of one, so that an outage is not amplified by
/// more than a tenth (RELIABILITY F24). Ten are there from the start.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    tenths: Arc<AtomicU32>,
}

impl RetryBudget {
    const RETRY: u32 = 10;
    const START: u32 = 10 * Self::RETRY;
    const MAX: u32 = 100 * Self::RETRY;

    /// A budget with its starting credit.
    pub fn new() -> Self {
        Self { tenths: Arc::new(AtomicU32::new(Self::START)) }
    }

    /// Counts a first try.
    pub fn deposit(&self) {
        let _ = self.tenths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tenths| {
            (tenths < Self::MAX).then_some(tenths + 1)
        });
    }

    /// Takes one retry, if there is one.
    pub fn withdraw(&self) -> bool {
        let take = |tenths: u32| tenths.checked_sub(Self::RETRY);
        self.tenths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}

/// How a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallPolicy {
    /// For all attempts together.
    pub deadline: Duration,
    /// First try included.
    pub attempts: u32,
    /// Whether a call whose outcome is unknown may be repeated (reads, writes by request id).
    pub idempotent: bool,
}

impl CallPolicy {
    /// Up to three attempts, repeated only when nothing was applied.
    pub const fn new(deadline: Duration) -> Self {
        Self { deadline, attempts: 3, idempotent: false }
    }

    /// The same for a call that may be repeated whatever became of it.
    pub const fn idempotent(deadline: Duration) -> Self {
        Self { deadline, attempts: 3, idempotent: true }
    }

    /// One attempt.
    pub const fn once(deadline: Duration) -> Self {
        Self { deadline, attempts: 1, idempotent: false }
    }
}

/// Calls `addr`: `make` gets the channel and the time that is left, and must send it along
/// (`with_deadline`). Errors are settled: `UNAVAILABLE` only when nothing was applied,
/// `OUTCOME_UNKNOWN` when it may have been.
///
/// ```ignore
/// let answer = call(&CallPolicy::idempotent(SECOND), &ctx.channels, &addr, |channel, left| {
///     let request = with_deadline(LookupRequest { name: name.clone() }, left);
///     async move { RegistryServiceClient::new(channel).lookup(request).await }
/// }).await?;
/// ```
pub async fn call<T, F, Fut>(
    policy: &CallPolicy,
    channels: &Channels,
    addr: &str,
    mut make: F,
) -> Result<T, Status>
where
    F: FnMut(Channel, Duration) -> Fut,
    Fut: Future<Output = Result<Response<T>, Status>>,
{
    let end = channels.clock.now() + policy.deadline;
    let mut backoff = Backoff::random(Duration::from_millis(20), Duration::from_millis(500));
    channels.budget.deposit();
    let mut attempt = 1;
    let mut maybe_applied = false;
    loop {
        let left = end.saturating_duration_since(channels.clock.now());
        let answer = tokio::time::timeout(left, make(channels.get(addr), left)).await;
        let failure = match answer {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => honest(status::settle(status), maybe_applied),
            Err(_) => {
                return Err(status::outcome_unknown(format!("{addr}: no answer by the deadline")));
            }
        };
        maybe_applied |= is_unknown(&failure);
        let pause = backoff.next();
        let left = end.saturating_duration_since(channels.clock.now());
        let repeat = attempt < policy.attempts && pause < left && may_repeat(&failure, policy.idempotent);
        if !repeat || !channels.budget.withdraw() {
            return Err(failure);
        }
        attempt += 1;
        tokio::time::sleep(pause).await;
    }
}

/// That the last attempt was not applied says nothing of an earlier one.
fn honest(status: Status, maybe_applied: bool) -> Status {
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted if maybe_applied => {
            status::outcome_unknown(format!("{}; an earlier attempt may have been applied", status.message()))
        }
        _ => status,
    }
}

fn is_unknown(status: &Status) -> bool {
    matches!(status.code(), Code::Unknown | Code::Cancelled)
}

fn may_repeat(status: &Status, idempotent: bool) -> bool {
    status.code() == Code::Unavailable || (is_unknown(status) && idempotent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_tenth_of_the_first_tries() {
        let budget = RetryBudget::new();
        let from_start = (0..100).filter(|_| budget.withdraw()).count();
        assert_eq!(from_start, 10);
        for _ in 0..100 {
            budget.deposit();
        }
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unavailable_attempt_does_not_hide_that_an_earlier_one_may_have_been_applied() {
        let channels = Channels::new(Arc::new(crate::net::TcpNet), Arc::new(crate::clock::SystemClock));
        let policy = CallPolicy::idempotent(Duration::from_secs(2));
        let outcome = async |statuses: [Status; 3]| {
            let mut left = statuses.into_iter();
            let make = |_, _| std::future::ready(Err::<Response<()>, _>(left.next().unwrap()));
            call(&policy, &channels, "127.0.0.1:1", make).await.unwrap_err()
        };
        let refused = || status::unavailable("refused");
        let broken = || status::outcome_unknown("broken");
        let told = outcome([refused(), broken(), refused()]).await;
        assert_eq!(status::reason(&told).as_deref(), Some("OUTCOME_UNKNOWN"));
        assert_eq!(told.message(), "refused; an earlier attempt may have been applied");
        let told = outcome([refused(), refused(), refused()]).await;
        assert_eq!(status::reason(&told).as_deref(), Some("UNAVAILABLE"));
    }
}
