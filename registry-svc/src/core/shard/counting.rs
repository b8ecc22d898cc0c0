//! Adding to counters.

use super::{Answer, Shard, is_durable, reused};
use crate::core::{
    batch::Batch,
    command::{Refusal, Update},
    counter::{self, OutOfBounds},
    name::Name,
    table::Entry,
};
use proto::registry::{Counter, Registration, registration::Spec};
use std::time::Instant;

impl Shard {
    /// Adds to a counter; answers its value after it. A request that comes again is answered as
    /// the first time, at another instance too once that has heard of the first.
    pub(crate) fn update(
        &mut self,
        command: Update,
        batch: &mut Batch,
        now: Instant,
    ) -> Result<i64, Refusal> {
        match self.recent.get(&command.request_id) {
            Some(Answer::Updated(value)) => return Ok(value),
            Some(_) => return Err(reused(command.request_id)),
            None => {}
        }
        let value = self.decide_update(&command, batch, now)?;
        self.recent.keep(&command.request_id, Answer::Updated(value));
        Ok(value)
    }

    fn decide_update(&mut self, command: &Update, batch: &mut Batch, now: Instant) -> Result<i64, Refusal> {
        let Update { request_id, name, delta } = command;
        let not_found = || Refusal::NotFound { name: name.clone() };
        let live = self.live(name, batch).ok_or_else(not_found)?;
        let Some(Spec::Counter(counter)) = &live.spec else {
            return Err(not_found());
        };
        if let Some(value) = counter::answered(counter, request_id) {
            return Ok(value);
        }
        if *delta == 0 {
            return Ok(counter.value);
        }
        let next = counter::add(counter, *delta, request_id).map_err(|OutOfBounds { value, bounds }| {
            Refusal::OutOfBounds { name: name.clone(), value, delta: *delta, bounds }
        })?;
        let value = next.value;
        self.put_counter(next, &live, batch, now);
        Ok(value)
    }

    /// The lease stays the one that the owner knows. One that another instance granted is taken
    /// over: that instance's renewals then answer unknown, and the owner registers again.
    fn put_counter(&mut self, counter: Counter, live: &Entry, batch: &mut Batch, now: Instant) {
        let spec = Some(Spec::Counter(counter));
        let registration = Registration { spec, ..live.registration.clone() };
        let held_here = live.origin == *self.origin && self.leases.get(&live.lease_id).is_some();
        if !is_durable(live) && !held_here {
            self.write(Name::new(&live.name), Entry::new(registration), Some(live), batch, now);
            return;
        }
        self.clock += 1;
        let (version, origin) = (self.clock, self.origin.to_string());
        self.tombstones.lift(&registration.name);
        let name = Name::new(&live.name);
        batch.put(name, Entry::new(Registration { version, origin, ..registration }), Some(live));
    }
}
