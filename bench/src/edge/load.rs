//! A closed-loop load generator that costs little: hand-written HTTP/1.1, one connection a session.

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BytesMut};
use memchr::memmem;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Where and what to call.
#[derive(Clone)]
pub(crate) struct Target {
    /// host:port.
    pub(crate) authority: String,
    path: String,
    tool: String,
}

/// What one round saw.
pub(crate) struct Measured {
    pub(crate) calls: usize,
    elapsed: Duration,
    latencies_us: Vec<u32>,
}

impl Measured {
    pub(crate) fn per_second(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        let index = ((self.latencies_us.len() as f64 - 1.0) * quantile) as usize;
        self.latencies_us.get(index).copied().map_or(f64::NAN, f64::from)
    }
}

impl Target {
    pub(crate) fn new(url: &str, tool: &str) -> Result<Target> {
        let rest = url.strip_prefix("http://").context("not an http URL")?;
        let (authority, path) = rest.split_once('/').context("no path")?;
        Ok(Target { authority: authority.into(), path: format!("/{path}"), tool: tool.into() })
    }

    fn head(&self, session: Option<&str>, length: usize) -> String {
        let session = session.map_or_else(String::new, |id| {
            format!("mcp-session-id: {id}\r\nmcp-protocol-version: 2025-11-25\r\n")
        });
        format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n{session}content-length: {length}\r\n\r\n",
            self.path, self.authority
        )
    }

    /// The bytes that open the standalone stream of a session.
    pub(crate) fn listen(&self, session: &str) -> String {
        format!(
            "GET {} HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\nmcp-session-id: {session}\r\nmcp-protocol-version: 2025-11-25\r\n\r\n",
            self.path, self.authority
        )
    }
}

/// A keep-alive connection with one session.
pub(crate) struct Session {
    stream: TcpStream,
    buffer: BytesMut,
    request: Vec<u8>,
    pub(crate) id: String,
}

impl Session {
    /// `initialize` and `notifications/initialized`.
    pub(crate) async fn open(target: &Target) -> Result<Session> {
        let stream = TcpStream::connect(&target.authority).await?;
        stream.set_nodelay(true)?;
        let mut session = Session { stream, buffer: BytesMut::new(), request: Vec::new(), id: String::new() };
        let hello = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#;
        let (head, _) = session.exchange((target.head(None, hello.len()) + hello).as_bytes()).await?;
        session.id = header(&head, "mcp-session-id").unwrap_or_default().to_owned();
        let id = Some(session.id.as_str()).filter(|id| !id.is_empty()).map(str::to_owned);
        let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        session.exchange((target.head(id.as_deref(), ready.len()) + ready).as_bytes()).await?;
        let call = format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{}","arguments":{{"text":"{}"}}}}}}"#,
            target.tool,
            "x".repeat(64)
        );
        session.request = (target.head(id.as_deref(), call.len()) + &call).into_bytes();
        session.call().await.context("the first call")?;
        Ok(session)
    }

    async fn call(&mut self) -> Result<()> {
        let request = std::mem::take(&mut self.request);
        let (_, body) = self.exchange(&request).await?;
        self.request = request;
        ensure!(
            memmem::find(&body, br#""id":7"#).is_some() && memmem::find(&body, br#""content""#).is_some(),
            "not an answer: {body:?}"
        );
        Ok(())
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<(String, BytesMut)> {
        self.stream.write_all(request).await?;
        let (head, length) = loop {
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
                self.buffer.advance(end + 4);
                let length = header(&head, "content-length").unwrap_or("0").parse::<usize>()?;
                break (head, length);
            }
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "connection closed");
        };
        while self.buffer.len() < length {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "connection closed");
        }
        ensure!(head.starts_with("http/1.1 2"), "{head}\n{:?}", self.buffer);
        Ok((head, self.buffer.split_to(length)))
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// All sessions of one target.
pub(crate) struct Sessions(Vec<Session>);

impl Sessions {
    pub(crate) async fn open(target: &Target, count: usize) -> Result<Sessions> {
        let mut sessions = Vec::with_capacity(count);
        for _ in 0..count {
            sessions.push(Session::open(target).await?);
        }
        Ok(Sessions(sessions))
    }

    /// Every session calls as soon as it has its answer, until the time is over.
    pub(crate) async fn run(&mut self, length: Duration) -> Result<Measured> {
        let started = Instant::now();
        let end = started + length;
        let tasks: Vec<_> = self.0.drain(..).map(|session| tokio::spawn(call_until(session, end))).collect();
        let mut latencies_us = Vec::new();
        for task in tasks {
            let (session, seen) = task.await??;
            self.0.push(session);
            latencies_us.extend(seen);
        }
        let elapsed = started.elapsed();
        latencies_us.sort_unstable();
        Ok(Measured { calls: latencies_us.len(), elapsed, latencies_us })
    }
}

async fn call_until(mut session: Session, end: Instant) -> Result<(Session, Vec<u32>)> {
    let mut seen = Vec::new();
    let mut before = Instant::now();
    while before < end {
        session.call().await?;
        let after = Instant::now();
        seen.push((after - before).as_micros() as u32);
        before = after;
    }
    Ok((session, seen))
}
