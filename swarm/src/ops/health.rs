//! `swarm healthcheck`, for containers and supervisors

use super::not_reached;
use crate::{
    api::Endpoints,
    cli::HealthArgs,
    client::Http,
    config::Config,
    error::{CliError, Failure},
};
use bytes::Bytes;
use http::{HeaderMap, Method};
use kit::run::ENDPOINTS_FILE;
use std::{net::SocketAddr, path::Path, time::Duration};

const TIMEOUT: Duration = Duration::from_secs(2);

/// Exit 0 when the node beside it is ready, 1 when it is not, 4 when it does not answer.
pub async fn healthcheck(args: &HealthArgs) -> Result<(), CliError> {
    if let Some(addr) = args.tcp {
        return accepts(addr).await;
    }
    let url = format!("{}/readyz", admin_url(args)?.trim_end_matches('/'));
    let http = Http::pooled();
    let sent = http.send(Method::GET, &url, HeaderMap::new(), Bytes::new(), TIMEOUT);
    let reply = sent.await.map_err(not_reached)?;
    if reply.status.is_success() {
        return Ok(());
    }
    let body = reply.whole(TIMEOUT).await.unwrap_or_default();
    let why = String::from_utf8_lossy(&body).trim().to_owned();
    Err(CliError::new(Failure::Failed, "the node is not ready").cause(why))
}

async fn accepts(addr: SocketAddr) -> Result<(), CliError> {
    let connect = tokio::time::timeout(TIMEOUT, tokio::net::TcpStream::connect(addr)).await;
    match connect {
        Ok(Ok(_)) => Ok(()),
        _ => Err(CliError::new(Failure::Unreachable, format!("nobody listens on {addr}"))),
    }
}

/// In this order: the option, the endpoints file of the data directory, the configured port.
fn admin_url(args: &HealthArgs) -> Result<String, CliError> {
    if let Some(endpoint) = &args.endpoint {
        return Ok(super::base(endpoint));
    }
    let config = Config::of_file(args.config.as_deref())?;
    let name = args.name.clone().unwrap_or(config.node.name);
    let data = match &args.data {
        Some(data) => Some(data.clone()),
        None => config.node.data.resolve(&name)?,
    };
    let written = data.as_deref().and_then(written_endpoint);
    if let (None, Some(data)) = (&written, &args.data) {
        let file = data.join(ENDPOINTS_FILE);
        let words = format!("{} is not there: the node is not ready", file.display());
        return Err(CliError::new(Failure::Failed, words));
    }
    Ok(written.unwrap_or_else(|| format!("http://{}", config.node.admin)))
}

fn written_endpoint(data: &Path) -> Option<String> {
    let text = std::fs::read(data.join(ENDPOINTS_FILE)).ok()?;
    let endpoints: Endpoints = serde_json::from_slice(&text).ok()?;
    Some(endpoints.admin)
}
