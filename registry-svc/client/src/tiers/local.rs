//! The handles of one thread or one connection, in front of the node's copy.

use super::{
    Answer, Inner, Tier, Tiers,
    adapt::Adapt,
    fresh::Until,
    handles::{At, Handles},
    metrics::Cells,
};
use crate::{
    Error,
    map::{Key, Reader},
};
use proto::registry::Registration;
use std::{fmt, sync::Arc, time::Instant};

/// Handles that a thread keeps; about 80 bytes each.
const HANDLES: usize = 512;
/// One lookup in so many is timed.
const SAMPLE: u32 = 1024;

/// What the node knows by itself.
#[derive(Debug)]
pub enum Known<'a> {
    /// The registration, at most [`STALENESS_BOUND`](super::STALENESS_BOUND) old.
    Found(&'a Arc<Registration>),
    /// There was no such name, at most that long ago.
    Absent,
    /// The copy may not answer: it is too old or not complete, or the flag is off. Ask the shard.
    Ask,
}

/// Looks names up for one thread or one connection, and one tenant. A hit takes no lock and
/// clones nothing.
///
/// Handles that do not pay (see `adapt`) are left out by themselves; names of more than
/// [`INLINE`](crate::map::INLINE) bytes never have one.
pub struct Local {
    inner: Arc<Inner>,
    tenant: Box<str>,
    // The flag's answer for the tenant, and of which generation it is.
    switch: (u64, bool),
    handles: Handles<Arc<Registration>>,
    adapt: Adapt,
    reader: Reader<Arc<Registration>>,
    until: Until,
    // What was found without a handle.
    spare: Option<Arc<Registration>>,
    cells: Arc<Cells>,
    asked: u32,
}

/// Where an answer lies, so that it can be lent.
enum Place {
    Handle(At),
    Spare,
    Nowhere,
}

impl Local {
    pub(super) fn new(tiers: &Tiers, tenant: &str) -> Self {
        let inner = tiers.inner.clone();
        Self {
            switch: (u64::MAX, false),
            tenant: tenant.into(),
            handles: Handles::new(HANDLES),
            adapt: Adapt::new(),
            reader: inner.view.names.reader(),
            until: Until::default(),
            spare: None,
            cells: inner.metrics.lookups.cells(),
            asked: 0,
            inner,
        }
    }

    /// What this node knows of a name. `now` is the caller's time; what it is asked with decides
    /// whether the copy is fresh enough.
    #[inline]
    pub fn get(&mut self, name: &str, now: Instant) -> Known<'_> {
        self.asked = self.asked.wrapping_add(1);
        if self.asked.is_multiple_of(SAMPLE) {
            return self.get_timed(name, now);
        }
        let place = self.place(name, now).0;
        self.known(place)
    }

    /// Many names at one moment, in their order.
    pub fn get_many<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a str>,
        now: Instant,
        mut tell: impl FnMut(Known<'_>),
    ) {
        for name in names {
            tell(self.get(name, now));
        }
    }

    /// A name by all three tiers.
    ///
    /// # Errors
    /// As [`Tiers::ask`].
    pub async fn lookup(&mut self, name: &str, now: Instant) -> Result<Answer, Error> {
        let (place, tier) = self.place(name, now);
        let registration = match self.known(place) {
            Known::Found(registration) => Some(registration.clone()),
            Known::Absent => None,
            Known::Ask => return self.inner.ask(name).await,
        };
        Ok(Answer { registration, tier, stale: None })
    }

    fn get_timed(&mut self, name: &str, now: Instant) -> Known<'_> {
        let began = self.inner.clock.now();
        let (place, tier) = self.place(name, now);
        if place.is_some() {
            let took = self.inner.clock.now().saturating_duration_since(began);
            self.inner.metrics.took(tier.as_str(), took);
        }
        self.known(place)
    }

    #[inline]
    fn known(&self, place: Option<Place>) -> Known<'_> {
        let found = match place {
            None => return Known::Ask,
            Some(Place::Handle(at)) => self.handles.get(at),
            Some(Place::Spare) => self.spare.as_ref(),
            Some(Place::Nowhere) => None,
        };
        found.map_or(Known::Absent, Known::Found)
    }

    /// Whether this node may answer: the flag is on and the copy fresh.
    #[inline]
    fn may_answer(&mut self, now: Instant) -> bool {
        if self.switch.0 != self.inner.switch.generation() {
            self.turn();
        }
        self.switch.1 && self.inner.view.fresh.holds_by(&mut self.until, now)
    }

    /// `None` when the shard must be asked.
    #[inline]
    fn place(&mut self, name: &str, now: Instant) -> (Option<Place>, Tier) {
        if !self.may_answer(now) {
            return (None, Tier::L3);
        }
        let mut key = Key::default();
        key.set(name.as_bytes());
        if !key.fits() {
            let found = self.inner.view.names.get(name);
            return (self.lend(found), Tier::L2);
        }
        if self.adapt.ask() {
            return self.through_handles(&key);
        }
        let found = self.reader.value_of(&key);
        (self.lend(found), Tier::L2)
    }

    #[inline]
    fn through_handles(&mut self, key: &Key) -> (Option<Place>, Tier) {
        let (names, reader) = (&self.inner.view.names, &mut self.reader);
        let through = self.handles.through(key, &names.epochs, || {
            let found = reader.value_of(key);
            (found.is_some() || !names.is_partial()).then_some(found)
        });
        let is_hit = matches!(through, Some((_, true)));
        self.cells.l1(is_hit);
        self.adapt.told(is_hit);
        if is_hit {
            return (through.map(|(at, _)| Place::Handle(at)), Tier::L1);
        }
        self.cells.l2(through.is_some());
        (through.map(|(at, _)| Place::Handle(at)), Tier::L2)
    }

    fn lend(&mut self, found: Option<Arc<Registration>>) -> Option<Place> {
        let known = found.is_some() || !self.inner.view.names.is_partial();
        self.cells.l2(known);
        self.spare = found;
        match &self.spare {
            Some(_) => Some(Place::Spare),
            None => known.then_some(Place::Nowhere),
        }
    }

    #[cold]
    fn turn(&mut self) {
        self.switch = self.inner.switch.of(&self.tenant);
        if !self.switch.1 {
            self.handles.clear();
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.inner.metrics.lookups.give_back(self.cells.clone());
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}
