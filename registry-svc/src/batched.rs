//! Writes in batches: each entry is checked and decided for itself, at the shard of its name;
//! those of one shard are committed together, and the store groups the shards. What comes again
//! because its lease was lost goes ahead of what is new.

use crate::{
    core::command::{Done, Order},
    driver::{At, Command, Outcomes, Queues},
    error::Failure,
    handle::{Handle, Shared},
};
use std::collections::BTreeMap;
use tokio::sync::{mpsc::error::TrySendError, oneshot};

/// An entry, or why it is malformed.
type Entry = Result<Order, Failure>;

/// A shard, and whether it is what comes again.
type Way = (usize, bool);

/// What goes one way: places in the request, and what belongs there.
struct Part {
    places: Vec<usize>,
    orders: Vec<Order>,
}

impl Part {
    /// The hash spreads evenly, so a quarter more than the share is enough nearly always.
    fn of_about(share: usize) -> Self {
        let room = share + share / 4 + 1;
        Part { places: Vec::with_capacity(room), orders: Vec::with_capacity(room) }
    }
}

/// Writes the entries; answers each in its place. Over the limit nothing is applied.
pub(crate) async fn write(handle: &Handle, entries: Vec<Entry>) -> Result<Outcomes, Failure> {
    let shared = handle.shared();
    let limit = shared.max_batched;
    let full = Failure::Exhausted { what: "max_batched", limit };
    let count = u32::try_from(entries.len()).map_err(|_| full.clone())?;
    let _permits = shared.batched.try_acquire_many(count).map_err(|_| full)?;

    // Held until all are visible, where a name is not sharded.
    let all_sharded = shared.sharding.all_sharded(entries.iter().flatten().map(Order::name), handle.tenant());
    let _turn = shared.sharding.turn_of_batch(all_sharded).await?;

    let (parts, mut outcomes) = split(shared, entries);
    let mut waiting = Vec::new();
    for ((shard, returns), Part { places, orders }) in parts {
        let Some(queues) = shared.queues.get(shard) else {
            continue;
        };
        match send(queues, orders, returns, shared.queue_limit).await {
            Ok(answer) => waiting.push((places, answer)),
            Err(failure) => fill(&mut outcomes, &places, |_| Err(failure.clone())),
        }
    }
    for (places, answer) in waiting {
        match answer.await {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                fill(&mut outcomes, &places, |_| answers.next().unwrap_or_else(|| Err(ended())));
            }
            Err(_) => fill(&mut outcomes, &places, |_| Err(ended())),
        }
    }
    Ok(outcomes)
}

/// By shard, in the order of the request; what is malformed is answered already.
fn split(shared: &Shared, entries: Vec<Entry>) -> (BTreeMap<Way, Part>, Outcomes) {
    let mut parts: BTreeMap<Way, Part> = BTreeMap::new();
    let share = entries.len() / usize::from(shared.table.shards());
    let mut outcomes = Vec::with_capacity(entries.len());
    for (place, entry) in entries.into_iter().enumerate() {
        outcomes.push(Err(match entry {
            Ok(order) => {
                let shard = usize::from(shared.table.shard_of(order.name()).0);
                let part = parts.entry((shard, order.returns())).or_insert_with(|| Part::of_about(share));
                part.places.push(place);
                part.orders.push(order);
                Failure::ShuttingDown
            }
            Err(malformed) => malformed,
        }));
    }
    (parts, outcomes)
}

/// What comes again waits for its place instead of being refused.
async fn send(
    queues: &Queues,
    orders: Vec<Order>,
    returns: bool,
    limit: usize,
) -> Result<oneshot::Receiver<Outcomes>, Failure> {
    let (reply, answer) = oneshot::channel();
    let command = Command::Batch(orders, reply);
    if returns {
        queues.returning.send(command).await.map_err(|_| Failure::ShuttingDown)?;
        return Ok(answer);
    }
    queues.commands.try_send(command).map_err(|error| match error {
        TrySendError::Full(_) => Failure::Exhausted { what: "queue", limit },
        TrySendError::Closed(_) => Failure::ShuttingDown,
    })?;
    Ok(answer)
}

fn fill(
    outcomes: &mut Outcomes,
    places: &[usize],
    mut outcome: impl FnMut(usize) -> Result<At<Done>, Failure>,
) {
    for place in places {
        if let Some(slot) = outcomes.get_mut(*place) {
            *slot = outcome(*place);
        }
    }
}

/// The writer ended with the entries in its queue or in its hands.
fn ended() -> Failure {
    Failure::StoreUnsure("the shard's writer has ended".into())
}
