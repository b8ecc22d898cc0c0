//! A request on its way out, and the head of its answer.

use super::{incoming::Incoming, pool::Lease};
use crate::core::http1::{Head, HeadReader};
use bytes::{Buf as _, Bytes};

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

/// A request that has a connection. Dropped, it closes it.
pub(super) struct Asked {
    lease: Lease,
    unsent: Bytes,
    begun: bool,
    /// Why not all of it could be sent.
    cut: Option<String>,
    reader: HeadReader,
}

impl Asked {
    /// Nothing is sent yet.
    pub(super) fn new(lease: Lease, request: Bytes) -> Self {
        Asked { lease, unsent: request, begun: false, cut: None, reader: HeadReader::default() }
    }

    /// Sends what goes without waiting: all of it, nearly always.
    pub(super) fn begin(&mut self) {
        let taken = self.lease.connection.write_now(&self.unsent);
        self.sent(taken);
    }

    fn sent(&mut self, taken: usize) {
        self.unsent.advance(taken.min(self.unsent.len()));
        self.begun |= taken > 0;
    }

    /// Sends what is left and reads the head of the answer; the body is left in the connection's
    /// buffer and on the wire. Cancel-safe.
    pub(super) async fn head(&mut self) -> Result<Head, Failure> {
        self.send().await?;
        loop {
            let found = self.reader.next(&mut self.lease.connection.buffer);
            if let Some(mut head) = found.map_err(|error| Failure::Malformed(error.0))? {
                head.keep_alive &= self.cut.is_none();
                return Ok(head);
            }
            let silent = match self.lease.connection.fill(0).await {
                Ok(true) => continue,
                Ok(false) => "the connection closed without an answer".to_owned(),
                Err(error) => error.to_string(),
            };
            return Err(Failure::Unknown(self.cut.take().unwrap_or(silent)));
        }
    }

    async fn send(&mut self) -> Result<(), Failure> {
        while !self.unsent.is_empty() {
            match self.lease.connection.write(&self.unsent).await {
                Ok(taken) => self.sent(taken),
                Err(error) if !self.begun => return Err(Failure::Unsent(error.to_string())),
                Err(error) => self.give_up(&error),
            }
        }
        if let Err(error) = self.lease.connection.flush().await {
            self.give_up(&error);
        }
        Ok(())
    }

    /// The backend may have refused what it had read, and closed: what it said counts.
    fn give_up(&mut self, error: &std::io::Error) {
        self.unsent.clear();
        self.cut = Some(error.to_string());
    }

    /// The body that follows the head.
    pub(super) fn body(self, head: Head) -> (Head, Incoming) {
        Incoming::of(head, self.lease)
    }
}
