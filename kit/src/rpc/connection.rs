//! The server's end of a connection. What has arrived together is taken in, called and answered
//! together: a call that waits for nothing is over at its first poll, without a task of its own,
//! and all answers leave in one write (ADR 14).

use super::{
    CONNECTION_WINDOW, STREAM_WINDOW, alive,
    body::{Inbound, Outbound},
};
use crate::net::Accepted;
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use h2::{
    RecvStream,
    server::{Connection, SendResponse},
};
use http_body::Body as _;
use std::{
    convert::Infallible,
    future::{Future as _, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

/// Calls that one connection may have open.
const CALLS: u32 = 4096;
/// A connection is asked for a sign of life so often, and ends when none comes within the patience.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(5);
/// For the preface of a connection.
const HANDSHAKE: Duration = Duration::from_secs(5);
const SEND_BUFFER: usize = 400 << 10;
const HEADERS_MAX: u32 = 16 << 10;

type Request = http::Request<Body>;
type Response = http::Response<Body>;
type Call = (http::Request<RecvStream>, SendResponse<Bytes>);

/// What answers the calls of a connection.
pub(super) trait Answers: Send + 'static {
    fn answer(&mut self, request: Request) -> BoxFuture<'static, Result<Response, Infallible>>;
}

/// Serves a connection until it ends, or until the stop and the end of its open calls.
pub(super) async fn serve(stream: Accepted, mut service: impl Answers, stop: CancellationToken) {
    let handshake = tokio::time::timeout(HANDSHAKE, server().handshake(stream));
    let mut connection = match handshake.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "a connection did not begin"),
        Err(_) => return tracing::debug!("a connection did not begin in time"),
    };
    let mut dead = pin!(alive::until_dead(connection.ping_pong(), KEEP_ALIVE, PATIENCE));
    let mut stopped = pin!(stop.cancelled_owned().fuse());
    let (mut calls, mut begun) = (Vec::new(), Vec::new());
    poll_fn(|cx| {
        if stopped.as_mut().poll(cx).is_ready() {
            connection.graceful_shutdown();
        }
        if dead.as_mut().poll(cx).is_ready() {
            tracing::debug!("a connection gave no sign of life");
            return Poll::Ready(());
        }
        step(&mut connection, &mut service, (&mut calls, &mut begun), cx)
    })
    .await;
}

fn server() -> h2::server::Builder {
    let mut server = h2::server::Builder::new();
    server
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(CALLS)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEADERS_MAX);
    server
}

/// Takes in what is there, and begins the calls when no more is: answers that are given at once
/// are then written together. Those that wait are asked once more when all have begun, for they may
/// wait for each other.
fn step(
    connection: &mut Connection<Accepted, Bytes>,
    service: &mut impl Answers,
    (calls, begun): (&mut Vec<Call>, &mut Vec<BoxFuture<'static, ()>>),
    cx: &mut Context<'_>,
) -> Poll<()> {
    loop {
        let accepted = pin!(connection.accept()).poll(cx);
        let ended = match accepted {
            Poll::Ready(Some(Ok(call))) => {
                calls.push(call);
                continue;
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "a connection broke");
                true
            }
            Poll::Ready(None) => true,
            Poll::Pending => false,
        };
        if ended {
            return Poll::Ready(());
        }
        if calls.is_empty() {
            return Poll::Pending;
        }
        for (request, respond) in calls.drain(..) {
            let answer = service.answer(request.map(|stream| Body::new(Inbound::new(stream))));
            begun.extend(advance(Box::pin(call(answer, respond)), cx));
        }
        for call in begun.drain(..) {
            if let Some(call) = advance(call, cx) {
                tokio::spawn(call);
            }
        }
    }
}

/// Polls a call; answers it when it has to wait. One that panics costs its stream, and nothing else.
fn advance(mut call: BoxFuture<'static, ()>, cx: &mut Context<'_>) -> Option<BoxFuture<'static, ()>> {
    let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx)));
    matches!(polled, Ok(Poll::Pending)).then_some(call)
}

/// Waits for an answer and sends it, for as long as somebody wants it.
async fn call(
    mut answer: BoxFuture<'static, Result<Response, Infallible>>,
    mut respond: SendResponse<Bytes>,
) {
    let answered = poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(Ok(answer)) => Poll::Ready(Some(answer)),
        Poll::Pending => respond.poll_reset(cx).map(|_| None),
    });
    let Some(answer) = answered.await else {
        return;
    };
    let (head, body) = answer.into_parts();
    let ends = body.is_end_stream();
    // An error here is the end of the stream: nobody is left to be told.
    let Ok(stream) = respond.send_response(http::Response::from_parts(head, ()), ends) else {
        return;
    };
    if !ends && let Err(error) = Outbound::new(body, stream).await {
        tracing::debug!(%error, "an answer broke off");
    }
}
