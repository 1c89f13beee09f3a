//! A Unix socket that wakes nobody when the peer reads.
//!
//! Linux tells a Unix socket's owner each time that the peer has read something, and whoever asked to be told of room to write is woken by it,
//! though there was room all along. tokio's own `UnixStream` always asks. For a check that means a second wake-up for each answer, at the very
//! moment in which Envoy goes on with the request, and on the processor that it needs. So here it is asked only while there is no room.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

#[derive(Debug)]
pub(super) struct UnixLink {
    stream: AsyncFd<UnixStream>,
    /// The same socket, while there is no room to write.
    full: Option<AsyncFd<UnixStream>>,
}

impl UnixLink {
    /// Lives in the runtime that it is made in. The stream does not block.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        Ok(Self { stream: asking_for(Interest::READABLE, stream)?, full: None })
    }

    fn poll_writing(&mut self, context: &mut Context<'_>, write: impl Fn(&UnixStream) -> io::Result<usize>) -> Poll<io::Result<usize>> {
        loop {
            let written = match &self.full {
                None => write(self.stream.get_ref()),
                Some(full) => match ready!(full.poll_write_ready(context))?.try_io(|full| write(full.get_ref())) {
                    Ok(written) => written,
                    Err(_would_block) => continue,
                },
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.full = Some(asking_for(Interest::WRITABLE, self.stream.get_ref().try_clone()?)?);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => {
                    self.full = None;
                    return Poll::Ready(written);
                }
            }
        }
    }
}

#[allow(deprecated, reason = "what comes instead is unsafe, for types whose descriptor may become another's; a UnixStream's is its own")]
fn asking_for(interest: Interest, stream: UnixStream) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(stream, interest)
}

impl AsyncRead for UnixLink {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut readable = ready!(self.stream.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            match readable.try_io(|stream| stream.get_ref().read(room)) {
                Ok(Ok(count)) => {
                    // Less than there was room for is all that there was, and what comes next is told anew.
                    if 0 < count && count < room.len() {
                        readable.clear_ready();
                    }
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for UnixLink {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_writing(context, |mut stream| stream.write(bytes))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_writing(context, |mut stream| stream.write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;
    use std::os::fd::AsRawFd as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn pair() -> (UnixLink, tokio::net::UnixStream) {
        let (ours, peers) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        peers.set_nonblocking(true).unwrap();
        (UnixLink::new(ours).unwrap(), tokio::net::UnixStream::from_std(peers).unwrap())
    }

    #[tokio::test]
    async fn what_one_side_says_the_other_hears_and_its_end_too() {
        let (mut link, mut peer) = pair();
        for said in ["ping", "a second one", "and a third"] {
            peer.write_all(said.as_bytes()).await.unwrap();
            let mut heard = vec![0; said.len()];
            link.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, said.as_bytes());
            link.write_all(&heard).await.unwrap();
            peer.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, said.as_bytes());
        }
        peer.write_all(b"last words").await.unwrap();
        drop(peer);
        let mut rest = Vec::new();
        link.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"last words");
        assert_eq!(link.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn more_than_there_is_room_for_arrives_whole_when_the_peer_reads() {
        let (mut link, mut peer) = pair();
        let sent: Vec<u8> = (0..4_000_000_u32).map(|index| (index % 251) as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            link.write_all(&sent).await.unwrap();
            assert!(link.full.is_none(), "it asks no longer than it must");
            link.shutdown().await.unwrap();
            link
        });
        let mut received = Vec::new();
        peer.read_to_end(&mut received).await.unwrap();
        assert!(received == expected);
        drop(writing.await.unwrap());
    }

    #[tokio::test]
    async fn a_peer_that_goes_ends_a_write_that_waits() {
        let (mut link, peer) = pair();
        let writing = tokio::spawn(async move { link.write_all(&vec![0; 4_000_000]).await });
        tokio::task::yield_now().await;
        drop(peer);
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    /// What the kernel is asked to tell, by the event loop's own account (proc(5), `fdinfo` of an epoll instance).
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn it_asks_for_room_only_while_there_is_none() {
        const EPOLLOUT: u32 = 4;
        let asked = |descriptor: i32| -> BTreeSet<bool> {
            let files = std::fs::read_dir("/proc/self/fdinfo").unwrap();
            let texts: Vec<_> = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok()).collect();
            let lines = texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("tfd:"));
            let of = lines.filter_map(|line| {
                let mut words = line.split_whitespace();
                let events = (words.next()?.parse() == Ok(descriptor)).then(|| words.nth(1)).flatten()?;
                Some(u32::from_str_radix(events, 16).unwrap() & EPOLLOUT != 0)
            });
            of.collect()
        };
        let (mut link, peer) = pair();
        link.write_all(b"there is room").await.unwrap();
        assert_eq!(asked(link.stream.get_ref().as_raw_fd()), [false].into());
        assert_eq!(asked(peer.as_raw_fd()), [true].into(), "as others do");
        while tokio::time::timeout(std::time::Duration::from_millis(20), link.write(&[0; 65_536])).await.is_ok() {}
        let full = link.full.as_ref().unwrap();
        assert_eq!(asked(full.get_ref().as_raw_fd()), [true].into());
    }
}
