//! What can go wrong with the store, told so that an operator knows which file and what to do.

use std::path::PathBuf;
use std::sync::Arc;

use crate::token::SealError;

/// The store cannot be opened, or cannot say that it did what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("the session store {path} cannot be used: {detail}", path = .path.display())]
    File { path: PathBuf, detail: Arc<str> },
    #[error(
        "the session store {path} is damaged or no session store ({detail}): restore it, or move it away to start without sessions (everybody logs in again)",
        path = .path.display()
    )]
    Damaged { path: PathBuf, detail: Arc<str> },
    #[error("the session store {path} is in use by another process: each kubepass-server needs a file of its own", path = .path.display())]
    InUse { path: PathBuf },
    #[error(
        "the session store {path} has schema {found}, and this version knows {known}: run the newer kubepass-server, or move the file away to start without sessions",
        path = .path.display()
    )]
    NewerSchema { path: PathBuf, found: u64, known: u64 },
    #[error("too much waits for the session store")]
    Full,
    #[error("the session store did not answer in time: the disk is slow or stuck")]
    Slow,
    #[error("the session store has ended")]
    Ended,
    #[error("no thread can be started for the session store: {0}")]
    Thread(Arc<str>),
    #[error("the entry cannot be sealed: {0}")]
    Seal(#[from] SealError),
    #[error("the entry cannot be encoded")]
    Encoding,
}
