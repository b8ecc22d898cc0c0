//! The body of an answer, read as it is asked for; its connection goes back by itself.

use super::pool::Lease;
use crate::{
    backend::BackendError,
    core::http1::{Decoder, Head, Malformed},
};
use bytes::{Bytes, BytesMut};

/// What is read of a body that nobody wants, to use its connection again.
const DRAIN_MAX: usize = 64 << 10;

/// A body. Read to its end, it gives the connection back; dropped before, it closes it.
pub(super) struct Incoming {
    decoder: Decoder,
    /// Gone when the end was read.
    lease: Option<Lease>,
    keep_alive: bool,
}

impl Incoming {
    /// Takes the body out of its head.
    pub(super) fn of(mut head: Head, lease: Lease) -> (Head, Incoming) {
        let decoder = std::mem::replace(&mut head.body, Decoder::length(0));
        let mut body = Incoming { decoder, lease: Some(lease), keep_alive: head.keep_alive };
        body.settle();
        (head, body)
    }

    /// Whether all of it was read.
    pub(super) fn is_done(&self) -> bool {
        self.lease.is_none()
    }

    /// The next piece, never empty; `None` at the end. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, BackendError>> {
        loop {
            match self.ready() {
                Ok(Some(piece)) => return Some(Ok(piece)),
                Ok(None) if self.is_done() => return None,
                Ok(None) => {}
                Err(error) => return Some(Err(self.broken(error.0))),
            }
            if let Err(error) = self.fill().await {
                return Some(Err(error));
            }
        }
    }

    /// What came already, without waiting.
    pub(super) fn ready(&mut self) -> Result<Option<Bytes>, Malformed> {
        let Some(lease) = &mut self.lease else { return Ok(None) };
        let piece = self.decoder.next(&mut lease.connection.buffer)?;
        self.settle();
        Ok(piece)
    }

    async fn fill(&mut self) -> Result<(), BackendError> {
        let Some(lease) = &mut self.lease else { return Ok(()) };
        match lease.connection.fill(self.decoder.announced()).await {
            Ok(true) => Ok(()),
            Ok(false) => match self.decoder.ended() {
                Ok(()) => {
                    self.lease = None;
                    Ok(())
                }
                Err(error) => Err(self.broken(error.0)),
            },
            Err(error) => Err(self.broken(&error.to_string())),
        }
    }

    fn broken(&mut self, reason: &str) -> BackendError {
        self.lease = None;
        BackendError::gone(reason)
    }

    /// At the end, the connection goes back, unless it is to close or holds more than was asked
    /// for.
    fn settle(&mut self) {
        if !self.decoder.is_done() {
            return;
        }
        if let Some(lease) = self.lease.take()
            && self.keep_alive
            && lease.connection.buffer.is_empty()
        {
            lease.release();
        }
    }

    /// How many bytes are to come, if that was said.
    pub(super) fn announced(&self) -> u64 {
        self.decoder.announced()
    }

    /// All of a body whose length was announced. Cancel-safe.
    pub(super) async fn piece(&mut self, limit: usize) -> Result<Bytes, BackendError> {
        self.gather(limit).await?;
        match self.ready() {
            Ok(Some(piece)) => Ok(piece),
            _ => Err(self.broken("the answer is empty")),
        }
    }

    /// All of it, if it has at most `limit` bytes.
    pub(super) async fn whole(mut self, limit: usize) -> Result<Bytes, BackendError> {
        self.gather(limit).await?;
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(piece) = self.next().await.transpose()? {
            if first.len() + all.len() + piece.len() > limit {
                return Err(BackendError::TooLarge);
            }
            if first.is_empty() && all.is_empty() {
                first = piece;
                continue;
            }
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&piece);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }

    /// Waits until a body whose length is known is here, so that it is one piece.
    async fn gather(&mut self, limit: usize) -> Result<(), BackendError> {
        let length = usize::try_from(self.decoder.announced()).unwrap_or(usize::MAX);
        if length > limit {
            return Err(BackendError::TooLarge);
        }
        while self.lease.as_ref().is_some_and(|lease| lease.connection.buffer.len() < length) {
            self.fill().await?;
        }
        Ok(())
    }

    /// Reads the rest and forgets it, as far as that is less work than another connection.
    pub(super) async fn drain(mut self) {
        let mut read = 0;
        while let Some(Ok(piece)) = self.next().await {
            read += piece.len();
            if read > DRAIN_MAX {
                return;
            }
        }
    }
}
