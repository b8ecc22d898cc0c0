//! The operator's commands: they ask a node's admin API and print.

mod call;
mod check;
mod config;
mod health;
mod lists;
mod registry;
mod source;
mod status;

pub use call::call;
pub use check::check;
pub use config::config;
pub use health::healthcheck;
pub use lists::{members, sessions, tools};
pub use registry::registry;
pub use status::status;

use crate::{
    api::{ApiError, Endpoints},
    cli::OperatorArgs,
    client::{Http, HttpError},
    error::{CliError, Failure},
    url,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// A node's admin API.
pub struct Api {
    http: Http,
    endpoint: String,
    timeout: Duration,
}

impl Api {
    /// The node that the options name.
    pub fn new(args: &OperatorArgs) -> Api {
        Api { http: Http::pooled(), endpoint: base(&args.endpoint), timeout: args.timeout }
    }

    /// The node at an admin URL.
    pub fn at(endpoint: &str, timeout: Duration) -> Api {
        Api { http: Http::pooled(), endpoint: base(endpoint), timeout }
    }

    /// `GET /api/v1/<path>`
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        ask(&self.http, &self.endpoint, Method::GET, path, Bytes::new(), self.timeout).await
    }

    /// `POST /api/v1/<path>`
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: Bytes) -> Result<T, CliError> {
        ask(&self.http, &self.endpoint, Method::POST, path, body, self.timeout).await
    }

    /// `DELETE /api/v1/<path>`
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        ask(&self.http, &self.endpoint, Method::DELETE, path, Bytes::new(), self.timeout).await
    }
}

/// Where the node at `endpoint` answers. What listens there on all interfaces is met under the name
/// by which the node was reached.
pub async fn endpoints(http: &Http, endpoint: &str, timeout: Duration) -> Result<Endpoints, CliError> {
    let base = base(endpoint);
    let found: Endpoints = ask(http, &base, Method::GET, "endpoints", Bytes::new(), timeout).await?;
    let mcp = found.mcp.map(|mcp| url::reachable(&mcp, url::authority(&base)));
    Ok(Endpoints { mcp, ..found })
}

/// `127.0.0.1:7600` is meant as a URL.
fn base(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    // Only the console's links carry a query.
    let endpoint = endpoint.split('?').next().unwrap_or(endpoint).trim_end_matches('/');
    if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") }
}

async fn ask<T: DeserializeOwned>(
    http: &Http,
    endpoint: &str,
    method: Method,
    path: &str,
    body: Bytes,
    timeout: Duration,
) -> Result<T, CliError> {
    let url = format!("{endpoint}/api/v1/{path}");
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let reply = http.send(method, &url, headers, body, timeout).await.map_err(not_reached)?;
    let status = reply.status;
    let body = reply.whole(timeout).await.map_err(not_reached)?;
    if !status.is_success() {
        return Err(refused(endpoint, status, &body));
    }
    serde_json::from_slice(&body).map_err(|error| {
        CliError::new(Failure::Failed, format!("{url} did not answer as swarm does")).cause(error)
    })
}

fn refused(endpoint: &str, status: http::StatusCode, body: &[u8]) -> CliError {
    let Ok(ApiError { error }) = serde_json::from_slice(body) else {
        let words = format!("{endpoint} answered {status}, which is not an answer of swarm");
        return CliError::new(Failure::Failed, words).hint("is that the admin port?");
    };
    let failures =
        [Failure::NotFound, Failure::Denied, Failure::Unreachable, Failure::Usage, Failure::TimedOut];
    let known = failures.into_iter().find(|failure| failure.word() == error.code);
    CliError::new(known.unwrap_or(Failure::Failed), error.message)
}

/// No answer is exit code 4, whatever the reason; a slow one is 124.
pub(crate) fn not_reached(error: HttpError) -> CliError {
    let failure = match error {
        HttpError::Timeout { .. } => Failure::TimedOut,
        HttpError::Url { .. } => Failure::Usage,
        HttpError::TooLarge { .. } => Failure::Failed,
        HttpError::Connect { .. } | HttpError::Broken { .. } => Failure::Unreachable,
    };
    let hint = "is a node running? `swarm up` starts one; --endpoint or SWARM_ENDPOINT names another";
    let told = CliError::new(failure, error.to_string());
    if failure == Failure::Unreachable { told.hint(hint) } else { told }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_may_be_a_bare_address_or_a_console_link() {
        assert_eq!(base("127.0.0.1:7600"), "http://127.0.0.1:7600");
        assert_eq!(base("http://h:1/"), "http://h:1");
        assert_eq!(base("http://h:1/?token=x"), "http://h:1");
    }
}
