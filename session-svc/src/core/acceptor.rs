//! What one owner answers to a proposal: the acceptor of a single-decree Paxos register per
//! session (CASPaxos, <https://arxiv.org/abs/1802.07000>).
//!
//! A majority that merely compares and sets cannot be repaired after a tie with one owner down:
//! nobody can tell which of two half-stored states was acked. Ballots can.

use super::record::{Ballot, Record};
use std::collections::HashMap;

/// Promises kept in memory, one a session under change; over it all are forgotten safely.
const PROMISES_MAX: usize = 65_536;

/// The answer to an accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Store it.
    Apply,
    /// It is stored already.
    Already,
    /// A later ballot is promised or stored.
    Refused(Ballot),
}

/// The promises of one owner. They live in memory only: a restart raises the floor above every
/// round that can have been promised, which is why rounds are reserved on disk in blocks.
#[derive(Debug, Default)]
pub struct Promises {
    by_id: HashMap<String, Ballot>,
    floor: u64,
    reserved: u64,
}

impl Promises {
    /// After a start: nothing at or below the reserved round may be promised again.
    pub fn recover(reserved: u64) -> Self {
        let floor = if reserved == 0 { 0 } else { reserved + 1 };
        Promises { by_id: HashMap::new(), floor, reserved }
    }

    /// Whether rounds up to this one may be promised without a write to disk.
    pub fn covers(&self, round: u64) -> bool {
        round <= self.reserved
    }

    /// Rounds up to this one are on disk as reserved.
    pub fn reserve(&mut self, round: u64) {
        self.reserved = self.reserved.max(round);
    }

    /// Promises to take no older ballot, or answers the one in force.
    pub fn prepare(&mut self, stored: Option<&Record>, id: &str, ballot: &Ballot) -> Result<(), Ballot> {
        let in_force = self.in_force(stored, id);
        let repeated = self.by_id.get(id) == Some(ballot);
        if *ballot <= in_force && !repeated {
            return Err(in_force);
        }
        if self.by_id.len() >= PROMISES_MAX {
            self.forget();
        }
        self.by_id.insert(id.to_owned(), ballot.clone());
        Ok(())
    }

    /// Decides on a state to store.
    pub fn accept(&self, stored: Option<&Record>, id: &str, ballot: &Ballot) -> Verdict {
        if stored.is_some_and(|record| record.ballot == *ballot) {
            return Verdict::Already;
        }
        let in_force = self.in_force(stored, id);
        if *ballot < in_force { Verdict::Refused(in_force) } else { Verdict::Apply }
    }

    /// Decides on the first state of a fresh id. It needs no promise, because nobody else proposes
    /// for an id that nobody knows, and no floor, because nothing was promised for it.
    pub fn create(&self, stored: Option<&Record>, id: &str, ballot: &Ballot) -> Verdict {
        match (stored, self.by_id.get(id)) {
            (Some(record), _) if record.ballot == *ballot => Verdict::Already,
            (None, None) => Verdict::Apply,
            _ => Verdict::Refused(self.in_force(stored, id)),
        }
    }

    /// The promise was used or overtaken: what is stored now carries the ballot.
    pub fn settle(&mut self, id: &str, ballot: &Ballot) {
        if self.by_id.get(id).is_some_and(|promised| promised <= ballot) {
            self.by_id.remove(id);
        }
    }

    fn in_force(&self, stored: Option<&Record>, id: &str) -> Ballot {
        let floor = Ballot { round: self.floor, proposer: String::new() };
        let promised = self.by_id.get(id).cloned().unwrap_or_default();
        let stored = stored.map(|record| record.ballot.clone()).unwrap_or_default();
        floor.max(promised).max(stored)
    }

    fn forget(&mut self) {
        let highest = self.by_id.values().map(|ballot| ballot.round).max().unwrap_or_default(); // tidy: because a maximum has no order
        self.floor = self.floor.max(highest + 1);
        self.by_id.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        quorum::{Copy, resolve},
        record::tests::record,
    };
    use proptest::prelude::*;

    fn ballot(round: u64, proposer: &str) -> Ballot {
        Ballot { round, proposer: proposer.into() }
    }

    #[test]
    fn a_promise_refuses_older_ballots_also_after_a_restart() {
        let mut promises = Promises::default();
        promises.reserve(100);
        assert_eq!(promises.prepare(None, "a", &ballot(5, "x")), Ok(()));
        assert_eq!(promises.prepare(None, "a", &ballot(5, "x")), Ok(()), "repeated");
        assert_eq!(promises.prepare(None, "a", &ballot(4, "y")), Err(ballot(5, "x")));
        assert_eq!(promises.accept(None, "a", &ballot(4, "y")), Verdict::Refused(ballot(5, "x")));
        let mut after = Promises::recover(100);
        assert_eq!(after.prepare(None, "a", &ballot(100, "z")), Err(ballot(101, "")));
        assert_eq!(after.accept(None, "a", &ballot(4, "y")), Verdict::Refused(ballot(101, "")));
    }

    #[test]
    fn a_create_is_taken_once() {
        let promises = Promises::recover(100);
        let first = record(1, "r", 1);
        assert_eq!(promises.create(None, "0000", &first.ballot), Verdict::Apply);
        assert_eq!(promises.create(Some(&first), "0000", &first.ballot), Verdict::Already);
        let other = ballot(1, "s");
        assert!(matches!(promises.create(Some(&first), "0000", &other), Verdict::Refused(_)));
    }

    /// One step of the model: a proposer prepares at some owners, or sends its accept to some.
    #[derive(Debug, Clone)]
    enum Step {
        Prepare { proposer: usize, ahead: u64, owners: [bool; 3] },
        Accept { proposer: usize, owners: [bool; 3] },
        Restart { owner: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        let owners = proptest::array::uniform3(any::<bool>());
        prop_oneof![
            4 => (0..4_usize, 0..12_u64, owners)
                .prop_map(|(proposer, ahead, owners)| Step::Prepare { proposer, ahead, owners }),
            4 => (0..4_usize, owners).prop_map(|(proposer, owners)| Step::Accept { proposer, owners }),
            1 => (0..3_usize).prop_map(|owner| Step::Restart { owner }),
        ]
    }

    #[derive(Default)]
    struct Owner {
        promises: Promises,
        stored: Option<Record>,
    }

    #[derive(Default)]
    struct Proposer {
        proposal: Option<Record>,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        /// Whatever is lost, late or restarted: a state that W owners stored under one ballot is
        /// led to by every state that W owners store later.
        #[test]
        fn a_chosen_state_is_never_lost(steps in proptest::collection::vec(step(), 1..80)) {
            let mut owners: [Owner; 3] = Default::default();
            let mut proposers: [Proposer; 4] = Default::default();
            let mut chosen: Vec<Record> = Vec::new();
            for (index, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Prepare { proposer, ahead, owners: asked } => {
                        // Proposers' clocks differ: rounds do not only grow.
                        let round = index as u64 / 2 + ahead;
                        let me = &mut proposers[proposer];
                        let ballot = ballot(round, &format!("p{index}"));
                        let mut copies = Vec::new();
                        for (index, owner) in owners.iter_mut().enumerate().filter(|(i, _)| asked[*i]) {
                            owner.promises.reserve(round + 1);
                            if owner.promises.prepare(owner.stored.as_ref(), "0000", &ballot).is_ok() {
                                copies.push(Copy { owner: index, record: owner.stored.clone() });
                            }
                        }
                        me.proposal = (copies.len() >= 2).then(|| {
                            let writer = format!("w{index}");
                            let next = match resolve(copies, 2).highest {
                                Some(record) => record.successor(&writer),
                                None => record(1, &writer, 0),
                            };
                            Record { ballot, ..next }
                        });
                    }
                    Step::Accept { proposer, owners: asked } => {
                        let Some(proposal) = proposers[proposer].proposal.clone() else { continue };
                        for (_, owner) in owners.iter_mut().enumerate().filter(|(i, _)| asked[*i]) {
                            let verdict = owner.promises.accept(owner.stored.as_ref(), "0000", &proposal.ballot);
                            if verdict == Verdict::Apply {
                                owner.promises.settle("0000", &proposal.ballot);
                                owner.stored = Some(proposal.clone());
                            }
                        }
                    }
                    Step::Restart { owner } => {
                        let reserved = owners[owner].promises.reserved;
                        owners[owner].promises = Promises::recover(reserved);
                    }
                }
                for owner in &owners {
                    let Some(state) = &owner.stored else { continue };
                    let holders = owners.iter().filter(|o| o.stored.as_ref().is_some_and(|s| s.ballot == state.ballot));
                    if holders.count() >= 2 && !chosen.contains(state) {
                        for earlier in &chosen {
                            let later = state.version.counter >= earlier.version.counter + 8
                                || state.follows(&earlier.version.writer).is_some();
                            prop_assert!(later, "{:?} does not follow {:?}", state.version, earlier.version);
                        }
                        chosen.push(state.clone());
                    }
                }
            }
        }
    }
}
