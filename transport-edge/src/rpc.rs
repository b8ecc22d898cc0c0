//! EdgeService: what edges and operators ask. Translation only.

use crate::{
    front::{Answer, Edge, Inbound, Principal, Reply, scope, serve_session},
    relay::{from_wire, take_over, to_wire},
    session::Live,
};
use futures::{Stream, StreamExt as _, stream};
use http::Method;
use http_body_util::BodyExt as _;
use proto::{
    edge::{
        BackendsRequest, BackendsResponse, RelayHead, RelayRequest, RelayResponse, SessionSummary,
        SessionsRequest, SessionsResponse, ToolsRequest, ToolsResponse, edge_service_server::EdgeService,
        relay_response::Part,
    },
    error::Code,
};
use std::{pin::Pin, sync::Arc, sync::atomic::Ordering::Relaxed};
use tonic::{Request, Response, Status};

/// Most sessions of one page.
const PAGE_MAX: usize = 1000;

/// The handlers.
pub(crate) struct Handler {
    edge: Arc<Edge>,
}

impl Handler {
    /// Handlers of this edge.
    pub(crate) fn new(edge: Arc<Edge>) -> Self {
        Handler { edge }
    }

    /// The session, if this edge is its anchor; a restarted anchor takes its sessions up again.
    async fn session(&self, request: &RelayRequest) -> Result<Arc<Live>, Status> {
        let RelayRequest { session_id, principal, epoch, .. } = request;
        if let Some(live) = self.edge.sessions.get(session_id) {
            if live.principal != *principal || live.epoch < *epoch {
                return Err(not_owner());
            }
            if !live.leased(self.edge.clock.now()) {
                live.renew(self.edge.config.lease).await.map_err(|_| not_owner())?;
            }
            return Ok(live);
        }
        let stored = self.edge.store.get(session_id, principal, None).await.map_err(|_| not_owner())?;
        let record =
            <proto::edge::SessionRecord as prost::Message>::decode(stored.value).map_err(|_| not_owner())?;
        if record.anchor != self.edge.name || self.edge.shutdown.is_triggered() {
            return Err(not_owner());
        }
        take_over(&self.edge, session_id, principal, record.epoch).await.map_err(|_| not_owner())
    }
}

fn not_owner() -> Status {
    Code::NotOwner.status("this edge is not the session's anchor", &[])
}

type Parts = Pin<Box<dyn Stream<Item = Result<RelayResponse, Status>> + Send>>;

#[tonic::async_trait]
impl EdgeService for Handler {
    type RelayStream = Parts;

    async fn relay(&self, request: Request<RelayRequest>) -> Result<Response<Parts>, Status> {
        let request = request.into_inner();
        let live = self.session(&request).await?;
        let mut inbound = decode(request)?;
        let core = self.edge.relay_core();
        let in_flight = &self.edge.metrics.core(core).in_flight;
        in_flight.fetch_add(1, Relaxed);
        let reply = serve_session(&self.edge, core, &live, &mut inbound).await;
        in_flight.fetch_sub(1, Relaxed);
        Ok(Response::new(encode(reply)))
    }

    async fn backends(&self, _: Request<BackendsRequest>) -> Result<Response<BackendsResponse>, Status> {
        Ok(Response::new(BackendsResponse {
            backends: self.edge.backends.views(),
            edge: self.edge.name.clone(),
        }))
    }

    async fn sessions(
        &self,
        request: Request<SessionsRequest>,
    ) -> Result<Response<SessionsResponse>, Status> {
        let SessionsRequest { page_size, page_token } = request.into_inner();
        let mut all = self.edge.sessions.all();
        all.sort_by(|left, right| left.hash.cmp(&right.hash));
        let size = match page_size as usize {
            0 => PAGE_MAX,
            size => size.min(PAGE_MAX),
        };
        let after: Vec<_> = all.iter().filter(|live| live.hash > page_token).collect();
        let next = (after.len() > size).then(|| after.get(size - 1).map(|live| live.hash.clone())).flatten();
        let sessions = after.iter().take(size).map(|live| self.summary(live)).collect();
        Ok(Response::new(SessionsResponse { sessions, next_page_token: next.unwrap_or_default() }))
    }

    async fn tools(&self, _: Request<ToolsRequest>) -> Result<Response<ToolsResponse>, Status> {
        Ok(Response::new(ToolsResponse { tools: self.edge.backends.catalog().tools() }))
    }
}

impl Handler {
    fn summary(&self, live: &Live) -> SessionSummary {
        let age = self.edge.clock.now().saturating_duration_since(live.since);
        SessionSummary {
            id_hash: live.hash.clone(),
            protocol_version: live.version.as_str().to_owned(),
            client: live.client.clone(),
            anchor: self.edge.name.clone(),
            epoch: live.epoch,
            age_ms: age.as_millis() as u64,
            streams: live.stream_count() as u32,
            in_flight: live.in_flight() as u32,
        }
    }
}

fn decode(request: RelayRequest) -> Result<Inbound, Status> {
    let invalid = |what: &str| Code::InvalidArgument.status(format!("relay with a bad {what}"), &[]);
    Ok(Inbound {
        method: Method::from_bytes(request.method.as_bytes()).map_err(|_| invalid("method"))?,
        scope: scope(&request.path).ok_or_else(|| invalid("path"))?,
        headers: from_wire(&request.headers),
        body: request.body,
        envelope: None,
        principal: Principal(request.principal.into()),
    })
}

/// The answer as a stream; it ends when the reader at the other edge does.
fn encode(reply: Reply) -> Parts {
    let (parts, body) = reply.into_parts();
    let head = RelayHead { status: parts.status.as_u16().into(), headers: to_wire(&parts.headers) };
    let head = RelayResponse { part: Some(Part::Head(head)) };
    let rest = stream::unfold(body, |mut body: Answer| async move {
        let frame = body.frame().await?;
        let Ok(data) = frame.ok()?.into_data() else { return None };
        Some((Ok(RelayResponse { part: Some(Part::Data(data)) }), body))
    });
    stream::once(async { Ok(head) }).chain(rest).boxed()
}
