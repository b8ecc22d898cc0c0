//! In process: the shards' slots, as registry-svc reads them.

use super::{AREA, FEW, names};
use crate::report::Row;
use registry_client::map::{Map, Reader};
use std::{
    hint::black_box,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

const SHARDS: usize = 16;
/// Lookups between two looks at the clock.
const ROUND: usize = 1024;

pub(super) type Names = Arc<Map<u64>>;

/// A map of names in which each is its number's version.
pub(super) fn filled(names: &[String]) -> Names {
    let map = Arc::new(Map::new(SHARDS));
    for (version, name) in (1u64..).zip(names) {
        map.put(name.as_bytes(), version, version);
    }
    map
}

pub(super) fn rows(many: usize, length: Duration) -> Vec<Row> {
    let (few, names) = (names(FEW), names(many));
    let start = Instant::now();
    let map = filled(&names);
    let puts = many as f64 / start.elapsed().as_secs_f64();
    let small = filled(&few);
    let two_small = single(&small, &few, 2, 0, length);
    let two = single(&map, &names, 2, 0, length);
    let batched = batches(&map, &names, 2, length);
    let bytes = map.bytes() as f64 / map.len() as f64;
    let row = |name: &str, value| Row::new(AREA, format!("L3 in process, {name}"), value, "lookups/s");
    vec![
        row("10K names, 1 thread", single(&small, &few, 1, 0, length)),
        row("10K names, 2 threads", two_small).goal(">= 50M", two_small >= 50e6),
        row("10K names, 2 threads, 5 % writes", single(&small, &few, 2, 5, length)),
        row("1M names, 1 thread", single(&map, &names, 1, 0, length)),
        row("1M names, 2 threads", two).goal(">= 12M", two >= 12e6),
        row("1M names, 2 threads, 5 % writes", single(&map, &names, 2, 5, length)),
        row("1M names batched, 1 thread", batches(&map, &names, 1, length)),
        row("1M names batched, 2 threads", batched).goal(">= 40M", batched >= 40e6),
        Row::new(AREA, "put into the shards, 1 thread", puts, "puts/s"),
        Row::new(AREA, "slots and places of a name", bytes, "bytes").goal("<= 140", bytes <= 140.0),
    ]
}

/// Uniform; `writes` in a hundred replace instead.
pub(super) fn single(map: &Names, names: &[String], threads: usize, writes: usize, length: Duration) -> f64 {
    on_threads(threads, length, |seed| {
        let (mut reader, mut random) = (Reader::new(map.clone()), Random(seed));
        move || {
            let mut sum = 0;
            for n in 0..ROUND {
                let name = random.pick(names).as_bytes();
                if n % 100 < writes {
                    map.put(name, n as u64 + 1, 1);
                } else {
                    sum ^= reader.version(name).unwrap_or_default();
                }
            }
            black_box(sum);
            ROUND
        }
    })
}

fn batches(map: &Names, names: &[String], threads: usize, length: Duration) -> f64 {
    on_threads(threads, length, |seed| {
        let (mut reader, mut random) = (Reader::new(map.clone()), Random(seed));
        // As they come off the wire: one after the other in one piece of memory.
        let order: Vec<u8> = (0..1 << 18).flat_map(|_| random.pick(names).as_bytes().to_vec()).collect();
        let mut at = 0;
        move || {
            let mut sum = 0;
            let bytes = order.get(at..at + ROUND * 24).unwrap_or_default();
            at = (at + ROUND * 24) % order.len();
            reader.versions(bytes.chunks_exact(24), |version| sum ^= version.unwrap_or_default());
            black_box(sum);
            ROUND
        }
    })
}

/// Rounds of as many threads, each made by `make` from a seed, per second together.
fn on_threads<F: FnMut() -> usize>(threads: usize, length: Duration, make: impl Fn(u64) -> F + Sync) -> f64 {
    let run = &|seed| {
        let mut round = make(seed);
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < length {
            count += round();
        }
        count as f64 / start.elapsed().as_secs_f64()
    };
    thread::scope(|scope| {
        let running: Vec<_> = (1..=threads as u64).map(|seed| scope.spawn(move || run(seed))).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or(f64::NAN)).sum()
    })
}

pub(super) struct Random(pub(super) u64);

impl Random {
    /// Splitmix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn pick<'a>(&mut self, names: &'a [String]) -> &'a str {
        let at = (u128::from(self.next()) * names.len() as u128) >> 64;
        names.get(at as usize).map_or("", String::as_str)
    }
}
