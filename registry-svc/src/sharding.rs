//! `registry.sharding`: which model answers a name, and how its writes come to their writer.
//!
//! | | reads | writes |
//! |---|---|---|
//! | `off` | the one map, behind its lock | one at a time, through one lane |
//! | `shadow` | both; the one map's answer is returned, and compared | as `off` |
//! | `on` | the shards, without a lock | each shard's writer at once |
//!
//! Whichever way a write comes, its shard's writer decides it: a name that changes lanes keeps one
//! owner, its lease and its version.

use crate::{
    core::{
        single::Single,
        table::{Entry, Page},
    },
    error::Failure,
    names::Names,
};
use kit::{
    clock::Clock,
    flags::{EvalContext, FlagHandle, Flags, Parity, Shadow},
    shutdown::Shutdown,
};
use registry_client::map::Reader;
use std::{sync::Arc, time::Instant};
use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};

/// The flag.
pub(crate) const FLAG: &str = "registry.sharding";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Single,
    Both,
    Shards,
}

impl Path {
    fn of(place: usize) -> Self {
        match place {
            0 => Path::Single,
            1 => Path::Both,
            _ => Path::Shards,
        }
    }
}

pub(crate) struct Sharding {
    flag: FlagHandle,
    names: Arc<Names>,
    lane: Lane,
    shadow: Shadow,
    clock: Arc<dyn Clock>,
}

impl Sharding {
    /// The one map is there from the start where the flag has it answer.
    pub(crate) fn new(
        flag: FlagHandle,
        names: Arc<Names>,
        queue: usize,
        shadow: Shadow,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let sharding = Self { flag, names, lane: Lane::new(queue), shadow, clock };
        sharding.follow();
        sharding
    }

    /// Keeps the one map exactly as long as somebody may be answered from it.
    pub(crate) async fn run(self: Arc<Self>, flags: Flags, shutdown: Shutdown) {
        let mut changes = flags.subscribe();
        loop {
            let sharding = self.clone();
            // A panic of one filling is told by the runtime; the shards answer until the next change.
            let _ = tokio::task::spawn_blocking(move || sharding.follow()).await;
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = shutdown.wait() => return,
            }
        }
    }

    fn follow(&self) {
        if self.flag.reaches("off") || self.flag.reaches("shadow") {
            self.names.fill();
        } else {
            self.names.drop_single();
        }
    }

    pub(crate) fn get(&self, name: &str, tenant: &str) -> Option<Arc<Entry>> {
        let path = self.path(name, tenant);
        if path == Path::Shards {
            return self.names.table().get(name);
        }
        let Some(single) = self.names.single() else {
            return self.names.table().get(name);
        };
        match path {
            Path::Both => self.compare(
                || single.get(name).cloned(),
                || self.names.table().get(name),
                |old, new| same(old.as_ref(), new.as_ref()),
            ),
            _ => single.get(name).cloned(),
        }
    }

    /// A page is of many names: it goes by what the flag is outside of shares.
    pub(crate) fn page(
        &self,
        tenant: &str,
        of_single: impl FnOnce(&Single) -> Page,
        of_shards: impl FnOnce() -> Page,
    ) -> Page {
        let attributes = [("tenant", tenant.into())];
        let context = EvalContext { targeting_key: None, attributes: &attributes };
        let path = Path::of(self.flag.place(&context));
        let single = if path == Path::Shards { None } else { self.names.single() };
        match (path, single) {
            (Path::Both, Some(single)) => self.compare(|| of_single(&single), of_shards, same_page),
            (_, Some(single)) => of_single(&single),
            (_, None) => of_shards(),
        }
    }

    /// The versions of a batch of names, in their order.
    pub(crate) fn versions<'a>(
        &self,
        reader: &mut Reader<Arc<Entry>>,
        names: impl Iterator<Item = &'a [u8]> + Clone,
        tenant: &str,
        mut tell: impl FnMut(Option<u64>),
    ) {
        let for_all = self.flag.place_for_all().map(Path::of);
        let single = if for_all == Some(Path::Shards) { None } else { self.names.single() };
        let Some(single) = single else {
            return reader.versions(names, tell);
        };
        let begun = self.clock.now();
        let old: Vec<Option<u64>> = names.clone().map(|name| version(&single, name)).collect();
        let between = self.clock.now();
        let mut new = Vec::with_capacity(old.len());
        reader.versions(names.clone(), |version| new.push(version));
        let (mut equal, mut unequal) = (0u64, 0u64);
        for (name, (old, new)) in names.zip(old.into_iter().zip(new)) {
            let path = for_all.unwrap_or_else(|| self.path(text(name), tenant));
            match path {
                Path::Both if old == new => equal += 1,
                Path::Both => unequal += 1,
                Path::Single | Path::Shards => {}
            }
            tell(if path == Path::Shards { new } else { old });
        }
        drop(single);
        self.count(equal, unequal);
        if equal + unequal > 0 {
            self.took(begun, between);
        }
    }

    /// A place in the lane, for a write of a name that is not sharded.
    pub(crate) async fn turn(&self, name: &str, tenant: &str) -> Result<Option<Turn<'_>>, Failure> {
        match self.path(name, tenant) {
            Path::Shards => Ok(None),
            Path::Single | Path::Both => self.lane.turn().await.map(Some),
        }
    }

    /// One place in the lane for all writes of a batch, when any of its names is not sharded.
    pub(crate) async fn turn_of_batch(&self, all_sharded: bool) -> Result<Option<Turn<'_>>, Failure> {
        if all_sharded { Ok(None) } else { self.lane.turn().await.map(Some) }
    }

    /// Whether each of the names is sharded.
    pub(crate) fn all_sharded<'a>(&self, mut names: impl Iterator<Item = &'a str>, tenant: &str) -> bool {
        match self.flag.place_for_all().map(Path::of) {
            Some(for_all) => for_all == Path::Shards,
            None => names.all(|name| self.path(name, tenant) == Path::Shards),
        }
    }

    fn path(&self, name: &str, tenant: &str) -> Path {
        let attributes = [("tenant", tenant.into())];
        Path::of(self.flag.place(&EvalContext::key(name).with(&attributes)))
    }

    /// Called under the one map's lock: nothing becomes visible in between, so that a difference
    /// is one.
    fn compare<T>(
        &self,
        old: impl FnOnce() -> T,
        new: impl FnOnce() -> T,
        same: impl FnOnce(&T, &T) -> bool,
    ) -> T {
        let begun = self.clock.now();
        let old = old();
        let between = self.clock.now();
        let new = new();
        let equal = same(&old, &new);
        self.count(u64::from(equal), u64::from(!equal));
        self.took(begun, between);
        old
    }

    fn count(&self, equal: u64, unequal: u64) {
        self.shadow.compared(Parity::Match, equal);
        self.shadow.compared(Parity::Mismatch, unequal);
    }

    fn took(&self, begun: Instant, between: Instant) {
        let ended = self.clock.now();
        self.shadow.took(between.duration_since(begun), ended.duration_since(between));
    }
}

/// A name of a checked frame; what is no text is no name.
fn text(name: &[u8]) -> &str {
    std::str::from_utf8(name).unwrap_or_default()
}

fn version(single: &Single, name: &[u8]) -> Option<u64> {
    single.get(text(name)).map(|entry| entry.registration.version)
}

/// A revision is one change of this instance.
fn same(old: Option<&Arc<Entry>>, new: Option<&Arc<Entry>>) -> bool {
    let key = |entry: &Arc<Entry>| (entry.revision, entry.registration.version);
    old.map(key) == new.map(key)
}

fn same_page(old: &Page, new: &Page) -> bool {
    let mut pairs = old.entries.iter().zip(&new.entries);
    old.next == new.next
        && old.entries.len() == new.entries.len()
        && pairs.all(|(old, new)| same(Some(old), Some(new)))
}

/// The one writer of the model that is not sharded: one write at a time, those that wait in their
/// order, and no more than fit its queue.
struct Lane {
    places: Semaphore,
    limit: usize,
    writer: Mutex<()>,
}

/// Until it is dropped, no other write goes through the lane.
pub(crate) struct Turn<'a> {
    _writer: MutexGuard<'a, ()>,
    _place: SemaphorePermit<'a>,
}

impl Lane {
    fn new(limit: usize) -> Self {
        Self { places: Semaphore::new(limit), limit, writer: Mutex::new(()) }
    }

    async fn turn(&self) -> Result<Turn<'_>, Failure> {
        let full = |_| Failure::Exhausted { what: "queue", limit: self.limit };
        let place = self.places.try_acquire().map_err(full)?;
        Ok(Turn { _writer: self.writer.lock().await, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{name::Name, table::Table};
    use kit::{
        clock::SystemClock,
        flags::{Change, Setting},
        metrics::Metrics,
    };
    use proto::registry::Registration;

    fn entry(name: &str, version: u64) -> Arc<Entry> {
        let registration = Registration { name: name.into(), version, ..Default::default() };
        Arc::new(Entry { registration, revision: version })
    }

    struct Case {
        flags: Flags,
        metrics: Metrics,
        names: Arc<Names>,
        sharding: Sharding,
    }

    /// Of `odd`, the two models know different things: a fault that shadow must show.
    fn case(variant: &str) -> Case {
        let flags = Flags::for_test(&[(FLAG, variant)]);
        let (metrics, names) = (Metrics::new(), Names::new(Arc::new(Table::new(4))));
        let shadow = Shadow::new(&metrics, FLAG);
        let clock = Arc::new(SystemClock);
        let sharding = Sharding::new(flags.handle(FLAG), names.clone(), 2, shadow, clock);
        for name in ["a", "b", "odd"] {
            names.table().list(vec![Name::new(name)]);
            names.write().put(&entry(name, 1));
        }
        names.table().put(&entry("odd", 2));
        Case { flags, metrics, names, sharding }
    }

    impl Case {
        fn set(&self, variant: &str, percent: Option<u8>, tenants: &[&str]) {
            let tenants = tenants.iter().map(|tenant| (*tenant).into()).collect();
            let to = Setting::Variant { variant: variant.into(), percent, tenants };
            let (reason, actor) = ("a test".into(), "tester".into());
            let change =
                Change { key: FLAG.into(), to, reason, actor, expected_revision: None, cascade: false };
            self.flags.change_blocking(&change).unwrap();
            self.sharding.follow();
        }

        fn version(&self, name: &str, tenant: &str) -> Option<u64> {
            self.sharding.get(name, tenant).map(|entry| entry.registration.version)
        }

        fn packed(&self, tenant: &str) -> Vec<Option<u64>> {
            let mut reader = self.names.table().reader();
            let mut versions = Vec::new();
            let names = ["a", "odd", "none"].map(str::as_bytes);
            self.sharding.versions(&mut reader, names.into_iter(), tenant, |version| versions.push(version));
            versions
        }

        fn counted(&self, result: &str) -> u64 {
            let line = format!("swarm_shadow_compared_total{{flag=\"{FLAG}\",result=\"{result}\"}} ");
            let text = self.metrics.encode();
            text.lines().find_map(|found| found.strip_prefix(&line)).unwrap().parse().unwrap()
        }
    }

    #[test]
    fn off_answers_from_the_one_map_on_from_the_shards_and_shadow_compares() {
        let case = case("off");
        assert_eq!((case.version("odd", ""), case.packed("")[1]), (Some(1), Some(1)));
        assert_eq!((case.counted("match"), case.counted("mismatch")), (0, 0));

        case.set("shadow", None, &[]);
        assert_eq!((case.version("a", ""), case.version("none", "")), (Some(1), None));
        assert_eq!((case.counted("match"), case.counted("mismatch")), (2, 0));
        assert_eq!(case.version("odd", ""), Some(1), "the old path's answer is returned");
        assert_eq!((case.counted("match"), case.counted("mismatch")), (2, 1));
        assert_eq!(case.packed(""), [Some(1), Some(1), None]);
        assert_eq!((case.counted("match"), case.counted("mismatch")), (4, 2));

        case.set("on", None, &[]);
        assert!(case.names.single().is_none(), "nobody is answered from it");
        assert_eq!((case.version("odd", ""), case.packed("")[1]), (Some(2), Some(2)));
        assert_eq!((case.counted("match"), case.counted("mismatch")), (4, 2));

        case.set("off", None, &[]);
        assert_eq!(case.version("odd", ""), Some(2), "it was filled from the shards");
    }

    #[test]
    fn a_share_of_names_and_a_tenant_go_by_themselves() {
        let case = case("off");
        let names: Vec<String> = (0..400).map(|n| format!("server-{n}")).collect();
        let sharded = |tenant| {
            let on = |name: &&String| case.sharding.path(name, tenant) == Path::Shards;
            names.iter().filter(on).count()
        };
        case.set("on", Some(25), &[]);
        assert!((60..140).contains(&sharded("")), "{}", sharded(""));
        case.set("on", None, &["blue"]);
        assert_eq!((sharded("blue"), sharded("red"), sharded("")), (400, 0, 0));
        assert_eq!((case.version("odd", "blue"), case.version("odd", "red")), (Some(2), Some(1)));
        assert_eq!((case.packed("blue")[1], case.packed("red")[1]), (Some(2), Some(1)));
    }

    #[test]
    fn a_page_goes_by_the_flag_and_is_compared() {
        let case = case("shadow");
        let page = |prefix: &str| {
            let of_single = |single: &Single| single.page(None, prefix, 10, 100, |_| true);
            let page = case
                .sharding
                .page("", of_single, || case.names.table().page(None, prefix, 10, 100, |_| true));
            page.entries.iter().map(|entry| entry.registration.version).collect::<Vec<_>>()
        };
        assert_eq!(page("a"), [1]);
        assert_eq!((case.counted("match"), case.counted("mismatch")), (1, 0));
        assert_eq!(page("odd"), [1]);
        assert_eq!((case.counted("match"), case.counted("mismatch")), (1, 1));
    }

    #[tokio::test]
    async fn the_lane_lets_one_write_through_and_refuses_what_does_not_fit() {
        let case = case("off");
        let first = case.sharding.turn("a", "").await.unwrap();
        assert!(first.is_some());
        let second = case.sharding.turn("b", "");
        tokio::pin!(second);
        assert!(futures::poll!(&mut second).is_pending(), "one at a time");
        let third = case.sharding.turn("c", "").await;
        assert!(matches!(third, Err(Failure::Exhausted { limit: 2, .. })), "the queue is bounded");
        drop(first);
        assert!(second.await.unwrap().is_some());
        case.set("on", None, &[]);
        assert!(case.sharding.turn("a", "").await.unwrap().is_none(), "shards have their own writers");
    }
}
