//! The ring: which instances own a session.
//!
//! A session id starts with a slot (16 bits). `XXH3-64` (seed 0) of the slot's two big-endian
//! bytes is its position; vnode `i` of instance `n` sits at `XXH3-64("n#i")`. The first vnode at
//! or after the position is the home vnode, and its preference list names the owners. Both hashes
//! are published and stable: every node and every language computes the same owners from the same
//! members.

use crate::id::SessionId;
use hashring::HashRing;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::{BuildHasher, Hash, Hasher},
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Vnodes of each instance.
pub const VNODES: u32 = 160;
/// Number of slots a session id can name.
pub const SLOTS: usize = 1 << 16;
/// Most members a ring takes; more are cut off in name order.
pub const MEMBERS_MAX: usize = 4096;

/// An instance on the ring.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Instance name, stable over restarts.
    pub name: String,
    /// Failure domain; owners are taken from distinct zones first.
    pub zone: String,
}

/// An immutable snapshot of the ring. A lookup is one search and allocates nothing.
#[derive(Clone)]
pub struct Ring {
    vnodes: HashRing<Vnode, PublishedHash>,
    /// Preference lists of `width` member indices each, one a vnode.
    lists: Vec<u16>,
    width: usize,
    members: Vec<Member>,
    version: u64,
}

impl Ring {
    /// Builds the ring of these members with `replication_factor` owners a slot, or as many as
    /// there are members. The order of the members does not matter; a repeated name counts once.
    pub fn build(members: impl IntoIterator<Item = Member>, replication_factor: usize) -> Ring {
        let members = unique(members);
        let width = replication_factor.min(members.len());
        let points = points(&members);
        let mut vnodes = HashRing::with_hasher(PublishedHash);
        let mut lists = Vec::with_capacity(points.len() * width);
        let mut elements = Vec::with_capacity(points.len());
        for at in 0..points.len() {
            let list = preference_list(&points, at, &members, width);
            elements.push(Vnode { label: points[at].label.clone(), list: elements.len() as u32 });
            lists.extend(list);
        }
        vnodes.batch_add(elements);
        let version = version(&members, replication_factor);
        Ring { vnodes, lists, width, members, version }
    }

    /// The owners of a slot, home first, as indices into [`Ring::members`].
    pub fn owners(&self, slot: u16) -> &[u16] {
        let Some(vnode) = self.vnodes.get(&Slot(slot)) else {
            return &[];
        };
        let start = vnode.list as usize * self.width;
        self.lists.get(start..start + self.width).unwrap_or_default()
    }

    /// The owners of a session, home first.
    pub fn owners_of<'a>(&'a self, id: &SessionId) -> impl Iterator<Item = &'a Member> + use<'a> {
        self.owners(id.slot()).iter().filter_map(|index| self.members.get(usize::from(*index)))
    }

    /// Whether the named instance owns the session.
    pub fn is_owner(&self, id: &SessionId, name: &str) -> bool {
        self.owners_of(id).any(|member| member.name == name)
    }

    /// The members in name order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Hash of members, zones and replication factor: equal on every node that sees the same.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Share of all slots whose home is each member, by name.
    pub fn ownership(&self) -> BTreeMap<&str, f64> {
        let mut homes = vec![0_usize; self.members.len()];
        for slot in 0..=u16::MAX {
            if let Some(home) = self.owners(slot).first()
                && let Some(count) = homes.get_mut(usize::from(*home))
            {
                *count += 1;
            }
        }
        let share = |count: usize| count as f64 / SLOTS as f64;
        self.members.iter().zip(homes).map(|(m, count)| (m.name.as_str(), share(count))).collect()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.members.iter().map(|member| &member.name).collect();
        write!(f, "Ring {{ version: {:016x}, members: {names:?} }}", self.version)
    }
}

struct Point {
    position: u64,
    label: Box<str>,
    member: u16,
}

fn unique(members: impl IntoIterator<Item = Member>) -> Vec<Member> {
    let by_name: BTreeMap<String, Member> =
        members.into_iter().map(|member| (member.name.clone(), member)).collect();
    by_name.into_values().take(MEMBERS_MAX).collect()
}

fn points(members: &[Member]) -> Vec<Point> {
    let mut points = Vec::with_capacity(members.len() * VNODES as usize);
    for (index, member) in members.iter().enumerate() {
        for vnode in 0..VNODES {
            let label = format!("{}#{vnode}", member.name).into_boxed_str();
            points.push(Point { position: xxh3_64(label.as_bytes()), label, member: index as u16 });
        }
    }
    points.sort_by_key(|point| point.position);
    points
}

/// Walks the ring from `at` on: first members of zones not yet taken, then those passed over. The
/// walk ends when no further step can change the list.
fn preference_list(points: &[Point], at: usize, members: &[Member], width: usize) -> Vec<u16> {
    let all_zones: BTreeSet<&str> = members.iter().map(|member| member.zone.as_str()).collect();
    let mut zones = BTreeSet::new();
    let mut taken: Vec<u16> = Vec::with_capacity(width);
    let mut passed: Vec<u16> = Vec::new();
    let (before, from) = points.split_at(at);
    for point in from.iter().chain(before) {
        let found = taken.len() + passed.len();
        if taken.len() == width || (zones.len() == all_zones.len() && found >= width) {
            break;
        }
        if taken.contains(&point.member) || passed.contains(&point.member) {
            continue;
        }
        match zones.insert(members[usize::from(point.member)].zone.as_str()) {
            true => taken.push(point.member),
            false => passed.push(point.member),
        }
    }
    let missing = width - taken.len();
    taken.extend(passed.into_iter().take(missing));
    taken
}

fn version(members: &[Member], replication_factor: usize) -> u64 {
    members.iter().fold(xxh3_64(&(replication_factor as u64).to_be_bytes()), |hash, member| {
        let hash = xxh3_64_with_seed(member.name.as_bytes(), hash);
        xxh3_64_with_seed(member.zone.as_bytes(), hash)
    })
}

/// A vnode knows its place by its label and its owners by the index of its list.
#[derive(Clone)]
struct Vnode {
    label: Box<str>,
    list: u32,
}

impl Hash for Vnode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.label.as_bytes());
    }
}

struct Slot(u16);

impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0.to_be_bytes());
    }
}

/// XXH3-64 of exactly the bytes written: Rust's own `Hash` adds suffixes and native byte order,
/// which no other language would compute.
#[derive(Clone)]
struct PublishedHash;

impl BuildHasher for PublishedHash {
    type Hasher = OneWrite;
    fn build_hasher(&self) -> OneWrite {
        OneWrite(0)
    }
}

struct OneWrite(u64);

impl Hasher for OneWrite {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(name: &str, zone: &str) -> Member {
        Member { name: name.into(), zone: zone.into() }
    }

    fn numbered(count: usize) -> Ring {
        Ring::build((0..count).map(|i| member(&format!("n{i}"), "")), 3)
    }

    fn home(ring: &Ring, slot: u16) -> &str {
        &ring.members()[usize::from(ring.owners(slot)[0])].name
    }

    #[test]
    fn a_join_moves_no_more_than_its_share_and_only_to_the_new_member() {
        for count in [3, 5, 10, 20] {
            let (before, after) = (numbered(count), numbered(count + 1));
            let new = format!("n{count}");
            let moved: Vec<u16> =
                (0..=u16::MAX).filter(|slot| home(&before, *slot) != home(&after, *slot)).collect();
            assert!(moved.iter().all(|slot| home(&after, *slot) == new));
            let limit = 1.2 / (count + 1) as f64;
            assert!((moved.len() as f64 / SLOTS as f64) <= limit, "{count}: {}", moved.len());
        }
    }

    #[test]
    fn homes_are_spread_evenly() {
        let ring = numbered(10);
        for (name, share) in ring.ownership() {
            assert!((0.07..0.13).contains(&share), "{name} {share}");
        }
    }

    #[test]
    fn owners_come_from_distinct_zones_first() {
        let zones = [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c")];
        let ring = Ring::build(zones.map(|(name, zone)| member(name, zone)), 3);
        for slot in 0..=u16::MAX {
            let zones: BTreeSet<_> =
                ring.owners(slot).iter().map(|i| &ring.members()[usize::from(*i)].zone).collect();
            assert_eq!(zones.len(), 3);
        }
    }

    #[test]
    fn an_empty_ring_has_no_owners() {
        assert!(Ring::build([], 3).owners(7).is_empty());
    }

    #[test]
    fn the_published_positions_do_not_move() {
        let mut hasher = PublishedHash.build_hasher();
        hasher.write(b"n1#0");
        assert_eq!(hasher.finish(), xxh3_64(b"n1#0"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn owners_are_distinct_members_whatever_the_order(
            names in proptest::collection::btree_set("[a-z]{1,8}", 1..12),
            zones in 1..4_usize,
            rf in 1..6_usize,
        ) {
            let members: Vec<_> = names.iter().enumerate()
                .map(|(i, name)| member(name, &format!("z{}", i % zones))).collect();
            let ring = Ring::build(members.clone(), rf);
            let other = Ring::build(members.into_iter().rev(), rf);
            prop_assert_eq!(ring.version(), other.version());
            for slot in (0..=u16::MAX).step_by(257) {
                let owners = ring.owners(slot);
                prop_assert_eq!(owners, other.owners(slot));
                let distinct: BTreeSet<_> = owners.iter().collect();
                prop_assert_eq!(distinct.len(), rf.min(names.len()));
            }
        }
    }
}
