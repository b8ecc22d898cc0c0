//! Many writes in few messages.

use crate::{
    Error, RegistryClient,
    client::{self, Stub},
};
use kit::rpc::{MAX_MESSAGE, with_deadline};
use prost::Message;
use proto::{
    ids,
    registry::{
        DeregisterBatchRequest, DeregisterRequest, DeregisterResponse, Kind, RegisterBatchRequest,
        RegisterRequest, RegisterResponse, Registration, deregister_outcome, register_outcome,
    },
};
use std::time::Duration;

/// For one message at one instance: ten thousand entries are one or a few commits of a disk.
const DEADLINE: Duration = Duration::from_secs(10);
const ENTRIES_MAX: usize = 10_000;
/// Half of the longest message: an answer may be longer than its request.
const BYTES_MAX: usize = MAX_MESSAGE / 2;

impl RegistryClient {
    /// Registers many names; answers each in its place, as [`RegistryClient::register`] would.
    /// Registrations of one name are decided in their order.
    pub async fn register_batch(
        &self,
        registrations: Vec<Registration>,
        replace: bool,
    ) -> Vec<Result<RegisterResponse, Error>> {
        let new = registrations.into_iter().map(|registration| (registration, 0)).collect();
        self.register_each(new, replace, DEADLINE).await
    }

    /// Registers ephemeral names whose leases the registry lost, each with its lost lease: they go
    /// before new work. Given up as soon as one call, so that renewals do not wait behind it.
    pub(crate) async fn register_again(
        &self,
        lost: Vec<(Registration, u64)>,
    ) -> Vec<Result<RegisterResponse, Error>> {
        self.register_each(lost, true, client::DEADLINE).await
    }

    async fn register_each(
        &self,
        wanted: Vec<(Registration, u64)>,
        replace: bool,
        deadline: Duration,
    ) -> Vec<Result<RegisterResponse, Error>> {
        let entry = |(registration, lost_lease_id): (Registration, u64)| RegisterRequest {
            request_id: ids::request_id(),
            ttl_ms: registration.ttl_ms,
            registration: Some(registration),
            replace,
            lost_lease_id,
        };
        let mut all = Vec::with_capacity(wanted.len());
        for entries in messages(wanted.into_iter().map(entry)) {
            let count = entries.len();
            let request = RegisterBatchRequest { entries };
            let call = |mut stub: Stub, left| {
                let request = with_deadline(request.clone(), left);
                async move { stub.register_batch(request).await }
            };
            let answer = self.anywhere_within(deadline, call).await;
            let outcomes = answer.map(|answer| answer.outcomes.into_iter().map(|outcome| outcome.outcome));
            all.extend(in_place(count, outcomes, |outcome| match outcome {
                register_outcome::Outcome::Registered(registered) => Ok(registered),
                register_outcome::Outcome::Error(error) => Err(error.into()),
            }));
        }
        all
    }

    /// Frees many names of one owner, or whoever's with `force`; answers each in its place.
    /// `kind` is for properties and counters, else `Kind::Unspecified`.
    pub async fn deregister_batch(
        &self,
        kind: Kind,
        names: Vec<String>,
        owner: &str,
        force: bool,
    ) -> Vec<Result<DeregisterResponse, Error>> {
        let entry = |name| DeregisterRequest {
            request_id: ids::request_id(),
            name,
            owner: owner.to_owned(),
            force,
            kind: kind.into(),
        };
        let mut all = Vec::with_capacity(names.len());
        for entries in messages(names.into_iter().map(entry)) {
            let count = entries.len();
            let request = DeregisterBatchRequest { entries };
            let call = |mut stub: Stub, left| {
                let request = with_deadline(request.clone(), left);
                async move { stub.deregister_batch(request).await }
            };
            let answer = self.anywhere_within(DEADLINE, call).await;
            let outcomes = answer.map(|answer| answer.outcomes.into_iter().map(|outcome| outcome.outcome));
            all.extend(in_place(count, outcomes, |outcome| match outcome {
                deregister_outcome::Outcome::Deregistered(freed) => Ok(freed),
                deregister_outcome::Outcome::Error(error) => Err(error.into()),
            }));
        }
        all
    }
}

/// One answer for each entry: its own, or what became of the whole message.
fn in_place<O, T>(
    count: usize,
    outcomes: Result<impl Iterator<Item = Option<O>>, Error>,
    read: impl Fn(O) -> Result<T, Error>,
) -> Vec<Result<T, Error>> {
    let missing = || Error::Unknown("the registry did not answer this entry".into());
    match outcomes {
        Ok(outcomes) => {
            let answers = outcomes.map(|outcome| outcome.map_or_else(|| Err(missing()), &read));
            answers.chain(std::iter::repeat_with(|| Err(missing()))).take(count).collect()
        }
        Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
    }
}

/// Entries spread over messages that the registry takes, in their order.
pub(crate) fn messages<T: Message>(entries: impl IntoIterator<Item = T>) -> Vec<Vec<T>> {
    let (mut all, mut bytes): (Vec<Vec<T>>, usize) = (Vec::new(), 0);
    for entry in entries {
        // With the tag and the length that stand before each.
        let size = entry.encoded_len() + 8;
        match all.last_mut().filter(|last| last.len() < ENTRIES_MAX && bytes + size <= BYTES_MAX) {
            Some(last) => {
                bytes += size;
                last.push(entry);
            }
            None => {
                bytes = size;
                all.push(vec![entry]);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_hold_as_many_as_are_taken_and_keep_the_order() {
        let entry = |name: String| DeregisterRequest { name, ..DeregisterRequest::default() };
        let many = messages((0..25_000).map(|n| entry(n.to_string())));
        assert_eq!(many.iter().map(Vec::len).collect::<Vec<_>>(), [10_000, 10_000, 5_000]);
        assert!(
            many.into_iter().flatten().map(|entry| entry.name).eq((0..25_000).map(|n: u32| n.to_string()))
        );
        let large = messages((0..10).map(|_| entry("x".repeat(BYTES_MAX / 3))));
        assert_eq!(large.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2, 2, 2]);
        assert!(messages(Vec::<DeregisterRequest>::new()).is_empty());
    }

    #[test]
    fn an_entry_without_an_answer_is_unknown_and_a_failed_message_fails_each() {
        let answered = in_place(3, Ok([Some(1), None].into_iter()), Ok);
        assert_eq!(answered[0], Ok(1));
        assert!(answered[1..].iter().all(|answer| matches!(answer, Err(Error::Unknown(_)))));
        let failed = Err::<std::iter::Empty<Option<u8>>, _>(Error::Unavailable("down".into()));
        assert_eq!(in_place(2, failed, Ok), vec![Err(Error::Unavailable("down".into())); 2]);
    }
}
