//! Bodies over HTTP/2 streams, for both ends of a connection.

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::sync::oneshot;
use tonic::{Status, body::Body};

/// What the other end sends. The window is given back as the frames are taken.
#[derive(Debug)]
pub struct Inbound {
    stream: RecvStream,
    data_ended: bool,
    // Dropped with the body.
    _wanted: Option<oneshot::Sender<()>>,
}

impl Inbound {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, data_ended: false, _wanted: None }
    }

    /// The same of an answer whose request is still being sent, for as long as the answer is wanted.
    pub(super) fn of_open_request(stream: RecvStream, wanted: Option<oneshot::Sender<()>>) -> Self {
        Self { _wanted: wanted, ..Self::new(stream) }
    }
}

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.stream.flow_control().release_capacity(data.len())?;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // The other end wants no more of the request, and has answered.
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx)).transpose();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

/// Sends a body; done when all of it has been given to the connection, or the other end wants no
/// more. A body that ends with an error is not sent to its end, and the error is told. Frames after
/// the first wait for the window.
pub(super) struct Outbound {
    body: Body,
    stream: SendStream<Bytes>,
    // Kept back until it is known whether it is the last: then the end needs no frame of its own.
    last: Option<Bytes>,
    waits: bool,
}

impl Outbound {
    pub(super) fn new(body: Body, stream: SendStream<Bytes>) -> Self {
        Self { body, stream, last: None, waits: false }
    }

    fn take(&mut self, data: Bytes) -> Result<(), h2::Error> {
        match self.last.replace(data) {
            Some(data) => self.send(data),
            None => Ok(()),
        }
    }

    fn send(&mut self, data: Bytes) -> Result<(), h2::Error> {
        self.stream.send_data(data, false)?;
        self.stream.reserve_capacity(1);
        self.waits = true;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), h2::Error> {
        self.last.take().map_or(Ok(()), |data| self.send(data))
    }

    fn end(&mut self) -> Result<(), h2::Error> {
        let data = self.last.take().unwrap_or_default();
        self.stream.send_data(data, true)
    }

    fn end_with(&mut self, trailers: HeaderMap) -> Result<(), h2::Error> {
        if let Some(data) = self.last.take() {
            self.stream.send_data(data, false)?;
        }
        self.stream.send_trailers(trailers)
    }

    /// Ready when there is room for a byte more; `Err` when the stream has ended.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        while self.waits && self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(0)) => {}
                Some(Ok(_)) => break,
                Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
            }
        }
        self.waits = false;
        Poll::Ready(Ok(()))
    }

    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Result<Result<(), Status>, Gone>> {
        loop {
            ready!(self.poll_room(cx))?;
            let sent = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.take(data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        return Poll::Ready(Ok(Ok(self.end_with(trailers)?)));
                    }
                },
                Poll::Ready(None) => return Poll::Ready(Ok(Ok(self.end()?))),
                Poll::Ready(Some(Err(error))) => {
                    self.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Ok(Err(error)));
                }
                Poll::Pending => {
                    self.flush()?;
                    return Poll::Pending;
                }
            };
            sent?;
        }
    }
}

/// The stream takes no more.
struct Gone;

impl From<h2::Error> for Gone {
    fn from(_: h2::Error) -> Self {
        Gone
    }
}

impl Future for Outbound {
    type Output = Result<(), Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.poll_frames(cx) {
            Poll::Ready(Ok(sent)) => Poll::Ready(sent),
            // Nobody reads it any more.
            Poll::Ready(Err(Gone)) => Poll::Ready(Ok(())),
            Poll::Pending => self.stream.poll_reset(cx).map(|_| Ok(())),
        }
    }
}
