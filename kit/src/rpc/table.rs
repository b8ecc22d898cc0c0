//! The services of a port, by name.

use futures::future::BoxFuture;
use std::{collections::BTreeMap, convert::Infallible, sync::Arc};
use tonic::{Status, body::Body, server::NamedService};
use tower::{Service, ServiceExt as _};

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// What a call is answered with.
pub(super) type Answer = BoxFuture<'static, Result<Response, Infallible>>;

type Route = Arc<dyn Fn(Request) -> Answer + Send + Sync>;

#[derive(Clone, Default)]
pub(super) struct Table {
    routes: BTreeMap<&'static str, Route>,
}

impl Table {
    /// Adds a service, or replaces the one of the same name.
    pub(super) fn add<S>(&mut self, service: S)
    where
        S: Service<Request, Response = Response, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let route = move |request| -> Answer { Box::pin(service.clone().oneshot(request)) };
        self.routes.insert(S::NAME, Arc::new(route));
    }

    /// Calls the service that a path names.
    pub(super) fn call(&self, request: Request) -> Answer {
        match service_of(request.uri().path()).and_then(|name| self.routes.get(name)) {
            Some(route) => route(request),
            None => Box::pin(std::future::ready(Ok(Status::unimplemented("no such service").into_http()))),
        }
    }
}

/// `/service/Method`.
fn service_of(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.split_once('/').map(|(service, _)| service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_service() {
        assert_eq!(service_of("/swarm.test.v1.Echo/Ask"), Some("swarm.test.v1.Echo"));
        assert_eq!(service_of("/swarm.test.v1.Echo/Ask/more"), Some("swarm.test.v1.Echo"));
        for path in ["", "/", "/Echo", "Echo/Ask"] {
            assert_eq!(service_of(path), None, "{path:?}");
        }
    }
}
