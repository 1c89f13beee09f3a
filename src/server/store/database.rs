//! The file: made once, whole or not at all; checked at every opening; written in durable transactions.

use std::fs::{self, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::ops::Bound;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use redb::{
    Builder, Database, DatabaseError, Durability, ReadOnlyTable, ReadableDatabase, ReadableTableMetadata, StorageError, TableDefinition,
    TableError,
};

use crate::server::store::StoreError;
use crate::server::store::row::{self, Row};
use crate::session::{Resting, SessionId};

/// Rises when an older version could not read the file any more.
const SCHEMA: u64 = 1;
const SCHEMA_KEY: &str = "schema";
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const SESSIONS: TableDefinition<'static, [u8; 16], &[u8]> = TableDefinition::new("sessions");
/// Small values by name, sealed: an older version leaves them alone.
const RECORDS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("records");
/// What is asked for often is in memory as sessions, and the machine keeps pages of files by itself, so a small cache does; the library's own default is
/// 1 GiB.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Threads that read the file at a start; more would wait for each other's pages.
const MOST_READERS: usize = 4;

type Ids = (Bound<[u8; 16]>, Bound<[u8; 16]>);

/// An open store file. After an error of a write it must be opened anew.
#[derive(Debug)]
pub(super) struct SessionFile {
    path: PathBuf,
    /// Device and inode.
    inode: (u64, u64),
    database: Database,
}

/// What one transaction changes: removals come after additions, so that an end is final.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) put: Vec<Row>,
    pub(super) remove: Vec<SessionId>,
    pub(super) records: Vec<(&'static str, Vec<u8>)>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty() && self.records.is_empty()
    }
}

/// Rows in the order of their ids.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) rows: Vec<Row>,
    /// Whether others may follow.
    pub(super) more: bool,
}

impl SessionFile {
    /// Opens the file or makes it when there is none.
    pub(super) fn open_or_create(path: &Path) -> Result<Self, StoreError> {
        if let Err(error) = fs::symlink_metadata(path) {
            if error.kind() != ErrorKind::NotFound {
                return Err(file_error(path, &error));
            }
            create(path)?;
        }
        Self::open(path)
    }

    /// Opens a file that must exist.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let metadata = fs::metadata(path).map_err(|error| file_error(path, &error))?;
        if !metadata.is_file() {
            return Err(StoreError::File { path: path.to_owned(), detail: "it is not a regular file".into() });
        }
        if metadata.len() == 0 {
            // The library would take it for a new database, and an emptied file for no sessions.
            return Err(damaged(path, &"the file is empty"));
        }
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|error| file_error(path, &error))?;
        let database = builder().open(path).map_err(|error| open_error(path, error))?;
        let file = Self { path: path.to_owned(), inode: (metadata.dev(), metadata.ino()), database };
        file.check_schema()?;
        Ok(file)
    }

    /// Whether its name still leads to this file: what is written to another one is gone at the next start.
    pub(super) fn is_in_place(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode)
    }

    /// Returns when the changes are on the disk.
    pub(super) fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        self.try_write(changes).map_err(|error| self.error(error))
    }

    pub(super) fn get(&self, id: &SessionId) -> Result<Option<Row>, StoreError> {
        self.try_get(id).map_err(|error| self.error(error))
    }

    /// At most so many rows behind this id, or from the first.
    pub(super) fn page(&self, after: Option<SessionId>, most: usize) -> Result<Page, StoreError> {
        self.try_page(after, most).map_err(|error| self.error(error))
    }

    /// Id and end of every row, in the order of the ids; no row is opened.
    pub(super) fn ends(&self) -> Result<Vec<Resting>, StoreError> {
        self.try_ends().map_err(|error| self.error(error))
    }

    pub(super) fn record(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.try_record(name).map_err(|error| self.error(error))
    }

    fn try_record(&self, name: &str) -> Result<Option<Vec<u8>>, redb::Error> {
        match self.database.begin_read()?.open_table(RECORDS) {
            Ok(records) => Ok(records.get(name)?.map(|value| value.value().to_vec())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn try_write(&self, changes: &Changes) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut sessions = transaction.open_table(SESSIONS)?;
            for row in &changes.put {
                sessions.insert(row.id.as_bytes(), row.value.as_slice())?;
            }
            for id in &changes.remove {
                sessions.remove(id.as_bytes())?;
            }
        }
        if !changes.records.is_empty() {
            let mut records = transaction.open_table(RECORDS)?;
            for (name, value) in &changes.records {
                records.insert(*name, value.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn try_get(&self, id: &SessionId) -> Result<Option<Row>, redb::Error> {
        let sessions = self.database.begin_read()?.open_table(SESSIONS)?;
        Ok(sessions.get(id.as_bytes())?.map(|value| Row { id: *id, value: value.value().to_vec() }))
    }

    fn try_page(&self, after: Option<SessionId>, most: usize) -> Result<Page, redb::Error> {
        let sessions = self.database.begin_read()?.open_table(SESSIONS)?;
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(*id.as_bytes()));
        let mut rows = Vec::with_capacity(most);
        for entry in sessions.range::<[u8; 16]>((from, Bound::Unbounded))?.take(most) {
            let (id, value) = entry?;
            rows.push(Row { id: SessionId::from_random(id.value()), value: value.value().to_vec() });
        }
        Ok(Page { more: rows.len() == most, rows })
    }

    /// Reads with several processors, since a start waits for it.
    fn try_ends(&self) -> Result<Vec<Resting>, redb::Error> {
        let sessions = self.database.begin_read()?.open_table(SESSIONS)?;
        let mut ends = Vec::with_capacity(usize::try_from(sessions.len()?).unwrap_or(0));
        let readers = thread::available_parallelism().map_or(1, usize::from).min(MOST_READERS);
        let parts = thread::scope(|scope| {
            let sessions = &sessions;
            let begun: Vec<_> = (0..readers).map(|part| scope.spawn(move || ends_within(sessions, part_of_ids(part, readers)))).collect();
            let ended = begun.into_iter().map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            ended.collect::<Vec<_>>()
        });
        for part in parts {
            ends.append(&mut part?);
        }
        Ok(ends)
    }

    fn check_schema(&self) -> Result<(), StoreError> {
        match self.schema() {
            Ok(Some(SCHEMA)) => Ok(()),
            Ok(Some(found)) if found > SCHEMA => Err(StoreError::NewerSchema { path: self.path.clone(), found, known: SCHEMA }),
            Ok(_) => Err(damaged(&self.path, &"it has no schema version of ours")),
            Err(error) => Err(self.error(error)),
        }
    }

    fn schema(&self) -> Result<Option<u64>, redb::Error> {
        match self.database.begin_read()?.open_table(META) {
            Ok(meta) => Ok(meta.get(SCHEMA_KEY)?.map(|schema| schema.value())),
            Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn error(&self, error: redb::Error) -> StoreError {
        match error {
            redb::Error::Corrupted(detail) => damaged(&self.path, &detail),
            other => file_error(&self.path, &other),
        }
    }
}

fn ends_within(sessions: &ReadOnlyTable<[u8; 16], &[u8]>, ids: Ids) -> Result<Vec<Resting>, redb::Error> {
    let mut ends = Vec::new();
    for entry in sessions.range::<[u8; 16]>(ids)? {
        let (id, value) = entry?;
        ends.push(Resting { id: SessionId::from_random(id.value()), expires_at: row::expires_at(value.value()) });
    }
    Ok(ends)
}

/// The part of that number (from 0) of so many, at most 256, that the random ids fall into equally.
fn part_of_ids(part: usize, parts: usize) -> Ids {
    let first =
        |part: usize| u8::try_from(part * (usize::from(u8::MAX) + 1) / parts).ok().map(|first| (u128::from(first) << 120).to_be_bytes());
    (first(part).map_or(Bound::Unbounded, Bound::Included), first(part + 1).map_or(Bound::Unbounded, Bound::Excluded))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Makes the file under another name and links it into place when it is complete: a crash leaves no half of a store, and of two processes
/// one wins and the other finds the winner's file.
fn create(path: &Path) -> Result<(), StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let unfinished = PathBuf::from(name);
    let result = create_at(&unfinished, path);
    let _ = fs::remove_file(&unfinished);
    result
}

fn create_at(unfinished: &Path, path: &Path) -> Result<(), StoreError> {
    let _ = fs::remove_file(unfinished);
    let here = |error: &dyn std::fmt::Display| file_error(path, &format!("it cannot be made: {error}"));
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished).map_err(|error| here(&error))?;
    initialise(unfinished).map_err(|error| here(&error))?;
    match fs::hard_link(unfinished, path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        // Some network file systems have no hard links.
        Err(_) => fs::rename(unfinished, path).map_err(|error| here(&error))?,
    }
    sync_folder(path).map_err(|error| here(&error))
}

fn initialise(path: &Path) -> Result<(), redb::Error> {
    let database = builder().create(path)?;
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.open_table(META)?.insert(SCHEMA_KEY, SCHEMA)?;
    transaction.open_table(SESSIONS)?;
    transaction.commit()?;
    database.close()?;
    Ok(())
}

/// A new name is on the disk only when its folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => StoreError::InUse { path: path.to_owned() },
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() != ErrorKind::InvalidData => file_error(path, &error),
        other => damaged(path, &other),
    }
}

fn file_error(path: &Path, detail: &dyn std::fmt::Display) -> StoreError {
    StoreError::File { path: path.to_owned(), detail: detail.to_string().into() }
}

fn damaged(path: &Path, detail: &dyn std::fmt::Display) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), detail: detail.to_string().into() }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds as _;

    use super::*;

    #[test]
    fn every_id_falls_into_one_part() {
        for parts in [1, 2, 3, 4, 7, 255, 256] {
            for id in
                (0..=u8::MAX).flat_map(|first| [0, 1, u8::MAX].map(|rest| std::array::from_fn(|at| if at == 0 { first } else { rest })))
            {
                let with_it = (0..parts).filter(|part| part_of_ids(*part, parts).contains(&id)).count();
                assert_eq!(with_it, 1, "{id:?} of {parts}");
            }
        }
    }
}
