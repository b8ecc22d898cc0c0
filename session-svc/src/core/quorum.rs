//! Counting answers: when is a write done, failed or of unknown outcome, and what did a read see.

use super::record::{Ballot, Record};

/// Owners of a session and how many make a quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    /// Owners that should hold a copy.
    pub owners: usize,
    /// Owners that must: a majority, so any two quorums share an owner.
    pub need: usize,
}

impl Quorum {
    /// The quorum for a ring of `members` when `expect` nodes are said to come: a node that has not
    /// yet met the others must not take itself for a majority.
    pub fn of(replication_factor: usize, members: usize, expect: usize) -> Quorum {
        let owners = replication_factor.min(members.max(expect)).max(1);
        Quorum { owners, need: owners / 2 + 1 }
    }
}

/// What one owner answered to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// On its disk.
    Applied,
    /// Not applied, because of a later ballot.
    Refused(Ballot),
    /// Certainly not applied: the call never left, or the owner said so.
    NotSent,
    /// No answer: it may be applied, now or later.
    Lost,
}

/// How a write stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// More answers are needed.
    Pending,
    /// A quorum holds it.
    Done,
    /// Certainly applied nowhere.
    Failed,
    /// Applied somewhere, or maybe.
    Unknown,
}

/// A life that ends earlier than another owner says by more than this has missed a touch; those are
/// batched, so less is no sign of anything.
const EXPIRY_SLACK_MS: u64 = 10_000;

/// Collects the answers to one write.
#[derive(Debug, Clone)]
pub struct Tally {
    need: usize,
    outstanding: usize,
    applied: usize,
    lost: usize,
    in_force: Option<Ballot>,
}

impl Tally {
    /// Starts counting `asked` owners of which `need` must apply.
    pub fn new(need: usize, asked: usize) -> Self {
        Tally { need, outstanding: asked, applied: 0, lost: 0, in_force: None }
    }

    /// Takes one answer.
    pub fn count(&mut self, reply: Reply) {
        self.outstanding = self.outstanding.saturating_sub(1);
        match reply {
            Reply::Applied => self.applied += 1,
            Reply::Lost => self.lost += 1,
            Reply::NotSent => {}
            Reply::Refused(ballot) => self.in_force = self.in_force.take().max(Some(ballot)),
        }
    }

    /// More owners are asked.
    pub fn ask(&mut self, more: usize) {
        self.outstanding += more;
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        if self.applied >= self.need {
            return Standing::Done;
        }
        if self.applied + self.outstanding >= self.need {
            return Standing::Pending;
        }
        match self.applied + self.lost + self.outstanding {
            0 => Standing::Failed,
            _ => Standing::Unknown,
        }
    }

    /// Owners that applied.
    pub fn applied(&self) -> usize {
        self.applied
    }

    /// The highest ballot that refused.
    pub fn in_force(&self) -> Option<&Ballot> {
        self.in_force.as_ref()
    }
}

/// One owner's answer to a read.
#[derive(Debug, Clone)]
pub struct Copy {
    /// Its place in the preference list.
    pub owner: usize,
    /// What it holds.
    pub record: Option<Record>,
}

impl Copy {
    /// Whether it holds a session that clients may see.
    pub fn live(&self, now_ms: u64) -> bool {
        self.record.as_ref().is_some_and(|record| record.live(now_ms))
    }
}

/// What a set of copies says.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// The copy with the highest ballot, alive to the latest expiry seen.
    pub highest: Option<Record>,
    /// Whether a quorum holds it, so that no later read can miss it.
    pub chosen: bool,
    /// Owners that hold an older copy or none, or missed a touch.
    pub behind: Vec<usize>,
}

impl Resolution {
    /// The same, or what one of these copies outside of the quorum says if it is later; that is
    /// then not yet chosen by the quorum.
    pub fn or_later(self, copies: Vec<Record>) -> Resolution {
        let latest = copies.into_iter().max_by(|a, b| a.ballot.cmp(&b.ballot));
        let known = self.highest.as_ref().map(|record| &record.ballot);
        match latest {
            Some(record) if known < Some(&record.ballot) => {
                Resolution { highest: Some(record), chosen: false, behind: self.behind }
            }
            _ => self,
        }
    }
}

/// Whether `need` copies hold the highest ballot among them all, or all of `need` hold nothing.
pub fn agreed(copies: &[Copy], need: usize) -> bool {
    let ballot = |copy: &Copy| copy.record.as_ref().map(|record| record.ballot.clone());
    let highest = copies.iter().map(ballot).max().flatten();
    copies.iter().filter(|copy| ballot(copy) == highest).count() >= need
}

/// Resolves copies: the highest ballot is the state, whatever the versions say.
pub fn resolve(copies: Vec<Copy>, need: usize) -> Resolution {
    let highest = copies.iter().filter_map(|copy| copy.record.as_ref());
    let Some(highest) = highest.max_by(|a, b| a.ballot.cmp(&b.ballot)).cloned() else {
        return Resolution { highest: None, chosen: copies.len() >= need, behind: Vec::new() };
    };
    let holds = |copy: &Copy| copy.record.as_ref().is_some_and(|r| r.ballot == highest.ballot);
    let holders = copies.iter().filter(|copy| holds(copy)).count();
    let expires = copies.iter().filter_map(|copy| copy.record.as_ref()).map(|r| r.expires_at_ms);
    let expires_at_ms =
        if highest.deleted { highest.expires_at_ms } else { expires.max().unwrap_or(highest.expires_at_ms) };
    let touched = |copy: &Copy| {
        let end = copy.record.as_ref().map_or(0, |record| record.expires_at_ms);
        highest.deleted || end.saturating_add(EXPIRY_SLACK_MS) >= expires_at_ms
    };
    let lacking = copies.iter().filter(|copy| !holds(copy) || !touched(copy));
    let behind = lacking.map(|copy| copy.owner).collect();
    let highest = Record { expires_at_ms, ..highest };
    Resolution { highest: Some(highest), chosen: holders >= need, behind }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::record::tests::record;
    use proptest::prelude::*;

    #[test]
    fn a_lone_node_of_three_is_no_majority() {
        assert_eq!(Quorum::of(3, 1, 3), Quorum { owners: 3, need: 2 });
        assert_eq!(Quorum::of(3, 1, 1), Quorum { owners: 1, need: 1 });
        assert_eq!(Quorum::of(3, 2, 1), Quorum { owners: 2, need: 2 });
        assert_eq!(Quorum::of(3, 50, 3), Quorum { owners: 3, need: 2 });
        assert_eq!(Quorum::of(5, 50, 3), Quorum { owners: 5, need: 3 });
    }

    fn reply() -> impl Strategy<Value = Reply> {
        prop_oneof![
            Just(Reply::Applied),
            Just(Reply::Refused(Ballot { round: 3, proposer: "x".into() })),
            Just(Reply::NotSent),
            Just(Reply::Lost),
        ]
    }

    proptest! {
        #[test]
        fn the_standing_is_true_of_what_was_answered(
            replies in proptest::collection::vec(reply(), 1..6), need in 1..4_usize,
        ) {
            let mut tally = Tally::new(need, replies.len());
            let mut decided = tally.standing();
            for reply in &replies {
                if tally.standing() == Standing::Pending {
                    tally.count(reply.clone());
                    decided = tally.standing();
                }
            }
            let may = |r: &&Reply| matches!(r, Reply::Applied | Reply::Lost);
            let applied = replies.iter().filter(|r| matches!(r, Reply::Applied)).count();
            match decided {
                Standing::Done => prop_assert!(applied >= need),
                Standing::Failed => prop_assert_eq!(replies.iter().filter(may).count(), 0),
                Standing::Unknown => prop_assert!(applied < need),
                Standing::Pending => prop_assert!(false, "undecided after all answers"),
            }
        }
    }

    #[test]
    fn the_highest_ballot_wins_and_the_latest_expiry() {
        let old = Record { expires_at_ms: 9_999, ..record(9, "z", 1) };
        let new = record(2, "a", 2);
        let copies = vec![
            Copy { owner: 0, record: Some(old) },
            Copy { owner: 1, record: Some(new.clone()) },
            Copy { owner: 2, record: None },
        ];
        let resolution = resolve(copies, 2);
        let highest = resolution.highest.expect("a copy");
        assert_eq!((highest.version, highest.expires_at_ms), (new.version, 9_999));
        assert_eq!((resolution.chosen, resolution.behind), (false, vec![0, 2]));
    }

    #[test]
    fn an_owner_that_missed_a_touch_is_behind_and_still_counts() {
        let touched = Record { expires_at_ms: 60_000, ..record(1, "a", 1) };
        let copies = [touched, record(1, "a", 1)].into_iter().enumerate();
        let copies = copies.map(|(owner, record)| Copy { owner, record: Some(record) }).collect();
        let resolution = resolve(copies, 2);
        assert_eq!((resolution.chosen, resolution.behind), (true, vec![1]));
    }

    #[test]
    fn copies_agree_when_a_quorum_holds_the_highest() {
        let copy = |round: Option<u64>| Copy { owner: 0, record: round.map(|round| record(1, "a", round)) };
        assert!(agreed(&[copy(None), copy(None)], 2));
        assert!(agreed(&[copy(None), copy(Some(1)), copy(Some(1))], 2));
        assert!(!agreed(&[copy(None), copy(None), copy(Some(1))], 2));
        assert!(!agreed(&[copy(Some(1)), copy(Some(2))], 2));
        assert!(!agreed(&[copy(Some(1))], 2) && !agreed(&[], 1));
    }

    #[test]
    fn a_later_copy_of_a_former_owner_counts_and_is_not_chosen() {
        let copies = || (0..2).map(|owner| Copy { owner, record: Some(record(1, "a", 1)) }).collect();
        assert!(resolve(copies(), 2).or_later(vec![record(1, "a", 1)]).chosen);
        let later = resolve(copies(), 2).or_later(vec![record(2, "b", 2)]);
        assert_eq!((later.highest, later.chosen), (Some(record(2, "b", 2)), false));
        let none = Resolution { highest: None, chosen: true, behind: vec![] };
        assert!(!none.or_later(vec![record(1, "a", 1)]).chosen);
    }

    #[test]
    fn a_tombstone_is_not_kept_alive_by_an_older_copy() {
        let live = Record { expires_at_ms: 9_999, ..record(1, "a", 1) };
        let tombstone = Record { deleted: true, ..record(2, "b", 2) };
        let copies = [live, tombstone].map(|record| Copy { owner: 0, record: Some(record) });
        let highest = resolve(copies.into(), 2).highest.expect("a copy");
        assert!(highest.deleted && highest.expires_at_ms == 1001);
    }
}
