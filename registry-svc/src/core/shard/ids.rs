//! Ids of leases: random, so that those of two instances or two starts do not meet. The low bits are
//! the shard.

use proto::ids::ShardId;
use rand::{Rng as _, rngs::StdRng};
use std::hint::black_box;

/// Low bits that are the shard.
const SHARD_BITS: u32 = 10;
/// Ids that are drawn at once.
const DRAWN: usize = 32;

/// The shard of a lease.
pub(crate) fn shard_of_lease(lease_id: u64) -> ShardId {
    ShardId((lease_id & ((1 << SHARD_BITS) - 1)) as u16)
}

pub(super) struct LeaseIds {
    shard: u64,
    rng: StdRng,
    // Those that nobody has got yet.
    drawn: Vec<u64>,
}

impl LeaseIds {
    pub(super) fn new(shard: ShardId, rng: StdRng) -> Self {
        Self { shard: shard.0.into(), rng, drawn: Vec::new() }
    }

    /// One that is not taken.
    pub(super) fn next(&mut self, is_taken: impl Fn(u64) -> bool) -> u64 {
        loop {
            match self.drawn.pop() {
                Some(id) if id > self.shard && !is_taken(id) => return id,
                Some(_) => {}
                None => self.draw(&is_taken),
            }
        }
    }

    /// Asks the memory for the places of all of them at once, before the first one is granted.
    fn draw(&mut self, is_taken: impl Fn(u64) -> bool) {
        let (shard, rng) = (self.shard, &mut self.rng);
        self.drawn.extend((0..DRAWN).map(|_| (rng.random::<u64>() << SHARD_BITS) | shard));
        black_box(self.drawn.iter().filter(|id| is_taken(**id)).count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_of_their_shard_and_never_taken_or_given_twice() {
        let mut given = BTreeSet::new();
        for shard in [0, 1023] {
            let mut ids = LeaseIds::new(ShardId(shard), StdRng::seed_from_u64(1));
            for _ in 0..1000 {
                let id = ids.next(|id| given.contains(&id) || id & (1 << SHARD_BITS) == 0);
                assert!(id > 1023 && id & (1 << SHARD_BITS) != 0);
                assert_eq!(shard_of_lease(id), ShardId(shard));
                assert!(given.insert(id));
            }
        }
    }
}
