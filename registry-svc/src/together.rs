//! Unary lookups that arrive together wait for the memory together.
//!
//! At a million names most of what a lookup costs is waiting for what is not in the cache: the
//! slot, the value, and the strings that go into the answer. So a call first puts its name down and lets the
//! others of its event loop do the same (`kit::rpc` asks each of them once more when all have
//! begun); whoever comes on first then reads what all of them need. That is a hint and no more: each looks its
//! name up by itself afterwards, as if nothing had happened.

use crate::core::table::{Entry, Table};
use registry_client::map::Warmer;
use std::{cell::RefCell, future::poll_fn, sync::Arc, task::Poll};

/// Bytes of names that are put down; what comes on top of it goes without.
const BYTES: usize = 16 << 10;

#[derive(Default)]
struct Coming {
    // Each with its length before it.
    names: Vec<u8>,
    count: usize,
    warmer: Warmer<Arc<Entry>>,
}

thread_local! {
    static COMING: RefCell<Coming> = RefCell::default();
}

/// Returns when what a lookup of the name reads has been asked for.
pub(crate) async fn arrive(table: &Table, name: &str) {
    COMING.with_borrow_mut(|coming| coming.put(name));
    let mut others_came = false;
    poll_fn(|context| {
        if std::mem::replace(&mut others_came, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    COMING.with_borrow_mut(|coming| coming.warm(table));
}

impl Coming {
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
            table.warm(&mut self.warmer, crate::packed::Names(&self.names));
        }
        self.names.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn coming() -> (usize, usize) {
        COMING.with_borrow(|coming| (coming.count, coming.names.len()))
    }

    #[test]
    fn those_that_arrive_together_go_on_together_and_leave_nothing_behind() {
        let table = Table::new(4);
        let mut arriving: Vec<_> =
            (0..100).map(|n| Box::pin(arrive(&table, if n % 2 == 0 { "a" } else { "" }))).collect();
        assert!(arriving.iter_mut().all(|one| one.now_or_never().is_none()));
        assert_eq!(coming(), (100, 150));
        assert!(arriving.iter_mut().all(|one| one.now_or_never().is_some()));
        assert_eq!(coming(), (0, 0));
    }

    #[test]
    fn what_is_put_down_is_bounded_and_whoever_goes_away_is_forgotten_with_the_next() {
        let (table, name) = (Table::new(4), "x".repeat(255));
        for _ in 0..1000 {
            let gone = Box::pin(arrive(&table, &name)).now_or_never();
            assert!(gone.is_none());
        }
        assert!(coming().1 <= BYTES, "{}", coming().1);
        let mut last = Box::pin(arrive(&table, "a"));
        assert!((&mut last).now_or_never().is_none() && (&mut last).now_or_never().is_some());
        assert_eq!(coming(), (0, 0));
    }
}
