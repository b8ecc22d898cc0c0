//! The calls, and the loop behind each: find the leader, try, follow hints, try again.

use crate::{error::Error, route::Route};
use bytes::Bytes;
use kit::{
    Directory,
    backoff::Backoff,
    rpc::{Channel, Channels, MAX_MESSAGE, status::settle, with_deadline},
};
use proto::{
    coordinator::{
        CompleteRequest, GetTaskRequest, LeaseRequest, ProposeRequest, ReadRequest, StatusRequest,
        StatusResponse, SubmitRequest, Task, TaskState, complete_request,
        coordinator_service_client::CoordinatorServiceClient,
    },
    error::{Code, detail},
    ids::request_id,
};
use std::{future::Future, time::Duration};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// One try waits this long, so that a frozen leader does not eat the whole deadline.
const TRY: Duration = Duration::from_secs(2);
/// Pauses between tries. No retry budget here: during an election every call must retry, and the
/// pauses and deadlines bound the load.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(300));

type Client = CoordinatorServiceClient<Channel>;

/// Calls the coordinators; clones share the channels and what is known of the leader.
#[derive(Clone)]
pub struct CoordinatorClient {
    channels: Channels,
    route: Route,
}

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// 1 to 256 bytes.
    pub key: String,
    /// At most 64 KiB; none deletes.
    pub value: Option<Bytes>,
    /// Apply only at this revision: 0 means absent, none means always.
    pub expected_revision: Option<u64>,
    /// Makes a repeat harmless; none makes one for this call.
    pub request_id: Option<String>,
}

impl Change {
    /// Sets a key, whatever it is now.
    pub fn set(key: impl Into<String>, value: impl Into<Bytes>) -> Change {
        Change { key: key.into(), value: Some(value.into()), expected_revision: None, request_id: None }
    }

    /// Deletes a key.
    pub fn delete(key: impl Into<String>) -> Change {
        Change { key: key.into(), value: None, expected_revision: None, request_id: None }
    }

    /// The same, only if the key is at `revision` (0: absent).
    pub fn at(mut self, revision: u64) -> Change {
        self.expected_revision = Some(revision);
        self
    }

    /// The same under this request id.
    pub fn with_request_id(mut self, id: impl Into<String>) -> Change {
        self.request_id = Some(id.into());
        self
    }
}

/// A change that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub log_index: u64,
    /// The term in which it was answered.
    pub term: u64,
    /// The key's new revision.
    pub revision: u64,
}

/// A key that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its value.
    pub value: Bytes,
    /// Its revision.
    pub revision: u64,
}

/// A task to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    /// 1 to 128 characters of `A-Z a-z 0-9 _ - .`.
    pub queue: String,
    /// 0 (lowest) to 9.
    pub priority: u32,
    /// At most 64 KiB.
    pub payload: Bytes,
    /// Attempts before it fails; 0 takes the service's default (3).
    pub max_attempts: u32,
    /// The same id gives the same task; none makes one for this call.
    pub request_id: Option<String>,
}

/// A wish for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskWish {
    /// The queue.
    pub queue: String,
    /// Who asks: 1 to 128 characters of `A-Z a-z 0-9 _ - .`.
    pub worker: String,
    /// Length of the lease, 1 s to 600 s.
    pub ttl: Duration,
    /// How long to wait for a task, 0 to 30 s.
    pub wait: Duration,
}

impl CoordinatorClient {
    /// Calls over `channels` to who the directory shows; `local` is the address of this node's own
    /// coordinator, asked first.
    pub fn new(channels: Channels, directory: Directory, local: Option<String>) -> CoordinatorClient {
        CoordinatorClient { channels, route: Route::new(directory, local) }
    }

    /// Commits one change of a key.
    pub async fn propose(&self, change: Change, deadline: Duration) -> Result<Committed, Error> {
        let request = ProposeRequest {
            request_id: change.request_id.unwrap_or_else(request_id),
            key: change.key,
            value: change.value,
            expected_revision: change.expected_revision,
        };
        let call = |mut client: Client, request| async move { client.propose(request).await };
        let done = self.at_leader(request, deadline, TRY, call).await?;
        Ok(Committed { log_index: done.log_index, term: done.term, revision: done.revision })
    }

    /// Reads a key linearizably.
    pub async fn read(&self, key: &str, deadline: Duration) -> Result<Option<Found>, Error> {
        let request = ReadRequest { key: key.to_owned(), local: false };
        let call = |mut client: Client, request| async move { client.read(request).await };
        let answer = self.at_leader(request, deadline, TRY, call).await.map_err(read_error)?;
        Ok(answer.found.then_some(Found { value: answer.value, revision: answer.revision }))
    }

    /// Reads a key as the nearest coordinator has it: it may be behind.
    pub async fn read_local(&self, key: &str, deadline: Duration) -> Result<Option<Found>, Error> {
        let request = ReadRequest { key: key.to_owned(), local: true };
        let call = |mut client: Client, request| async move { client.read(request).await };
        let answer = self.anywhere(request, deadline, call).await.map_err(read_error)?;
        Ok(answer.found.then_some(Found { value: answer.value, revision: answer.revision }))
    }

    /// The group as the nearest coordinator sees it.
    pub async fn status(&self, deadline: Duration) -> Result<StatusResponse, Error> {
        let call = |mut client: Client, request| async move { client.status(request).await };
        self.anywhere(StatusRequest {}, deadline, call).await.map_err(read_error)
    }

    /// The group as the coordinator at `addr` sees it.
    pub async fn status_of(&self, addr: &str, deadline: Duration) -> Result<StatusResponse, Error> {
        let call = |mut client: Client, request| async move { client.status(request).await };
        let answer = self.once(addr, StatusRequest {}, deadline, &call).await;
        answer.map_err(|status| read_error(Error::of(&status)))
    }

    /// Adds a task; answers its id.
    pub async fn submit(&self, task: NewTask, deadline: Duration) -> Result<String, Error> {
        let request = SubmitRequest {
            request_id: task.request_id.unwrap_or_else(request_id),
            queue: task.queue,
            priority: task.priority,
            payload: task.payload,
            max_attempts: task.max_attempts,
        };
        let call = |mut client: Client, request| async move { client.submit(request).await };
        Ok(self.at_leader(request, deadline, TRY, call).await?.task_id)
    }

    /// Leases the next task of a queue; none when the queue stayed empty for `wish.wait`. The
    /// deadline is for all but the waiting.
    pub async fn lease(&self, wish: TaskWish, deadline: Duration) -> Result<Option<Task>, Error> {
        let request = LeaseRequest {
            queue: wish.queue,
            worker: wish.worker,
            ttl_ms: millis(wish.ttl),
            wait_ms: millis(wish.wait),
            request_id: request_id(),
        };
        let call = |mut client: Client, request| async move { client.lease(request).await };
        Ok(self.at_leader(request, deadline + wish.wait, TRY + wish.wait, call).await?.task)
    }

    /// Ends an attempt with its result, or with why it failed. Repeating it is harmless.
    pub async fn complete(
        &self,
        task_id: &str,
        fencing_token: u64,
        outcome: Result<Bytes, String>,
        deadline: Duration,
    ) -> Result<TaskState, Error> {
        let outcome = match outcome {
            Ok(result) => complete_request::Outcome::Result(result),
            Err(error) => complete_request::Outcome::Error(error),
        };
        let request = CompleteRequest { task_id: task_id.to_owned(), fencing_token, outcome: Some(outcome) };
        let call = |mut client: Client, request| async move { client.complete(request).await };
        Ok(self.at_leader(request, deadline, TRY, call).await?.state())
    }

    /// One task, linearizably; none when it is not known (any more).
    pub async fn get_task(&self, task_id: &str, deadline: Duration) -> Result<Option<Task>, Error> {
        let request = GetTaskRequest { task_id: task_id.to_owned() };
        let call = |mut client: Client, request| async move { client.get_task(request).await };
        match self.at_leader(request, deadline, TRY, call).await {
            Ok(answer) => Ok(answer.task),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(read_error(error)),
        }
    }

    /// Tries the leader, wherever it is, until the deadline. Every request is safe to repeat.
    async fn at_leader<Q, A, F, Fut>(
        &self,
        request: Q,
        deadline: Duration,
        try_for: Duration,
        call: F,
    ) -> Result<A, Error>
    where
        Q: Clone,
        F: Fn(Client, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let end = Instant::now() + deadline;
        let mut backoff = Backoff::random(PAUSE.0, PAUSE.1);
        let mut last = Error::Unavailable("no coordinator is known".into());
        for attempt in 0.. {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let mut hinted = false;
            if let Some(addr) = self.route.target(attempt) {
                match self.once(&addr, request.clone(), left.min(try_for), &call).await {
                    Ok(answer) => {
                        self.route.leads(&addr);
                        return Ok(answer);
                    }
                    Err(status) => {
                        hinted = self.learn(&addr, &status)?;
                        last = worse(last, Error::of(&status));
                    }
                }
            }
            // The first hint is followed at once; members that point at each other are not.
            if !(hinted && attempt == 0) {
                tokio::time::sleep(backoff.next().min(end.saturating_duration_since(Instant::now()))).await;
            }
        }
        Err(last)
    }

    /// Tries any coordinator, each known one at most twice.
    async fn anywhere<Q, A, F, Fut>(&self, request: Q, deadline: Duration, call: F) -> Result<A, Error>
    where
        Q: Clone,
        F: Fn(Client, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let end = Instant::now() + deadline;
        let mut backoff = Backoff::random(PAUSE.0, PAUSE.1);
        let mut last = Error::Unavailable("no coordinator is known".into());
        for attempt in 0.. {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if let Some(addr) = self.route.any(attempt) {
                match self.once(&addr, request.clone(), left.min(TRY), &call).await {
                    Ok(answer) => return Ok(answer),
                    Err(status) => {
                        last = Error::of(&status);
                        if !repeatable(&status) {
                            break;
                        }
                    }
                }
            }
            tokio::time::sleep(backoff.next().min(end.saturating_duration_since(Instant::now()))).await;
        }
        Err(last)
    }

    async fn once<Q, A, F, Fut>(&self, addr: &str, request: Q, time: Duration, call: &F) -> Result<A, Status>
    where
        F: Fn(Client, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let client = CoordinatorServiceClient::new(self.channels.get(addr));
        let client = client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        match tokio::time::timeout(time, call(client, with_deadline(request, time))).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(settle(status)),
            Err(_) => Err(Code::OutcomeUnknown.status(format!("{addr}: no answer in time"), &[])),
        }
    }

    /// Takes what a failure says about the leader. `Ok(true)`: it named another one. `Err`: there
    /// is no point in trying again.
    fn learn(&self, addr: &str, status: &Status) -> Result<bool, Error> {
        if !repeatable(status) {
            return Err(Error::of(status));
        }
        let now = Instant::now();
        if Code::of(status) != Code::NotLeader {
            self.route.silent(addr, now);
            return Ok(false);
        }
        let hint = detail(status, "leader_addr").filter(|hint| !hint.is_empty());
        Ok(self.route.moved(addr, hint, now))
    }
}

/// Whether another try, perhaps elsewhere, may succeed.
fn repeatable(status: &Status) -> bool {
    matches!(
        Code::of(status),
        Code::NotLeader | Code::Unavailable | Code::QuorumUnavailable | Code::OutcomeUnknown | Code::Internal
    )
}

/// Once a try may have been applied, a later clean failure does not make it undone.
fn worse(before: Error, now: Error) -> Error {
    if matches!(before, Error::Unknown(_)) { before } else { now }
}

/// A read changes nothing, so its outcome is never unknown.
fn read_error(error: Error) -> Error {
    match error {
        Error::Unknown(words) => Error::Unavailable(words),
        other => other,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
