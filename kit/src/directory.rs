//! Who answers where: [`Directory`] to read, [`Announce`] to say "I am here".
//!
//! Services see only these two; gossip-client (or the configuration) feeds them.

use arc_swap::ArcSwap;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

/// How alive an instance seems from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It answers.
    Up,
    /// Its node is suspected.
    Suspect,
    /// Its node is dead, or its lease ended.
    Down,
}

/// One running (or lately running) service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Instance {
    /// "gossip", "registry", "session", "coordinator" or "edge".
    pub service: String,
    /// The node's name; unique within the service, stable over restarts.
    pub name: String,
    /// host:port of its gRPC.
    pub addr: String,
    /// Grows with every start.
    pub generation: u64,
    /// Failure domain.
    pub zone: String,
    /// How alive it seems.
    pub state: State,
    /// Further addresses and facts, e.g. "mcp", "admin".
    pub meta: BTreeMap<String, String>,
}

/// A snapshot of all instances that changes under the reader; cheap to clone and read.
#[derive(Debug, Clone)]
pub struct Directory {
    view: Arc<ArcSwap<Vec<Instance>>>,
    version: watch::Receiver<u64>,
    // Keeps a fixed directory's channel open, so that `changed` waits instead of ending.
    _fixed: Option<Arc<watch::Sender<u64>>>,
}

/// Feeds a [`Directory`].
#[derive(Debug)]
pub struct DirectoryWriter {
    view: Arc<ArcSwap<Vec<Instance>>>,
    version: watch::Sender<u64>,
}

impl Directory {
    /// An empty directory and its writer.
    pub fn channel() -> (DirectoryWriter, Directory) {
        let view = Arc::new(ArcSwap::from_pointee(Vec::new()));
        let (sender, receiver) = watch::channel(0);
        let directory = Directory { view: view.clone(), version: receiver, _fixed: None };
        (DirectoryWriter { view, version: sender }, directory)
    }

    /// A directory that never changes.
    pub fn fixed(instances: Vec<Instance>) -> Self {
        let (writer, mut directory) = Self::channel();
        writer.set(instances);
        directory.version.mark_unchanged();
        directory._fixed = Some(Arc::new(writer.version));
        directory
    }

    /// Every instance, ordered by service and name.
    pub fn all(&self) -> Arc<Vec<Instance>> {
        self.view.load_full()
    }

    /// The instances of a service, whatever their state, ordered by name.
    pub fn of(&self, service: &str) -> Vec<Instance> {
        self.view.load().iter().filter(|i| i.service == service).cloned().collect()
    }

    /// One instance.
    pub fn get(&self, service: &str, name: &str) -> Option<Instance> {
        let view = self.view.load();
        view.iter().find(|i| i.service == service && i.name == name).cloned()
    }

    /// Resolves at the next change not yet seen by this clone. Pends for ever once the
    /// writer is gone: the last view stays in force.
    pub async fn changed(&mut self) {
        if self.version.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl DirectoryWriter {
    /// Replaces the view; equal views wake nobody.
    pub fn set(&self, mut instances: Vec<Instance>) {
        instances.sort_by(|a, b| (&a.service, &a.name).cmp(&(&b.service, &b.name)));
        if **self.view.load() == instances {
            return;
        }
        self.view.store(Arc::new(instances));
        self.version.send_modify(|version| *version += 1);
    }

    /// Shows this node's own announcements and nothing else, for ever: the directory of a
    /// node that runs alone.
    pub async fn follow(self, announce: Announce) {
        self.follow_beside(Vec::new(), announce).await;
    }

    /// Shows this node's own announcements beside a list that never changes, for ever: the
    /// directory of a node without gossip. What it announces itself it knows better.
    pub async fn follow_beside(self, listed: Vec<Instance>, mut announce: Announce) {
        loop {
            let own = announce.current();
            let is_own =
                |other: &Instance| own.iter().any(|i| (&i.service, &i.name) == (&other.service, &other.name));
            let others = listed.iter().filter(|other| !is_own(other)).cloned();
            self.set(others.chain(own.iter().cloned()).collect());
            announce.changed().await;
        }
    }
}

/// What this node says about its own services. Clones share one list.
#[derive(Debug, Clone)]
pub struct Announce {
    sender: Arc<watch::Sender<BTreeMap<(String, String), Instance>>>,
    receiver: watch::Receiver<BTreeMap<(String, String), Instance>>,
}

impl Default for Announce {
    fn default() -> Self {
        Self::new()
    }
}

impl Announce {
    /// Nothing announced yet.
    pub fn new() -> Self {
        let (sender, receiver) = watch::channel(BTreeMap::new());
        Self { sender: Arc::new(sender), receiver }
    }

    /// Announces an instance, or replaces what was announced for it.
    pub fn set(&self, instance: Instance) {
        let key = (instance.service.clone(), instance.name.clone());
        self.sender.send_if_modified(|all| {
            let before = all.insert(key, instance.clone());
            before.as_ref() != Some(&instance)
        });
    }

    /// Withdraws an instance.
    pub fn remove(&self, service: &str, name: &str) {
        let key = (service.to_owned(), name.to_owned());
        self.sender.send_if_modified(|all| all.remove(&key).is_some());
    }

    /// What is announced now, ordered by service and name.
    pub fn current(&self) -> Vec<Instance> {
        self.receiver.borrow().values().cloned().collect()
    }

    /// Resolves at the next change not yet seen by this clone.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.receiver.mark_unchanged();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(service: &str, name: &str) -> Instance {
        Instance {
            service: service.into(),
            name: name.into(),
            addr: "127.0.0.1:1".into(),
            generation: 1,
            zone: "a".into(),
            state: State::Up,
            meta: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn readers_see_each_change_once_and_in_order_of_name() {
        let (writer, mut directory) = Directory::channel();
        writer.set(vec![instance("session", "n2"), instance("session", "n1")]);
        directory.changed().await;
        let names: Vec<_> = directory.of("session").into_iter().map(|i| i.name).collect();
        assert_eq!(names, ["n1", "n2"]);
        writer.set(vec![instance("session", "n1"), instance("session", "n2")]);
        let quiet = tokio::time::timeout(std::time::Duration::from_millis(20), directory.changed());
        assert!(quiet.await.is_err(), "an equal view woke a reader");
        assert_eq!(directory.get("edge", "n1"), None);
    }

    #[tokio::test]
    async fn a_node_without_gossip_sees_itself() {
        let (writer, mut directory) = Directory::channel();
        let announce = Announce::new();
        tokio::spawn(writer.follow(announce.clone()));
        announce.set(instance("registry", "n1"));
        directory.changed().await;
        assert_eq!(directory.all().len(), 1);
        announce.remove("registry", "n1");
        directory.changed().await;
        assert!(directory.all().is_empty());
    }

    #[tokio::test]
    async fn a_static_list_stands_beside_what_the_node_announces_itself() {
        let (writer, mut directory) = Directory::channel();
        let announce = Announce::new();
        let listed = vec![instance("registry", "n1"), instance("edge", "e1")];
        tokio::spawn(writer.follow_beside(listed, announce.clone()));
        directory.changed().await;
        assert_eq!(directory.all().len(), 2);
        announce.set(Instance { generation: 7, ..instance("edge", "e1") });
        directory.changed().await;
        let generations: Vec<_> = directory.all().iter().map(|i| (i.name.clone(), i.generation)).collect();
        assert_eq!(generations, [("e1".into(), 7), ("n1".into(), 1)]);
    }
}
