//! `swarm stdio`: MCP over stdin and stdout for hosts that speak nothing else.
//!
//! stdout carries the protocol and nothing but; everything else goes to stderr.

mod bridge;
mod message;

use crate::{
    cli::{NodeArgs, StdioArgs},
    client::Http,
    error::{CliError, Failure},
    ops, signals, up,
};
use bridge::Bridge;
use http::{HeaderMap, HeaderName, HeaderValue};
use kit::{clock::SystemClock, run::ServiceArgs};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    sync::mpsc,
};

/// Longest line of a host.
const MAX_LINE_BYTES: u64 = 4 * 1024 * 1024;
/// Lines waiting for the host to read them.
const OUT_QUEUE: usize = 256;
/// How long answers that are still due are waited for after the host closed stdin.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Runs the bridge until the host closes stdin or a signal comes.
pub async fn run(args: &StdioArgs) -> Result<(), CliError> {
    let headers = headers(&args.header)?;
    let (url, node) = match (&args.url, &args.import) {
        (Some(url), _) => (url.clone(), None),
        (None, Some(_)) => embedded(args).await?,
        (None, None) => (running(args).await?, None),
    };
    let stdin = BufReader::new(tokio::io::stdin());
    let result = serve(url, headers, stdin, tokio::io::stdout()).await;
    if let Some(node) = node {
        node.stop().await;
    }
    result
}

async fn serve(
    url: String,
    headers: HeaderMap,
    input: impl AsyncBufRead + Unpin,
    output: impl AsyncWrite + Unpin + Send + 'static,
) -> Result<(), CliError> {
    let (out, lines) = mpsc::channel(OUT_QUEUE);
    let bridge = Bridge::new(url, headers, out, Arc::new(SystemClock));
    let writer = tokio::spawn(write_lines(lines, output));
    tokio::select! {
        read = read_lines(&bridge, input) => {
            read?;
            bridge.finish(LAST_ANSWERS).await;
        }
        () = signals::terminate() => bridge.close().await,
    }
    drop(bridge);
    // What the host does not read any more is lost with it.
    let _ = tokio::time::timeout(Duration::from_secs(1), writer).await;
    Ok(())
}

async fn read_lines(bridge: &Bridge, mut input: impl AsyncBufRead + Unpin) -> Result<(), CliError> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut input).take(MAX_LINE_BYTES);
        let read = limited.read_until(b'\n', &mut line).await;
        match read {
            Ok(0) => return Ok(()),
            Ok(length) if length as u64 == MAX_LINE_BYTES => {
                let words = format!("the host sent a line of more than {MAX_LINE_BYTES} bytes");
                return Err(CliError::new(Failure::Failed, words));
            }
            Ok(_) => bridge.take(String::from_utf8_lossy(&line).trim().to_owned()).await,
            Err(error) => {
                return Err(CliError::new(Failure::Failed, "cannot read stdin").cause(error));
            }
        }
    }
}

async fn write_lines(mut lines: mpsc::Receiver<String>, mut output: impl AsyncWrite + Unpin) {
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        let written = output.write_all(line.as_bytes()).await;
        if written.is_err() || output.flush().await.is_err() {
            return;
        }
    }
}

fn headers(given: &[String]) -> Result<HeaderMap, CliError> {
    let mut headers = HeaderMap::new();
    for header in given {
        let wrong = || CliError::new(Failure::Usage, format!("`{header}` is not `Name: value`"));
        let (name, value) = header.split_once(':').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        let value: HeaderValue = value.trim().parse().map_err(|_| wrong())?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// The MCP endpoint of the node on this machine.
async fn running(args: &StdioArgs) -> Result<String, CliError> {
    let endpoints = ops::endpoints(&Http::pooled(), &args.endpoint, Duration::from_secs(2)).await;
    let hint = "start one with `swarm up`, or give --url or --import";
    let endpoints = endpoints.map_err(|error| error.hint(hint))?;
    endpoints.mcp.ok_or_else(|| {
        let words = format!("the node at {} has no MCP endpoint", args.endpoint);
        CliError::new(Failure::NotFound, words).hint(hint)
    })
}

/// A node of the bridge's own, in this process, that keeps nothing.
async fn embedded(args: &StdioArgs) -> Result<(String, Option<up::Node>), CliError> {
    let free = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let process = ServiceArgs {
        name: Some(format!("stdio-{}", std::process::id())),
        data: Some(":memory:".to_owned()),
        // Hosts show their users what comes on stderr.
        log: Some("warn".to_owned()),
        admin: free,
        grpc: free,
        ..ServiceArgs::default()
    };
    let import = args.import.clone();
    let node = NodeArgs { process, mcp: free, gossip: free, import, ..NodeArgs::default() };
    let node = up::start(&node).await?;
    let url = node.endpoints().mcp.clone().unwrap_or_default();
    Ok((url, Some(node)))
}

#[cfg(test)]
mod tests;
