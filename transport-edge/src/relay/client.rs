//! One relayed exchange, from the edge that the client reached.

use super::{
    SERVICE,
    headers::{from_wire, is_events, to_wire},
};
use crate::front::{Answer, Edge, Inbound, Reply, events};
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use kit::{Directory, Instance, State, rpc::with_deadline};
use proto::{
    edge::{
        RelayHead, RelayRequest, RelayResponse, edge_service_client::EdgeServiceClient, relay_response::Part,
    },
    error::Code,
};
use std::{sync::Arc, time::Duration};
use tonic::{Status, Streaming};

/// A standing stream is closed after this time; its client comes back.
const STREAM_MAX: Duration = Duration::from_secs(6 * 3600);
/// The anchor gives its own answer at the call's deadline; this much later it is given up.
const GRACE: Duration = Duration::from_secs(5);
const MESSAGE_MAX: usize = 8 << 20;

/// How a relay ended.
pub(crate) enum Relayed {
    /// With the anchor's answer.
    Reply(Reply),
    /// That edge is not the anchor (any more).
    NotThere,
    /// No answer; `sent` when the request may have run.
    Broke { sent: bool },
}

/// Sends a request to the session's anchor.
pub(crate) async fn relay(
    edge: &Arc<Edge>,
    anchor: &Instance,
    id: &str,
    epoch: u64,
    inbound: &Inbound,
) -> Relayed {
    let addr = anchor.addr.as_str();
    let request = RelayRequest {
        session_id: id.to_owned(),
        epoch,
        method: inbound.method.as_str().to_owned(),
        path: match inbound.scope.as_str() {
            "" => "/mcp".to_owned(),
            scope => format!("/mcp/{scope}"),
        },
        headers: to_wire(&inbound.headers),
        body: inbound.body.clone(),
        principal: inbound.principal.0.to_string(),
    };
    let mut rpc = EdgeServiceClient::new(edge.channels.get(addr)).max_decoding_message_size(MESSAGE_MAX);
    // A stream may follow on any request, and lives as long as its client.
    let exchange = async {
        let stream = rpc.relay(with_deadline(request, STREAM_MAX)).await?.into_inner();
        answer(stream, down(edge.directory.clone(), anchor.name.clone())).await
    };
    let answered = tokio::select! {
        answered = tokio::time::timeout(edge.config.call_timeout + GRACE, exchange) => answered,
        () = down(edge.directory.clone(), anchor.name.clone()) => return Relayed::Broke { sent: true },
    };
    match answered {
        Ok(Ok(reply)) => Relayed::Reply(reply),
        Ok(Err(status)) => failed(edge, addr, inbound, &status),
        Err(_) => Relayed::Broke { sent: true },
    }
}

/// Waits until the directory no longer counts on an edge: a frozen one answers nothing.
async fn down(mut directory: Directory, name: String) {
    while directory.get(SERVICE, &name).is_some_and(|anchor| anchor.state != State::Down) {
        directory.changed().await;
    }
}

fn failed(edge: &Edge, addr: &str, inbound: &Inbound, status: &Status) -> Relayed {
    if matches!(Code::of(status), Code::NotOwner | Code::NotFound) {
        return Relayed::NotThere;
    }
    tracing::debug!(%status, addr, "relay failed");
    edge.channels.forget(addr);
    Relayed::Broke { sent: inbound.method == Method::POST && !refused(status) }
}

/// The connection could not be made, so nothing was sent.
fn refused(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = error.source();
    }
    false
}

/// The head, then either the whole body or a stream of it.
async fn answer(
    mut stream: Streaming<RelayResponse>,
    down: impl Future<Output = ()> + Send + 'static,
) -> Result<Reply, Status> {
    let Some(Part::Head(head)) = stream.message().await?.and_then(|response| response.part) else {
        return Err(Status::internal("a relayed answer without a head"));
    };
    let RelayHead { status, headers } = head;
    let headers = from_wire(&headers);
    let body = match is_events(&headers) {
        true => follow(stream, down),
        false => Answer::from(collect(stream).await?),
    };
    let mut reply = http::Response::new(body);
    *reply.status_mut() = u16::try_from(status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok())
        .unwrap_or(StatusCode::BAD_GATEWAY);
    *reply.headers_mut() = headers;
    Ok(reply)
}

async fn collect(mut stream: Streaming<RelayResponse>) -> Result<Bytes, Status> {
    let mut whole = BytesMut::new();
    while let Some(response) = stream.message().await? {
        if let Some(Part::Data(data)) = response.part {
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// When the anchor is lost the client's stream ends, and it comes back with `Last-Event-ID`.
fn follow(mut stream: Streaming<RelayResponse>, down: impl Future<Output = ()> + Send + 'static) -> Answer {
    let (outlet, answer) = events(Bytes::new());
    tokio::spawn(async move {
        tokio::pin!(down);
        loop {
            let next = tokio::select! {
                () = outlet.closed() => return,
                () = &mut down => return,
                next = stream.message() => next,
            };
            match next {
                Ok(Some(RelayResponse { part: Some(Part::Data(data)) })) if outlet.send(data.clone()) => {}
                Ok(Some(RelayResponse { part: Some(Part::Head(_)) | None })) => {}
                _ => return,
            }
        }
    });
    answer
}
