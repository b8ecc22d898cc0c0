//! Calls that answer later: a name appears, a registration goes.

use crate::{
    core::{
        check::Malformed,
        command::Refusal,
        key,
        table::Entry,
        waiters::{End, Told},
    },
    error::Failure,
    feed::{Monitored, Waiting},
    handle::Handle,
};
use kit::shutdown::Shutdown;
use prometheus_client::metrics::gauge::Gauge;
use proto::registry::{
    AwaitResponse, Ended, MonitorRequest, MonitorResponse, Registration, monitor_response::Outcome,
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout_at};

/// Longest wait of one call.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// An instance may be this far behind another one (DESIGN K16). Before it says of a registration
/// that it does not know that it is gone, it waits to hear of it.
const HEAR: Duration = Duration::from_secs(2);

/// Who answers.
pub(crate) struct Place<'a> {
    pub(crate) handle: &'a Handle,
    pub(crate) node: &'a str,
    pub(crate) shutdown: &'a Shutdown,
}

/// Why a wait is over.
enum Woken {
    Told(Told),
    Late,
}

impl Place<'_> {
    /// Answers when the name is registered.
    pub(crate) async fn await_name(&self, name: String, wait_ms: u64) -> Result<AwaitResponse, Failure> {
        let end = deadline(wait_ms)?;
        let mut waiting = match self.handle.await_name(&name)? {
            Ok(entry) => return Ok(self.standing(&entry)),
            Err(waiting) => waiting,
        };
        match self.wait(&mut waiting, end).await? {
            Woken::Told(Told::Appeared(entry)) => Ok(self.standing(&entry)),
            Woken::Told(Told::Ended(_)) | Woken::Late => Err(Refusal::NotFound { name }.into()),
        }
    }

    /// Answers when the registration has gone, or what stands when the time is over.
    pub(crate) async fn monitor(&self, request: MonitorRequest) -> Result<MonitorResponse, Failure> {
        let end = deadline(request.wait_ms)?;
        let mut asked = request.registration.ok_or(Malformed::Missing { field: "registration" })?;
        asked.name = key::key(asked.kind(), &asked.name, &asked.owner)?;
        let since = (request.node == self.node && request.revision > 0).then_some(request.revision);
        let mut waiting = match self.find(&asked, since).await? {
            Monitored::Waiting(waiting) => waiting,
            Monitored::Ended(end) => return Ok(ended(end)),
            Monitored::Unheard => return Ok(ended(End::gone())),
        };
        let told = match self.wait(&mut waiting, end).await? {
            Woken::Told(told) => told,
            Woken::Late => match waiting.stop() {
                Ok(entry) => {
                    let outcome = Some(Outcome::Standing(self.standing(&entry)));
                    return Ok(MonitorResponse { outcome });
                }
                Err(told) => told,
            },
        };
        Ok(match told {
            Told::Ended(end) => ended(end),
            Told::Appeared(entry) => ended(End::replaced(entry.registration.version)),
        })
    }

    /// Waits until this instance has heard of the registration, as far behind as it may be.
    async fn find(&self, asked: &Registration, since: Option<u64>) -> Result<Monitored, Failure> {
        let give_up = Instant::now() + HEAR;
        let mut head = self.handle.feed().subscribe();
        loop {
            head.mark_unchanged();
            match self.handle.monitor(asked, since)? {
                Monitored::Unheard => {}
                known => return Ok(known),
            }
            tokio::select! {
                changed = timeout_at(give_up, head.changed()) => if changed.is_err() {
                    return Ok(Monitored::Unheard);
                },
                () = self.shutdown.wait() => return Err(Failure::ShuttingDown),
            }
        }
    }

    async fn wait(&self, waiting: &mut Waiting, end: Instant) -> Result<Woken, Failure> {
        let _counted = Counted::new(&self.handle.metrics().waiters);
        tokio::select! {
            told = waiting.told() => told.map(Woken::Told).ok_or(Failure::ShuttingDown),
            () = sleep_until(end) => Ok(Woken::Late),
            () = self.shutdown.wait() => Err(Failure::ShuttingDown),
        }
    }

    fn standing(&self, entry: &Arc<Entry>) -> AwaitResponse {
        let registration = Some(self.handle.with_status(entry));
        AwaitResponse { registration, revision: entry.revision, node: self.node.to_owned() }
    }
}

/// Counts a call for as long as it waits.
struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn ended(End { cause, version }: End) -> MonitorResponse {
    MonitorResponse { outcome: Some(Outcome::Ended(Ended { cause, version })) }
}

fn deadline(wait_ms: u64) -> Result<Instant, Malformed> {
    let wait = Duration::from_millis(wait_ms);
    if wait <= WAIT_MAX {
        return Ok(Instant::now() + wait);
    }
    Err(Malformed::value("wait_ms", &wait_ms.to_string(), "at most 3600000"))
}
