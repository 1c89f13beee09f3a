//! The file as the threads of the store share it. Many may read while one writes; it is closed and opened anew only while nobody does either.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::server::store::StoreError;
use crate::server::store::database::SessionFile;

/// The file, open unless an error closed it.
#[derive(Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    file: RwLock<Option<SessionFile>>,
}

impl OpenFile {
    pub(super) fn new(path: &Path, file: Option<SessionFile>) -> Self {
        Self { path: path.to_owned(), file: RwLock::new(file) }
    }

    /// For the one thread that writes. After an error the library refuses everything until the file is opened again, which this does. It is never made
    /// anew here: a file that is gone is an error, not an empty store.
    pub(super) fn write<T>(&self, act: impl FnOnce(&SessionFile) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if !self.shared().as_ref().is_some_and(SessionFile::is_in_place) {
            let mut file = self.alone();
            *file = None;
            *file = Some(SessionFile::open(&self.path)?);
        }
        let result = self.read(act);
        if result.is_err() {
            *self.alone() = None;
        }
        result
    }

    /// # Errors
    /// Also while the file is closed.
    pub(super) fn read<T>(&self, act: impl FnOnce(&SessionFile) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.shared().as_ref() {
            Some(file) => act(file),
            None => {
                Err(StoreError::File { path: self.path.clone(), detail: "it is closed after an error, and is being opened again".into() })
            }
        }
    }

    fn shared(&self) -> RwLockReadGuard<'_, Option<SessionFile>> {
        self.file.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Option<SessionFile>> {
        self.file.write().unwrap_or_else(PoisonError::into_inner)
    }
}
