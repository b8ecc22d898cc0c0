//! Who votes: at the first start, and when a node came back with an empty disk.
//!
//! Wanted: at most one node initializes, only when nothing exists yet; one change at a time; a
//! voter is replaced only by the same instance under a new id; an id never comes back.

use std::collections::{BTreeMap, BTreeSet};

/// A coordinator instance whose Raft id is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its Raft id: new for every empty disk.
    pub raft_id: u64,
    /// Its name, stable over restarts.
    pub name: String,
    /// Whether it has neither voted nor written anything yet.
    pub pristine: bool,
}

/// How many voters a cluster of `expect` nodes starts with: an odd number, at most 5.
pub fn voters(expect: u32) -> usize {
    match expect {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    }
}

/// Voters that may be lost without losing the quorum, when `alive` of `voters` are there.
pub fn failure_tolerance(voters: usize, alive: usize) -> usize {
    let quorum = voters / 2 + 1;
    if voters == 0 { 0 } else { alive.min(voters).saturating_sub(quorum) }
}

/// The first voters, if it is for `own` to initialize: everyone expected is there, nobody has
/// any history, and its name is the lowest.
pub fn first_voters(own: u64, expect: u32, seen: &[Candidate]) -> Option<Vec<u64>> {
    let everyone = seen.len() >= expect.max(1) as usize;
    if !everyone || seen.iter().any(|candidate| !candidate.pristine) {
        return None;
    }
    let by_name: BTreeMap<&str, u64> =
        seen.iter().map(|candidate| (candidate.name.as_str(), candidate.raft_id)).collect();
    let chosen: Vec<u64> = by_name.into_values().take(voters(expect)).collect();
    (chosen.len() == voters(expect) && chosen.first() == Some(&own)).then_some(chosen)
}

/// One step that the leader takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Let a new node follow.
    AddLearner(u64),
    /// A learner takes the vote of the same instance's former id.
    Replace {
        /// The id that will not come back.
        old: u64,
        /// The id of the same instance now, already a learner.
        new: u64,
    },
    /// A learner whose instance now has another id.
    RemoveLearner(u64),
}

/// The members as the log has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Ids that vote.
    pub voters: BTreeSet<u64>,
    /// Every member's instance name.
    pub names: BTreeMap<u64, String>,
}

/// The next step towards members that are what the directory shows, or none.
///
/// A node with history of its own is never taken in: it may belong to another cluster.
pub fn next_change(members: &Members, seen: &[Candidate]) -> Option<Change> {
    let now: BTreeMap<&str, &Candidate> =
        seen.iter().map(|candidate| (candidate.name.as_str(), candidate)).collect();
    for (&old, name) in &members.names {
        let Some(candidate) = now.get(name.as_str()).filter(|candidate| candidate.raft_id != old) else {
            continue;
        };
        let (new, known) = (candidate.raft_id, members.names.contains_key(&candidate.raft_id));
        match (members.voters.contains(&old), known) {
            (true, true) if !members.voters.contains(&new) => return Some(Change::Replace { old, new }),
            (false, true) => return Some(Change::RemoveLearner(old)),
            _ => {}
        }
    }
    let new =
        seen.iter().find(|candidate| candidate.pristine && !members.names.contains_key(&candidate.raft_id));
    new.map(|candidate| Change::AddLearner(candidate.raft_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(list: &[(u64, &str, bool)]) -> Vec<Candidate> {
        let candidate = |&(raft_id, name, pristine): &(u64, &str, bool)| Candidate {
            raft_id,
            name: name.into(),
            pristine,
        };
        list.iter().map(candidate).collect()
    }

    fn members(voters: &[u64], names: &[(u64, &str)]) -> Members {
        Members {
            voters: voters.iter().copied().collect(),
            names: names.iter().map(|(id, name)| (*id, (*name).to_owned())).collect(),
        }
    }

    #[test]
    fn only_the_lowest_name_initializes_and_only_when_all_are_there() {
        let all = seen(&[(30, "n3", true), (10, "n1", true), (20, "n2", true)]);
        assert_eq!(first_voters(10, 3, &all), Some(vec![10, 20, 30]));
        assert_eq!(first_voters(20, 3, &all), None);
        assert_eq!(first_voters(10, 3, &all[..2]), None);
        assert_eq!(first_voters(10, 1, &all[1..2]), Some(vec![10]));
        assert_eq!(first_voters(10, 0, &[]), None);
    }

    #[test]
    fn a_wiped_node_does_not_found_a_second_cluster() {
        let all = seen(&[(11, "n1", true), (20, "n2", false), (30, "n3", false)]);
        assert_eq!(first_voters(11, 3, &all), None);
    }

    #[test]
    fn a_wiped_voter_comes_back_as_learner_and_then_takes_its_old_vote() {
        let mut now = members(&[10, 20, 30], &[(10, "n1"), (20, "n2"), (30, "n3")]);
        let mut all = seen(&[(11, "n1", true), (20, "n2", false), (30, "n3", false)]);
        assert_eq!(next_change(&now, &all), Some(Change::AddLearner(11)));
        now.names.insert(11, "n1".into());
        all[0].pristine = false;
        assert_eq!(next_change(&now, &all), Some(Change::Replace { old: 10, new: 11 }));
        now = members(&[11, 20, 30], &[(11, "n1"), (20, "n2"), (30, "n3")]);
        assert_eq!(next_change(&now, &all), None);
    }

    #[test]
    fn a_node_beyond_the_voters_stays_a_learner() {
        let mut now = members(&[10], &[(10, "n1")]);
        let all = seen(&[(10, "n1", false), (20, "n2", true)]);
        assert_eq!(next_change(&now, &all), Some(Change::AddLearner(20)));
        now.names.insert(20, "n2".into());
        assert_eq!(next_change(&now, &all), None);
    }

    #[test]
    fn a_learner_that_lost_its_disk_is_exchanged() {
        let now = members(&[10], &[(10, "n1"), (20, "n2"), (21, "n2")]);
        let all = seen(&[(10, "n1", false), (21, "n2", false)]);
        assert_eq!(next_change(&now, &all), Some(Change::RemoveLearner(20)));
    }

    #[test]
    fn a_node_of_another_cluster_is_left_alone() {
        let now = members(&[10], &[(10, "n1")]);
        let all = seen(&[(10, "n1", false), (20, "n2", false)]);
        assert_eq!(next_change(&now, &all), None);
    }

    #[test]
    fn tolerance_counts_the_voters_that_are_there() {
        assert_eq!(failure_tolerance(3, 3), 1);
        assert_eq!(failure_tolerance(3, 2), 0);
        assert_eq!(failure_tolerance(5, 5), 2);
        assert_eq!(failure_tolerance(1, 1), 0);
        assert_eq!(failure_tolerance(0, 0), 0);
    }
}
