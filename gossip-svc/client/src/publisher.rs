//! Publishes what the node announces, under a lease.

use crate::{GossipClient, LEASE, RENEWAL};
use kit::{
    directory::{Announce, Instance, State},
    shutdown::Shutdown,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::MissedTickBehavior;

/// Longest wait for the last word at the stop.
const LAST_WORD: Duration = Duration::from_millis(500);

/// What is published, and through whom.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    pub(crate) client: GossipClient,
    pub(crate) announce: Announce,
}

/// Renews each second and at every change, until the node stops.
pub(crate) async fn run(mut publisher: Publisher, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = BTreeMap::new();
    let mut failing = false;
    loop {
        tokio::select! {
            biased;
            () = shutdown.wait() => break,
            () = publisher.announce.changed() => {}
            _ = ticks.tick() => {}
        }
        let result = publisher.renew(&mut known).await;
        if let (Err(status), false) = (&result, failing) {
            tracing::warn!(reason = status.message(), "services are not published; trying again each second");
        }
        failing = result.is_err();
    }
    let last_word = publisher.say_down(known);
    if tokio::time::timeout(LAST_WORD, last_word).await.is_err() {
        tracing::debug!("gossip did not take the last word; the lease runs out by itself");
    }
}

type Known = BTreeMap<(String, String), Instance>;

impl Publisher {
    /// Publishes all that is announced, and withdraws what no longer is.
    async fn renew(&self, known: &mut Known) -> Result<(), tonic::Status> {
        let current: Known =
            self.announce.current().into_iter().map(|i| ((i.service.clone(), i.name.clone()), i)).collect();
        let gone = known.iter().filter(|(key, _)| !current.contains_key(*key));
        let gone: Vec<_> = gone.map(|(_, instance)| instance.clone()).collect();
        if current.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let services: Vec<_> = current.values().cloned().collect();
        // What may have been published must be withdrawn later, even if this call fails.
        known.extend(current.clone());
        self.client.publish(&services, &gone, LEASE).await?;
        *known = current;
        Ok(())
    }

    /// A stopped service is down at once instead of at the end of its lease; it keeps its place.
    async fn say_down(&self, known: Known) {
        let down: Vec<_> = known.into_values().map(|i| Instance { state: State::Down, ..i }).collect();
        if down.is_empty() {
            return;
        }
        if let Err(status) = self.client.publish(&down, &[], LEASE).await {
            tracing::debug!(reason = status.message(), "gossip did not take the last word");
        }
    }
}
