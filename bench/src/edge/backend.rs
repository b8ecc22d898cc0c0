//! A raw MCP backend over HTTP/1.1 that answers from memory: what "direct" means.

use anyhow::Result;
use bytes::{Buf, BytesMut};
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Serves on a free port of loopback until killed.
pub(crate) fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("ready url=http://{}/mcp", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(connection(stream));
        }
    })
}

async fn connection(mut stream: TcpStream) {
    let mut buffer = BytesMut::with_capacity(4096);
    let mut out = Vec::with_capacity(1024);
    loop {
        while let Some((head, length)) = head_of(&buffer) {
            if buffer.len() < head + length {
                break;
            }
            answer(&buffer[..head], &buffer[head..head + length], &mut out);
            buffer.advance(head + length);
        }
        if !out.is_empty() {
            if stream.write_all(&out).await.is_err() {
                return;
            }
            out.clear();
        }
        if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

/// Lengths of head and body of the request that the buffer starts with.
fn head_of(buffer: &[u8]) -> Option<(usize, usize)> {
    let end = memmem::find(buffer, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..end]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Some((end, length.unwrap_or(0)))
}

fn answer(head: &[u8], body: &[u8], out: &mut Vec<u8>) {
    if !head.starts_with(b"POST") {
        out.extend_from_slice(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n");
        return;
    }
    let Some(id) = id_of(body) else {
        out.extend_from_slice(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
        return;
    };
    let has = |method: &[u8]| memmem::find(body, method).is_some();
    let result: &str = if has(b"\"tools/call\"") {
        r#""result":{"content":[{"type":"text","text":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}],"isError":false}"#
    } else if has(b"\"initialize\"") {
        r#""result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"raw","version":"1"}}"#
    } else if has(b"\"tools/list\"") {
        r#""result":{"tools":[{"name":"echo","inputSchema":{"type":"object","properties":{"text":{"type":"string"}}},"annotations":{"readOnlyHint":true}}]}"#
    } else if has(b"\"ping\"") {
        r#""result":{}"#
    } else {
        r#""error":{"code":-32601,"message":"method not found"}"#
    };
    let length = br#"{"jsonrpc":"2.0","id":,}"#.len() + id.len() + result.len();
    out.extend_from_slice(
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n")
            .as_bytes(),
    );
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id);
    out.push(b',');
    out.extend_from_slice(result.as_bytes());
    out.push(b'}');
}

/// The raw id; the requests come from our own generator and edge, so the first `"id":` is it.
fn id_of(body: &[u8]) -> Option<&[u8]> {
    let start = memmem::find(body, br#""id":"#)? + 5;
    let rest = body.get(start..)?;
    let length = rest.iter().position(|byte| matches!(byte, b',' | b'}'))?;
    Some(&rest[..length])
}
