//! The loop that founds the group once and then keeps its members what the directory shows.

use crate::{
    core::bootstrap::{Candidate, first_voters, next_change},
    raft::{
        log_store::LogStore,
        node::{Node, Role},
        peers::Peers,
    },
};
use kit::Shutdown;
use std::{collections::BTreeSet, time::Duration};

/// Between two looks while nobody leads.
const SEARCH: Duration = Duration::from_millis(200);
/// Between two looks otherwise; a change of the directory is seen at once.
const WATCH: Duration = Duration::from_secs(2);

/// Everything the loop needs.
#[derive(Clone)]
pub(crate) struct Membership {
    /// This member.
    pub(crate) node: Node,
    /// The instances.
    pub(crate) peers: Peers,
    /// Where this member's history is.
    pub(crate) store: LogStore,
    /// Instances to wait for before the group is founded.
    pub(crate) expect: u32,
    /// When to stop.
    pub(crate) shutdown: Shutdown,
}

impl Membership {
    /// Runs until the shutdown.
    pub(crate) async fn run(self) {
        let mut directory = self.peers.directory();
        loop {
            let stopping = self.shutdown.clone();
            let look = async {
                self.peers.refresh().await;
                self.step().await;
                let pause = if self.node.status().leader.is_some() { WATCH } else { SEARCH };
                let _ = tokio::time::timeout(pause, directory.changed()).await;
            };
            tokio::select! {
                () = stopping.wait() => return,
                () = look => {}
            }
        }
    }

    async fn step(&self) {
        let members = self.node.members();
        let founded = !members.voters.is_empty();
        if founded && self.node.status().role != Role::Leader {
            return;
        }
        let known: BTreeSet<u64> = members.names.keys().copied().collect();
        let mut seen = self.peers.candidates(&known).await;
        seen.push(self.own());
        if founded {
            if let Some(change) = next_change(&members, &seen) {
                tracing::info!(?change, "changing members");
                log_failure("members not changed", self.node.change(&change).await);
            }
        } else if let Some(voters) = first_voters(self.node.id(), self.expect, &seen) {
            tracing::info!(?voters, "founding the group");
            log_failure("group not founded", self.node.initialize(&voters).await);
        }
    }

    fn own(&self) -> Candidate {
        let own = self.peers.own();
        Candidate { raft_id: own.raft_id, name: own.name.clone(), pristine: self.store.pristine() }
    }
}

fn log_failure(what: &str, result: Result<(), String>) {
    if let Err(why) = result {
        tracing::warn!(why, "{what}");
    }
}
