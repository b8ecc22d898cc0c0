//! The life of one backend: connect, learn what it offers, watch its health, start again.

use super::{
    BackendError, Era, Unsolicited,
    connect::{self, Verdict, ourselves, part},
    http::Session,
    link::{Greeting, Link},
    rewrite::LEGACY,
    server::{Backend, Phase, Shared, SharedWay, words},
    shelf::Sink,
    upstream::{CallError, Upstream, Way},
};
use crate::core::{
    catalog::{Item, List, ServerEntry, ServerState},
    json::elements,
    jsonrpc::text,
};
use bytes::Bytes;
use kit::backoff::Backoff;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep, timeout},
};

/// Pages of one list, and entries of it.
const MAX_PAGES: usize = 100;
const MAX_ITEMS: usize = 10_000;
const EVENTS: usize = 64;
/// Changes that come together are read together.
const SETTLE: Duration = Duration::from_millis(50);
/// A modern backend tells changes only to who listens; its lists are read again this often.
const REREAD: Duration = Duration::from_secs(30);
/// Pings in a row that a busy process may miss.
const MISSES_WHEN_BUSY: u32 = 4;
/// A connection that lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(10);

/// A connection of our own.
struct Control {
    upstream: Upstream,
    events: mpsc::Receiver<Unsolicited>,
    link: Option<Arc<Link>>,
}

/// Keeps a backend connected until it is stopped.
pub(crate) async fn run(backend: Arc<Backend>, sink: Sink) {
    let [first, longest] = backend.deps.config.restart_ms.map(Duration::from_millis);
    let mut backoff = Backoff::random(first, longest);
    let stop = backend.stop.clone();
    let work = async {
        loop {
            let began = Instant::now();
            let reason = life(&backend, &sink).await;
            if began.elapsed() > GOOD {
                backoff.reset();
            }
            let pause = backoff.next().max(first / 2);
            tracing::info!(backend = backend.name(), reason, ?pause, "backend is failing");
            fail(&backend, &sink, &reason, pause);
            wait(&backend, &sink, pause).await;
            backend.restarts.fetch_add(1, Ordering::Relaxed);
            backend.meter.restarts.inc();
        }
    };
    stop.run_until_cancelled(work).await;
    let last = backend.phase.send_replace(Phase::Stopped);
    if let Phase::Ready(Shared { way: SharedWay::Link(link), .. }) = last {
        link.close("it was removed");
    }
    backend.close_all("it was removed");
    backend.meter.ready.set(0);
}

fn fail(backend: &Backend, sink: &Sink, reason: &str, pause: Duration) {
    backend.meter.ready.set(0);
    let retry_after = pause.max(Duration::from_secs(1));
    backend.phase.send_replace(Phase::Failing { reason: reason.to_owned(), retry_after });
    sink.failing(backend.name(), reason);
}

/// Waits for the next attempt; lists that are too old to be believed go meanwhile.
async fn wait(backend: &Backend, sink: &Sink, pause: Duration) {
    backend.reap_idle();
    sleep(pause).await;
    sink.expire(backend.name(), Duration::from_millis(backend.deps.config.list_grace_ms));
}

/// One connection from its start to its end; the reason of the end.
async fn life(backend: &Arc<Backend>, sink: &Sink) -> String {
    let (mut control, shared) = match connect(backend).await {
        Ok(connected) => connected,
        Err(BackendError::NotReady { reason, .. } | BackendError::Gone { reason }) => {
            return unprefixed(backend, &reason);
        }
        Err(error) => return error.to_string(),
    };
    let entry = match learn(backend, &control.upstream, &shared.greeting).await {
        Ok(entry) => entry,
        Err(error) => {
            let reason = words(&error);
            if let Some(link) = &control.link {
                link.close(&reason);
            }
            return reason;
        }
    };
    sink.ready(backend.name(), entry);
    backend.meter.ready.set(1);
    backend.phase.send_replace(Phase::Ready(shared.clone()));
    let reason = watch(backend, sink, &mut control, &shared.greeting).await;
    if let Some(link) = &control.link {
        link.close(&reason);
    }
    reason
}

fn unprefixed(backend: &Backend, reason: &str) -> String {
    reason.strip_prefix(&format!("{}: ", backend.name())).unwrap_or(reason).to_owned()
}

async fn connect(backend: &Arc<Backend>) -> Result<(Control, Shared), BackendError> {
    let (sender, events) = mpsc::channel(EVENTS);
    let within = backend.deps.config.start_timeout();
    if backend.is_stdio() {
        let link = backend.start_process(false).await?;
        let seat = link.seat(ourselves(), sender);
        let greeting = match connect::greet(&seat, within).await {
            Ok(greeting) => greeting,
            Err(error) => return Err(with_epitaph(&link, error).await),
        };
        link.greet(greeting.clone());
        let upstream = backend.upstream(Way::Link(seat), greeting.clone());
        let shared = Shared { way: SharedWay::Link(link.clone()), greeting };
        return Ok((Control { upstream, events, link: Some(link) }, shared));
    }
    let origin =
        backend.origin().map_err(|reason| BackendError::not_ready(reason, Duration::from_secs(60)))?;
    let origin = Arc::new(origin);
    let mut greeting =
        match connect::probe(&origin, backend.name(), backend.deps.config.probe_timeout()).await? {
            Verdict::Modern(greeting) => greeting,
            Verdict::Legacy => Greeting { era: Era::Legacy, server_info: Bytes::new(), result: Bytes::new() },
        };
    let settings = backend.settings(greeting.era, ourselves(), LEGACY, sender, greeting.server_info.clone());
    let session = Session::open(origin.clone(), settings).await?;
    if greeting.era == Era::Legacy {
        greeting.result = session.shared.spoken().result.clone();
        greeting.server_info = part(&greeting.result, "serverInfo");
    }
    let upstream = backend.upstream(Way::Http(session), greeting.clone());
    let shared = Shared { way: SharedWay::Http(origin), greeting };
    Ok((Control { upstream, events, link: None }, shared))
}

/// A process that died while it was greeted says why better than the broken pipe does.
async fn with_epitaph(link: &Link, error: BackendError) -> BackendError {
    let died = timeout(Duration::from_millis(1500), link.closed()).await.is_ok();
    let epitaph = link.epitaph();
    link.close("it could not be greeted");
    match died && !epitaph.is_empty() {
        true => BackendError::gone(epitaph),
        false => error,
    }
}

/// Reads everything that it offers.
async fn learn(
    backend: &Backend,
    upstream: &Upstream,
    greeting: &Greeting,
) -> Result<ServerEntry, CallError> {
    let version = match greeting.era {
        Era::Modern => super::rewrite::MODERN.to_owned(),
        Era::Legacy => text(&part(&greeting.result, "protocolVersion")).unwrap_or_default().into_owned(),
    };
    let mut entry = ServerEntry {
        state: ServerState::Ready,
        reason: String::new(),
        era: Some(greeting.era),
        protocol_version: version,
        capabilities: part(&greeting.result, "capabilities"),
        server_info: greeting.server_info.clone(),
        instructions: text(&part(&greeting.result, "instructions"))
            .map(|text| text.chars().take(8192).collect()),
        ..ServerEntry::starting()
    };
    let within = backend.deps.config.probe_timeout();
    for list in List::ALL {
        if !entry.has_capability(list.capability()) {
            continue;
        }
        let items = read_list(upstream, list, within).await;
        let slot = match list {
            List::Tools => &mut entry.tools,
            List::Prompts => &mut entry.prompts,
            List::Resources => &mut entry.resources,
            List::Templates => &mut entry.templates,
        };
        *slot = match items {
            Ok(items) => items,
            // Many servers declare resources and have no templates.
            Err(CallError::Refused { .. }) if list != List::Tools => Vec::new(),
            Err(error) => return Err(error),
        };
    }
    Ok(entry)
}

async fn read_list(upstream: &Upstream, list: List, within: Duration) -> Result<Vec<Item>, CallError> {
    let mut items: Vec<Item> = Vec::new();
    let mut params = String::from("{}");
    for _ in 0..MAX_PAGES {
        let result = upstream.call(list.method(), &params, within).await?;
        let array = part(&result, list.member());
        let parsed = elements(&array).into_iter().filter_map(|span| Item::parse(list, span.of(&array)));
        items.extend(parsed.take(MAX_ITEMS - items.len().min(MAX_ITEMS)));
        let cursor = part(&result, "nextCursor");
        if cursor.is_empty() || &cursor[..] == b"null" || items.len() >= MAX_ITEMS {
            break;
        }
        params = format!("{{\"cursor\":{}}}", String::from_utf8_lossy(&cursor));
    }
    let mut seen = std::collections::HashSet::new();
    items.retain(|item| seen.insert(item.key.clone()));
    Ok(items)
}

/// Until it ends: list changes, health, idle sessions.
async fn watch(backend: &Arc<Backend>, sink: &Sink, control: &mut Control, greeting: &Greeting) -> String {
    let mut health = Health { missed: 0 };
    let mut ping = interval(Duration::from_millis(backend.deps.config.ping_interval_ms.max(10)));
    ping.reset();
    let mut reread = interval(REREAD);
    reread.reset();
    loop {
        let link = control.link.clone();
        let closed = async move {
            match &link {
                Some(link) => link.closed().await,
                None => std::future::pending().await,
            }
        };
        let dirty = tokio::select! {
            () = closed => return control.link.as_ref().map(|link| link.epitaph()).unwrap_or_default(),
            event = control.events.recv() => match event {
                Some(Unsolicited::Message(said)) => said.envelope.method(&said.raw).ends_with("list_changed"),
                Some(Unsolicited::Reopened) => true,
                Some(Unsolicited::Gone { reason }) => return reason,
                None => return "its connection ended".into(),
            },
            _ = ping.tick() => match health.check(backend, control, greeting.era).await {
                Ok(()) => false,
                Err(reason) => return reason,
            },
            _ = reread.tick() => greeting.era == Era::Modern,
        };
        backend.reap_idle();
        if dirty {
            sleep(SETTLE).await;
            match learn(backend, &control.upstream, greeting).await {
                Ok(entry) => sink.ready(backend.name(), entry),
                Err(error) => return words(&error),
            }
        }
    }
}

struct Health {
    missed: u32,
}

impl Health {
    /// Asks for a sign of life. A process that works on a call may be unable to give one.
    async fn check(&mut self, backend: &Backend, control: &Control, era: Era) -> Result<(), String> {
        let within = backend.deps.config.probe_timeout();
        let (method, params) = match era {
            Era::Legacy => ("ping", "{}"),
            Era::Modern => ("server/discover", "{}"),
        };
        match control.upstream.call(method, params, within).await {
            Ok(_) | Err(CallError::Refused { .. }) => {
                self.missed = 0;
                Ok(())
            }
            Err(error) => {
                self.missed += 1;
                let busy = control.link.as_ref().is_some_and(|link| link.is_busy());
                match busy && self.missed <= MISSES_WHEN_BUSY {
                    true => Ok(()),
                    false => Err(format!("gave no sign of life: {}", words(&error))),
                }
            }
        }
    }
}
