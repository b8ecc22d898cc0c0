//! The routes: handlers translate.

use super::{
    Config,
    entry::{Maker, Metadata, ServerList, ServerResponse, full_name, own_name, version},
    page::{Filling, Step},
    query::{self, Raw},
};
use crate::{admin::Clients, api::Endpoints, url::reachable};
use axum::{
    Json, Router,
    extract::{Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use kit::{directory::State as Liveness, host::Context};
use proto::registry::{Kind, Registration};
use registry_client::{Error, Filter};
use serde_json::json;
use std::sync::Arc;

/// What handlers know.
#[derive(Clone)]
struct Catalog {
    config: Arc<Config>,
    clients: Clients,
    /// Where this node's own edge is bound.
    own_edge: Option<Arc<str>>,
}

/// Adds the API to the node's admin port.
pub fn mount(context: &Context, config: Config, clients: Clients, endpoints: &Endpoints) {
    let own_edge = endpoints.mcp.as_deref().map(Arc::from);
    let catalog = Catalog { config: Arc::new(config), clients, own_edge };
    let router = Router::new()
        .route("/v0.1/servers", get(list))
        .route("/v0.1/servers/{name}/versions", get(versions))
        .route("/v0.1/servers/{name}/versions/{version}", get(one).put(read_only).delete(read_only))
        .route("/v0.1/publish", post(read_only))
        .route("/v0.1/{*rest}", any(nothing))
        .layer(middleware::from_fn(open_to_every_origin))
        .with_state(catalog);
    context.admin.merge(router);
}

/// Answers preflights, and marks every other answer, errors too, as readable by any page.
async fn open_to_every_origin(request: Request, next: Next) -> Response {
    let mut response = match *request.method() {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    for (name, value) in allowed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// An error in the API's own shape.
#[derive(Debug)]
struct Problem(StatusCode, String);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Problem {
        Problem(StatusCode::BAD_REQUEST, format!("invalid query: {}", rejection.body_text().to_lowercase()))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let status = if error.is_transient() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        Problem(status, error.to_string())
    }
}

type Answer<T> = Result<Json<T>, Problem>;

async fn list(
    State(catalog): State<Catalog>,
    headers: HeaderMap,
    raw: Result<Query<Raw>, QueryRejection>,
) -> Answer<ServerList> {
    let query = raw?.0.check().map_err(|words| Problem(StatusCode::BAD_REQUEST, words))?;
    let edge = catalog.edge(&headers)?;
    Ok(Json(catalog.page(&query, &catalog.maker(&edge)).await?))
}

async fn versions(
    State(catalog): State<Catalog>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Answer<ServerList> {
    let edge = catalog.edge(&headers)?;
    let entry = catalog.maker(&edge).entry(&catalog.find(&name).await?);
    let metadata = Metadata { next_cursor: None, count: 1 };
    Ok(Json(ServerList { servers: vec![entry], metadata }))
}

async fn one(
    State(catalog): State<Catalog>,
    headers: HeaderMap,
    Path((name, wanted)): Path<(String, String)>,
) -> Answer<ServerResponse> {
    let edge = catalog.edge(&headers)?;
    let found = catalog.find(&name).await?;
    let there = version(&found);
    if wanted != "latest" && wanted != there {
        let words =
            format!("server {name:?} has no version {wanted:?}; the latest, {there}, is all that is kept");
        return Err(Problem(StatusCode::NOT_FOUND, words));
    }
    Ok(Json(catalog.maker(&edge).entry(&found)))
}

async fn read_only() -> Problem {
    let words = "this registry is read-only; `swarm registry` changes it";
    Problem(StatusCode::NOT_IMPLEMENTED, words.to_owned())
}

async fn nothing(request: Request) -> Problem {
    let path = request.uri().path();
    Problem(StatusCode::NOT_FOUND, format!("no {path}; a slash within a name is written as %2F"))
}

impl Catalog {
    fn maker<'a>(&'a self, edge: &'a str) -> Maker<'a> {
        Maker { config: &self.config, edge }
    }

    async fn page(&self, query: &query::Query, maker: &Maker<'_>) -> Result<ServerList, Error> {
        match self.fill(Filling::new(query, maker)).await {
            // The place in the registry is of another version of it: the name in the cursor is not.
            Err(Error::Invalid(_)) if query.from.is_some() => {
                self.fill(Filling::from_the_start(query, maker)).await
            }
            settled => settled,
        }
    }

    async fn fill(&self, mut filling: Filling<'_>) -> Result<ServerList, Error> {
        let filter = Filter { kind: Kind::Backend, ..Filter::default() };
        loop {
            let token = filling.token().to_owned();
            let page = self.clients.registry.page(&filter, filling.size(), token).await?;
            match filling.take(&page.registrations, page.next) {
                Step::More(more) => filling = more,
                Step::Done(list) => return Ok(list),
            }
        }
    }

    async fn find(&self, name: &str) -> Result<Registration, Problem> {
        let missing = || {
            let example = full_name(&self.config, "<name>");
            let words = format!("no server is named {name:?}; names here are {example}");
            Problem(StatusCode::NOT_FOUND, words)
        };
        let own = own_name(&self.config, name).ok_or_else(missing)?;
        match self.clients.registry.lookup(own).await {
            Ok(found) if found.kind() == Kind::Backend => Ok(found),
            Ok(_) | Err(Error::NotFound(_)) => Err(missing()),
            Err(error) => Err(error.into()),
        }
    }

    /// URL that clients connect to: the configured one, that of this node's edge, or that of
    /// another node's.
    fn edge(&self, headers: &HeaderMap) -> Result<String, Problem> {
        let configured = Some(self.config.public_url.as_str()).filter(|url| !url.is_empty());
        if let Some(url) = configured {
            return Ok(url.trim_end_matches('/').to_owned());
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let bound = self.own_edge.as_deref().map(str::to_owned).or_else(|| self.other_edge());
        // An edge that is bound to all interfaces is named as the client came to us.
        bound.map(|url| reachable(&url, host)).ok_or_else(|| {
            let words = "no edge is known yet; catalog.public_url names one";
            Problem(StatusCode::SERVICE_UNAVAILABLE, words.to_owned())
        })
    }

    fn other_edge(&self) -> Option<String> {
        let edges = self.clients.instances("edge");
        let living = edges.iter().filter(|edge| edge.state != Liveness::Down);
        let mcp = living.filter_map(|edge| edge.meta.get(transport_edge::META_MCP)).next()?;
        Some(format!("http://{mcp}/mcp"))
    }
}
