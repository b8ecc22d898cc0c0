//! Unary lookups that arrive together wait for the memory together.
//!
//! At a million names most of what a lookup costs is waiting for what is not in the cache: the
//! slot, the value, and the strings that go into the answer. So a call first puts its name down and
//! lets the others of its event loop do the same (`kit::rpc` asks each of them once more when all
//! have begun); whoever comes on first then reads what all of them need. That is a hint and no more:
//! each looks its name up by itself afterwards, as if nothing had happened.

use crate::{
    core::table::{Entry, Table},
    packed::Names,
};
use hashbrown::DefaultHashBuilder;
use parking_lot::Mutex;
use registry_client::map::Warmer;
use std::{future::poll_fn, hash::BuildHasher as _, sync::Arc, task::Poll, thread};

/// Bytes of names that are put down; what comes on top of it goes without.
const BYTES: usize = 16 << 10;
/// More than there are event loops (`node.grpc_loops`); two that share one only wait together.
const LOOPS: usize = 16;

#[derive(Default)]
pub(crate) struct Together {
    by_loop: [Coming; LOOPS],
    hasher: DefaultHashBuilder,
}

/// Of one event loop, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Coming(Mutex<Put>);

#[derive(Default)]
struct Put {
    // Each with its length before it.
    names: Vec<u8>,
    count: usize,
    warmer: Warmer<Arc<Entry>>,
}

impl Together {
    /// Returns when what a lookup of the name reads has been asked for.
    pub(crate) async fn arrive(&self, table: &Table, name: &str) {
        self.of_this_loop().lock().put(name);
        let mut others_came = false;
        poll_fn(|context| {
            if std::mem::replace(&mut others_came, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        self.of_this_loop().lock().warm(table);
    }

    /// An event loop is a thread.
    fn of_this_loop(&self) -> &Mutex<Put> {
        let at = self.hasher.hash_one(thread::current().id()) as usize % LOOPS;
        &self.by_loop[at].0
    }
}

impl Put {
    fn put(&mut self, name: &str) {
        let Ok(length) = u8::try_from(name.len()) else {
            return;
        };
        if self.names.len() + name.len() < BYTES {
            self.names.push(length);
            self.names.extend_from_slice(name.as_bytes());
            self.count += 1;
        }
    }

    /// One alone has nobody to wait with.
    fn warm(&mut self, table: &Table) {
        if self.count > 1 {
            table.warm(&mut self.warmer, Names(&self.names));
        }
        self.names.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    impl Together {
        fn coming(&self) -> (usize, usize) {
            let here = self.of_this_loop().lock();
            (here.count, here.names.len())
        }
    }

    #[test]
    fn those_that_arrive_together_go_on_together_and_leave_nothing_behind() {
        let (table, together) = (Table::new(4), Together::default());
        let arrive = |n| Box::pin(together.arrive(&table, if n % 2 == 0 { "a" } else { "" }));
        let mut arriving: Vec<_> = (0..100).map(arrive).collect();
        assert!(arriving.iter_mut().all(|one| one.now_or_never().is_none()));
        assert_eq!(together.coming(), (100, 150));
        assert!(arriving.iter_mut().all(|one| one.now_or_never().is_some()));
        assert_eq!(together.coming(), (0, 0));
    }

    #[test]
    fn what_is_put_down_is_bounded_and_whoever_goes_away_is_forgotten_with_the_next() {
        let (table, together, name) = (Table::new(4), Together::default(), "x".repeat(255));
        for _ in 0..1000 {
            let gone = Box::pin(together.arrive(&table, &name)).now_or_never();
            assert!(gone.is_none());
        }
        assert!(together.coming().1 <= BYTES, "{}", together.coming().1);
        let mut last = Box::pin(together.arrive(&table, "a"));
        assert!((&mut last).now_or_never().is_none() && (&mut last).now_or_never().is_some());
        assert_eq!(together.coming(), (0, 0));
    }
}
