//! Reads: as few owners as the consistency asked for needs, more when they do not suffice.

use super::{
    ATTEMPTS, Coordinator, Plan, Promises,
    peers::{Asked, Owner, seems_alive, seems_down},
};
use crate::{
    core::{
        quorum::{Copy, Quorum, Resolution, agreed, resolve},
        record::{Record, Version},
    },
    error::Fault,
    replica::Mode,
};
use proto::session as wire;
use session_client::SessionId;
use std::time::Duration;

/// What a read wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) consistency: wire::Consistency,
    pub(crate) token: Option<Version>,
    pub(crate) lease_holder: String,
    pub(crate) lease: Duration,
}

/// What a read found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) record: Option<Record>,
    pub(crate) stale: bool,
    pub(crate) lease: Duration,
}

/// A slow owner's word on a disagreement of the others is waited for this long; then it is settled
/// without it, which costs two round trips.
const TIE_PATIENCE: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Copies {
    copies: Vec<Copy>,
    leases: Vec<Duration>,
}

impl Copies {
    fn take(&mut self, owner: usize, answer: wire::ReadReplicaResponse) {
        if answer.lease_ms > 0 {
            self.leases.push(Duration::from_millis(answer.lease_ms));
        }
        self.copies.push(Copy { owner, record: stored(answer) });
    }

    /// The lease holds once as many owners granted it as meet every write quorum.
    fn lease(&self, quorum: Quorum) -> Duration {
        match self.leases.len() > quorum.owners - quorum.need {
            true => self.leases.iter().min().copied().unwrap_or_default(),
            false => Duration::ZERO,
        }
    }
}

impl Coordinator {
    /// Reads a session, ended or not.
    pub(crate) async fn get(
        &self,
        id: &SessionId,
        wanted: &Wanted,
        within: Duration,
    ) -> Result<Found, Fault> {
        let plan = self.plan(id, within);
        let leased = !wanted.lease_holder.is_empty() && !wanted.lease.is_zero();
        // A copy that seems to have ended may have missed a touch: more owners are asked.
        let now = self.now_ms();
        let quick = match wanted.consistency {
            _ if leased => None,
            wire::Consistency::Quorum => None,
            wire::Consistency::One => self.first_copy(&plan, id, |record| record.live(now)).await,
            // Only the very version that was acked is known to be decided; a later copy may be a
            // write that fails.
            _ => match &wanted.token {
                Some(token) => self.first_copy(&plan, id, |r| r.version == *token && r.live(now)).await,
                None => None,
            },
        };
        match quick {
            Some(record) => Ok(Found { record: Some(record), stale: false, lease: Duration::ZERO }),
            None => self.quorum_read(&plan, id, wanted).await,
        }
    }

    /// The copy of the first owner that answers, if it will do.
    async fn first_copy(
        &self,
        plan: &Plan,
        id: &SessionId,
        will_do: impl Fn(&Record) -> bool,
    ) -> Option<Record> {
        for owner in &plan.owners {
            let request = wire::ReadReplicaRequest { id: id.to_string(), ..Default::default() };
            if owner.local {
                // The hot path: no copy over the wire format.
                return self.replica.get(id.as_str()).filter(|record| will_do(record)).map(|r| (*r).clone());
            }
            let answer = self.peers.clone().read(owner.clone(), request, self.within(plan)).await;
            if let Ok(answer) = answer {
                return stored(answer).filter(will_do);
            }
        }
        None
    }

    async fn quorum_read(&self, plan: &Plan, id: &SessionId, wanted: &Wanted) -> Result<Found, Fault> {
        let started = self.clock.now();
        let need = plan.quorum.need;
        let found = self.copies(plan, id, wanted, need).await;
        let (lease, copies) = (found.lease(plan.quorum), found.copies);
        if copies.len() < need {
            return incomplete(copies, need);
        }
        self.metrics.quorum("read", self.seconds_since(started));
        let resolution = self.with_former(plan, id, resolve(copies, need)).await;
        if resolution.chosen {
            self.remember_behind(plan, &resolution);
            return Ok(Found { record: resolution.highest, stale: false, lease });
        }
        let found = self.confirm(plan, id, false).await;
        match found {
            Some(record) => Ok(Found { record, stale: false, lease }),
            None => Ok(Found { record: resolution.highest, stale: true, lease: Duration::ZERO }),
        }
    }

    /// Makes a quorum hold what the highest ballot says, so that no later read can miss it.
    /// `None` when no quorum can be brought to agree in time. With `anew` it is stored under a new
    /// ballot even if a quorum holds it: for an owner that promised a ballot which never came.
    pub(super) async fn confirm(&self, plan: &Plan, id: &SessionId, anew: bool) -> Option<Option<Record>> {
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.pause(attempt, plan).await;
            }
            if self.left(plan).is_zero() {
                return None;
            }
            let ballot = self.next_ballot(id);
            let found = match self.prepare(plan, id, &ballot).await {
                Promises::Given(found) => found,
                Promises::Refused => continue,
                Promises::Missing(_) => return None,
            };
            let Some(record) = found.highest else { return Some(None) };
            if found.chosen && !anew {
                return Some(Some(record));
            }
            let proposal = Record { ballot, ..record };
            let accepted = self.accept(plan, &proposal, Mode::Ballot, "").await;
            if accepted.tally.standing() == crate::core::quorum::Standing::Done {
                self.metrics.read_repair();
                return Some(Some(proposal));
            }
        }
        None
    }

    async fn copies(&self, plan: &Plan, id: &SessionId, wanted: &Wanted, need: usize) -> Copies {
        let request = wire::ReadReplicaRequest {
            id: id.to_string(),
            lease_holder: wanted.lease_holder.clone(),
            lease_ms: crate::config::millis(wanted.lease),
        };
        let within = self.within(plan);
        let ask = |owner: Owner| self.peers.clone().read(owner, request.clone(), within);
        let leased = !wanted.lease_holder.is_empty() && !wanted.lease.is_zero();
        let now = self.now_ms();
        let settled = |found: &Copies| {
            // What has ended gives no lease.
            let wanting = leased && found.copies.iter().any(|copy| copy.live(now));
            agreed(&found.copies, need) && (!wanting || !found.lease(plan.quorum).is_zero())
        };
        let mut found = Copies::default();
        for which in [seems_alive, seems_down] {
            let mut asked = Asked::begin(&plan.owners, which, ask);
            while !settled(&found) {
                let patience = if found.copies.len() < need { within } else { TIE_PATIENCE };
                let next = tokio::time::timeout(patience, asked.next()).await;
                let Ok(Some((owner, answer))) = next else { break };
                if let Ok(answer) = answer {
                    found.take(owner, answer);
                }
            }
            if found.copies.len() >= need {
                break;
            }
        }
        found
    }

    /// All copies that can be had, for a repair.
    pub(super) async fn all_copies(&self, plan: &Plan, id: &SessionId) -> Vec<Copy> {
        let wanted = Wanted::default();
        self.copies(plan, id, &wanted, plan.owners.len()).await.copies
    }

    /// After a move of the ring: what former owners hold counts if it is later.
    pub(super) async fn with_former(&self, plan: &Plan, id: &SessionId, found: Resolution) -> Resolution {
        let within = self.within(plan);
        let ask = |owner: Owner| {
            let request = wire::ReadReplicaRequest { id: id.to_string(), ..Default::default() };
            self.peers.clone().read(owner, request, within)
        };
        let mut asked = Asked::begin(&plan.former, |_| true, ask);
        let mut copies = Vec::new();
        while let Some((_, answer)) = asked.next().await {
            copies.extend(answer.ok().and_then(stored));
        }
        found.or_later(copies)
    }

    fn remember_behind(&self, plan: &Plan, resolution: &Resolution) {
        let Some(record) = &resolution.highest else { return };
        for owner in resolution.behind.iter().filter_map(|index| plan.owners.get(*index)) {
            self.hints.add(&owner.name, &record.id);
        }
    }
}

/// Fewer than a quorum: what they hold, marked; nothing at all is no proof that nothing exists.
fn incomplete(copies: Vec<Copy>, need: usize) -> Result<Found, Fault> {
    let have = copies.len();
    match resolve(copies, need).highest {
        Some(record) => Ok(Found { record: Some(record), stale: true, lease: Duration::ZERO }),
        None => Err(Fault::Quorum { have, need }),
    }
}

fn stored(answer: wire::ReadReplicaResponse) -> Option<Record> {
    let session = answer.session.filter(|_| answer.found)?;
    Some(Record::from_wire(session, answer.ballot, answer.recent))
}
