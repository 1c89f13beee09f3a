//! A file that somebody or something has changed.

use redb::TableDefinition;

use super::*;

const SESSIONS: TableDefinition<'static, [u8; 16], &[u8]> = TableDefinition::new("sessions");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

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
