//! Keeps ephemeral registrations alive for as long as it lives itself.

use crate::{Error, RegistryClient};
use futures::StreamExt as _;
use proto::registry::{Durability, Registration};
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
/// that stood still lets its holders in for three seconds at least before it ends leases.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Registrations that are under way together.
const REGISTERING: usize = 64;
/// Registrations between two looks at what is due for renewal.
const REGISTERED_AT_ONCE: usize = 256;

/// Renews leases in batches, each after a quarter to a third of its time to live, and registers
/// again what the registry does not know any more (it restarted, or another instance answers
/// now). When the keeper is dropped, its registrations run out with their leases.
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
    Release { name: String },
}

impl Keeper {
    /// A keeper of nothing yet. Must be called within a tokio runtime.
    pub fn new(client: RegistryClient) -> Self {
        let (orders, receiver) = mpsc::channel(ORDERS);
        let (sender, lost) = watch::channel(BTreeMap::new());
        let stop = CancellationToken::new();
        let task = Task { client: client.clone(), kept: BTreeMap::new(), lost: sender };
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

    /// Stops keeping a name and frees it.
    pub async fn release(&self, name: &str, owner: &str) -> Result<(), Error> {
        self.order(Order::Release { name: name.to_owned() }).await?;
        match self.client.deregister(name, owner, false).await {
            Ok(_) | Err(Error::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
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
    kept: BTreeMap<String, Kept>,
    lost: watch::Sender<BTreeMap<String, Error>>,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut taken = Vec::new();
        loop {
            let next = self.kept.values().map(|kept| kept.due).min();
            tokio::select! {
                count = orders.recv_many(&mut taken, ORDERS) => match count {
                    0 => return,
                    _ => taken.drain(..).for_each(|order| self.obey(order)),
                },
                () = sleep_until(next) => self.refresh().await,
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Keep { registration, lease_id } => {
                let due = if lease_id == 0 { Instant::now() } else { renewal(&registration) };
                let kept = Kept { registration: *registration, lease_id, lost_lease_id: 0, due };
                self.kept.insert(kept.registration.name.clone(), kept);
            }
            Order::Release { name } => {
                self.kept.remove(&name);
                self.found(&name);
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
        let bare = self.kept.values().filter(|kept| kept.lease_id == 0 && kept.due <= now);
        let calls: Vec<_> = bare
            .take(REGISTERED_AT_ONCE)
            .map(|kept| {
                let (client, lost) = (self.client.clone(), kept.lost_lease_id);
                let registration = kept.registration.clone();
                async move {
                    let name = registration.name.clone();
                    (name, client.register_again(registration, true, lost).await)
                }
            })
            .collect();
        let mut answers = futures::stream::iter(calls).buffer_unordered(REGISTERING);
        while let Some((name, answer)) = answers.next().await {
            self.registered(&name, answer.map(|answer| answer.lease_id));
        }
    }

    fn registered(&mut self, name: &str, lease_id: Result<u64, Error>) {
        let Some(kept) = self.kept.get_mut(name) else {
            return;
        };
        match lease_id {
            Ok(lease_id) => {
                (kept.lease_id, kept.due) = (lease_id, renewal(&kept.registration));
                self.found(name);
            }
            Err(error) => {
                kept.due = Instant::now() + retry(&kept.registration);
                self.missed(name, error);
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
