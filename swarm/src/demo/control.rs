//! The demo's own port: the console, kill and start, and the admin API of whichever node lives.

use super::{
    Front,
    cluster::Cluster,
    folder::{self, Control, Folder},
};
use crate::{
    admin::console,
    api::{ApiError, ApiErrorBody, Endpoints},
    client::Http,
    error::{CliError, Failure},
    ops::not_reached,
    output::to_stdout,
};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use rand::Rng as _;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;

/// A killed node takes a moment to come back.
const CONTROL_DEADLINE: Duration = Duration::from_secs(40);
const PROXY_DEADLINE: Duration = Duration::from_secs(20);
const MAX_BODY: usize = 2 * 1024 * 1024;

#[derive(Clone)]
struct Demo {
    cluster: Cluster,
    front: Front,
    token: Arc<str>,
    http: Http,
}

/// Serves the demo's port from now on and answers the token of its console.
pub(super) fn serve(
    listener: TcpListener,
    folder: &Folder,
    front: Front,
    cluster: Cluster,
) -> Result<String, CliError> {
    let token: String = rand::rng().sample_iter(rand::distr::Alphanumeric).take(24).map(char::from).collect();
    folder.publish(&Control { admin: front.admin_url(), token: token.clone() })?;
    let demo = Demo { cluster, front, token: token.as_str().into(), http: Http::pooled() };
    let router = Router::new()
        .route("/api/v1/endpoints", get(endpoints))
        .route("/api/v1/demo", get(nodes))
        .route("/api/v1/demo/kill/{node}", post(kill))
        .route("/api/v1/demo/start/{node}", post(start))
        .fallback(proxy)
        .merge(console::router())
        .layer(middleware::from_fn(loopback_only))
        .with_state(demo);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(token)
}

/// `swarm demo kill n3`, `swarm demo start n2`
pub(super) async fn ask(verb: &str, node: &str) -> Result<(), CliError> {
    let demos = folder::running();
    let [demo] = demos.as_slice() else {
        let words = format!("{} demos run on this machine, one is needed", demos.len());
        return Err(CliError::new(Failure::Unreachable, words).hint("`swarm demo` starts one"));
    };
    let url = format!("{}/api/v1/demo/{verb}/{node}", demo.admin);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("Bearer {}", demo.token)) {
        headers.insert(header::AUTHORIZATION, value);
    }
    let http = Http::pooled();
    let sent = http.send(Method::POST, &url, headers, Bytes::new(), CONTROL_DEADLINE);
    let reply = sent.await.map_err(not_reached)?;
    let good = reply.status.is_success();
    let body = reply.whole(CONTROL_DEADLINE).await.map_err(not_reached)?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if good {
        to_stdout(answer["done"].as_str().unwrap_or("done"));
        return Ok(());
    }
    let words = answer["error"]["message"].as_str().unwrap_or("the demo refused").to_owned();
    let missing = answer["error"]["code"] == Failure::NotFound.word();
    Err(CliError::new(if missing { Failure::NotFound } else { Failure::Failed }, words))
}

/// A page elsewhere must not reach this port under a name of its own.
async fn loopback_only(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let name = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name));
    if matches!(name, Some("127.0.0.1" | "localhost" | "[::1]")) {
        return next.run(request).await;
    }
    refuse(Failure::Denied, "only loopback names are answered")
}

fn refuse(failure: Failure, message: impl Into<String>) -> Response {
    let status = match failure {
        Failure::NotFound => StatusCode::NOT_FOUND,
        Failure::Denied => StatusCode::FORBIDDEN,
        Failure::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    };
    let error = ApiErrorBody { code: failure.word().to_owned(), message: message.into() };
    (status, Json(ApiError { error })).into_response()
}

/// To the demo's visitors the balancer is the MCP endpoint.
async fn endpoints(State(demo): State<Demo>) -> Json<Endpoints> {
    let first = demo.cluster.living().await.into_iter().next().unwrap_or_default();
    Json(Endpoints {
        name: "demo".to_owned(),
        mcp: Some(demo.front.mcp_url()),
        admin: demo.front.admin_url(),
        ..first
    })
}

async fn nodes(State(demo): State<Demo>) -> Json<Value> {
    let nodes = demo.cluster.all().await.into_iter();
    let nodes = nodes.map(|(name, runs)| json!({ "name": name, "running": runs }));
    Json(json!({ "nodes": nodes.collect::<Vec<_>>() }))
}

async fn kill(State(demo): State<Demo>, Path(node): Path<String>, headers: HeaderMap) -> Response {
    if !demo.knows(&headers) {
        return refuse(Failure::Denied, "the token of the console's link is needed");
    }
    done(demo.cluster.kill(&node).await, format!("killed {node}"))
}

async fn start(State(demo): State<Demo>, Path(node): Path<String>, headers: HeaderMap) -> Response {
    if !demo.knows(&headers) {
        return refuse(Failure::Denied, "the token of the console's link is needed");
    }
    done(demo.cluster.start(&node).await, format!("started {node}"))
}

fn done(result: Result<(), CliError>, words: String) -> Response {
    match result {
        Ok(()) => Json(json!({ "done": words })).into_response(),
        Err(error) => refuse(error.failure, error.message),
    }
}

impl Demo {
    fn knows(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        given.and_then(|given| given.strip_prefix("Bearer ")) == Some(&*self.token)
    }

    /// Asks the living nodes in order until one answers.
    async fn forward(&self, method: Method, uri: &Uri, headers: HeaderMap, body: Bytes) -> Response {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        for node in self.cluster.living().await {
            let url = format!("{}{path}", node.admin);
            let (method, headers) = (method.clone(), headers.clone());
            let sent = self.http.send(method, &url, headers, body.clone(), PROXY_DEADLINE).await;
            match sent {
                Ok(reply) => {
                    let (status, kind) = (reply.status, reply.media_type());
                    let body = reply.whole(PROXY_DEADLINE).await.unwrap_or_default();
                    return (status, [(header::CONTENT_TYPE, kind)], body).into_response();
                }
                Err(error) if error.unsent() => {}
                Err(error) => return refuse(Failure::Unreachable, error.to_string()),
            }
        }
        refuse(Failure::Unreachable, "no node of the demo runs; `swarm demo start n1` starts one")
    }
}

async fn proxy(State(demo): State<Demo>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return refuse(Failure::Failed, "the body is too large");
    };
    let mut headers = HeaderMap::new();
    for name in [header::CONTENT_TYPE, header::ACCEPT] {
        if let Some(value) = head.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let foreign = head
        .headers
        .get(header::ORIGIN)
        .is_some_and(|origin| origin.as_bytes() != demo.front.admin_url().as_bytes());
    if foreign && head.method != Method::GET {
        return refuse(Failure::Denied, "requests of another origin are refused");
    }
    demo.forward(head.method, &head.uri, headers, body).await
}
