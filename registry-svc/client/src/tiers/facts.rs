//! Hears the bus before the watch, and ends what the watch does not confirm.

use super::book::Heard;
use crate::{follow::heard_of, mirror::View};
use kit::{
    bus::{Bus, Message, Subscription},
    clock::{Clock as _, SystemClock},
};
use prost::Message as _;
use proto::{
    registry::{Kind, WatchResponse},
    subjects::{self, Fact},
};
use std::{sync::Arc, time::Duration};
use tokio::time::MissedTickBehavior;

/// How often facts are looked through; also the pause before the bus is tried again.
const TICK: Duration = Duration::from_millis(250);

/// Where facts come from.
pub(crate) struct Facts {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) cluster: String,
}

/// Never ends.
pub(crate) async fn listen(view: Arc<View>, kind: Kind, facts: Option<Facts>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut subscription = None;
    loop {
        tokio::select! {
            message = next(&mut subscription) => match message {
                Some(message) => {
                    let heard = decode(&message, facts.as_ref(), kind);
                    heard.into_iter().for_each(|heard| view.hear(heard, SystemClock.now()));
                }
                None => subscription = None,
            },
            _ = tick.tick() => {
                view.expire(SystemClock.now());
                if let Some(facts) = facts.as_ref().filter(|_| subscription.is_none()) {
                    let pattern = subjects::of_service(&facts.cluster, "registry");
                    subscription = facts.bus.subscribe(&pattern).await.ok();
                }
            }
        }
    }
}

async fn next(subscription: &mut Option<Subscription>) -> Option<Message> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}

/// What is not understood is left to the watch.
fn decode(message: &Message, facts: Option<&Facts>, kind: Kind) -> Option<Heard> {
    let cluster = &facts?.cluster;
    let is_ours = [Fact::RegistrationPut, Fact::RegistrationRemoved]
        .iter()
        .any(|fact| fact.subject(cluster) == message.subject);
    let event = WatchResponse::decode(message.payload.clone()).ok().filter(|_| is_ours)?.event?;
    let heard = heard_of(event)?;
    let of_kind = |heard: &Heard| {
        heard.value.as_ref().is_none_or(|value| kind == Kind::Unspecified || value.kind() == kind)
    };
    Some(heard).filter(of_kind)
}
