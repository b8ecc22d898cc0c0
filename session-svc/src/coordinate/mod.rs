//! Any instance coordinates any session: it asks the owners and counts their answers.

mod bulk;
mod hints;
mod logs;
mod peers;
mod read;
mod repair;
mod rings;
mod write;

pub(crate) use read::Wanted;

use crate::{
    config::Config,
    core::{
        quorum::{Copy, Quorum, Reply, Resolution, Standing, Tally, resolve},
        record::{Ballot, Record},
    },
    door::Door,
    error::Fault,
    events::Facts,
    metrics::Metrics,
    replica::{Mode, Replica},
};
use arc_swap::ArcSwap;
use hints::Hints;
use kit::{Clock, Context, Directory, Instance, State};
use peers::{Asked, Owner, Peers, seems_alive, seems_down};
use proto::{error::Code, session as wire};
use rings::Rings;
use session_client::{Ring, SERVICE, SessionId};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tonic::Status;

/// Tries of a proposal that others overtake.
const ATTEMPTS: u32 = 24;

/// Coordinates sessions from one instance.
pub(crate) struct Coordinator {
    pub(crate) config: Config,
    pub(crate) replica: Arc<Replica>,
    pub(crate) hints: Arc<Hints>,
    pub(crate) metrics: Metrics,
    pub(crate) facts: Facts,
    me: Instance,
    expect: usize,
    clock: Arc<dyn Clock>,
    directory: Directory,
    peers: Peers,
    rings: ArcSwap<Rings>,
    /// No round below it is worth a try.
    round: AtomicU64,
    nonce: AtomicU64,
}

/// Whom to ask, how many must answer, and until when.
pub(crate) struct Plan {
    owners: Vec<Owner>,
    /// Owners before the ring moved, while sessions may still be on their way from them.
    former: Vec<Owner>,
    quorum: Quorum,
    end: Instant,
}

impl Plan {
    fn alive(&self) -> usize {
        self.owners.iter().filter(|owner| seems_alive(owner)).count()
    }
}

/// The answer to a round of prepares.
enum Promises {
    /// A quorum promised; this is what it holds.
    Given(Box<Resolution>),
    /// A later ballot is in force.
    Refused,
    /// Too few answered.
    Missing(usize),
}

/// The answer to a round of writes.
struct Accepted {
    tally: Tally,
    lease_remaining: Duration,
    fault: Option<Fault>,
}

impl Coordinator {
    pub(crate) fn new(config: Config, ctx: &Context, replica: Arc<Replica>, metrics: Metrics) -> Self {
        let me = ctx.instance(SERVICE);
        let rings = Rings::alone(&me, config.replication_factor);
        Coordinator {
            peers: Peers { door: Door::new(replica.clone()), channels: ctx.channels.clone() },
            facts: Facts::new(ctx),
            hints: Arc::default(),
            expect: ctx.expect as usize,
            clock: ctx.clock.clone(),
            directory: ctx.directory.clone(),
            rings: ArcSwap::from_pointee(rings),
            round: AtomicU64::new(1),
            nonce: AtomicU64::new(0),
            config,
            replica,
            metrics,
            me,
        }
    }

    /// Builds the ring anew from the directory; answers it if it changed.
    pub(crate) fn rebuild_ring(&self) -> Option<Arc<Ring>> {
        let (all, now) = (self.directory.all(), self.clock.now());
        let rings = self.rings.load();
        let moved = rings.follow(&self.me, &all, self.config.replication_factor, now)?;
        let ring = moved.current.clone();
        self.rings.store(Arc::new(moved));
        Some(ring)
    }

    pub(crate) fn ring(&self) -> Arc<Ring> {
        self.rings.load().current.clone()
    }

    /// Members that seem alive and how many a write needs.
    pub(crate) fn strength(&self) -> (usize, usize) {
        let ring = self.ring();
        let alive = ring.members().iter().filter(|member| seems_alive(&self.owner(&member.name))).count();
        (alive, self.quorum(&ring).need)
    }

    pub(crate) fn instance_state(&self, name: &str) -> State {
        self.owner(name).state
    }

    fn quorum(&self, ring: &Ring) -> Quorum {
        Quorum::of(self.config.replication_factor, ring.members().len(), self.expect)
    }

    /// Owners of a session: this instance first, then by how alive they seem, then as the ring says.
    fn plan(&self, id: &SessionId, within: Duration) -> Plan {
        let (rings, now) = (self.rings.load(), self.clock.now());
        let ring = &rings.current;
        let mut owners: Vec<Owner> = ring.owners_of(id).map(|member| self.owner(&member.name)).collect();
        owners.sort_by_key(|owner| match owner.state {
            _ if owner.local => 0,
            State::Up => 1,
            State::Suspect => 2,
            State::Down => 3,
        });
        let former = rings.former_owners(id, now).into_iter().map(|name| self.owner(name));
        let former = former.filter(seems_alive).collect();
        Plan { owners, former, quorum: self.quorum(ring), end: now + within }
    }

    fn owner(&self, name: &str) -> Owner {
        let local = name == self.me.name;
        let found = if local { None } else { self.directory.get(SERVICE, name) };
        let (addr, state) = match found {
            Some(instance) => (instance.addr, instance.state),
            None if local => (self.me.addr.clone(), State::Up),
            None => (String::new(), State::Down),
        };
        Owner { name: name.to_owned(), addr, local, state }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.timestamp().0
    }

    fn left(&self, plan: &Plan) -> Duration {
        plan.end.saturating_duration_since(self.clock.now())
    }

    fn within(&self, plan: &Plan) -> Duration {
        self.left(plan).min(self.config.replica_deadline)
    }

    /// A ballot above every one seen here. The clock makes it likely to be above others' too.
    fn next_ballot(&self, id: &SessionId) -> Ballot {
        let stored = self.replica.get(id.as_str()).map_or(0, |record| record.ballot.round);
        let least = self.now_ms().max(stored + 1);
        let round = match self.round.fetch_max(least, Ordering::Relaxed) {
            seen if seen >= least => self.round.fetch_add(1, Ordering::Relaxed) + 1,
            _ => least,
        };
        let nonce = self.nonce.fetch_add(1, Ordering::Relaxed);
        Ballot { round, proposer: format!("{}/{:x}/{nonce:x}", self.me.name, self.me.generation) }
    }

    fn overtaken_by(&self, in_force: &Ballot) {
        self.round.fetch_max(in_force.round, Ordering::Relaxed);
    }

    /// Jitter, so that two proposers do not overtake each other for ever.
    async fn pause(&self, attempt: u32, plan: &Plan) {
        let most = 2_u64 << attempt.min(5);
        let pause = Duration::from_millis(rand::random_range(0..=most));
        tokio::time::sleep(pause.min(self.left(plan))).await;
    }

    async fn prepare(&self, plan: &Plan, id: &SessionId, ballot: &Ballot) -> Promises {
        let (started, within) = (self.clock.now(), self.within(plan));
        let ask = |owner: Owner| {
            let ballot = Some(ballot.clone().into());
            let request = wire::PrepareReplicaRequest { id: id.to_string(), ballot };
            self.peers.clone().prepare(owner, request, within)
        };
        let (mut copies, mut refused) = (Vec::new(), false);
        for which in [seems_alive, seems_down] {
            let mut asked = Asked::begin(&plan.owners, which, ask);
            while let Some((owner, answer)) = asked.next().await {
                match answer {
                    Ok(answer) if answer.promised => copies.push(Copy { owner, record: stored(answer) }),
                    Ok(answer) => {
                        refused = true;
                        self.overtaken_by(&answer.in_force.unwrap_or_default().into());
                    }
                    Err(_) => {}
                }
                if copies.len() >= plan.quorum.need {
                    self.metrics.quorum("prepare", self.seconds_since(started));
                    let found = self.with_former(plan, id, resolve(copies, plan.quorum.need)).await;
                    return self.given(found, ballot);
                }
            }
        }
        if refused { Promises::Refused } else { Promises::Missing(copies.len()) }
    }

    /// A former owner's later state counts: it may be the only copy of a chosen one. It must not
    /// be proposed again under a ballot below its own.
    fn given(&self, found: Resolution, ballot: &Ballot) -> Promises {
        match &found.highest {
            Some(record) if record.ballot >= *ballot => {
                self.overtaken_by(&record.ballot);
                Promises::Refused
            }
            _ => Promises::Given(Box::new(found)),
        }
    }

    async fn accept(&self, plan: &Plan, record: &Record, mode: Mode, lease_holder: &str) -> Accepted {
        let (started, within) = (self.clock.now(), self.within(plan));
        let request = write_request(record, mode, lease_holder);
        let ask = |owner: Owner| self.peers.clone().write(owner, request.clone(), within);
        let mut accepted = Accepted {
            tally: Tally::new(plan.quorum.need, plan.alive()),
            lease_remaining: Duration::ZERO,
            fault: None,
        };
        let mut asked = Asked::begin(&plan.owners, seems_alive, ask);
        let mut behind = self.collect(&mut accepted, &mut asked).await;
        if accepted.tally.standing() == Standing::Done {
            behind.extend((0..plan.owners.len()).filter(|index| seems_down(&plan.owners[*index])));
        } else {
            accepted.tally.ask(plan.owners.len() - plan.alive());
            asked = Asked::begin(&plan.owners, seems_down, ask);
            behind.extend(self.collect(&mut accepted, &mut asked).await);
        }
        if accepted.tally.standing() == Standing::Done {
            self.metrics.quorum("write", self.seconds_since(started));
            for owner in behind.into_iter().filter_map(|index| plan.owners.get(index)) {
                self.hints.add(&owner.name, &record.id);
            }
            self.watch_the_rest(plan, &record.id, asked);
        }
        accepted
    }

    /// Owners that were slower than the quorum: whoever fails gets the state later.
    fn watch_the_rest(&self, plan: &Plan, id: &str, mut asked: Asked<wire::WriteReplicaResponse>) {
        let names: Vec<String> = plan.owners.iter().map(|owner| owner.name.clone()).collect();
        let (hints, id) = (self.hints.clone(), id.to_owned());
        tokio::spawn(async move {
            while let Some((owner, answer)) = asked.next().await {
                let holds = answer.is_ok_and(|answer| answer.applied);
                if let (false, Some(name)) = (holds, names.get(owner)) {
                    hints.add(name, &id);
                }
            }
        });
    }

    /// Counts answers until the quorum is reached or all have come; answers who is behind.
    async fn collect(
        &self,
        accepted: &mut Accepted,
        asked: &mut Asked<wire::WriteReplicaResponse>,
    ) -> Vec<usize> {
        let mut behind = Vec::new();
        while accepted.tally.standing() != Standing::Done
            && let Some((owner, answer)) = asked.next().await
        {
            if !self.count(accepted, answer) {
                behind.push(owner);
            }
        }
        behind
    }

    /// Counts one answer; false when the owner does not hold the state.
    fn count(&self, accepted: &mut Accepted, answer: Result<wire::WriteReplicaResponse, Status>) -> bool {
        let reply = match answer {
            Ok(answer) if answer.applied => {
                let lease = Duration::from_millis(answer.lease_remaining_ms);
                accepted.lease_remaining = accepted.lease_remaining.max(lease);
                Reply::Applied
            }
            Ok(answer) => {
                let in_force = answer.in_force.unwrap_or_default().into();
                self.overtaken_by(&in_force);
                Reply::Refused(in_force)
            }
            Err(status) => {
                let (reply, fault) = judge(&status);
                accepted.fault = fault.or(accepted.fault.take());
                reply
            }
        };
        let holds = reply == Reply::Applied;
        accepted.tally.count(reply);
        holds
    }

    fn seconds_since(&self, started: Instant) -> f64 {
        self.clock.now().saturating_duration_since(started).as_secs_f64()
    }
}

fn stored(answer: wire::PrepareReplicaResponse) -> Option<Record> {
    let session = answer.session.filter(|_| answer.found)?;
    Some(Record::from_wire(session, answer.ballot, answer.recent))
}

fn write_request(record: &Record, mode: Mode, lease_holder: &str) -> wire::WriteReplicaRequest {
    wire::WriteReplicaRequest {
        session: Some(record.to_session()),
        lease_holder: lease_holder.to_owned(),
        ballot: Some(record.ballot.clone().into()),
        recent: record.recent_wire(),
        create: mode == Mode::Create,
        ..wire::WriteReplicaRequest::default()
    }
}

/// What a failed write to one owner means: was it certainly not applied, and does the caller need
/// to know why.
fn judge(status: &Status) -> (Reply, Option<Fault>) {
    match Code::of(status) {
        Code::Exhausted => (Reply::NotSent, Some(Fault::Limit("sessions of an owner"))),
        Code::InvalidArgument | Code::DeadlineRequired => {
            (Reply::NotSent, Some(Fault::Invalid(status.message().to_owned())))
        }
        Code::Unavailable => (Reply::NotSent, None),
        Code::Storage => (Reply::Lost, None),
        _ => (Reply::Lost, None),
    }
}
