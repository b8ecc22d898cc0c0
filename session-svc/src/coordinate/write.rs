//! Create, put and delete: two rounds of a ballot, or one for a fresh id.

use super::{ATTEMPTS, Accepted, Coordinator, Plan, Promises};
use crate::{
    core::{
        change::{Change, Decision, Kind, Rejection},
        quorum::Standing,
        record::{Record, Version},
    },
    error::Fault,
    replica::Mode,
};
use session_client::SessionId;
use std::time::Duration;

/// A write that is done.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) version: Version,
    pub(crate) acks: usize,
    pub(crate) lease_remaining: Duration,
}

/// What a proposal is for.
enum Goal {
    /// The change itself.
    Change(Box<Record>),
    /// Making sure of what was found, before an answer that rests on it.
    Confirm(Result<Version, Fault>),
}

impl Coordinator {
    /// The first state of a fresh id needs no promise: nobody else proposes for it. If anything is
    /// in the way, the full protocol decides.
    pub(crate) async fn create(
        &self,
        id: &SessionId,
        change: &Change,
        within: Duration,
    ) -> Result<Changed, Fault> {
        let plan = self.plan(id, within);
        let first = change.decide(None, self.now_ms(), None);
        let (Decision::Write(record), true) = (first, plan.alive() >= plan.quorum.need) else {
            return self.propose(&plan, id, change, None, "").await;
        };
        let accepted = self.accept(&plan, &record, Mode::Create, "").await;
        match accepted.tally.standing() {
            Standing::Done => Ok(done(record.version, &accepted)),
            Standing::Failed if accepted.fault.is_some() => Err(refusal(accepted)),
            Standing::Failed => self.propose(&plan, id, change, None, "").await,
            _ => self.propose(&plan, id, change, Some(record.version), "").await,
        }
    }

    /// Put or delete.
    pub(crate) async fn change(
        &self,
        id: &SessionId,
        change: &Change,
        lease_holder: &str,
        within: Duration,
    ) -> Result<Changed, Fault> {
        let plan = self.plan(id, within);
        self.propose(&plan, id, change, None, lease_holder).await
    }

    /// Waits until no holder of a lease serves the session any more (K27).
    pub(crate) async fn outlast(&self, leases: Duration, within: Duration) -> Result<(), Fault> {
        tokio::time::sleep(leases.min(within)).await;
        match leases > within {
            true => Err(Fault::Unknown("deleted, but a lease outlasts the deadline")),
            false => Ok(()),
        }
    }

    async fn propose(
        &self,
        plan: &Plan,
        id: &SessionId,
        change: &Change,
        mut tried: Option<Version>,
        lease_holder: &str,
    ) -> Result<Changed, Fault> {
        let mut have = 0;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.pause(attempt, plan).await;
            }
            if self.left(plan).is_zero() {
                break;
            }
            let ballot = self.next_ballot(id);
            let found = match self.prepare(plan, id, &ballot).await {
                Promises::Given(found) => found,
                Promises::Refused => continue,
                Promises::Missing(answered) => {
                    have = answered;
                    break;
                }
            };
            let decision = change.decide(found.highest.as_ref(), self.now_ms(), tried.as_ref());
            let goal = match goal(decision) {
                Goal::Confirm(end) if found.chosen && !matters_to_leases(change, &end) => {
                    return end.map(|version| Changed {
                        version,
                        acks: plan.quorum.need,
                        lease_remaining: Duration::ZERO,
                    });
                }
                goal => goal,
            };
            let proposal = match (&goal, found.highest) {
                (Goal::Change(record), _) => Record { ballot, ..(**record).clone() },
                (Goal::Confirm(_), Some(record)) => Record { ballot, ..record },
                (Goal::Confirm(_), None) => continue,
            };
            let accepted = self.accept(plan, &proposal, Mode::Ballot, lease_holder).await;
            match (accepted.tally.standing(), goal) {
                (Standing::Done, Goal::Change(record)) => return Ok(done(record.version, &accepted)),
                (Standing::Done, Goal::Confirm(end)) => return end.map(|version| done(version, &accepted)),
                (Standing::Failed, _) if accepted.fault.is_some() && tried.is_none() => {
                    return Err(refusal(accepted));
                }
                (Standing::Failed, _) | (_, Goal::Confirm(_)) => {}
                (_, Goal::Change(record)) => tried = Some(record.version),
            }
        }
        match tried {
            Some(_) => Err(Fault::Unknown("some owner may hold it, no quorum confirmed it")),
            None => Err(Fault::Quorum { have, need: plan.quorum.need }),
        }
    }
}

fn goal(decision: Decision) -> Goal {
    match decision {
        Decision::Write(record) => Goal::Change(record),
        Decision::Done(version) => Goal::Confirm(Ok(version)),
        Decision::Reject(Rejection::NotFound) => Goal::Confirm(Err(Fault::NotFound)),
        Decision::Reject(Rejection::Mismatch(current)) => Goal::Confirm(Err(Fault::Mismatch(current))),
        Decision::Reject(Rejection::Undecidable) => {
            Goal::Confirm(Err(Fault::Unknown("others wrote since an attempt that may have been applied")))
        }
    }
}

/// A repeated delete still has to hear how long the leases last.
fn matters_to_leases(change: &Change, end: &Result<Version, Fault>) -> bool {
    matches!(change.kind, Kind::Delete) && end.is_ok()
}

fn done(version: Version, accepted: &Accepted) -> Changed {
    Changed { version, acks: accepted.tally.applied(), lease_remaining: accepted.lease_remaining }
}

fn refusal(accepted: Accepted) -> Fault {
    accepted.fault.unwrap_or(Fault::Unknown("no owner said why"))
}
