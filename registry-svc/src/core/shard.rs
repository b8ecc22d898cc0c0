//! The rules of one shard. Its writer decides one command after the other; what was decided
//! becomes visible when the driver has made it durable and publishes the batch.

use crate::core::{
    batch::{Batch, Write},
    check::{self, Malformed},
    command::{DEREGISTERED, Deregister, EXPIRED, Heard, Refusal, Register, Registered, Renewed},
    history::Change,
    key::check_key,
    lease::Leases,
    merge::{self, Stamp, VERSION_MAX},
    name::Name,
    recent::Recent,
    table::{Entry, Table},
    tombstone::Tombstones,
};
use proto::{
    ids::ShardId,
    registry::{Durability, Registration, Removed},
};
use rand::rngs::StdRng;
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

mod counting;
mod ids;
mod value;

use ids::LeaseIds;
pub(crate) use ids::shard_of_lease;
pub(crate) use value::continues;
use value::{is_durable, same_value};

/// An answer that is kept for a repeated request.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Registered(Registered),
    Deregistered,
    Updated(i64),
}

/// Bounds of one shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) tombstones: usize,
    pub(crate) recent: usize,
}

/// Why nobody renews a followed name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orphan {
    /// Its origin is dead, and takes it back when it was not.
    OriginDead,
    /// Its origin does not list it: it restarted, or freed the name while it was out of sight.
    Unlisted,
}

/// The private state of one shard's writer.
pub(crate) struct Shard {
    id: ShardId,
    origin: Arc<str>,
    table: Arc<Table>,
    // Lamport: no version that was seen here is higher.
    clock: u64,
    leases: Leases<u64, Name>,
    // Ephemeral names that nobody renews any more, for their time to live from then on.
    orphans: Leases<Name, Orphan>,
    down: BTreeSet<Arc<str>>,
    tombstones: Tombstones,
    recent: Recent<Answer>,
    ids: LeaseIds,
}

impl Shard {
    /// `clock` must be above every version this origin may have given before this start.
    pub(crate) fn new(
        id: ShardId,
        origin: Arc<str>,
        table: Arc<Table>,
        clock: u64,
        bounds: Bounds,
        rng: StdRng,
    ) -> Self {
        Self {
            id,
            origin,
            table,
            clock,
            leases: Leases::new(),
            orphans: Leases::new(),
            down: BTreeSet::new(),
            tombstones: Tombstones::new(bounds.tombstones),
            recent: Recent::new(bounds.recent),
            ids: LeaseIds::new(id, rng),
        }
    }

    pub(crate) fn id(&self) -> ShardId {
        self.id
    }

    /// Takes a tombstone from the disk.
    pub(crate) fn restore_tombstone(&mut self, removed: &Removed, now: Instant) {
        self.observe(removed.version);
        self.tombstones.put(Name::new(&removed.name), Stamp::of_removed(removed), now);
    }

    /// Learns of a version that exists.
    pub(crate) fn observe(&mut self, version: u64) {
        self.clock = self.clock.max(version);
    }

    pub(crate) fn register(
        &mut self,
        command: Register,
        batch: &mut Batch,
        now: Instant,
    ) -> Result<Registered, Refusal> {
        match self.recent.get(&command.request_id) {
            Some(Answer::Registered(answer)) => return Ok(answer),
            Some(_) => return Err(reused(command.request_id)),
            None => {}
        }
        let request_id = command.request_id.clone();
        let answer = self.decide_register(command, batch, now)?;
        self.recent.keep(&request_id, Answer::Registered(answer));
        Ok(answer)
    }

    fn decide_register(
        &mut self,
        command: Register,
        batch: &mut Batch,
        now: Instant,
    ) -> Result<Registered, Refusal> {
        let (name, wanted) = (command.name, command.entry);
        let Some(live) = self.live(&wanted.name, batch) else {
            return Ok(self.write(name, wanted, None, batch, now));
        };
        let same_owner = live.owner == wanted.owner;
        if same_value(&live, &wanted) {
            match live.durability() {
                // Several nodes import one file: whoever comes second finds it done.
                Durability::Durable => {
                    return Ok(Registered { lease_id: 0, version: live.version, created: false });
                }
                _ if same_owner => return Ok(self.again(name, wanted, &live, batch, now)),
                _ => return Err(already(&live, "a lease")),
            }
        }
        match (same_owner, command.replace) {
            (true, true) => Ok(self.write(name, wanted, Some(&live), batch, now)),
            (true, false) => Err(already(&live, "another value, and replace is not set")),
            (false, _) => Err(already(&live, "another value")),
        }
    }

    /// An ephemeral registration comes again from its owner: renewed, or taken over when the
    /// lease was granted elsewhere or is to live differently.
    fn again(
        &mut self,
        name: Name,
        mut wanted: Arc<Entry>,
        live: &Registration,
        batch: &mut Batch,
        now: Instant,
    ) -> Registered {
        let held_here = live.origin == *self.origin && live.ttl_ms == wanted.ttl_ms;
        if held_here && self.leases.renew(&live.lease_id, now).is_some() {
            batch.granted.push(live.lease_id);
            return Registered { lease_id: live.lease_id, version: live.version, created: false };
        }
        // A counter goes on from where it is.
        Arc::make_mut(&mut wanted).registration.spec.clone_from(&live.spec);
        Registered { created: false, ..self.write(name, wanted, Some(live), batch, now) }
    }

    fn write(
        &mut self,
        name: Name,
        mut entry: Arc<Entry>,
        live: Option<&Registration>,
        batch: &mut Batch,
        now: Instant,
    ) -> Registered {
        self.clock += 1;
        // Nobody else has it yet, so nothing is copied.
        let registration = &mut Arc::make_mut(&mut entry).registration;
        registration.version = self.clock;
        registration.origin = self.origin.to_string();
        registration.lease_id = 0;
        (registration.status, registration.statuses) = (None, Vec::new());
        self.release(live);
        if registration.durability() == Durability::Ephemeral {
            registration.lease_id = self.ids.next(|id| self.leases.get(&id).is_some());
            let ttl = Duration::from_millis(registration.ttl_ms);
            self.leases.grant(registration.lease_id, name.clone(), ttl, now);
            batch.granted.push(registration.lease_id);
        } else {
            registration.ttl_ms = 0;
        }
        self.tombstones.lift(name.as_str());
        let answer =
            Registered { lease_id: registration.lease_id, version: registration.version, created: true };
        batch.put(name, entry, live);
        answer
    }

    pub(crate) fn deregister(
        &mut self,
        command: Deregister,
        batch: &mut Batch,
        now: Instant,
    ) -> Result<(), Refusal> {
        match self.recent.get(&command.request_id) {
            Some(Answer::Deregistered) => return Ok(()),
            Some(_) => return Err(reused(command.request_id)),
            None => {}
        }
        let Some(live) = self.live(&command.name, batch) else {
            return Err(Refusal::NotFound { name: command.name });
        };
        if live.owner != command.owner && !command.force {
            return Err(Refusal::OtherOwner { name: command.name, owner: live.owner.clone() });
        }
        self.clock += 1;
        let removed = Removed {
            name: command.name,
            version: self.clock,
            origin: self.origin.to_string(),
            cause: DEREGISTERED.into(),
            ..Removed::default()
        };
        self.free(&live, removed, batch, now);
        self.recent.keep(&command.request_id, Answer::Deregistered);
        Ok(())
    }

    /// Renews leases of this shard. With an owner, a lease of somebody else is not renewed.
    pub(crate) fn renew(&mut self, lease_ids: &[u64], owner: &str, batch: &Batch, now: Instant) -> Renewed {
        let mut answer = Renewed::default();
        for id in lease_ids {
            let holder = if owner.is_empty() { None } else { self.holder(*id, batch) };
            if let Some(holder) = holder.filter(|holder| holder != owner) {
                answer.foreign = Some((*id, holder));
                continue;
            }
            match self.leases.renew(id, now) {
                Some(ttl) => {
                    answer.renewed.push(*id);
                    answer.ttl = Some(answer.ttl.map_or(ttl, |shortest| shortest.min(ttl)));
                }
                None => answer.unknown.push(*id),
            }
        }
        answer
    }

    /// Takes in what a peer says. Malformed things are refused: a peer's bug must not spread.
    pub(crate) fn hear(&mut self, heard: Heard, batch: &mut Batch, now: Instant) -> Result<(), Malformed> {
        match heard {
            Heard::Put(registration) => {
                check::check(&registration)?;
                check_version(registration.version)?;
                self.hear_put(*registration, batch, now);
            }
            Heard::Removed(removed) => {
                check_key(&removed.name)?;
                check_version(removed.version)?;
                self.hear_removed(removed, batch, now);
            }
            Heard::Complete { origin, listed } => self.orphan_unlisted(&origin, &listed, batch, now),
            Heard::OriginDown(origin) => self.origin_down(origin, batch, now),
            Heard::OriginUp(origin) => self.origin_up(&origin, batch),
        }
        Ok(())
    }

    /// Lets leases count from now on: their answers leave only now.
    pub(crate) fn answered(&mut self, granted: &[u64], now: Instant) {
        for id in granted {
            // What was freed again since is not there any more.
            self.leases.renew(id, now);
        }
    }

    /// How long ago the first of what [`Shard::sweep`] frees ended.
    pub(crate) fn overdue(&mut self, now: Instant) -> Option<Duration> {
        self.leases.overdue(now).into_iter().chain(self.orphans.overdue(now)).max()
    }

    /// Frees what has ended: own leases, and names of dead origins.
    pub(crate) fn sweep(&mut self, batch: &mut Batch, now: Instant) {
        for (id, name) in self.leases.expired(now) {
            if let Some(live) = self.live(name.as_str(), batch).filter(|live| live.lease_id == id) {
                expire(&live, batch);
            }
        }
        for (name, _) in self.orphans.expired(now) {
            if let Some(live) = self.live(name.as_str(), batch) {
                expire(&live, batch);
            }
        }
    }

    /// Forgets tombstones of before a moment, which every peer has heard of.
    pub(crate) fn reap(&mut self, before: Instant, batch: &mut Batch) {
        let reaped = self.tombstones.reap(before);
        batch.writes.extend(reaped.iter().map(|name| Write::Forget(name.as_str().to_owned())));
    }

    pub(crate) fn tombstones(&self) -> Vec<Removed> {
        self.tombstones.all()
    }

    /// When [`Shard::sweep`] is due.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.leases.next_end().into_iter().chain(self.orphans.next_end()).min()
    }

    pub(crate) fn lease_count(&self) -> usize {
        self.leases.len()
    }

    pub(crate) fn tombstone_count(&self) -> usize {
        self.tombstones.len()
    }

    fn hear_put(&mut self, mut registration: Registration, batch: &mut Batch, now: Instant) {
        (registration.status, registration.statuses) = (None, Vec::new());
        self.observe(registration.version);
        let live = self.live(&registration.name, batch);
        let stamp = live.as_deref().map(|live| Stamp::of(live));
        if !merge::put_wins(
            &Stamp::of(&registration),
            stamp.as_ref(),
            self.tombstones.get(&registration.name),
        ) {
            return;
        }
        self.release(live.as_deref().map(|live| &live.registration));
        self.tombstones.lift(&registration.name);
        if !is_durable(&registration) && self.down.contains(registration.origin.as_str()) {
            self.orphan(&registration, Orphan::OriginDead, now);
        }
        let name = Name::new(&registration.name);
        batch.put(name, Entry::new(registration), live.as_deref().map(|live| &live.registration));
    }

    fn hear_removed(&mut self, removed: Removed, batch: &mut Batch, now: Instant) {
        self.observe(removed.version);
        let live = self.live(&removed.name, batch);
        let (stamp, live_stamp) = (Stamp::of_removed(&removed), live.as_deref().map(|live| Stamp::of(live)));
        if removed.cause == EXPIRED {
            if let Some(live) = live.filter(|live| !is_durable(live) && Some(stamp) >= live_stamp) {
                self.release(Some(&live));
                expire(&live, batch);
            }
            return;
        }
        if !merge::removal_wins(&stamp, live_stamp.as_ref(), self.tombstones.get(&removed.name)) {
            return;
        }
        match live {
            Some(live) => self.free(&live, removed, batch, now),
            // It frees nothing here and must still keep an older put out. It is kept on the
            // disk, for whether the name was durable is not known.
            None => self.bury(Arc::new(removed), true, batch, now),
        }
    }

    fn free(&mut self, live: &Registration, removed: Removed, batch: &mut Batch, now: Instant) {
        let removed = Arc::new(removed);
        self.release(Some(live));
        self.bury(removed.clone(), is_durable(live), batch, now);
        batch.remove(removed, live.kind);
    }

    fn bury(&mut self, removed: Arc<Removed>, durable: bool, batch: &mut Batch, now: Instant) {
        let dropped = self.tombstones.put(Name::new(&removed.name), Stamp::of_removed(&removed), now);
        batch.writes.extend(dropped.iter().map(|name| Write::Forget(name.as_str().to_owned())));
        if durable {
            batch.writes.push(Write::Tombstone(removed));
        }
    }

    fn orphan_unlisted(&mut self, origin: &str, listed: &BTreeSet<String>, batch: &Batch, now: Instant) {
        for live in self.ephemeral_of(origin, batch) {
            if !listed.contains(&live.name) {
                self.orphan(&live, Orphan::Unlisted, now);
            }
        }
    }

    fn origin_down(&mut self, origin: Arc<str>, batch: &Batch, now: Instant) {
        if !self.down.insert(origin.clone()) {
            return;
        }
        for live in self.ephemeral_of(&origin, batch) {
            self.orphan(&live, Orphan::OriginDead, now);
        }
    }

    fn origin_up(&mut self, origin: &str, batch: &Batch) {
        if !self.down.remove(origin) {
            return;
        }
        for live in self.ephemeral_of(origin, batch) {
            let name = Name::new(&live.name);
            if self.orphans.get(&name) == Some(&Orphan::OriginDead) {
                self.orphans.revoke(&name);
            }
        }
    }

    fn orphan(&mut self, registration: &Registration, why: Orphan, now: Instant) {
        let name = Name::new(&registration.name);
        if self.orphans.get(&name).is_none() {
            let ttl = Duration::from_millis(registration.ttl_ms);
            self.orphans.grant(name, why, ttl, now);
        }
    }

    fn ephemeral_of(&self, origin: &str, batch: &Batch) -> Vec<Arc<Entry>> {
        let published =
            self.table.shard_entries(self.id).into_iter().map(|entry| entry.registration.name.clone());
        let pending = batch.changes.iter().map(|change| change.name().to_owned());
        let names: BTreeSet<String> = published.chain(pending).collect();
        let live = names.iter().filter_map(|name| self.live(name, batch));
        live.filter(|live| live.origin == origin && !is_durable(live)).collect()
    }

    /// Ends whatever keeps a registration that is replaced or freed.
    fn release(&mut self, live: Option<&Registration>) {
        let Some(live) = live else {
            return;
        };
        self.orphans.revoke(&Name::new(&live.name));
        if live.lease_id != 0 && live.origin == *self.origin {
            self.leases.revoke(&live.lease_id);
        }
    }

    fn live(&self, name: &str, batch: &Batch) -> Option<Arc<Entry>> {
        match batch.last(name) {
            Some(Change::Put(entry)) => Some(entry.clone()),
            Some(Change::Removed(_)) => None,
            None => self.table.get(name),
        }
    }

    fn holder(&self, lease_id: u64, batch: &Batch) -> Option<String> {
        let name = self.leases.get(&lease_id)?;
        self.live(name.as_str(), batch).map(|live| live.owner.clone())
    }
}

fn expire(live: &Registration, batch: &mut Batch) {
    let removed = Removed {
        name: live.name.clone(),
        version: live.version,
        origin: live.origin.clone(),
        cause: EXPIRED.into(),
        ..Removed::default()
    };
    batch.remove(Arc::new(removed), live.kind);
}

fn already(live: &Registration, difference: &'static str) -> Refusal {
    Refusal::AlreadyRegistered { name: live.name.clone(), owner: live.owner.clone(), difference }
}

fn reused(request_id: String) -> Refusal {
    Refusal::RequestIdReused { request_id }
}

fn check_version(version: u64) -> Result<(), Malformed> {
    if version < VERSION_MAX {
        return Ok(());
    }
    let found = version.to_string();
    Err(Malformed::Value { field: "version", found, allowed: "it must be below 2^62" })
}
