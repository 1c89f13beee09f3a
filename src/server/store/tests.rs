#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};

use redb::{Database, ReadableTable, TableDefinition};

use super::*;
use crate::session::{SessionTable, Shown};
use crate::token::Secret;

const NOW: u64 = 1_800_000_000;
const SESSIONS: TableDefinition<'static, [u8; 16], &[u8]> = TableDefinition::new("sessions");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

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

/// Changes the rows with the library itself, as someone with the file but without the keys could.
fn tamper(path: &Path, change: impl Fn(&mut redb::Table<'_, [u8; 16], &[u8]>)) {
    let database = loop {
        match Database::open(path) {
            Ok(database) => break database,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let transaction = database.begin_write().unwrap();
    change(&mut transaction.open_table(SESSIONS).unwrap());
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_row_that_was_moved_prolonged_or_changed_does_not_open() {
    let place = place();
    let store = open(&place.path, keys(&[1])).unwrap();
    store.put(&session(1, NOW + 60)).await.unwrap();
    drop(store);
    tamper(&place.path, |table| {
        let good = table.get(session(1, 0).id.as_bytes()).unwrap().unwrap().value().to_vec();
        table.insert(session(2, 0).id.as_bytes(), good.as_slice()).unwrap();
        let prolonged = [&(NOW + 99_999).to_be_bytes()[..], &good[8..]].concat();
        table.insert(session(3, 0).id.as_bytes(), prolonged.as_slice()).unwrap();
        table.insert(session(1, 0).id.as_bytes(), prolonged.as_slice()).unwrap();
        table.insert(session(4, 0).id.as_bytes(), &good[..good.len() - 1]).unwrap();
        table.insert(session(5, 0).id.as_bytes(), [0xff; 8].as_slice()).unwrap();
        table.insert(session(6, 0).id.as_bytes(), [].as_slice()).unwrap();
    });
    let loaded = open(&place.path, keys(&[1])).unwrap().load(NOW).await.unwrap();
    assert_eq!(loaded.sessions, []);
    assert_eq!(loaded.unreadable, (1..=5).map(|number| session(number, 0).id).collect::<Vec<_>>());
    assert_eq!(loaded.expired, 1);
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

#[test]
fn one_changed_byte_never_loses_a_session_silently() {
    let place = filled();
    let good = std::fs::read(&place.path).unwrap();
    let mut refused = 0;
    for index in (0..64).chain((64..good.len()).step_by(6_007)) {
        let mut changed = good.clone();
        changed[index] ^= 0x40;
        std::fs::write(&place.path, changed).unwrap();
        match open(&place.path, keys(&[1])) {
            Err(StoreError::Damaged { .. }) => refused += 1,
            Err(other) => panic!("byte {index}: {other}"),
            Ok(store) => {
                assert_eq!(block_on(store.load(NOW)).unwrap().sessions.len(), 200, "byte {index}");
                drop(store);
                until_closed(&place.path);
            }
        }
    }
    assert!(refused > 10, "{refused} changes were seen");
}

#[test]
fn a_damaged_file_is_an_error_that_names_it_and_stays() {
    let check = |damage: &dyn Fn(&Path), expected: &str| {
        let place = filled();
        damage(&place.path);
        let length = || std::fs::metadata(&place.path).unwrap().len();
        let before = length();
        let message = open(&place.path, keys(&[1])).unwrap_err().to_string();
        assert!(message.contains(place.path.to_str().unwrap()), "{message}");
        assert!(message.contains(expected), "{message}");
        assert!(length() == before || !expected.contains("damaged"), "the damaged file was changed: {message}");
    };
    let write = |bytes: &'static [u8]| move |path: &Path| std::fs::write(path, bytes).unwrap();
    check(&write(b""), "is damaged or no session store (the file is empty)");
    check(&write(b"x"), "is damaged or no session store");
    check(&write(&[b'x'; 100_000]), "is damaged or no session store");
    check(
        &|path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes.truncate(bytes.len() / 2);
            std::fs::write(path, bytes).unwrap();
        },
        "is damaged or no session store",
    );
    check(
        &|path| {
            // Every row's page: the sealed values are the bulk of the file.
            let mut bytes = std::fs::read(path).unwrap();
            bytes.iter_mut().skip(8192).step_by(97).for_each(|byte| *byte ^= 0x55);
            std::fs::write(path, bytes).unwrap();
        },
        "is damaged or no session store",
    );
    check(
        &|path| {
            std::fs::remove_file(path).unwrap();
            let database = Database::create(path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(SESSIONS).unwrap();
            transaction.commit().unwrap();
        },
        "it has no schema version of ours",
    );
    check(
        &|path| {
            let database = Database::open(path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(META).unwrap().insert("schema", 2).unwrap();
            transaction.commit().unwrap();
        },
        "has schema 2, and this version knows 1: run the newer kubepass-server",
    );
    check(
        &|path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        },
        "it is not a regular file",
    );
}

#[test]
fn a_folder_that_is_not_there_and_a_file_in_use_are_told() {
    let place = place();
    let message = Store::open(Path::new("/nowhere/at/all/kubepass.db"), keys(&[1])).unwrap_err().to_string();
    assert!(message.contains("/nowhere/at/all/kubepass.db") && message.contains("No such file"), "{message}");
    let _first = Store::open(&place.path, keys(&[1])).unwrap();
    let message = Store::open(&place.path, keys(&[1])).unwrap_err().to_string();
    assert!(message.contains("is in use by another process"), "{message}");
}

/// A store as it is after an error: without an open file, and with a writer that waits to be run.
fn without_file(path: &Path, commands: SyncSender<Command>, health: Arc<Health>) -> (Store, Writer) {
    let (file, keys) = (Arc::new(OpenFile::new(path, None)), Arc::new(ArcSwap::new(keys(&[1]))));
    let jobs = reader::start(Arc::clone(&file), Arc::clone(&keys), Arc::clone(&health), READ_QUEUE).unwrap();
    let writer = Writer::new(file, Arc::clone(&health));
    (Store { commands, jobs, keys, health }, writer)
}

#[tokio::test]
async fn after_a_failure_it_recovers_by_itself_and_no_removal_is_forgotten() {
    let place = place();
    let away = place.folder.path().join("away");
    let store = open(&place.path, keys(&[1])).unwrap();
    store.put(&session(1, NOW + 60)).await.unwrap();
    drop(store);
    std::fs::rename(&place.path, &away).unwrap();

    let health = Arc::new(Health::default());
    let (commands, receiver) = std::sync::mpsc::sync_channel(QUEUE);
    let (store, writer) = without_file(&place.path, commands, health);
    let thread = std::thread::spawn(move || writer.run(&receiver));
    assert!(matches!(store.put(&session(2, NOW + 60)).await, Err(StoreError::File { .. })));
    assert!(store.remove(&session(1, 0).id).await.is_err());
    assert!(store.load(NOW).await.is_err());
    assert!(!store.healthy());
    assert!(!place.path.exists(), "a lost file is not replaced by an empty one");

    std::fs::rename(&away, &place.path).unwrap();
    tokio::time::timeout(Duration::from_secs(20), async {
        while !store.healthy() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(store.load(NOW).await.unwrap().sessions, [], "the removal that failed was made up for, without being asked again");
    store.put(&session(3, NOW + 60)).await.unwrap();
    assert_eq!(store.load(NOW).await.unwrap().sessions.len(), 1);
    drop(store);
    thread.join().unwrap();
}

/// A disk that was stuck for a while: a thousand writes wait, and somebody ends a session.
#[tokio::test]
async fn a_removal_that_finds_no_room_is_not_forgotten() {
    let place = place();
    let store = open(&place.path, keys(&[1])).unwrap();
    for number in 1..=3 {
        store.put(&session(number, NOW + 60)).await.unwrap();
    }
    drop(store);
    let health = Arc::new(Health::default());
    let (commands, receiver) = std::sync::mpsc::sync_channel(1);
    let (store, writer) = without_file(&place.path, commands, health);
    store.send(Command::Look).unwrap();
    assert!(matches!(store.put(&session(4, NOW + 60)).await, Err(StoreError::Full)));
    assert!(matches!(store.remove_all(vec![session(1, 0).id, session(3, 0).id]).await, Err(StoreError::Full)));
    assert!(!store.healthy(), "a removal is owed");

    let thread = std::thread::spawn(move || writer.run(&receiver));
    let left = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let loaded = store.load(NOW).await;
            if let (Ok(loaded), true) = (loaded, store.healthy()) {
                return loaded.sessions;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    let ids: Vec<SessionId> = left.iter().map(|session| session.id).collect();
    assert_eq!(ids, [session(2, 0).id]);
    drop(store);
    thread.join().unwrap();
}

#[tokio::test]
async fn a_file_that_is_moved_away_while_it_is_open_is_a_failure_until_it_is_back() {
    let place = place();
    let away = place.folder.path().join("away");
    let store = open(&place.path, keys(&[1])).unwrap();
    std::fs::rename(&place.path, &away).unwrap();
    assert!(matches!(store.put(&session(1, NOW + 60)).await, Err(StoreError::File { .. })), "it would be gone at the next start");
    assert!(!store.healthy());
    std::fs::rename(&away, &place.path).unwrap();
    tokio::time::timeout(Duration::from_secs(20), async {
        while !store.healthy() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it recovers without a write");
    store.put(&session(2, NOW + 60)).await.unwrap();
    let ids: Vec<SessionId> = store.load(NOW).await.unwrap().sessions.iter().map(|session| session.id).collect();
    assert_eq!(ids, [session(2, 0).id]);
}

#[tokio::test]
async fn the_end_of_the_writer_is_told() {
    let place = place();
    let store = open(&place.path, keys(&[1])).unwrap();
    let health = Arc::clone(&store.health);
    let watcher = tokio::spawn({
        let health = Arc::clone(&health);
        async move { health.ended().await }
    });
    tokio::task::yield_now().await;
    assert!(health.is_good() && !watcher.is_finished());
    drop(store);
    tokio::time::timeout(Duration::from_secs(10), watcher).await.unwrap().unwrap();
    assert!(!health.is_good());
    health.ended().await;
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

/// The disk is stuck in a commit: what rests is read all the same.
#[tokio::test]
async fn a_writer_that_is_stuck_holds_up_no_reading() {
    let place = place();
    let store = open(&place.path, keys(&[1])).unwrap();
    store.put(&session(1, NOW + 60)).await.unwrap();
    let (file, keys) = (Arc::new(OpenFile::new(&place.path, None)), keys(&[1]));
    drop(store);
    until_closed(&place.path);
    file.write(|_| Ok(())).unwrap();
    let (held, may_go) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let writer = std::thread::spawn({
        let file = Arc::clone(&file);
        move || {
            file.write(|_| {
                held.0.send(()).unwrap();
                may_go.1.recv().unwrap();
                Ok(())
            })
        }
    });
    held.1.recv().unwrap();
    let (commands, _receiver) = std::sync::mpsc::sync_channel(1);
    let (health, keys) = (Arc::new(Health::default()), Arc::new(ArcSwap::new(keys)));
    let jobs = reader::start(Arc::clone(&file), Arc::clone(&keys), Arc::clone(&health), READ_QUEUE).unwrap();
    let store = Store { commands, jobs, keys, health };
    assert_eq!(store.get(&session(1, 0).id).await.unwrap(), Some(session(1, NOW + 60)));
    may_go.0.send(()).unwrap();
    writer.join().unwrap().unwrap();
}

/// Whoever waits for a reader that is stuck gets an error in time; whoever finds no room gets one at once.
#[tokio::test]
async fn a_reader_that_is_stuck_or_busy_is_an_error_in_time() {
    let place = place();
    let store = open(&place.path, keys(&[1])).unwrap();
    let (jobs, receiver) = std::sync::mpsc::sync_channel(1);
    let stuck = Store { jobs, ..store.clone() };
    let began = std::time::Instant::now();
    assert!(matches!(stuck.get(&session(1, 0).id).await, Err(StoreError::Slow)));
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(matches!(stuck.get(&session(1, 0).id).await, Err(StoreError::Full)));
    drop(receiver);
    assert!(matches!(stuck.get(&session(1, 0).id).await, Err(StoreError::Ended)));
}

const CHILD_PATH: &str = "KUBEPASS_TEST_STORE_PATH";

/// Not a test of its own: what the next one runs in another process, until it is killed.
#[test]
fn child_that_puts_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD_PATH) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(Path::new(&path), keys(&[1])).unwrap();
        let first = u32::try_from(store.load(NOW).await.unwrap().sessions.len()).unwrap() * 1000;
        let tasks: Vec<_> = (0..8u32)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    for step in 0.. {
                        let session = session(first + step * 8 + task, NOW + 60);
                        store.put(&session).await.unwrap();
                        println!("\nACK {}", session.id);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn whatever_was_acknowledged_survives_a_kill() {
    let place = place();
    let mut acknowledged = BTreeSet::new();
    for round in 1..=4u32 {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "server::store::tests::child_that_puts_until_it_is_killed", "--nocapture", "--test-threads=1"])
            .env(CHILD_PATH, &place.path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ids = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .filter_map(|line| line.unwrap().strip_prefix("ACK ").map(|id| id.parse::<SessionId>().unwrap()));
        let wanted = 40 * round as usize;
        let seen: BTreeSet<SessionId> = ids.by_ref().take(wanted).collect();
        child.kill().unwrap();
        assert_eq!(seen.len(), wanted, "the child ended by itself");
        acknowledged.extend(seen);
        acknowledged.extend(ids);
        child.wait().unwrap();

        let store = open(&place.path, keys(&[1])).unwrap();
        let loaded = block_on(store.load(NOW)).unwrap();
        let stored: BTreeSet<SessionId> = loaded.sessions.iter().map(|session| session.id).collect();
        assert!(loaded.unreadable.is_empty());
        assert!(stored.is_superset(&acknowledged), "{} of {} are lost", acknowledged.difference(&stored).count(), acknowledged.len());
        // The next child asks for the lock only once.
        drop(store);
        until_closed(&place.path);
    }
}
