//! Bringing owners what they miss: after a write that went on without them, after their return,
//! after the ring moved. Only what is stored under a ballot is copied, so nothing is decided here.

use super::{Coordinator, Plan};
use crate::{
    config::millis,
    core::{
        quorum::{Copy, resolve},
        record::Record,
    },
    door::event,
    replica::Mode,
};
use proto::session as wire;
use session_client::SessionId;
use std::time::Duration;

const REPAIR_DEADLINE: Duration = Duration::from_secs(2);

impl Coordinator {
    /// Brings a session's last state to every owner that lacks it. True when all have it.
    pub(crate) async fn repair(&self, id: &str) -> bool {
        let Ok(id) = id.parse::<SessionId>() else { return true };
        let plan = self.plan(&id, REPAIR_DEADLINE);
        let mut copies = self.all_copies(&plan, &id).await;
        let answered = copies.len();
        // A former owner's copy counts too: it may be the only one left of a chosen state.
        if let Some(record) = self.replica.get(id.as_str()) {
            copies.push(Copy { owner: usize::MAX, record: Some((*record).clone()) });
        }
        let held: Vec<usize> = copies.iter().map(|copy| copy.owner).collect();
        let resolution = resolve(copies, plan.quorum.need);
        let Some(record) = resolution.highest else {
            self.settle_all(&plan, &id);
            return answered == plan.owners.len();
        };
        let mut complete = answered == plan.owners.len();
        for (index, owner) in plan.owners.iter().enumerate() {
            if !held.contains(&index) {
                continue;
            }
            if resolution.behind.contains(&index) && !self.bring(&plan, index, &record).await {
                complete = false;
                continue;
            }
            self.hints.settle(&owner.name, id.as_str());
        }
        if !complete && answered == plan.owners.len() {
            // Every owner answers, yet one would not take the copy: it promised a later ballot.
            return matches!(self.confirm(&plan, &id, true).await, Some(Some(_)));
        }
        complete
    }

    /// After a move of the ring or the return of an owner: repairs a session held here, brings its
    /// logs along, and drops it if this instance does not own it any more.
    pub(crate) async fn hand_over(&self, record: &Record, to: Option<&str>) {
        let Ok(id) = record.id.parse::<SessionId>() else { return };
        let plan = self.plan(&id, REPAIR_DEADLINE);
        let mine = plan.owners.iter().any(|owner| owner.local);
        let wanted = |name: &str| to.is_none_or(|to| to == name);
        if mine && !plan.owners.iter().any(|owner| !owner.local && wanted(&owner.name)) {
            return;
        }
        let complete = self.repair(id.as_str()).await;
        let logs = self.bring_logs(&plan, id.as_str(), wanted).await;
        if !mine && complete && logs {
            self.drop_quietly(record).await;
        }
    }

    /// A session whose end and grace have passed goes once every owner says the same; an owner
    /// that is away may hold a longer life or a later state.
    pub(crate) async fn reap(&self, record: &Record) {
        let Ok(id) = record.id.parse::<SessionId>() else { return };
        let plan = self.plan(&id, REPAIR_DEADLINE);
        let copies = self.all_copies(&plan, &id).await;
        if copies.len() < plan.owners.len() {
            return;
        }
        let (now, grace) = (self.now_ms(), millis(self.config.grace));
        let ended = |copy: &Copy| copy.record.as_ref().is_none_or(|other| other.reapable(now, grace));
        match copies.iter().all(ended) {
            true => self.drop_quietly(record).await,
            false => {
                self.repair(&record.id).await;
            }
        }
    }

    async fn bring(&self, plan: &Plan, index: usize, record: &Record) -> bool {
        let Some(owner) = plan.owners.get(index) else { return false };
        let mut request = super::write_request(record, Mode::Ballot, "");
        request.repair = true;
        let answer = self.peers.clone().write(owner.clone(), request, self.within(plan)).await;
        let applied = answer.is_ok_and(|answer| answer.applied);
        if applied {
            self.metrics.read_repair();
        }
        applied
    }

    async fn bring_logs(&self, plan: &Plan, id: &str, wanted: impl Fn(&str) -> bool) -> bool {
        let mut complete = true;
        for (stream, view) in self.replica.logs.streams(id) {
            let events: Vec<wire::Event> = view.entries.into_iter().map(event).collect();
            for owner in plan.owners.iter().filter(|owner| !owner.local && wanted(&owner.name)) {
                let request = wire::AppendReplicaRequest {
                    session_id: id.to_owned(),
                    stream: stream.clone(),
                    epoch: view.epoch,
                    events: events.clone(),
                };
                let answer = self.peers.clone().append(owner.clone(), request, self.within(plan)).await;
                complete &= answer.is_ok();
            }
        }
        complete
    }

    async fn drop_quietly(&self, record: &Record) {
        if let Err(error) = self.replica.drop_state(record).await {
            tracing::warn!(%error, "an ended session is kept");
        }
    }

    fn settle_all(&self, plan: &Plan, id: &SessionId) {
        for owner in &plan.owners {
            self.hints.settle(&owner.name, id.as_str());
        }
    }
}
