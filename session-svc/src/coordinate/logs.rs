//! Append and replay of event logs.

use super::{
    Coordinator, Plan,
    peers::{Asked, Owner, seems_alive, seems_down},
};
use crate::{
    core::log::{Entry, View, merge},
    door::{event, view},
    error::Fault,
};
use proto::{
    error::{Code, detail},
    session as wire,
};
use session_client::SessionId;
use std::time::Duration;
use tonic::Status;

impl Coordinator {
    /// Appends entries; W owners hold them in memory when it returns.
    pub(crate) async fn append(
        &self,
        id: &SessionId,
        stream: &str,
        epoch: u64,
        entries: Vec<Entry>,
        within: Duration,
    ) -> Result<usize, Fault> {
        let plan = self.plan(id, within);
        self.append_to(&plan, id, stream, epoch, entries).await
    }

    /// Replays a stream from enough owners to meet every append's quorum. With a fence, what was
    /// found is made to be held by a quorum before it is shown, so that it cannot vanish again.
    pub(crate) async fn replay(
        &self,
        id: &SessionId,
        stream: &str,
        after: u64,
        fence_epoch: u64,
        within: Duration,
    ) -> Result<View, Fault> {
        let plan = self.plan(id, within);
        let mut views = self.views(&plan, id, stream, after, fence_epoch).await?;
        views.extend(self.former_views(&plan, id, stream, after).await);
        let merged = merge(views, after);
        if fence_epoch > 0 {
            if merged.epoch > fence_epoch {
                return Err(Fault::Fenced(merged.epoch));
            }
            if !merged.entries.is_empty() {
                self.append_to(&plan, id, stream, fence_epoch, merged.entries.clone()).await?;
            }
            self.facts.moved(id);
        }
        Ok(merged)
    }

    async fn append_to(
        &self,
        plan: &Plan,
        id: &SessionId,
        stream: &str,
        epoch: u64,
        entries: Vec<Entry>,
    ) -> Result<usize, Fault> {
        let (need, within) = (plan.quorum.need, self.within(plan));
        let request = wire::AppendReplicaRequest {
            session_id: id.to_string(),
            stream: stream.to_owned(),
            epoch,
            events: entries.into_iter().map(event).collect(),
        };
        let ask = |owner: Owner| self.peers.clone().append(owner, request.clone(), within);
        let (mut acks, mut lost, mut refusal) = (0, 0, None);
        for which in [seems_alive, seems_down] {
            let mut asked = Asked::begin(&plan.owners, which, ask);
            while let Some((_, answer)) = asked.next().await {
                match answer {
                    Ok(answer) if answer.fenced => refusal = Some(Fault::Fenced(answer.epoch)),
                    Ok(_) => acks += 1,
                    Err(status) => match refused(&status) {
                        Some(fault) => refusal = refusal.or(Some(fault)),
                        None => lost += usize::from(Code::of(&status) != Code::Unavailable),
                    },
                }
                if acks >= need {
                    return Ok(acks);
                }
            }
        }
        match refusal {
            Some(fault) => Err(fault),
            None if acks + lost == 0 => Err(Fault::Quorum { have: 0, need }),
            None => Err(Fault::Unknown("some owner may hold the events, no quorum confirmed them")),
        }
    }

    /// After a move of the ring: what former owners hold, as far as they answer.
    async fn former_views(&self, plan: &Plan, id: &SessionId, stream: &str, after: u64) -> Vec<View> {
        let within = self.within(plan);
        let ask = |owner: Owner| {
            let request = wire::ReplayReplicaRequest {
                session_id: id.to_string(),
                stream: stream.to_owned(),
                after_sequence: after,
                fence_epoch: 0,
            };
            self.peers.clone().replay(owner, request, within)
        };
        let mut asked = Asked::begin(&plan.former, |_| true, ask);
        let mut views = Vec::new();
        while let Some((_, answer)) = asked.next().await {
            views.extend(answer.ok().map(view));
        }
        views
    }

    async fn views(
        &self,
        plan: &Plan,
        id: &SessionId,
        stream: &str,
        after: u64,
        fence_epoch: u64,
    ) -> Result<Vec<View>, Fault> {
        // Any owners that meet every write quorum.
        let need = plan.quorum.owners - plan.quorum.need + 1;
        let request = wire::ReplayReplicaRequest {
            session_id: id.to_string(),
            stream: stream.to_owned(),
            after_sequence: after,
            fence_epoch,
        };
        let within = self.within(plan);
        let ask = |owner: Owner| self.peers.clone().replay(owner, request.clone(), within);
        let mut views = Vec::new();
        for which in [seems_alive, seems_down] {
            let mut asked = Asked::begin(&plan.owners, which, ask);
            while let Some((_, answer)) = asked.next().await {
                match answer {
                    Ok(answer) => views.push(view(answer)),
                    Err(status) => {
                        if let Some(fault) = refused(&status) {
                            return Err(fault);
                        }
                    }
                }
                if views.len() >= need {
                    return Ok(views);
                }
            }
        }
        Err(Fault::Quorum { have: views.len(), need })
    }
}

/// A refusal for a reason that the caller has to know; `None` for an owner that is in trouble.
fn refused(status: &Status) -> Option<Fault> {
    match Code::of(status) {
        Code::Fenced => {
            let epoch = detail(status, "epoch").and_then(|epoch| epoch.parse().ok());
            Some(Fault::Fenced(epoch.unwrap_or(u64::MAX)))
        }
        Code::InvalidArgument => Some(Fault::Invalid(status.message().to_owned())),
        Code::Exhausted => Some(Fault::Limit("event logs of an owner")),
        _ => None,
    }
}
