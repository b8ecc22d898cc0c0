//! One connection to a backend: a request goes out in one write, the head of its answer comes in.

use crate::core::http1::{Head, HeadReader};
use bytes::BytesMut;
use kit::net::BoxedStream;
use std::{
    io,
    pin::Pin,
    task::{Context, Waker},
};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};

/// Room for the first read of an answer; most fit.
const ROOM: usize = 4 << 10;
/// Room for a read of an answer that is known to be large.
const ROOM_MAX: usize = 64 << 10;

/// A request that got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// No byte of it was sent.
    Unsent(String),
    /// It may have been processed.
    Unknown(String),
    /// It was answered by something that is not HTTP/1.1.
    Malformed(&'static str),
}

/// A connection and what came on it and was not taken yet: nothing between two answers.
pub(super) struct Connection {
    stream: BoxedStream,
    pub(super) buffer: BytesMut,
}

impl Connection {
    pub(super) fn new(stream: BoxedStream) -> Self {
        Connection { stream, buffer: BytesMut::new() }
    }

    /// Sends a request and reads the head of its answer; the body is left in the buffer and on
    /// the wire. Not cancel-safe: dropped half-way, the connection is of no more use.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<Head, Failure> {
        match self.write(request).await {
            Ok(()) => self.head().await,
            Err((0, error)) => Err(Failure::Unsent(error.to_string())),
            // It may have refused what it had read, and closed.
            Err((_, error)) => match self.head().await {
                Ok(head) => Ok(Head { keep_alive: false, ..head }),
                Err(_) => Err(Failure::Unknown(error.to_string())),
            },
        }
    }

    /// Writes all of it, or tells how many bytes went out before the failure.
    async fn write(&mut self, request: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut rest = request;
        while !rest.is_empty() {
            let sent = request.len() - rest.len();
            match self.stream.write(rest).await {
                Ok(0) => return Err((sent, io::ErrorKind::WriteZero.into())),
                Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Err(error) => return Err((sent, error)),
            }
        }
        self.stream.flush().await.map_err(|error| (request.len(), error))
    }

    async fn head(&mut self) -> Result<Head, Failure> {
        let mut reader = HeadReader::default();
        loop {
            if let Some(head) = reader.next(&mut self.buffer).map_err(|error| Failure::Malformed(error.0))? {
                return Ok(head);
            }
            match self.fill(0).await {
                Ok(true) => {}
                Ok(false) => return Err(Failure::Unknown("the connection closed without an answer".into())),
                Err(error) => return Err(Failure::Unknown(error.to_string())),
            }
        }
    }

    /// Reads once, with room for what is `expected`; false when the backend closed. Cancel-safe.
    pub(super) async fn fill(&mut self, expected: u64) -> io::Result<bool> {
        let room = usize::try_from(expected).unwrap_or(usize::MAX).clamp(ROOM, ROOM_MAX);
        self.buffer.reserve(room);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// Whether nothing came since the last answer, not even the end. What a backend says between
    /// two answers belongs to no request of ours.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut probe = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        self.buffer.is_empty() && Pin::new(&mut self.stream).poll_read(&mut context, &mut probe).is_pending()
    }

    /// Lets go of memory that an answer of unusual size took.
    pub(super) fn shrink(&mut self) {
        if self.buffer.capacity() > ROOM {
            self.buffer = BytesMut::new();
        }
    }
}
