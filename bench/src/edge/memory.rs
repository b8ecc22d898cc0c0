//! What an idle session and an open stream weigh: resident memory of the process, before and after.

use super::load::{Session, Target};
use crate::{process::Process, report::Row};
use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) fn weigh(count: usize, target: &Target, edge: &Process) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // The first ones pay for pools and tables that all share.
        let _warm = open_sessions(count / 10, target).await?;
        let empty = edge.resident_bytes()?;
        let sessions = open_sessions(count, target).await?;
        let with_sessions = edge.resident_bytes()?;
        let _streams = open_streams(&sessions, target).await?;
        let with_streams = edge.resident_bytes()?;
        let each = |after: f64, before: f64| (after - before) / count as f64 / 1024.0;
        Ok(vec![
            Row::new("edge", "idle session and its connection", each(with_sessions, empty), "KiB"),
            Row::new("edge", "open stream and its connection", each(with_streams, with_sessions), "KiB"),
        ])
    })
}

async fn open_sessions(count: usize, target: &Target) -> Result<Vec<Session>> {
    let mut sessions = Vec::with_capacity(count);
    for _ in 0..count {
        sessions.push(Session::open(target).await?);
    }
    Ok(sessions)
}

async fn open_streams(sessions: &[Session], target: &Target) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(sessions.len());
    for session in sessions {
        let mut stream = TcpStream::connect(&target.authority).await?;
        stream.write_all(target.listen(&session.id).as_bytes()).await?;
        let mut head = [0; 1024];
        let read = stream.read(&mut head).await?;
        ensure!(
            head[..read].starts_with(b"HTTP/1.1 200"),
            "no stream: {}",
            String::from_utf8_lossy(&head[..read])
        );
        streams.push(stream);
    }
    Ok(streams)
}
