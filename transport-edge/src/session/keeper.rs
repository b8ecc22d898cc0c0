//! What happens to sessions beside requests: leases, lives, noted changes, changed lists, the end.

use super::live::{Live, Scope};
use super::upstreams::to_standing;
use crate::front::{Edge, changed_lists};
use futures::{StreamExt as _, stream};
use std::{sync::Arc, time::Duration};

/// Time between rounds.
const ROUND: Duration = Duration::from_millis(800);
/// A session used this recently has its lease renewed ahead.
const ACTIVE_MS: u64 = 3_000;
/// At most one write per session in this time (K26).
const TOUCH_MS: u64 = 10_000;
/// Calls of the store at the same time.
const PARALLEL: usize = 32;
/// Most ids of one touch.
const TOUCH_MAX: usize = 1000;

/// Keeps the live sessions until the shutdown.
pub(crate) async fn keep(edge: Arc<Edge>) {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut catalogs = edge.backends.watch();
    let mut known = edge.backends.catalog();
    loop {
        tokio::select! {
            () = edge.shutdown.wait() => return,
            _ = rounds.tick() => round(&edge).await,
            changed = catalogs.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = edge.backends.catalog();
                let kinds = changed_lists(&known, &now, None);
                known = now;
                announce(&edge, &kinds).await;
            }
        }
    }
}

async fn round(edge: &Arc<Edge>) {
    let now = edge.now_ms();
    let all = edge.sessions.all();
    edge.metrics.sessions.set(all.len() as i64);
    let idle = u64::try_from(edge.config.session_idle.as_millis()).unwrap_or(u64::MAX);
    for live in &all {
        if live.standing().is_some_and(|stream| stream.has_client()) || live.in_flight() > 0 {
            live.mark_used(now);
        }
        if now.saturating_sub(live.last_used()) > idle {
            tracing::info!(session = live.hash, "idle session closed here; the next request opens it again");
            live.end();
        }
        if live.is_ended() {
            edge.sessions.remove(live);
        }
    }
    let active: Vec<_> = all
        .iter()
        .filter(|live| !live.is_ended() && now.saturating_sub(live.last_used()) < ACTIVE_MS)
        .collect();
    stream::iter(&active).for_each_concurrent(PARALLEL, |live| renew(edge, live)).await;
    let dirty = all.iter().filter(|live| live.is_dirty() && !live.is_ended());
    stream::iter(dirty)
        .for_each_concurrent(PARALLEL, |live| async move {
            if let Err(error) = live.update(|_| {}).await {
                tracing::debug!(session = live.hash, %error, "a noted change is not kept yet");
                live.note(|_| {});
            }
        })
        .await;
    touch(edge, &all, now).await;
}

async fn renew(edge: &Edge, live: &Arc<Live>) {
    if let Err(error) = live.renew(edge.config.lease).await
        && live.is_ended()
    {
        tracing::info!(session = live.hash, %error, "session is no longer ours");
        edge.sessions.remove(live);
    }
}

async fn touch(edge: &Edge, all: &[Arc<Live>], now: u64) {
    let due: Vec<_> = all.iter().filter(|live| !live.is_ended() && live.due_touch(now, TOUCH_MS)).collect();
    for part in due.chunks(TOUCH_MAX) {
        let ids = part.iter().map(|live| live.id.clone()).collect();
        match edge.store.touch(ids).await {
            Ok(unknown) => {
                for live in part.iter().filter(|live| unknown.contains(&live.id)) {
                    live.terminate();
                    edge.sessions.remove(live);
                }
            }
            Err(error) => tracing::debug!(%error, "sessions were not touched"),
        }
    }
}

/// Tells the sessions of the aggregate which lists changed, on their standing streams.
async fn announce(edge: &Edge, kinds: &[&'static str]) {
    if kinds.is_empty() {
        return;
    }
    let all = edge.sessions.all();
    let listening = all.iter().filter(|live| live.scope == Scope::All && live.standing().is_some());
    stream::iter(listening)
        .for_each_concurrent(PARALLEL, |live| async move {
            for kind in kinds {
                let body = format!(r#"{{"jsonrpc":"2.0","method":"notifications/{kind}/list_changed"}}"#);
                to_standing(live, body.into(), None).await;
            }
        })
        .await;
}
