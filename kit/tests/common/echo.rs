//! A gRPC service by hand, for kit has no contract of its own.

use futures::future::BoxFuture;
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tonic::{Request, Response, Status, body::Body, server::NamedService, transport::Channel};
use tonic_prost::ProstCodec;

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
            Ok(grpc.unary(handler, request).await)
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

/// The client side, as generated code would do it.
pub(crate) async fn ask(channel: Channel, request: Request<String>) -> Result<Response<String>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let path = http::uri::PathAndQuery::from_static("/swarm.test.v1.EchoService/Echo");
    grpc.unary(request, path, ProstCodec::<String, String>::default()).await
}
