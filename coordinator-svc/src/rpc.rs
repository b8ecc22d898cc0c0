//! The gRPC handlers: decode, call the desk, encode.

use crate::{
    core::command::{Command, Invalid},
    desk::{Desk, LeaseWish, value},
    error::Refusal,
    wire,
};
use proto::{
    coordinator::{
        CompleteRequest, CompleteResponse, GetTaskRequest, GetTaskResponse, LeaseRequest, LeaseResponse,
        ProposeRequest, ProposeResponse, ReadRequest, ReadResponse, StatusRequest, StatusResponse,
        SubmitRequest, SubmitResponse, complete_request, coordinator_service_server::CoordinatorService,
    },
    error::Code,
};
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status, async_trait, metadata::MetadataMap};

/// A call may ask for no more time than this.
const CALL_MAX: Duration = Duration::from_secs(60);

/// The handlers.
pub(crate) struct Handler {
    desk: Desk,
    instance: String,
}

impl Handler {
    /// Handlers in front of a desk.
    pub(crate) fn new(desk: Desk, instance: String) -> Handler {
        Handler { desk, instance }
    }

    fn end<T>(&self, request: &Request<T>) -> Instant {
        self.desk.now() + time_of(request.metadata())
    }
}

#[async_trait]
impl CoordinatorService for Handler {
    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        let end = self.end(&request);
        let ProposeRequest { request_id, key, value, expected_revision } = request.into_inner();
        let command = Command::put(request_id, key, value, expected_revision).map_err(Refusal::from)?;
        let (written, revision) = self.desk.put(command, end).await?;
        Ok(Response::new(ProposeResponse { log_index: written.index, term: written.term, revision }))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let end = self.end(&request);
        let ReadRequest { key, local } = request.into_inner();
        let (found, applied_index) = self.desk.read(&key, local, end).await?;
        let revision = found.as_ref().map_or(0, |found| found.revision);
        Ok(Response::new(ReadResponse {
            found: found.is_some(),
            value: value(&found),
            revision,
            applied_index,
        }))
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(wire::status(self.desk.status(), &self.instance)))
    }

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        let end = self.end(&request);
        let SubmitRequest { request_id, queue, priority, payload, max_attempts } = request.into_inner();
        let command =
            Command::submit(request_id, queue, priority, payload, max_attempts).map_err(Refusal::from)?;
        let task = self.desk.submit(command, end).await?;
        Ok(Response::new(SubmitResponse { task_id: task.to_string() }))
    }

    async fn lease(&self, request: Request<LeaseRequest>) -> Result<Response<LeaseResponse>, Status> {
        let end = self.end(&request);
        let LeaseRequest { queue, worker, ttl_ms, wait_ms, request_id } = request.into_inner();
        let wish = LeaseWish { request_id, queue, worker, ttl_ms, wait: Duration::from_millis(wait_ms) };
        let task = self.desk.lease(wish, end).await?;
        let ttl_ms = task.as_ref().map_or(0, |task| task.ttl_ms);
        Ok(Response::new(LeaseResponse { task: task.map(|task| wire::task(&task)), ttl_ms }))
    }

    async fn complete(
        &self,
        request: Request<CompleteRequest>,
    ) -> Result<Response<CompleteResponse>, Status> {
        let end = self.end(&request);
        let CompleteRequest { task_id, fencing_token, outcome } = request.into_inner();
        let outcome = match outcome {
            Some(complete_request::Outcome::Result(result)) => Ok(result),
            Some(complete_request::Outcome::Error(error)) => Err(error),
            None => return Err(Refusal::from(Invalid("outcome is missing: result or error".into())).into()),
        };
        let command = Command::complete(&task_id, fencing_token, outcome).map_err(Refusal::from)?;
        let state = self.desk.complete(command, end).await?;
        Ok(Response::new(CompleteResponse { state: wire::task_state(state).into() }))
    }

    async fn get_task(&self, request: Request<GetTaskRequest>) -> Result<Response<GetTaskResponse>, Status> {
        let end = self.end(&request);
        let id = request.into_inner().task_id;
        let task = self.desk.task(&id, end).await?;
        let task = task.ok_or_else(|| Code::NotFound.status(format!("no task {id}"), &[]))?;
        Ok(Response::new(GetTaskResponse { task: Some(wire::task(&task)) }))
    }
}

/// The time that the caller gives (`grpc-timeout`), a little less so that our answer is first.
fn time_of(metadata: &MetadataMap) -> Duration {
    let text = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok());
    let given = text.and_then(parse_timeout).unwrap_or(CALL_MAX).min(CALL_MAX);
    given - given / 20
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(number.saturating_mul(60))),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_time_is_read_in_every_unit() {
        assert_eq!(parse_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(parse_timeout("1500000u"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_timeout("7n"), Some(Duration::from_nanos(7)));
        for bad in ["", "S", "2", "2x", "ä"] {
            assert_eq!(parse_timeout(bad), None, "{bad:?}");
        }
    }
}
