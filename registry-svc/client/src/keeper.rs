//! Keeps ephemeral registrations alive for as long as it lives itself.

use crate::{Error, RegistryClient};
use proto::registry::{Durability, Kind, Registration};
use rand::Rng as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Orders that may wait for the task.
const ORDERS: usize = 256;
/// What failed is tried again after about a tenth of the time to live, within these: a registry
/// that stood still lets its holders in for five seconds at least before it ends leases.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Registrations in one batch, between two looks at what is due for renewal.
const REGISTERED_AT_ONCE: usize = 2000;

/// Renews leases in batches, each after a quarter to a third of its time to live, and registers
/// again, in batches too, what the registry does not know any more (it restarted, or another
/// instance answers now). When the keeper is dropped, its registrations run out with their leases.
#[derive(Debug)]
pub struct Keeper {
    client: RegistryClient,
    orders: mpsc::Sender<Order>,
    lost: watch::Receiver<BTreeMap<String, Error>>,
    _stop: DropGuard,
}

#[derive(Debug)]
enum Order {
    Keep { registration: Box<Registration>, lease_id: u64 },
    Release { key: Key },
}

/// What tells registrations apart: the name, and of a property or a counter its kind and owner.
type Key = (String, i32, String);

fn key(kind: Kind, name: &str, owner: &str) -> Key {
    match kind {
        Kind::Property | Kind::Counter => (name.to_owned(), kind.into(), owner.to_owned()),
        Kind::Unspecified | Kind::Backend | Kind::Agent | Kind::Worker => (name.to_owned(), 0, String::new()),
    }
}

impl Keeper {
    /// A keeper of nothing yet. Must be called within a tokio runtime.
    pub fn new(client: RegistryClient) -> Self {
        let (orders, receiver) = mpsc::channel(ORDERS);
        let (sender, lost) = watch::channel(BTreeMap::new());
        let stop = CancellationToken::new();
        let task = Task { client: client.clone(), kept: BTreeMap::new(), next: None, lost: sender };
        tokio::spawn(stop.clone().run_until_cancelled_owned(task.run(receiver)));
        Self { client, orders, lost, _stop: stop.drop_guard() }
    }

    /// Registers now and keeps it up. An error is a refusal, and nothing is kept; when the
    /// registry cannot be reached the registration is kept and follows when it can.
    pub async fn keep(&self, mut registration: Registration) -> Result<(), Error> {
        registration.durability = Durability::Ephemeral.into();
        let lease_id = match self.client.register(registration.clone(), true).await {
            Ok(answer) => answer.lease_id,
            Err(error) if error.is_transient() => 0,
            Err(refusal) => return Err(refusal),
        };
        self.order(Order::Keep { registration: registration.into(), lease_id }).await
    }

    /// The same for many at once: answers each refusal with its place. What is not refused is
    /// kept.
    pub async fn keep_all(&self, mut registrations: Vec<Registration>) -> Result<Vec<(usize, Error)>, Error> {
        let mut refused = Vec::new();
        for registration in &mut registrations {
            registration.durability = Durability::Ephemeral.into();
        }
        let answers = self.client.register_batch(registrations.clone(), true).await;
        for (place, (registration, answer)) in registrations.into_iter().zip(answers).enumerate() {
            let lease_id = match answer {
                Ok(answer) => answer.lease_id,
                Err(error) if error.is_transient() => 0,
                Err(refusal) => {
                    refused.push((place, refusal));
                    continue;
                }
            };
            self.order(Order::Keep { registration: registration.into(), lease_id }).await?;
        }
        Ok(refused)
    }

    /// Stops keeping a name and frees it.
    pub async fn release(&self, name: &str, owner: &str) -> Result<(), Error> {
        self.order(Order::Release { key: key(Kind::Unspecified, name, owner) }).await?;
        freed(self.client.deregister(name, owner, false).await)
    }

    /// Stops keeping one owner's property or counter and frees it.
    pub async fn release_held(&self, kind: Kind, name: &str, owner: &str) -> Result<(), Error> {
        self.order(Order::Release { key: key(kind, name, owner) }).await?;
        freed(self.client.deregister_held(kind, name, owner).await)
    }

    /// The names that are kept but refused at the last try, each with the reason.
    pub fn lost(&self) -> watch::Receiver<BTreeMap<String, Error>> {
        self.lost.clone()
    }

    async fn order(&self, order: Order) -> Result<(), Error> {
        let stopped = |_| Error::Failed("the keeper has stopped".into());
        self.orders.send(order).await.map_err(stopped)
    }
}

/// What is gone already is freed too.
fn freed<T>(answer: Result<T, Error>) -> Result<(), Error> {
    match answer {
        Ok(_) | Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

struct Kept {
    registration: Registration,
    // 0 = to be registered.
    lease_id: u64,
    // The lease before that, of which the registry did not know.
    lost_lease_id: u64,
    due: Instant,
}

struct Task {
    client: RegistryClient,
    kept: BTreeMap<Key, Kept>,
    // When the first of them is due, or earlier.
    next: Option<Instant>,
    lost: watch::Sender<BTreeMap<String, Error>>,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut taken = Vec::new();
        loop {
            tokio::select! {
                count = orders.recv_many(&mut taken, ORDERS) => match count {
                    0 => return,
                    _ => taken.drain(..).for_each(|order| self.obey(order)),
                },
                () = sleep_until(self.next) => {
                    self.refresh().await;
                    self.next = self.kept.values().map(|kept| kept.due).min();
                }
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Keep { registration, lease_id } => {
                let due = if lease_id == 0 { Instant::now() } else { renewal(&registration) };
                let key = key(registration.kind(), &registration.name, &registration.owner);
                let kept = Kept { registration: *registration, lease_id, lost_lease_id: 0, due };
                self.kept.insert(key, kept);
                self.next = self.next.into_iter().chain([due]).min();
            }
            Order::Release { key } => {
                self.kept.remove(&key);
                self.found(&key.0);
            }
        }
    }

    /// Renews what is due, with all that is due soon in the same batch; then registers what has
    /// no lease.
    async fn refresh(&mut self) {
        let now = Instant::now();
        let soon = |kept: &Kept| kept.due <= now + ttl(&kept.registration) / 12;
        let leases: Vec<u64> = self
            .kept
            .values()
            .filter(|kept| kept.lease_id != 0 && soon(kept))
            .map(|kept| kept.lease_id)
            .collect();
        if !leases.is_empty() {
            self.renew(&leases).await;
        }
        self.register_bare().await;
    }

    async fn renew(&mut self, leases: &[u64]) {
        let renewed = self.client.renew(leases, "").await.map(|answer| BTreeSet::from_iter(answer.renewed));
        let asked = BTreeSet::from_iter(leases);
        for kept in self.kept.values_mut().filter(|kept| asked.contains(&kept.lease_id)) {
            match &renewed {
                Ok(renewed) if renewed.contains(&kept.lease_id) => kept.due = renewal(&kept.registration),
                Ok(_) => {
                    (kept.lost_lease_id, kept.lease_id) = (kept.lease_id, 0);
                    kept.due = Instant::now();
                }
                Err(_) => kept.due = Instant::now() + retry(&kept.registration),
            }
        }
    }

    /// Registers some of what has no lease.
    async fn register_bare(&mut self) {
        let now = Instant::now();
        let bare = self.kept.iter().filter(|(_, kept)| kept.lease_id == 0 && kept.due <= now);
        let bare = bare.take(REGISTERED_AT_ONCE);
        let (keys, lost): (Vec<Key>, Vec<(Registration, u64)>) =
            bare.map(|(key, kept)| (key.clone(), (kept.registration.clone(), kept.lost_lease_id))).unzip();
        let answers = self.client.register_again(lost).await;
        for (key, answer) in keys.iter().zip(answers) {
            self.registered(key, answer.map(|answer| answer.lease_id));
        }
    }

    fn registered(&mut self, key: &Key, lease_id: Result<u64, Error>) {
        let Some(kept) = self.kept.get_mut(key) else {
            return;
        };
        match lease_id {
            Ok(lease_id) => {
                (kept.lease_id, kept.due) = (lease_id, renewal(&kept.registration));
                self.found(&key.0);
            }
            Err(error) => {
                kept.due = Instant::now() + retry(&kept.registration);
                self.missed(&key.0, error);
            }
        }
    }

    /// Told once until it is found again.
    fn missed(&self, name: &str, error: Error) {
        self.lost.send_modify(|lost| {
            let words = error.to_string();
            if lost.insert(name.to_owned(), error).is_none() {
                tracing::warn!(name, error = words, "a registration cannot be kept up");
            }
        });
    }

    fn found(&self, name: &str) {
        self.lost.send_if_modified(|lost| lost.remove(name).is_some());
    }
}

fn ttl(registration: &Registration) -> Duration {
    Duration::from_millis(registration.ttl_ms.max(1000))
}

/// A quarter to a third of the time to live: two tries may fail, and many keepers spread.
fn renewal(registration: &Registration) -> Instant {
    let part = rand::rng().random_range(0.25..0.34);
    Instant::now() + ttl(registration).mul_f64(part)
}

/// Half to all of its length: many keepers spread.
fn retry(registration: &Registration) -> Duration {
    let most = (ttl(registration) / 10).clamp(RETRY_MIN, RETRY_MAX);
    most.mul_f64(rand::rng().random_range(0.5..1.0))
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
