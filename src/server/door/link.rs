//! A connection of which it is known whose it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::gate::Place;
use super::unix_link::UnixLink;
use crate::server::peer::Peer;

#[derive(Debug)]
pub struct Link {
    stream: LinkStream,
    peer: Peer,
    /// Given back when the connection ends.
    _place: Place,
}

#[derive(Debug)]
pub(super) enum LinkStream {
    Unix(UnixLink),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Link {
    pub(super) fn new(stream: LinkStream, peer: Peer, place: Place) -> Self {
        Self { stream, peer, _place: place }
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Link {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Link {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            LinkStream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            LinkStream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            LinkStream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            LinkStream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            LinkStream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            LinkStream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            LinkStream::Unix(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            LinkStream::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            LinkStream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            LinkStream::Unix(stream) => stream.is_write_vectored(),
            LinkStream::Tcp(stream) => stream.is_write_vectored(),
            LinkStream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            LinkStream::Unix(stream) => Pin::new(stream).poll_flush(context),
            LinkStream::Tcp(stream) => Pin::new(stream).poll_flush(context),
            LinkStream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            LinkStream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            LinkStream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            LinkStream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
