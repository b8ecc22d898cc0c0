//! Many requests over the two pipes of one process.

use super::{
    BackendError, Era, FromBackend, RawId, Said, Unsolicited,
    metrics::Meter,
    process::{Lines, Pipes, Process},
    rewrite::{Introduction, Origin, framed, number},
    seat::Seat,
};
use crate::core::{
    codes,
    jsonrpc::{self, Envelope, Field, Kind},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{process::ChildStdout, runtime::Handle, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

/// Messages of one request that wait for their reader.
pub(super) const EXCHANGE_QUEUE: usize = 64;
/// How long a session's own process waits for a slow reader (RELIABILITY O7).
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Lines in a row that nobody can use before a process counts as flooding.
const NOISE: u32 = 10_000;

/// Limits of a link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkLimits {
    pub(crate) max_in_flight: usize,
    pub(crate) max_message: usize,
}

/// What a backend says of itself when it is opened.
#[derive(Debug, Clone)]
pub(crate) struct Greeting {
    pub(crate) era: Era,
    pub(crate) server_info: Bytes,
    /// The raw result of `initialize` or `server/discover`.
    pub(crate) result: Bytes,
}

/// One process and everything that waits for it.
pub(crate) struct Link {
    process: Process,
    pub(super) input: mpsc::Sender<Bytes>,
    pub(super) state: Mutex<State>,
    pub(super) next: AtomicU64,
    pub(super) exclusive: bool,
    limits: LinkLimits,
    greeting: OnceLock<Greeting>,
    closed: CancellationToken,
    pub(super) touched: Mutex<tokio::time::Instant>,
    meter: Arc<Meter>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) seats: HashMap<u64, mpsc::Sender<Unsolicited>>,
    pub(super) subscribers: HashMap<String, BTreeSet<u64>>,
    dead: Option<String>,
    noise: u32,
}

pub(super) struct Pending {
    pub(super) seat: u64,
    pub(super) origin: Arc<Origin>,
    pub(super) answers: Answers,
    pub(super) quiet: bool,
}

impl Link {
    /// Starts reading. `exclusive` means that the process serves one session only.
    pub(crate) fn start(
        (process, pipes): (Process, Pipes),
        exclusive: bool,
        limits: LinkLimits,
        meter: Arc<Meter>,
        runtime: &Handle,
    ) -> Arc<Self> {
        let link = Arc::new(Link {
            process,
            input: pipes.input,
            state: Mutex::default(),
            next: AtomicU64::new(1),
            exclusive,
            limits,
            greeting: OnceLock::new(),
            closed: CancellationToken::new(),
            touched: Mutex::new(tokio::time::Instant::now()),
            meter,
        });
        runtime.spawn(read(Arc::downgrade(&link), pipes.output, link.closed.clone()));
        link
    }

    pub(crate) fn greet(&self, greeting: Greeting) {
        let _ = self.greeting.set(greeting);
    }

    pub(crate) fn greeting(&self) -> Option<&Greeting> {
        self.greeting.get()
    }

    /// Resolves when the process has ended or was closed.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// True when nothing was asked of it for so long.
    pub(crate) fn is_idle(&self, idle: Duration) -> bool {
        self.touched.lock().elapsed() > idle && self.state.lock().pending.is_empty()
    }

    /// True while somebody else than ourselves waits for an answer.
    pub(crate) fn is_busy(&self) -> bool {
        self.state.lock().pending.values().any(|waiting| !waiting.quiet)
    }

    /// Why it ended.
    pub(crate) fn epitaph(&self) -> String {
        self.state.lock().dead.clone().unwrap_or_default()
    }

    /// Ends the process; everything that waits fails with the reason.
    pub(crate) fn close(&self, reason: &str) {
        let (pending, seats) = {
            let mut state = self.state.lock();
            if state.dead.is_some() {
                return;
            }
            state.dead = Some(reason.to_owned());
            (std::mem::take(&mut state.pending), std::mem::take(&mut state.seats))
        };
        self.process.stop();
        self.closed.cancel();
        for waiting in pending.into_values() {
            let _ = waiting.answers.try_send(Err(BackendError::gone(reason)));
        }
        for events in seats.into_values() {
            let _ = events.try_send(Unsolicited::Gone { reason: reason.to_owned() });
        }
    }

    /// Takes a place.
    pub(crate) fn seat(self: &Arc<Self>, who: Introduction, events: mpsc::Sender<Unsolicited>) -> Arc<Seat> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.state.lock().seats.insert(number, events);
        Arc::new(Seat::new(self.clone(), number, who))
    }

    pub(super) fn admit(&self, id: u64, pending: Pending) -> Result<(), BackendError> {
        let mut state = self.state.lock();
        if let Some(reason) = &state.dead {
            return Err(BackendError::not_ready(reason.clone(), Duration::from_secs(1)));
        }
        if state.pending.len() >= self.limits.max_in_flight {
            return Err(BackendError::not_ready("too many requests in flight", Duration::from_millis(100)));
        }
        state.pending.insert(id, pending);
        Ok(())
    }

    /// One line of the process's output. Waits only for the reader of a session's own process.
    async fn dispatch(&self, line: &Bytes) -> Result<(), String> {
        if jsonrpc::is_batch(line) {
            for span in jsonrpc::scan_batch(line).unwrap_or_default() {
                self.message(&line.slice_ref(span.of(line))).await?;
            }
            return Ok(());
        }
        self.message(line).await
    }

    async fn message(&self, raw: &Bytes) -> Result<(), String> {
        let Ok(envelope) = jsonrpc::scan_backend(raw) else {
            tracing::debug!(pid = self.process.pid, bytes = raw.len(), "a line that is no message");
            return self.noise();
        };
        match envelope.kind {
            Kind::Response | Kind::Error => self.answer(raw, &envelope),
            Kind::Notification => self.notification(raw, envelope).await,
            Kind::Request => self.request(raw, envelope).await,
        }
    }

    fn noise(&self) -> Result<(), String> {
        self.meter.dropped.inc();
        let mut state = self.state.lock();
        state.noise += 1;
        match state.noise > NOISE {
            true => Err("flooded its output with messages that nobody can take".into()),
            false => Ok(()),
        }
    }

    fn answer(&self, raw: &Bytes, envelope: &Envelope) -> Result<(), String> {
        let found = {
            let mut state = self.state.lock();
            let found = number(envelope.id(raw)).and_then(|id| state.pending.remove(&id));
            if found.is_some() {
                state.noise = 0;
            }
            found
        };
        let Some(waiting) = found else {
            return self.noise();
        };
        // A slot is kept free for the answer; see `offer`.
        let _ = waiting.answers.try_send(Ok(waiting.origin.response(raw, envelope)));
        Ok(())
    }

    async fn notification(&self, raw: &Bytes, envelope: Envelope) -> Result<(), String> {
        let by_token = number(envelope.raw(raw, Field::ProgressToken));
        let by_subscription = number(envelope.raw(raw, Field::MetaSubscriptionId));
        let addressed = by_token.or(by_subscription);
        let method = envelope.method(raw);
        let session_wide = method.ends_with("list_changed") || method == "notifications/resources/updated";
        let target = match addressed {
            Some(id) => self.waiting(id),
            None if session_wide => None,
            None => self.newest(),
        };
        match target {
            Some((id, origin, answers)) => {
                let item = FromBackend::Notification { raw: origin.notification(raw, &envelope) };
                self.offer(id, answers, item).await
            }
            None if addressed.is_some() => self.noise(),
            None => self.unsolicited(raw, envelope).await,
        }
    }

    async fn request(&self, raw: &Bytes, envelope: Envelope) -> Result<(), String> {
        let id = RawId(envelope.id(raw).map(|id| raw.slice_ref(id)).unwrap_or_default());
        if envelope.method(raw) == "ping" {
            self.reply(codes::result(&id.0, b"{}"));
            return Ok(());
        }
        if !self.exclusive {
            let problem = codes::Problem::new(codes::METHOD_NOT_FOUND, "this client does not take requests");
            self.reply(problem.body(Some(&id.0)));
            return self.noise();
        }
        match self.newest() {
            Some((number, _, answers)) => {
                self.offer(number, answers, FromBackend::Request { raw: raw.clone(), id }).await
            }
            None => self.unsolicited(raw, envelope).await,
        }
    }

    fn reply(&self, body: Bytes) {
        let _ = self.input.try_send(framed(&body));
    }

    fn waiting(&self, id: u64) -> Option<Target> {
        let state = self.state.lock();
        state.pending.get(&id).map(|found| (id, found.origin.clone(), found.answers.clone()))
    }

    /// Over stdio nothing says which request a message belongs to; it is the newest one's.
    fn newest(&self) -> Option<Target> {
        let state = self.state.lock();
        let found = state.pending.iter().rev().find(|(_, found)| !found.quiet);
        found.map(|(id, found)| (*id, found.origin.clone(), found.answers.clone()))
    }

    /// Gives a message to a request's reader and leaves a slot for the answer.
    async fn offer(&self, id: u64, answers: Answers, item: FromBackend) -> Result<(), String> {
        if answers.is_closed() {
            return Ok(());
        }
        if answers.capacity() > 1 {
            let _ = answers.try_send(Ok(item));
            return Ok(());
        }
        if !self.exclusive {
            return self.noise();
        }
        let patient = timeout(PATIENCE, answers.reserve_many(2)).await;
        match patient {
            Ok(Ok(mut slots)) => {
                if let Some(slot) = slots.next() {
                    slot.send(Ok(item));
                }
            }
            Ok(Err(_)) => {}
            Err(_) => {
                self.state.lock().pending.remove(&id);
                self.cancel(id, "its messages are not read");
                let _ = answers.try_send(Err(BackendError::gone("its messages were not read in time")));
            }
        }
        Ok(())
    }

    async fn unsolicited(&self, raw: &Bytes, envelope: Envelope) -> Result<(), String> {
        let targets = self.audience(raw, &envelope);
        if targets.is_empty() {
            return self.noise();
        }
        for events in targets {
            let said = Said { raw: raw.clone(), envelope, last_event_id: None };
            let message = Unsolicited::Message(Box::new(said));
            if !self.exclusive {
                if events.try_send(message).is_err() {
                    self.noise()?;
                }
                continue;
            }
            match timeout(PATIENCE, events.send(message)).await {
                Ok(_) => {}
                Err(_) => return Err("its messages were not read in time".into()),
            }
        }
        Ok(())
    }

    /// A session's own process speaks to that session; a shared one to who subscribed, and of
    /// its lists to all.
    fn audience(&self, raw: &Bytes, envelope: &Envelope) -> Vec<mpsc::Sender<Unsolicited>> {
        let state = self.state.lock();
        if self.exclusive || envelope.method(raw).ends_with("list_changed") {
            return state.seats.values().cloned().collect();
        }
        let uri = envelope.text(raw, Field::Uri).unwrap_or_default();
        let subscribers = state.subscribers.get(uri.as_ref()).into_iter().flatten();
        subscribers.filter_map(|seat| state.seats.get(seat).cloned()).collect()
    }

    pub(super) fn cancel(&self, id: u64, reason: &str) {
        let params = serde_json::json!({"requestId": id, "reason": reason});
        let message = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#);
        let _ = self.input.try_send(framed(message.as_bytes()));
    }
}

pub(super) type Answers = mpsc::Sender<Result<FromBackend, BackendError>>;
type Target = (u64, Arc<Origin>, Answers);

impl Drop for Link {
    fn drop(&mut self) {
        self.close("closed");
    }
}

/// Reads until the process ends. Holds the link weakly, so that its last user ends it.
async fn read(link: Weak<Link>, mut output: Lines<ChildStdout>, closed: CancellationToken) {
    let reason = loop {
        let line = tokio::select! {
            line = output.next() => line,
            () = closed.cancelled() => return,
        };
        let Some(link) = link.upgrade() else { return };
        match line {
            Ok(Some(line)) if line.trim_ascii().is_empty() => {}
            Ok(Some(line)) => {
                if let Err(reason) = link.dispatch(&line).await {
                    break reason;
                }
            }
            Ok(None) => {
                let _ = timeout(Duration::from_secs(1), link.process.ended()).await;
                break link.process.epitaph();
            }
            Err(_) => break format!("sent a line of more than {} bytes", link.limits.max_message),
        }
    };
    if let Some(link) = link.upgrade() {
        tracing::debug!(pid = link.process.pid, reason, "a stdio server ended");
        link.close(&reason);
    }
}
