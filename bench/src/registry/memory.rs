//! In process: the shards' slots, as registry-svc reads them.

use super::{
    FEW, Samples,
    names::{LENGTH, Random, name},
};
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

/// A map of names in which each has its number's version.
struct Names {
    map: Arc<Map<Arc<u64>>>,
    count: u64,
}

/// Both sizes.
pub(super) struct Maps {
    few: Names,
    many: Names,
}

impl Maps {
    pub(super) fn fill(many: u64, samples: &mut Samples) -> Maps {
        let maps = Maps { few: Names::fill(FEW), many: Names::fill(many) };
        samples.add("bytes of a name in the shards", maps.many.map.bytes() as f64 / many as f64);
        maps
    }

    pub(super) fn round(&self, samples: &mut Samples) {
        let length = samples.length;
        let mut single = |figure, names: &Names, threads, writes| {
            samples.add(figure, names.single(threads, writes, length));
        };
        single("lookup in process, 10K names, 1 thread", &self.few, 1, 0);
        single("lookup in process, 10K names, 2 threads", &self.few, 2, 0);
        single("lookup in process, 10K names, 1 thread, 5 % writes", &self.few, 1, 5);
        single("lookup in process, 10K names, 2 threads, 5 % writes", &self.few, 2, 5);
        single("lookup in process, 1M names, 1 thread", &self.many, 1, 0);
        single("lookup in process, 1M names, 2 threads", &self.many, 2, 0);
        single("lookup in process, 1M names, 1 thread, 5 % writes", &self.many, 1, 5);
        single("lookup in process, 1M names, 2 threads, 5 % writes", &self.many, 2, 5);
        samples.add("batched lookup in process, 1M names, 1 thread", self.many.batched(1, length));
        samples.add("batched lookup in process, 1M names, 2 threads", self.many.batched(2, length));
    }
}

impl Names {
    fn fill(count: u64) -> Names {
        let map = Arc::new(Map::new(SHARDS));
        for n in 0..count {
            map.put(&name(n), n + 1, Arc::new(n));
        }
        Names { map, count }
    }

    /// Uniform; `writes` in a hundred replace instead.
    fn single(&self, threads: usize, writes: usize, length: Duration) -> f64 {
        on_threads(threads, length, |seed| {
            let (mut reader, mut random) = (Reader::new(self.map.clone()), Random(seed));
            let value = Arc::new(seed);
            move || {
                let mut sum = 0;
                for n in 0..ROUND {
                    let name = name(random.below(self.count));
                    if n % 100 < writes {
                        self.map.put(&name, n as u64 + 1, value.clone());
                    } else {
                        sum ^= reader.version(&name).unwrap_or_default();
                    }
                }
                black_box(sum);
                ROUND
            }
        })
    }

    fn batched(&self, threads: usize, length: Duration) -> f64 {
        on_threads(threads, length, |seed| {
            let (mut reader, mut random) = (Reader::new(self.map.clone()), Random(seed));
            // As they come off the wire: one after the other in one piece of memory.
            let order: Vec<u8> = (0..1 << 18).flat_map(|_| name(random.below(self.count))).collect();
            let mut at = 0;
            move || {
                let mut sum = 0;
                let bytes = order.get(at..at + ROUND * LENGTH).unwrap_or_default();
                at = (at + ROUND * LENGTH) % order.len();
                reader.versions(bytes.chunks_exact(LENGTH), |version| sum ^= version.unwrap_or_default());
                black_box(sum);
                ROUND
            }
        })
    }
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
