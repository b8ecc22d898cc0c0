//! A gRPC service by hand, for kit has no contract of its own.

#![allow(dead_code, reason = "each test file uses its part")]

use bytes::Bytes;
use futures::{Stream, StreamExt as _, future::BoxFuture, stream::BoxStream};
use http::uri::PathAndQuery;
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tonic::{Request, Response, Status, Streaming, body::Body, client::GrpcService, server::NamedService};
use tonic_prost::ProstCodec;
use tower::BoxError;

const ECHO: &str = "/swarm.test.v1.EchoService/Echo";
const STREAM: &str = "/swarm.test.v1.EchoService/Stream";

/// Answers by what it is asked: `echo x`, `panic`, `unavailable`, `slow`, `thread`.
#[derive(Clone, Default)]
pub(crate) struct Echo {
    pub(crate) calls: Arc<AtomicU32>,
}

impl NamedService for Echo {
    const NAME: &'static str = "swarm.test.v1.EchoService";
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let handler = Handler(self.calls.clone());
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
            match request.uri().path() {
                ECHO => Ok(grpc.unary(handler, request).await),
                STREAM => Ok(grpc.streaming(handler, request).await),
                _ => Ok(Status::unimplemented("no such method").into_http()),
            }
        })
    }
}

struct Handler(Arc<AtomicU32>);

impl tower::Service<Request<String>> for Handler {
    type Response = Response<String>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<String>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<String>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        let asked = request.into_inner();
        Box::pin(async move {
            match asked.as_str() {
                "unavailable" => Err(kit::rpc::status::unavailable("try later")),
                "thread" => Ok(Response::new(std::thread::current().name().unwrap_or_default().to_owned())),
                "slow" => {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                    Ok(Response::new(asked))
                }
                _ => {
                    assert_ne!(asked, "panic", "asked to");
                    Ok(Response::new(asked))
                }
            }
        })
    }
}

/// Gives each message back; `panic` breaks the stream, `end` ends it with an error.
impl tower::Service<Request<Streaming<String>>> for Handler {
    type Response = Response<BoxStream<'static, Result<String, Status>>>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<String>>) -> Self::Future {
        let calls = self.0.clone();
        let back = move |message: Result<String, Status>| {
            calls.fetch_add(1, Ordering::Relaxed);
            let message = message?;
            assert_ne!(message, "panic", "asked to");
            if message == "end" { Err(Status::aborted("asked to")) } else { Ok(message) }
        };
        Box::pin(async move { Ok(Response::new(request.into_inner().map(back).boxed())) })
    }
}

/// The client side, as generated code would do it.
pub(crate) async fn ask<C>(channel: C, request: Request<String>) -> Result<Response<String>, Status>
where
    C: GrpcService<Body, ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static>,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = PathAndQuery::from_static(ECHO);
    grpc.unary(request, path, ProstCodec::<String, String>::default()).await
}

/// The same for a stream of messages.
pub(crate) async fn stream<C>(
    channel: C,
    request: Request<impl Stream<Item = String> + Send + 'static>,
) -> Result<Streaming<String>, Status>
where
    C: GrpcService<Body, ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static>,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = PathAndQuery::from_static(STREAM);
    let answers = grpc.streaming(request, path, ProstCodec::<String, String>::default()).await?;
    Ok(answers.into_inner())
}
