//! Sessions kept in session-svc.

use super::store::{Event, Replayed, SessionStore, StoreError, Stored, Version};
use async_trait::async_trait;
use bytes::Bytes;
use session_client::{Binding, Read, SessionClient, SessionError, SessionId};
use std::time::Duration;

/// Calls session-svc through its client; leases are in the name of this edge.
pub(crate) struct ServiceStore {
    client: SessionClient,
    edge: String,
}

impl ServiceStore {
    /// A store for the edge named `edge`.
    pub(crate) fn new(client: SessionClient, edge: String) -> Self {
        ServiceStore { client, edge }
    }
}

/// There are no tenants yet: one, without a name.
fn binding(principal: &str) -> Binding {
    Binding { tenant: String::new(), principal: principal.to_owned() }
}

fn parse(id: &str) -> Result<SessionId, StoreError> {
    id.parse().map_err(|_| StoreError::NotFound)
}

#[async_trait]
impl SessionStore for ServiceStore {
    fn mint(&self) -> String {
        self.client.mint().into()
    }

    fn valid(&self, id: &str) -> bool {
        id.parse::<SessionId>().is_ok()
    }

    async fn create(
        &self,
        id: &str,
        principal: &str,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Version, StoreError> {
        let created = self.client.create(&parse(id)?, &binding(principal), value, ttl).await;
        Ok(created.map_err(translate)?.version)
    }

    async fn get(&self, id: &str, principal: &str, lease: Option<Duration>) -> Result<Stored, StoreError> {
        let read = lease.map_or_else(Read::quorum, |lease| Read::leased(&self.edge, lease));
        let fetched = self.client.get(id, &binding(principal), &read).await.map_err(translate)?;
        Ok(Stored {
            version: fetched.session.version.unwrap_or_default(),
            value: fetched.session.value,
            lease_until: fetched.lease_until,
        })
    }

    async fn put(
        &self,
        id: &str,
        principal: &str,
        expected: &Version,
        value: Bytes,
    ) -> Result<Version, StoreError> {
        self.client.put(id, &binding(principal), expected, value).await.map_err(translate)
    }

    async fn touch(&self, ids: Vec<String>) -> Result<Vec<String>, StoreError> {
        self.client.touch(ids).await.map_err(translate)
    }

    async fn delete(&self, id: &str, principal: &str) -> Result<(), StoreError> {
        self.client.delete(id, &binding(principal), &self.edge).await.map_err(translate)
    }

    async fn append(&self, id: &str, stream: &str, epoch: u64, events: Vec<Event>) -> Result<(), StoreError> {
        self.client.append(id, stream, epoch, events).await.map_err(translate)
    }

    async fn replay(
        &self,
        id: &str,
        stream: &str,
        after: u64,
        fence: Option<u64>,
    ) -> Result<Replayed, StoreError> {
        let replayed = self.client.replay(id, stream, after, fence).await.map_err(translate)?;
        Ok(Replayed {
            events: replayed.events,
            first_sequence: replayed.first_sequence,
            last_sequence: replayed.last_sequence,
            known: replayed.known,
        })
    }
}

fn translate(error: SessionError) -> StoreError {
    match error {
        SessionError::NotFound => StoreError::NotFound,
        SessionError::VersionMismatch { .. } => StoreError::Mismatch,
        SessionError::Fenced { epoch } => StoreError::Fenced(epoch),
        SessionError::Unavailable(why) => StoreError::Unavailable(why),
        SessionError::Unknown(why) => StoreError::Unknown(why),
        SessionError::Other(status) => StoreError::Other(status.message().to_owned()),
    }
}
