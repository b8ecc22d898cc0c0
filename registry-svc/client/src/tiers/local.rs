//! The handles of one thread or one connection, in front of the node's copy.

use super::{
    Answer, Inner, Tier, Tiers, adapt::Adapt, fresh::Until, handles::Handles, metrics::Cells, names::Names,
};
use crate::{
    Error,
    map::{Key, Lender},
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
    lender: Lender<Arc<Registration>>,
    until: Until,
    // A name that has no slot.
    spare: Option<Arc<Registration>>,
    cells: Arc<Cells>,
    asked: u32,
}

impl Local {
    pub(super) fn new(tiers: &Tiers, tenant: &str) -> Self {
        let inner = tiers.inner.clone();
        Self {
            switch: (u64::MAX, false),
            tenant: tenant.into(),
            handles: Handles::new(HANDLES),
            adapt: Adapt::new(),
            lender: inner.view.names.lender(),
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
        self.look(name, now).0
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
        let (known, tier) = self.look(name, now);
        let registration = match known {
            Known::Found(registration) => Some(registration.clone()),
            Known::Absent => None,
            Known::Ask => return self.inner.ask(name).await,
        };
        Ok(Answer { registration, tier, stale: None })
    }

    #[cold]
    fn get_timed(&mut self, name: &str, now: Instant) -> Known<'_> {
        let inner = self.inner.clone();
        let began = inner.clock.now();
        let (known, tier) = self.look(name, now);
        if !matches!(known, Known::Ask) {
            inner.metrics.took(tier, inner.clock.now().saturating_duration_since(began));
        }
        known
    }

    /// Whether this node may answer: the flag is on and the copy fresh.
    #[inline]
    fn may_answer(&mut self, now: Instant) -> bool {
        if self.switch.0 != self.inner.switch.generation() {
            self.turn();
        }
        self.switch.1 && self.inner.view.fresh.holds_by(&mut self.until, now)
    }

    // A call costs a tenth of a hit.
    #[inline(always)]
    fn look(&mut self, name: &str, now: Instant) -> (Known<'_>, Tier) {
        if !self.may_answer(now) {
            return (Known::Ask, Tier::L3);
        }
        let mut key = Key::default();
        key.set(name.as_bytes());
        if !key.fits() {
            return self.look_long(name);
        }
        if self.adapt.ask() {
            return self.through_handles(&key);
        }
        let known = known(self.lender.value_of(&key), &self.inner.view.names);
        self.cells.l2(!matches!(known, Known::Ask));
        (known, Tier::L2)
    }

    #[cold]
    fn look_long(&mut self, name: &str) -> (Known<'_>, Tier) {
        let names = &self.inner.view.names;
        self.spare = names.get(name);
        let known = known(self.spare.as_ref(), names);
        self.cells.l2(!matches!(known, Known::Ask));
        (known, Tier::L2)
    }

    #[inline]
    fn through_handles(&mut self, key: &Key) -> (Known<'_>, Tier) {
        let (names, lender) = (&self.inner.view.names, &mut self.lender);
        let through = self.handles.through(key, &names.epochs, || {
            let found = counted(lender, key);
            (found.is_some() || !names.is_partial()).then_some(found)
        });
        let is_hit = matches!(through, Some((_, true)));
        self.cells.l1(is_hit);
        self.adapt.told(is_hit);
        if !is_hit {
            self.cells.l2(through.is_some());
        }
        let known = match through {
            Some((at, _)) => self.handles.get(at).map_or(Known::Absent, Known::Found),
            None => Known::Ask,
        };
        (known, if is_hit { Tier::L1 } else { Tier::L2 })
    }

    #[cold]
    fn turn(&mut self) {
        self.switch = self.inner.switch.of(&self.tenant);
        if !self.switch.1 {
            self.handles.clear();
        }
    }
}

/// For a handle, which keeps it.
#[inline(never)]
fn counted(lender: &mut Lender<Arc<Registration>>, key: &Key) -> Option<Arc<Registration>> {
    lender.value_of(key).cloned()
}

/// What the copy says.
#[inline]
fn known<'a>(found: Option<&'a Arc<Registration>>, names: &Names) -> Known<'a> {
    match found {
        Some(registration) => Known::Found(registration),
        None if names.is_partial() => Known::Ask,
        None => Known::Absent,
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
