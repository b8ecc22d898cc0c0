//! Keeps ephemeral registrations alive for as long as it lives itself.

use crate::{Error, RegistryClient};
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
/// A failed renewal is tried again after a tenth of the time to live, at least this.
const RETRY_MIN: Duration = Duration::from_millis(100);

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
    due: Instant,
}

struct Task {
    client: RegistryClient,
    kept: BTreeMap<String, Kept>,
    lost: watch::Sender<BTreeMap<String, Error>>,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            let next = self.kept.values().map(|kept| kept.due).min();
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                () = sleep_until(next) => self.refresh().await,
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Keep { registration, lease_id } => {
                let due = if lease_id == 0 { Instant::now() } else { renewal(&registration) };
                self.kept
                    .insert(registration.name.clone(), Kept { registration: *registration, lease_id, due });
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
        let bare: Vec<String> = self
            .kept
            .iter()
            .filter(|(_, kept)| kept.lease_id == 0 && kept.due <= Instant::now())
            .map(|(name, _)| name.clone())
            .collect();
        for name in bare {
            self.register(&name).await;
        }
    }

    async fn renew(&mut self, leases: &[u64]) {
        let renewed = self.client.renew(leases, "").await.map(|answer| BTreeSet::from_iter(answer.renewed));
        let asked = BTreeSet::from_iter(leases);
        for kept in self.kept.values_mut().filter(|kept| asked.contains(&kept.lease_id)) {
            match &renewed {
                Ok(renewed) if renewed.contains(&kept.lease_id) => kept.due = renewal(&kept.registration),
                Ok(_) => (kept.lease_id, kept.due) = (0, Instant::now()),
                Err(_) => kept.due = Instant::now() + retry(&kept.registration),
            }
        }
    }

    async fn register(&mut self, name: &str) {
        let Some(kept) = self.kept.get_mut(name) else {
            return;
        };
        let answer = self.client.register(kept.registration.clone(), true).await;
        let outcome = match answer {
            Ok(answer) => {
                (kept.lease_id, kept.due) = (answer.lease_id, renewal(&kept.registration));
                Ok(())
            }
            Err(error) => {
                kept.due = Instant::now() + retry(&kept.registration);
                Err(error)
            }
        };
        match outcome {
            Ok(()) => self.found(name),
            Err(error) => {
                tracing::warn!(name, %error, "a registration cannot be kept up");
                self.lost.send_modify(|lost| drop(lost.insert(name.to_owned(), error)));
            }
        }
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

fn retry(registration: &Registration) -> Duration {
    (ttl(registration) / 10).max(RETRY_MIN)
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
