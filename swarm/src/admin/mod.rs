//! The admin API that the operator's commands read: `/api/v1/...`, JSON, typed calls behind it.
//!
//! Reads are open to whoever reaches the port (loopback by default). Writes refuse requests that
//! a page of another origin sent.

mod check;
mod clients;
pub(crate) mod console;
mod listing;
mod views;

pub use clients::Clients;

use crate::{
    api::{self, Endpoints, Export, ExportRequest, ImportReport, ImportRequest, Plan, PlanRequest},
    error::Failure,
    export, imports,
};
use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, Path, Query, Request, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kit::host::Context;
use listing::Asked;
use proto::error::Code;
use std::{sync::Arc, time::Instant};
use tonic::Status;

/// What handlers know.
#[derive(Clone)]
struct Admin {
    clients: Clients,
    context: Context,
    endpoints: Arc<Endpoints>,
    started: Instant,
}

/// Adds the API to the node's admin port.
pub fn mount(context: &Context, clients: Clients, endpoints: Endpoints) {
    let admin = Admin {
        clients,
        context: context.clone(),
        endpoints: Arc::new(endpoints),
        started: context.clock.now(),
    };
    let api = Router::new()
        .route("/api/v1/endpoints", get(endpoints_view))
        .route("/api/v1/status", get(status))
        .route("/api/v1/members", get(members))
        .route("/api/v1/registry", get(registry))
        .route("/api/v1/registry/import", post(import))
        .route("/api/v1/registry/plan", post(plan))
        .route("/api/v1/registry/apply", post(apply))
        .route("/api/v1/registry/export", post(export))
        .route("/api/v1/registry/{name}", get(registration).delete(deregister))
        .route("/api/v1/tools", get(tools))
        .route("/api/v1/sessions", get(sessions))
        .route("/api/v1/check", post(run_checks))
        .merge(crate::flags::router(&context.node, context.flags.clone()))
        .layer(DefaultBodyLimit::max(2 * 1024 * 1024))
        .layer(middleware::from_fn(same_origin))
        .with_state(admin);
    context.admin.merge(api.merge(console::router()));
}

/// Browsers name the origin of every request that changes something.
async fn same_origin(headers: HeaderMap, request: Request, next: Next) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let foreign = text(header::ORIGIN).is_some_and(|origin| {
        let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
        Some(authority) != text(header::HOST)
    });
    if foreign && request.method() != axum::http::Method::GET {
        return Problem::new(Failure::Denied, "requests of another origin are refused").into_response();
    }
    next.run(request).await
}

/// An error answer.
#[derive(Debug)]
struct Problem {
    failure: Failure,
    message: String,
}

impl Problem {
    fn new(failure: Failure, message: impl Into<String>) -> Problem {
        Problem { failure, message: message.into() }
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Problem {
        Problem::new(failure_of(Code::of(&status)), status.message())
    }
}

impl From<registry_client::Error> for Problem {
    fn from(error: registry_client::Error) -> Problem {
        Problem::new(failure_of(error.code()), error.to_string())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Problem {
        Problem::new(Failure::Usage, rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Problem {
        Problem::new(Failure::Usage, rejection.body_text())
    }
}

fn failure_of(code: Code) -> Failure {
    match code {
        Code::InvalidArgument => Failure::Usage,
        Code::NotFound => Failure::NotFound,
        Code::Denied => Failure::Denied,
        Code::Unavailable | Code::QuorumUnavailable => Failure::Unreachable,
        _ => Failure::Failed,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match self.failure {
            Failure::NotFound => StatusCode::NOT_FOUND,
            Failure::Denied => StatusCode::FORBIDDEN,
            Failure::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
            Failure::Usage => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let error = api::ApiErrorBody { code: self.failure.word().into(), message: self.message };
        (status, Json(api::ApiError { error })).into_response()
    }
}

type Answer<T> = Result<Json<T>, Problem>;

async fn endpoints_view(State(admin): State<Admin>) -> Json<Endpoints> {
    Json(admin.endpoints.as_ref().clone())
}

async fn status(State(admin): State<Admin>) -> Answer<api::Status> {
    Ok(Json(views::status(&admin).await?))
}

async fn members(State(admin): State<Admin>) -> Answer<api::Members> {
    let members = views::members(&admin.clients).await?;
    Ok(Json(api::Members { node: admin.context.node.clone(), members }))
}

async fn registry(
    State(admin): State<Admin>,
    pairs: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Answer<api::Registry> {
    let asked = Asked::of(pairs?.0).map_err(|words| Problem::new(Failure::Usage, words))?;
    Ok(Json(views::registry(&admin.clients, asked).await?))
}

async fn registration(State(admin): State<Admin>, Path(name): Path<String>) -> Answer<api::Backend> {
    let found = views::backends(&admin.clients).await?.into_iter().find(|b| b.name == name);
    let missing = || Problem::new(Failure::NotFound, format!("no backend is named `{name}`"));
    found.map(Json).ok_or_else(missing)
}

async fn deregister(State(admin): State<Admin>, Path(name): Path<String>) -> Answer<api::Removed> {
    admin.clients.registry.deregister(&name, "operator", true).await?;
    Ok(Json(api::Removed { removed: name }))
}

async fn plan(State(admin): State<Admin>, request: Result<Json<PlanRequest>, JsonRejection>) -> Answer<Plan> {
    let tasks = imports::plan(&admin.clients, request?.0).await?;
    let steps = tasks.into_iter().map(|task| task.step).collect();
    Ok(Json(Plan { dry_run: true, steps }))
}

async fn apply(
    State(admin): State<Admin>,
    request: Result<Json<PlanRequest>, JsonRejection>,
) -> Answer<Plan> {
    Ok(Json(imports::apply(&admin.clients, request?.0).await?))
}

async fn import(
    State(admin): State<Admin>,
    request: Result<Json<ImportRequest>, JsonRejection>,
) -> Answer<ImportReport> {
    Ok(Json(imports::apply(&admin.clients, request?.0.into()).await?.into()))
}

async fn export(
    State(admin): State<Admin>,
    request: Result<Json<ExportRequest>, JsonRejection>,
) -> Answer<Export> {
    let servers = views::specs(&admin.clients).await?;
    let show = request?.0.show_secrets;
    Ok(Json(Export { servers: if show { servers } else { export::hide(servers) } }))
}

async fn tools(State(admin): State<Admin>) -> Answer<api::Tools> {
    let backends = views::settled(&admin).await.into_iter();
    let stopped = backends.filter(|backend| backend.state == "stopped");
    let stopped = stopped.map(|backend| (backend.name, backend.reason)).collect();
    Ok(Json(api::Tools { tools: admin.clients.tools().await?, stopped }))
}

async fn sessions(State(admin): State<Admin>) -> Json<api::Sessions> {
    Json(views::sessions(&admin.clients).await)
}

async fn run_checks(State(admin): State<Admin>) -> Json<api::Check> {
    Json(check::run(&admin).await)
}
