#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod damage;
mod kill;
mod threads;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use redb::{Database, ReadableTable, TableDefinition};

use super::*;
use crate::session::{SessionTable, Shown};
use crate::token::Secret;

const NOW: u64 = 1_800_000_000;

fn keys(seeds: &[u8]) -> Arc<TokenKeys> {
    Arc::new(TokenKeys::derive(&seeds.iter().map(|seed| Secret::new([*seed; 32]).unwrap()).collect::<Vec<_>>()))
}

fn session(number: u32, expires_at: u64) -> Session {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let identity = serde_json::json!({
        "principal": {"idp": "corp", "subject": "248289761001"},
        "username": "alice@example.com",
        "email": "alice@example.com",
        "groups": ["platform-team"],
        "claims": {"name": "Alice Liddell", "deep": {"n": [1, 2.5, null, true]}},
    });
    Session {
        id: SessionId::from_random(id),
        identity: serde_json::from_value(identity).unwrap(),
        created_at: NOW,
        expires_at,
        client: "kubepass".into(),
        source_ip: "192.0.2.77".into(),
    }
}

struct Place {
    folder: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubepass.db");
    Place { folder, path }
}

/// Opening waits for the lock of a handle that was just dropped: its writer closes the file in its own time.
fn open(path: &Path, keys: Arc<TokenKeys>) -> Result<Store, StoreError> {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(path, Arc::clone(&keys)) {
            Err(StoreError::InUse { .. }) if std::time::Instant::now() < deadline => std::thread::yield_now(),
            result => return result,
        }
    }
}

/// Waits until no handle holds the file.
fn until_closed(path: &Path) {
    while matches!(Database::open(path).err(), Some(redb::DatabaseError::DatabaseAlreadyOpen)) {
        std::thread::yield_now();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// A closed file with 200 sessions.
fn filled() -> Place {
    let place = place();
    let store = open(&place.path, keys(&[1])).unwrap();
    let sessions: Vec<Session> = (0..200).map(|number| session(number, NOW + 60)).collect();
    block_on(futures::future::try_join_all(sessions.iter().map(|session| store.put(session)))).unwrap();
    drop(store);
    until_closed(&place.path);
    place
}

#[tokio::test]
async fn what_was_put_is_there_after_a_restart_and_what_was_removed_is_not() {
    let place = place();
    let store = open(&place.path, keys(&[1])).unwrap();
    let sessions: Vec<Session> = (0..5).map(|number| session(number, NOW + 60)).collect();
    for session in &sessions {
        store.put(session).await.unwrap();
    }
    store.remove(&sessions[1].id).await.unwrap();
    store.remove(&sessions[1].id).await.unwrap();
    store.remove_all(vec![sessions[2].id, sessions[3].id]).await.unwrap();
    store.remove_all(Vec::new()).await.unwrap();
    assert!(store.healthy());
    drop(store);

    let loaded = open(&place.path, keys(&[1])).unwrap().load(NOW).await.unwrap();
    assert_eq!(loaded.sessions, [sessions[0].clone(), sessions[4].clone()]);
    assert_eq!((loaded.unreadable.len(), loaded.expired), (0, 0));
}

#[tokio::test]
async fn a_record_is_there_after_a_restart_for_those_who_have_the_key() {
    let place = place();
    let store = open(&place.path, keys(&[1])).unwrap();
    assert!(matches!(store.record("name").await, Ok(Record::Absent)));
    store.put_record("name", b"first").await.unwrap();
    store.put_record("name", b"second").await.unwrap();
    store.put_record("other", b"").await.unwrap();
    store.put(&session(1, NOW + 60)).await.unwrap();
    drop(store);

    let store = open(&place.path, keys(&[2, 1])).unwrap();
    let value = |record: Record| match record {
        Record::Value(value) => value.to_vec(),
        other => panic!("{other:?}"),
    };
    assert_eq!(value(store.record("name").await.unwrap()), b"second");
    assert_eq!(value(store.record("other").await.unwrap()), b"");
    assert!(matches!(store.record("third").await, Ok(Record::Absent)));
    assert_eq!(store.load(NOW).await.unwrap().sessions.len(), 1);
    store.set_keys(keys(&[3]));
    assert!(matches!(store.record("name").await, Ok(Record::Unreadable)));
    drop(store);
    let file = std::fs::read(&place.path).unwrap();
    assert!(!file.windows(6).any(|bytes| bytes == b"second"), "the record is readable in the file");

    // A value that is moved to another name no longer opens.
    const RECORDS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("records");
    let store = open(&place.path, keys(&[1])).unwrap();
    drop(store);
    let database = loop {
        match Database::open(&place.path) {
            Ok(database) => break database,
            Err(_) => std::thread::yield_now(),
        }
    };
    let transaction = database.begin_write().unwrap();
    {
        let mut records = transaction.open_table(RECORDS).unwrap();
        let moved = records.get("name").unwrap().unwrap().value().to_vec();
        records.insert("third", moved.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let store = open(&place.path, keys(&[1])).unwrap();
    assert!(matches!(store.record("third").await, Ok(Record::Unreadable)));
}

#[tokio::test]
async fn writes_at_the_same_time_are_all_there() {
    let place = place();
    let store = open(&place.path, keys(&[1])).unwrap();
    let writes = (0..500).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.put(&session(number, NOW + 60)).await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    assert_eq!(store.load(NOW).await.unwrap().sessions.len(), 500);
}

#[tokio::test]
async fn expired_sessions_leave_the_file_even_when_no_key_opens_them() {
    let place = place();
    let store = open(&place.path, keys(&[1])).unwrap();
    store.put(&session(1, NOW + 10)).await.unwrap();
    store.put(&session(2, NOW + 20)).await.unwrap();
    store.set_keys(keys(&[2]));
    store.put(&session(3, NOW + 30)).await.unwrap();

    let loaded = store.load(NOW + 10).await.unwrap();
    assert_eq!((loaded.sessions, loaded.unreadable, loaded.expired), (vec![session(3, NOW + 30)], vec![session(2, 0).id], 1));
    store.set_keys(keys(&[2, 1]));
    assert_eq!(store.load(NOW + 10).await.unwrap().sessions.len(), 2, "a secret that comes back brings its sessions back");
    let loaded = store.load(NOW + 30).await.unwrap();
    assert_eq!((loaded.sessions.len(), loaded.unreadable.len(), loaded.expired), (0, 0, 2));
    assert_eq!(store.load(0).await.unwrap().expired, 0);
}

#[tokio::test]
async fn the_file_is_private_and_tells_nothing_about_people() {
    let place = place();
    let store = open(&place.path, keys(&[1])).unwrap();
    store.put(&session(1, NOW + 60)).await.unwrap();
    assert_eq!(std::fs::metadata(&place.path).unwrap().permissions().mode() & 0o7777, 0o600);
    let bytes = std::fs::read(&place.path).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("sessions"), "the file is looked at");
    for text in ["alice", "Alice", "example.com", "platform-team", "248289761001", "192.0.2.77", "corp", "username"] {
        assert!(!holds(text), "{text} stands in the file");
    }
    drop(store);
    std::fs::set_permissions(&place.path, std::fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(&place.path, keys(&[1])).unwrap());
    assert_eq!(std::fs::metadata(&place.path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::read_dir(place.folder.path()).unwrap().count(), 1, "nothing is left beside the file");
}

#[tokio::test]
async fn the_table_is_filled_from_the_file() {
    let (place, keys) = (place(), keys(&[1]));
    let store = open(&place.path, Arc::clone(&keys)).unwrap();
    let session = session(1, NOW + 600);
    let token = keys.sign_session_token(&session.session_token_claims("host", "id".into(), NOW)).unwrap();
    store.put(&session).await.unwrap();
    drop(store);
    let (table, store) = (SessionTable::new(), open(&place.path, Arc::clone(&keys)).unwrap());
    assert_eq!(table.take_resting(&store.at_rest(NOW).await.unwrap().sessions), 0);
    let Shown::AtRest { session: id, .. } = table.authenticate(&keys, &token, "host", NOW).unwrap() else { panic!("it is awake") };
    let read = store.get(&id).await.unwrap().unwrap();
    assert_eq!(*table.wake(Arc::new(read), NOW).unwrap(), session);
}

#[tokio::test]
async fn rows_are_read_one_by_one_and_page_by_page() {
    let place = place();
    let store = open(&place.path, keys(&[1])).unwrap();
    let count = u32::try_from(2 * PAGE).unwrap();
    let sessions: Vec<Session> = (0..count).map(|number| session(number, NOW + 60 + u64::from(number))).collect();
    futures::future::try_join_all(sessions.iter().map(|session| store.put(session))).await.unwrap();
    assert_eq!(store.get(&sessions[7].id).await.unwrap().as_ref(), Some(&sessions[7]));
    assert_eq!(store.get(&session(count, 0).id).await.unwrap(), None);
    let resting = store.at_rest(NOW + 60).await.unwrap();
    let ends = |session: &Session| Resting { id: session.id, expires_at: session.expires_at };
    assert_eq!(resting.sessions, sessions[1..].iter().map(ends).collect::<Vec<_>>());
    assert_eq!(resting.expired, [sessions[0].id]);

    store.set_keys(keys(&[2, 1]));
    let (mut read, mut owners, mut pages, mut after) = (Vec::new(), Vec::new(), 0, None);
    loop {
        let (page, of) = (store.sessions(after).await.unwrap(), store.owners(after).await.unwrap());
        assert_eq!((&page.next, page.unreadable.len(), of.unreadable.len()), (&of.next, 0, 0));
        read.extend(page.read);
        owners.extend(of.read);
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((read, pages), (sessions.clone(), 3), "the last page is empty where the one before it was full");
    let owner = |session: &Session| Owner {
        session: session.id,
        principal: session.identity.principal.clone(),
        username: session.identity.username.clone(),
        created_at: session.created_at,
    };
    assert_eq!(owners, sessions.iter().map(owner).collect::<Vec<_>>());

    store.set_keys(keys(&[3]));
    assert_eq!(store.get(&sessions[7].id).await.unwrap(), None, "no key opens it");
    assert_eq!(store.owners(None).await.unwrap().unreadable.len(), PAGE);
}
