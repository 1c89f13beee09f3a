//! The one thread that reads rows, beside the one that writes: a commit, or a disk that is stuck in one, holds up no reading. What waits for it is
//! bounded, and nobody waits for it on a thread that answers others.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arc_swap::ArcSwap;

use crate::server::store::StoreError;
use crate::server::store::open_file::OpenFile;
use crate::server::store::writer::{EndMark, Health};
use crate::token::TokenKeys;

/// Reads, opens what it read with the keys in force, and answers.
pub(super) type Job = Box<dyn FnOnce(&OpenFile, &TokenKeys) + Send>;

/// Ends when nobody has the sender any more.
pub(super) fn start(
    file: Arc<OpenFile>,
    keys: Arc<ArcSwap<TokenKeys>>,
    health: Arc<Health>,
    queue: usize,
) -> Result<SyncSender<Job>, StoreError> {
    let (jobs, receiver): (_, Receiver<Job>) = sync_channel(queue);
    let run = move || {
        let _ended = EndMark(health);
        while let Ok(job) = receiver.recv() {
            job(&file, &keys.load());
        }
    };
    let started = std::thread::Builder::new().name("session-reader".into()).spawn(run);
    started.map(|_| jobs).map_err(|error| StoreError::Thread(error.to_string().into()))
}
