//! Named conditions that must all hold before a node says it is ready.

use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

/// The conditions of one node.
#[derive(Clone, Debug)]
pub struct Readiness {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    // `None` = met.
    conditions: Mutex<BTreeMap<&'static str, Option<String>>>,
    changed: watch::Sender<()>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// No conditions: ready.
    pub fn new() -> Self {
        let (changed, _) = watch::channel(());
        Self { inner: Arc::new(Inner { conditions: Mutex::default(), changed }) }
    }

    /// Adds a condition, unmet until [`Condition::met`]. The same name gives the same condition.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.inner.conditions.lock().entry(name).or_insert_with(|| Some("starting".into()));
        self.inner.changed.send_replace(());
        Condition { name, readiness: self.clone() }
    }

    /// Whether every condition holds.
    pub fn ready(&self) -> bool {
        self.inner.conditions.lock().values().all(Option::is_none)
    }

    /// Resolves when every condition holds.
    pub async fn wait_ready(&self) {
        let mut changes = self.changes();
        while !self.ready() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The conditions that do not hold, with the reason, in name order.
    pub fn unmet(&self) -> Vec<(String, String)> {
        let conditions = self.inner.conditions.lock();
        conditions.iter().filter_map(|(name, why)| Some(((*name).to_owned(), why.clone()?))).collect()
    }

    /// Marked changed whenever a condition changes.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.inner.changed.subscribe()
    }

    fn set(&self, name: &'static str, why: Option<String>) {
        let before = self.inner.conditions.lock().insert(name, why.clone());
        if before.as_ref() != Some(&why) {
            self.inner.changed.send_replace(());
        }
    }
}

/// One condition; clones speak for the same one.
#[derive(Clone, Debug)]
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
}

impl Condition {
    /// It holds.
    pub fn met(&self) {
        self.readiness.set(self.name, None);
    }

    /// It does not hold, and why, in words for an operator.
    pub fn unmet(&self, why: impl Into<String>) {
        self.readiness.set(self.name, Some(why.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_every_condition_holds_and_not_after_one_breaks() {
        let readiness = Readiness::new();
        assert!(readiness.ready());
        let (disk, peers) = (readiness.condition("disk"), readiness.condition("peers"));
        disk.met();
        assert_eq!(readiness.unmet(), [("peers".to_owned(), "starting".to_owned())]);
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.wait_ready().await }
        });
        peers.met();
        waiting.await.unwrap();
        peers.unmet("1 of 3 answers");
        assert!(!readiness.ready());
        assert_eq!(readiness.unmet()[0].1, "1 of 3 answers");
    }
}
