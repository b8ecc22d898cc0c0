//! The event logs of a session's streams (K20, K25): bounded, fenced by epoch, merged by sequence.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Events of one stream.
pub const EVENTS_MAX: usize = 1024;
/// Bytes of one stream.
pub const BYTES_MAX: usize = 1 << 20;
/// Streams of one session.
pub const STREAMS_MAX: usize = 256;
/// Characters of a stream's name.
pub const STREAM_NAME_MAX: usize = 64;

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// 1, 2, 3, ... within the stream.
    pub sequence: u64,
    /// The wire's `EventKind`.
    pub kind: i32,
    /// Opaque.
    pub data: Bytes,
    /// Of its writer. Of two entries with one sequence the later epoch's is true.
    pub epoch: u64,
}

/// Why an append is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A later epoch owns the logs.
    #[error("fenced off by epoch {0}")]
    Fenced(u64),
    /// The same epoch wrote something else under this sequence.
    #[error("sequence {0} holds another event")]
    Conflict(u64),
    /// Sequences start at 1.
    #[error("sequence 0 is not allowed")]
    Zero,
    /// One event over [`BYTES_MAX`].
    #[error("event of {0} bytes is over the limit of {BYTES_MAX}")]
    TooLarge(usize),
    /// Over [`STREAMS_MAX`].
    #[error("session has {STREAMS_MAX} streams already")]
    TooManyStreams,
}

/// What an append changed, for the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// An entry is stored.
    Put(Entry),
    /// The entry of this sequence is gone.
    Remove(u64),
}

/// What a replica or a merge of replicas knows of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Whether the stream is known.
    pub known: bool,
    /// In order of sequence.
    pub entries: Vec<Entry>,
    /// The oldest sequence still held, or the next one when nothing is held.
    pub first_sequence: u64,
    /// The last sequence held, 0 when nothing is.
    pub last_sequence: u64,
    /// The fencing epoch in force.
    pub epoch: u64,
}

/// All logs of one session at one owner.
#[derive(Debug, Default)]
pub struct Logs {
    epoch: u64,
    streams: BTreeMap<String, Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    entries: VecDeque<Entry>,
    bytes: usize,
    dropped: u64,
}

impl Logs {
    /// The fencing epoch in force.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Raises the fencing epoch; answers whether it changed.
    pub fn fence(&mut self, epoch: u64) -> bool {
        let raised = epoch > self.epoch;
        self.epoch = self.epoch.max(epoch);
        raised
    }

    /// Takes back an entry from disk.
    pub fn recover(&mut self, stream: &str, entry: Entry) {
        let stream = self.streams.entry(stream.to_owned()).or_default();
        stream.bytes += entry.data.len();
        stream.entries.push_back(entry);
    }

    /// Appends events; the fence of the session is raised by [`Logs::fence`] before. Entries carry
    /// their own epochs, so that a repair can bring what an older epoch wrote.
    pub fn append(&mut self, epoch: u64, stream: &str, entries: Vec<Entry>) -> Result<Vec<Edit>, LogError> {
        if epoch < self.epoch {
            return Err(LogError::Fenced(self.epoch));
        }
        if !self.streams.contains_key(stream) && self.streams.len() >= STREAMS_MAX {
            return Err(LogError::TooManyStreams);
        }
        self.check(stream, &entries)?;
        let stream = self.streams.entry(stream.to_owned()).or_default();
        let mut edits = Vec::with_capacity(entries.len());
        for entry in entries {
            stream.insert(entry, &mut edits);
        }
        stream.trim(&mut edits);
        Ok(edits)
    }

    /// What is known of a stream after a sequence.
    pub fn view(&self, stream: &str, after: u64) -> View {
        let Some(stream) = self.streams.get(stream) else {
            return View { epoch: self.epoch, first_sequence: 1, ..View::default() };
        };
        let start = stream.entries.partition_point(|entry| entry.sequence <= after);
        let first = stream.entries.front().map_or(stream.dropped + 1, |entry| entry.sequence);
        View {
            known: true,
            entries: stream.entries.range(start..).cloned().collect(),
            first_sequence: first,
            last_sequence: stream.entries.back().map_or(stream.dropped, |entry| entry.sequence),
            epoch: self.epoch,
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.streams.values().map(|stream| stream.bytes).sum()
    }

    /// Names of the streams.
    pub fn streams(&self) -> impl Iterator<Item = &str> {
        self.streams.keys().map(String::as_str)
    }

    /// Refuses the whole batch before anything of it is stored.
    fn check(&self, stream: &str, entries: &[Entry]) -> Result<(), LogError> {
        let stored = self.streams.get(stream);
        for entry in entries {
            if entry.sequence == 0 {
                return Err(LogError::Zero);
            }
            if entry.data.len() > BYTES_MAX {
                return Err(LogError::TooLarge(entry.data.len()));
            }
            let held = stored.and_then(|stream| stream.find(entry.sequence));
            if held.is_some_and(|held| held.epoch == entry.epoch && !held.same(entry)) {
                return Err(LogError::Conflict(entry.sequence));
            }
        }
        Ok(())
    }
}

impl Entry {
    fn same(&self, other: &Entry) -> bool {
        self.kind == other.kind && self.data == other.data
    }
}

impl Stream {
    fn find(&self, sequence: u64) -> Option<&Entry> {
        let at = self.entries.partition_point(|entry| entry.sequence < sequence);
        self.entries.get(at).filter(|entry| entry.sequence == sequence)
    }

    fn insert(&mut self, entry: Entry, edits: &mut Vec<Edit>) {
        if entry.sequence <= self.dropped {
            return;
        }
        let at = self.entries.partition_point(|held| held.sequence < entry.sequence);
        if at.checked_sub(1).and_then(|i| self.entries.get(i)).is_some_and(|e| e.epoch > entry.epoch) {
            return;
        }
        self.drop_dead(at, &entry, edits);
        match self.entries.get_mut(at) {
            Some(held) if held.sequence == entry.sequence => {
                if held.epoch >= entry.epoch {
                    return;
                }
                self.bytes = self.bytes + entry.data.len() - held.data.len();
                *held = entry.clone();
            }
            _ => {
                self.bytes += entry.data.len();
                self.entries.insert(at, entry.clone());
            }
        }
        edits.push(Edit::Put(entry));
    }

    /// What an older epoch wrote from this sequence on never reached a quorum before the fence.
    fn drop_dead(&mut self, at: usize, entry: &Entry, edits: &mut Vec<Edit>) {
        let mut index = at;
        while let Some(held) = self.entries.get(index) {
            if held.epoch < entry.epoch && held.sequence > entry.sequence {
                self.bytes -= held.data.len();
                edits.push(Edit::Remove(held.sequence));
                self.entries.remove(index);
            } else {
                index += 1;
            }
        }
    }

    fn trim(&mut self, edits: &mut Vec<Edit>) {
        while self.entries.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes -= oldest.data.len();
            self.dropped = oldest.sequence;
            edits.push(Edit::Remove(oldest.sequence));
        }
    }
}

/// Merges what several owners know. With answers of enough owners to meet every write quorum, every
/// acked event is among them. A hole is never hidden: only what follows it is told, with its start.
pub fn merge(views: Vec<View>, after: u64) -> View {
    let known = views.iter().any(|view| view.known);
    let epoch = views.iter().map(|view| view.epoch).max().unwrap_or_default();
    let last = views.iter().map(|view| view.last_sequence).max().unwrap_or_default();
    let knowing = views.iter().filter(|view| view.known);
    let first = knowing.map(|view| view.first_sequence).min().unwrap_or(1);
    let mut entries = contiguous_end(alive(union(views)));
    match entries.first().map(|entry| entry.sequence) {
        Some(start) if start > after + 1 => {
            let last_sequence = entries.last().map_or(last, |entry| entry.sequence);
            View { known, entries, first_sequence: start, last_sequence, epoch }
        }
        Some(_) => {
            let last_sequence = entries.last().map_or(last, |entry| entry.sequence);
            entries.retain(|entry| entry.sequence > after);
            View { known, entries, first_sequence: first, last_sequence, epoch }
        }
        None => View { known, entries, first_sequence: first, last_sequence: last, epoch },
    }
}

fn union(views: Vec<View>) -> BTreeMap<u64, Entry> {
    let mut all: BTreeMap<u64, Entry> = BTreeMap::new();
    for entry in views.into_iter().flat_map(|view| view.entries) {
        match all.get(&entry.sequence) {
            Some(held) if held.epoch >= entry.epoch => {}
            _ => {
                all.insert(entry.sequence, entry);
            }
        }
    }
    all
}

/// Epochs never fall along a log: an entry of an older epoch after one of a newer is dead.
fn alive(all: BTreeMap<u64, Entry>) -> Vec<Entry> {
    let mut epoch = 0;
    let mut alive = Vec::with_capacity(all.len());
    for entry in all.into_values() {
        if entry.epoch >= epoch {
            epoch = entry.epoch;
            alive.push(entry);
        }
    }
    alive
}

fn contiguous_end(mut entries: Vec<Entry>) -> Vec<Entry> {
    let hole = entries.windows(2).rposition(|pair| match pair {
        [before, after] => before.sequence + 1 != after.sequence,
        _ => false,
    });
    match hole {
        Some(at) => entries.split_off(at + 1),
        None => entries,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(sequence: u64, epoch: u64) -> Entry {
        let data = Bytes::from(format!("{sequence}/{epoch}"));
        Entry { sequence, kind: 1, data, epoch }
    }

    fn entries(sequences: std::ops::RangeInclusive<u64>, epoch: u64) -> Vec<Entry> {
        sequences.map(|sequence| entry(sequence, epoch)).collect()
    }

    #[test]
    fn an_append_is_idempotent_and_refuses_another_event() {
        let mut logs = Logs::default();
        assert_eq!(logs.append(0, "g", entries(1..=3, 0)).map(|edits| edits.len()), Ok(3));
        assert_eq!(logs.append(0, "g", entries(1..=3, 0)), Ok(vec![]));
        let other = Entry { data: Bytes::from_static(b"other"), ..entry(2, 0) };
        assert_eq!(logs.append(0, "g", vec![other]), Err(LogError::Conflict(2)));
        assert_eq!(logs.append(0, "g", vec![entry(0, 0)]), Err(LogError::Zero));
    }

    #[test]
    fn an_older_epoch_is_fenced_and_its_unacked_end_dies() {
        let mut logs = Logs::default();
        logs.fence(1);
        logs.append(1, "g", entries(1..=5, 1)).expect("appended");
        assert!(logs.fence(2));
        assert_eq!(logs.append(1, "g", vec![entry(6, 1)]), Err(LogError::Fenced(2)));
        let edits = logs.append(2, "g", vec![entry(4, 2)]).expect("appended");
        assert_eq!(edits, vec![Edit::Remove(5), Edit::Put(entry(4, 2))]);
        assert_eq!(logs.view("g", 2).entries, vec![entry(3, 1), entry(4, 2)]);
    }

    #[test]
    fn the_oldest_events_go_first_and_the_gap_is_told() {
        let mut logs = Logs::default();
        logs.append(0, "g", entries(1..=1500, 0)).expect("appended");
        let view = logs.view("g", 0);
        assert_eq!((view.first_sequence, view.last_sequence), (477, 1500));
        assert_eq!(view.entries.len(), EVENTS_MAX);
        assert_eq!(merge(vec![view], 0).first_sequence, 477);
        let big = |sequence| Entry { data: Bytes::from(vec![0; 400_000]), ..entry(sequence, 0) };
        logs.append(0, "b", (1..=5).map(big).collect()).expect("appended");
        assert_eq!(logs.view("b", 0).first_sequence, 4);
    }

    #[test]
    fn streams_and_events_are_bounded() {
        let mut logs = Logs::default();
        for i in 0..STREAMS_MAX {
            logs.append(0, &i.to_string(), entries(1..=1, 0)).expect("appended");
        }
        assert_eq!(logs.append(0, "more", entries(1..=1, 0)), Err(LogError::TooManyStreams));
        let huge = Entry { data: Bytes::from(vec![0; BYTES_MAX + 1]), ..entry(2, 0) };
        assert_eq!(logs.append(0, "1", vec![huge]), Err(LogError::TooLarge(BYTES_MAX + 1)));
    }

    #[test]
    fn a_hole_is_told_never_hidden() {
        let mut logs = Logs::default();
        logs.append(0, "g", vec![entry(1, 0), entry(2, 0), entry(5, 0), entry(6, 0)]).expect("appended");
        let merged = merge(vec![logs.view("g", 1)], 1);
        assert_eq!((merged.first_sequence, merged.last_sequence), (5, 6));
        assert_eq!(merged.entries, entries(5..=6, 0));
        let unknown = merge(vec![Logs::default().view("g", 0)], 0);
        assert!(!unknown.known && unknown.entries.is_empty());
    }

    #[test]
    fn a_dead_end_of_an_older_epoch_is_not_replayed() {
        let (mut a, mut b) = (Logs::default(), Logs::default());
        a.append(1, "g", entries(1..=10, 1)).expect("appended");
        b.append(1, "g", entries(1..=12, 1)).expect("appended");
        a.append(2, "g", vec![entry(11, 2)]).expect("appended");
        let merged = merge(vec![a.view("g", 8), b.view("g", 8)], 8);
        let expected = vec![entry(9, 1), entry(10, 1), entry(11, 2)];
        assert_eq!((merged.entries, merged.last_sequence), (expected, 11));
    }

    proptest! {
        /// Each event is acked by two of three owners; any two owners replay them all.
        #[test]
        fn two_of_three_owners_replay_every_acked_event(
            missing in proptest::collection::vec(0..4_usize, 1..60), skip in 0..3_usize, after in 0..20_u64,
        ) {
            let mut owners = [Logs::default(), Logs::default(), Logs::default()];
            for (index, missing) in missing.iter().enumerate() {
                for (_, owner) in owners.iter_mut().enumerate().filter(|(i, _)| i != missing) {
                    owner.append(1, "g", vec![entry(index as u64 + 1, 1)]).expect("appended");
                }
            }
            let asked = owners.iter().enumerate().filter(|(i, _)| *i != skip);
            let merged = merge(asked.map(|(_, owner)| owner.view("g", after)).collect(), after);
            let expected: Vec<_> = (after + 1..=missing.len() as u64).map(|s| entry(s, 1)).collect();
            prop_assert_eq!(merged.entries, expected);
        }
    }
}
