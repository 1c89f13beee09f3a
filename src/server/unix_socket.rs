//! Local sockets: each in a folder that only we may enter, each connection from our own user or root. It knows nothing of what is served.
//!
//! The folder's mode is what keeps others out; the check of the peer stands behind it, should somebody loosen the folder.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::Stream;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

/// How long to wait after an accept failed (out of descriptors, for example) before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a socket cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("{}: a socket needs a path with a folder", .0.display())]
    Path(PathBuf),
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: the folder of a socket must be a folder of our own with mode 0700 (is: owner {owner}, mode {mode:04o})", path.display())]
    Folder { path: PathBuf, owner: u32, mode: u32 },
    #[error("{}: something that is not a socket stands there", .0.display())]
    NotASocket(PathBuf),
    #[error("{}: another process uses this socket", .0.display())]
    InUse(PathBuf),
}

/// A bound socket. The file goes when this is dropped.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    own_uid: u32,
    /// Held while the socket is in use; the kernel releases it even after a kill.
    _lock: File,
}

impl UnixSocket {
    /// Binds `path`. Its folder is made if it does not exist (0700); one that others may enter is refused. A socket file that an ended
    /// process left is replaced.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `SocketError`; its text names the path.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| SocketError::Io { path, error }
        };
        let own_uid = own_uid().map_err(at(path))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).ok_or_else(|| SocketError::Path(path.to_owned()))?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
        check_folder(folder, own_uid)?;
        let lock = lock(path)?;
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(at(path))?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(at(path))?;
        Ok(Self { listener, path: path.to_owned(), own_uid, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The user that we are.
    pub fn own_uid(&self) -> u32 {
        self.own_uid
    }

    /// Waits for the next connection of our own user or of root. Others are closed at once; failures of accept are waited out.
    pub async fn accept(&self) -> (UnixStream, SocketAddr) {
        let (stream, address, _) = self.next(|uid| may_connect(uid, self.own_uid)).await;
        (stream, address)
    }

    /// The same for the users that `may`, with the user.
    pub async fn accept_from(&self, may: impl Fn(u32) -> bool) -> (UnixStream, u32) {
        let (stream, _, uid) = self.next(may).await;
        (stream, uid)
    }

    async fn next(&self, may: impl Fn(u32) -> bool) -> (UnixStream, SocketAddr, u32) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let peer = stream.peer_cred().map(|credentials| credentials.uid());
                    match peer {
                        Ok(uid) if may(uid) => return (stream, address, uid),
                        _ => tracing::warn!(socket = %self.path.display(), peer.uid = ?peer, "a connection of another user was refused"),
                    }
                }
                Err(error) => {
                    tracing::warn!(socket = %self.path.display(), %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The connections as tonic takes them. The stream never ends and never yields an error.
    pub fn into_incoming(self) -> impl Stream<Item = io::Result<UnixStream>> + Send {
        futures::stream::unfold(self, |socket| async move {
            let (stream, _) = socket.accept().await;
            Some((Ok(stream), socket))
        })
    }
}

/// For `axum::serve`.
impl axum::serve::Listener for UnixSocket {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Ours as long as the lock is held. If it cannot be removed, the next bind does.
        let _ = fs::remove_file(&self.path);
    }
}

fn may_connect(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

/// The kernel's word on who we are, without `unsafe`.
fn own_uid() -> io::Result<u32> {
    let (ours, _) = UnixStream::pair()?;
    Ok(ours.peer_cred()?.uid())
}

fn check_folder(folder: &Path, own_uid: u32) -> Result<(), SocketError> {
    // A link is judged by where it leads: what counts is who may enter there.
    let found = fs::metadata(folder).map_err(|error| SocketError::Io { path: folder.to_owned(), error })?;
    let mode = found.mode() & 0o7777;
    if found.is_dir() && found.uid() == own_uid && mode & 0o077 == 0 {
        return Ok(());
    }
    Err(SocketError::Folder { path: folder.to_owned(), owner: found.uid(), mode })
}

/// One process per socket: without it, two that start together would each take the other's file for a stale one.
fn lock(path: &Path) -> Result<File, SocketError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let file = File::options().create(true).truncate(false).write(true).open(&lock_path);
    let file = file.map_err(|error| SocketError::Io { path: lock_path.clone(), error })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(SocketError::InUse(path.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(SocketError::Io { path: lock_path, error }),
    }
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |error| SocketError::Io { path: path.to_owned(), error };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => fs::remove_file(path).map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn private_folder() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
    }

    #[tokio::test]
    async fn the_folder_and_the_socket_are_ours_alone() {
        let root = private_folder();
        let path = root.path().join("run/kubepass/xds.sock");
        let socket = UnixSocket::bind(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        drop(socket);
        assert!(!path.exists());
        UnixSocket::bind(&path).unwrap();
    }

    #[tokio::test]
    async fn a_connection_of_our_own_user_comes_through() {
        let root = private_folder();
        let path = root.path().join("s");
        let mut incoming = Box::pin(UnixSocket::bind(&path).unwrap().into_incoming());
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut accepted = incoming.next().await.unwrap().unwrap();
        let mut text = [0; 5];
        accepted.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
    }

    #[tokio::test]
    async fn other_users_are_refused() {
        for (peer, own, expected) in [(1000, 1000, true), (0, 1000, true), (1001, 1000, false), (1000, 0, false), (u32::MAX, 1000, false)] {
            assert_eq!(may_connect(peer, own), expected, "peer {peer}, own {own}");
        }
        let root = private_folder();
        let socket = UnixSocket::bind(&root.path().join("s")).unwrap();
        // Root is always admitted, so the refusal can be shown only by pretending to be another user, and not as root.
        let mut other = UnixSocket::bind(&root.path().join("t")).unwrap();
        other.own_uid = socket.own_uid.wrapping_add(1);
        let mut client = UnixStream::connect(other.path()).await.unwrap();
        let accept = tokio::time::timeout(Duration::from_millis(200), other.accept()).await;
        assert_eq!(accept.is_ok(), socket.own_uid == 0);
        if socket.own_uid != 0 {
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "the connection is closed");
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_used_one_is_not() {
        let root = private_folder();
        let path = root.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left by an ended process");
        let socket = UnixSocket::bind(&path).unwrap();
        assert!(matches!(UnixSocket::bind(&path), Err(SocketError::InUse(_))));
        UnixStream::connect(&path).await.unwrap();
        drop(socket);
    }

    #[tokio::test]
    async fn what_is_not_a_socket_stays() {
        let root = private_folder();
        let path = root.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(UnixSocket::bind(&path), Err(SocketError::NotASocket(_))));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/nowhere", &path).unwrap();
        assert!(matches!(UnixSocket::bind(&path), Err(SocketError::NotASocket(_))));
    }

    #[tokio::test]
    async fn a_folder_that_others_may_enter_is_refused() {
        let root = private_folder();
        for mode in [0o755, 0o710, 0o701, 0o770, 0o702] {
            fs::set_permissions(root.path(), Permissions::from_mode(mode)).unwrap();
            let refused = UnixSocket::bind(&root.path().join("s")).unwrap_err();
            assert!(refused.to_string().contains(&format!("mode {mode:04o}")), "{refused}");
        }
        assert!(matches!(UnixSocket::bind(Path::new("s")), Err(SocketError::Path(_))));
    }
}
