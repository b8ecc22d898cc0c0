//! One connection to a backend, and what comes on it.

use bytes::BytesMut;
use kit::net::BoxedStream;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};

/// Room for the first read of an answer; most fit.
const ROOM: usize = 4 << 10;
/// Room for a read of an answer that is known to be large.
const ROOM_MAX: usize = 64 << 10;

/// A connection and what came on it and was not taken yet: nothing between two answers.
pub(super) struct Connection {
    stream: BoxedStream,
    pub(super) buffer: BytesMut,
}

impl Connection {
    pub(super) fn new(stream: BoxedStream) -> Self {
        Connection { stream, buffer: BytesMut::new() }
    }

    /// Writes what the backend takes now; never nothing. Cancel-safe.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.write(bytes).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            taken => Ok(taken),
        }
    }

    /// Writes what goes without waiting. A failure shows again at the next write.
    pub(super) fn write_now(&mut self, bytes: &[u8]) -> usize {
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.stream).poll_write(&mut context, bytes) {
            Poll::Ready(Ok(taken)) => taken,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        }
    }

    /// Nothing for TCP; a stream that gathers what is written sends it. Cancel-safe.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.stream.flush().await
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
