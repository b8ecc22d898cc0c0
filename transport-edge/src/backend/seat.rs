//! One peer's place on a link, and one request over it.

use super::{
    BackendError, Era, FromBackend, RawId,
    link::{EXCHANGE_QUEUE, Link, PATIENCE, Pending},
    rewrite::{self, Introduction, framed},
};
use crate::core::{
    jsonrpc::{Envelope, Field},
    splice::{Edit, Edits, splice},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    time::{timeout, timeout_at},
};

/// One peer's place on a link. Its drop frees it, and ends a process that is the peer's own.
pub(crate) struct Seat {
    pub(crate) link: Arc<Link>,
    number: u64,
    who: Mutex<Introduction>,
}

/// One request and what comes back for it.
pub(crate) struct LinkExchange {
    link: Arc<Link>,
    id: u64,
    answers: mpsc::Receiver<Result<FromBackend, BackendError>>,
    done: bool,
    cancellable: bool,
}

impl Seat {
    pub(super) fn new(link: Arc<Link>, number: u64, who: Introduction) -> Self {
        Seat { link, number, who: Mutex::new(who) }
    }

    /// Sends a request. `quiet` requests (our own) are nobody's conversation: log messages and
    /// questions that come meanwhile are not theirs.
    pub(crate) async fn request(
        &self,
        raw: &Bytes,
        envelope: &Envelope,
        edits: Edits,
        deadline: Instant,
        quiet: bool,
    ) -> Result<LinkExchange, BackendError> {
        let link = &self.link;
        let id = link.next.fetch_add(1, Ordering::Relaxed);
        let greeting = link.greeting();
        let era = greeting.map_or(Era::Legacy, |greeting| greeting.era);
        let server_info = greeting.map(|greeting| greeting.server_info.clone()).unwrap_or_default();
        let who = self.who.lock().clone();
        let out = rewrite::outbound(raw, envelope, edits, id, era, &who, server_info);
        let (sender, answers) = mpsc::channel(EXCHANGE_QUEUE);
        let pending = Pending { seat: self.number, origin: Arc::new(out.origin), answers: sender, quiet };
        link.admit(id, pending)?;
        let cancellable = !matches!(envelope.method(raw).as_ref(), "initialize" | "server/discover");
        let mut exchange = LinkExchange { link: link.clone(), id, answers, done: false, cancellable };
        self.remember(raw, envelope);
        *link.touched.lock() = tokio::time::Instant::now();
        let sent = timeout_at(deadline.into(), link.input.send(framed(&out.body))).await;
        if !matches!(sent, Ok(Ok(()))) {
            exchange.cancellable = false;
            let reason = if sent.is_err() { "it does not read its input" } else { "it is gone" };
            return Err(BackendError::not_ready(reason, Duration::from_secs(1)));
        }
        Ok(exchange)
    }

    fn remember(&self, raw: &Bytes, envelope: &Envelope) {
        if self.link.exclusive {
            return;
        }
        let uri = || envelope.text(raw, Field::Uri).unwrap_or_default().into_owned();
        match envelope.method(raw).as_ref() {
            "resources/subscribe" => {
                self.link.state.lock().subscribers.entry(uri()).or_default().insert(self.number);
            }
            "resources/unsubscribe" => {
                if let Some(seats) = self.link.state.lock().subscribers.get_mut(&uri()) {
                    seats.remove(&self.number);
                }
            }
            _ => {}
        }
    }

    /// Remembers a level for backends that are told with each request.
    pub(crate) fn set_log_level(&self, level: Bytes) {
        self.who.lock().log_level = Some(level);
    }

    /// Sends a notification or a response as it is.
    pub(crate) async fn send(&self, raw: &[u8]) -> Result<(), BackendError> {
        let sent = timeout(PATIENCE, self.link.input.send(framed(raw))).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            _ => Err(BackendError::gone(self.link.epitaph())),
        }
    }

    /// The client's answer to a request of the backend, under the backend's id.
    pub(crate) async fn answer(
        &self,
        id: &RawId,
        raw: &Bytes,
        envelope: &Envelope,
    ) -> Result<(), BackendError> {
        let edit = Edit::replace(envelope.span(Field::Id), id.0.clone());
        self.send(&splice(raw, &[edit])).await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.link.exclusive {
            self.link.close("its session ended");
            return;
        }
        let mut state = self.link.state.lock();
        state.seats.remove(&self.number);
        state.pending.retain(|_, waiting| waiting.seat != self.number);
        for seats in state.subscribers.values_mut() {
            seats.remove(&self.number);
        }
        state.subscribers.retain(|_, seats| !seats.is_empty());
    }
}

impl LinkExchange {
    /// The next message; `None` after the answer. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Result<FromBackend, BackendError>> {
        if self.done {
            return None;
        }
        let item = match self.answers.recv().await {
            Some(item) => item,
            None => Err(BackendError::gone(self.link.epitaph())),
        };
        self.done = matches!(item, Err(_) | Ok(FromBackend::Response { .. }));
        Some(item)
    }

    /// Ends the request; the backend is told with a reason.
    pub(crate) fn finish(&mut self, reason: Option<&str>) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let open = self.link.state.lock().pending.remove(&self.id).is_some();
        if open && self.cancellable {
            self.link.cancel(self.id, reason.unwrap_or("the client went away"));
        }
    }
}

impl Drop for LinkExchange {
    fn drop(&mut self) {
        self.finish(None);
    }
}
