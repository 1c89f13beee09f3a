//! The body of a stream's answer: its messages, each written as the client reads. tonic would write a message as a whole, and keep room for the
//! largest one as long as the stream lives: tens of megabytes for each Envoy of a big configuration.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::HeaderMap;
use bytes::{BufMut as _, Bytes};
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;
use tonic::Status;

use super::shares::Place;
use crate::xds::stream::{Outgoing, Protocol, Push};

/// Bytes of a piece, and at most one resource more.
const PIECE: usize = 32 << 10;

/// What gRPC puts before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

pub(super) struct Responses<P> {
    messages: mpsc::Receiver<Result<Push, Status>>,
    /// The one that is being written.
    message: Option<Outgoing<P>>,
    /// The status was sent: nothing follows.
    ended: bool,
    /// As long as anything is left to write, whether or not the client asks for more.
    place: Arc<Place>,
}

/// Bytes on their way: what the client does not read waits in the connection, and the stream is not gone before.
struct Piece {
    bytes: Vec<u8>,
    _place: Arc<Place>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<P: Protocol> Responses<P> {
    pub(super) fn new(messages: mpsc::Receiver<Result<Push, Status>>, place: Arc<Place>) -> Self {
        Self { messages, message: None, ended: false, place }
    }

    fn begin(&mut self, push: Push) -> Result<Frame<Bytes>, Status> {
        let message = Outgoing::new(push);
        let length = message.length();
        let mut piece = Vec::with_capacity(PREFIX + length.min(PIECE));
        piece.put_u8(0);
        piece.put_u32(u32::try_from(length).map_err(|_| Status::resource_exhausted("a response is longer than a message can be"))?);
        Ok(self.go_on(message, piece))
    }

    fn go_on(&mut self, mut message: Outgoing<P>, mut piece: Vec<u8>) -> Frame<Bytes> {
        message.write(&mut piece, PIECE);
        self.message = Some(message).filter(|message| !message.is_written());
        Frame::data(Bytes::from_owner(Piece { bytes: piece, _place: Arc::clone(&self.place) }))
    }

    fn end(&mut self, status: &Status) -> Result<Frame<Bytes>, Status> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}

impl<P: Protocol> Body for Responses<P> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(message) = self.message.take() {
            let frame = self.go_on(message, Vec::with_capacity(PIECE));
            return Poll::Ready(Some(Ok(frame)));
        }
        let frame = match ready!(self.messages.poll_recv(context)) {
            Some(Ok(push)) => self.begin(push).or_else(|status| self.end(&status)),
            Some(Err(status)) => self.end(&status),
            None => self.end(&Status::ok("")),
        };
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

impl<P> fmt::Debug for Responses<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responses").field("message", &self.message).field("ended", &self.ended).finish_non_exhaustive()
    }
}
