//! The threads of the store: when they fail, are stuck, have no room, or end.

use futures::FutureExt;

use super::*;
use crate::server::store::writer::MAX_BATCH;

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

/// A login that nobody waits for any more, behind more writes than one commit takes, and its removal, for which there was no room.
#[tokio::test]
async fn a_removal_that_finds_no_room_undoes_what_still_waits_to_be_written() {
    let place = place();
    drop(open(&place.path, keys(&[1])).unwrap());
    until_closed(&place.path);
    let (commands, receiver) = std::sync::mpsc::sync_channel(MAX_BATCH + 2);
    let (store, writer) = without_file(&place.path, commands, Arc::new(Health::default()));
    for _ in 0..MAX_BATCH {
        store.send(Command::Look).unwrap();
    }
    assert!(store.put(&session(1, NOW + 60)).now_or_never().is_none());
    let (waits, gone) = (session(2, NOW + 60), session(1, 0));
    let mut kept = Box::pin(store.put(&waits));
    assert!(kept.as_mut().now_or_never().is_none());
    assert!(matches!(store.remove(&gone.id).await, Err(StoreError::Full)));
    let thread = std::thread::spawn(move || writer.run(&receiver));
    kept.await.unwrap();
    let ids: Vec<SessionId> = store.load(NOW).await.unwrap().sessions.iter().map(|session| session.id).collect();
    assert_eq!(ids, [waits.id]);
    drop(store);
    thread.join().unwrap();
}

/// As of a removal for which there was no room, when an earlier batch has written what was owed.
#[tokio::test]
async fn a_removal_with_nothing_left_to_write_is_answered() {
    let place = place();
    let store = open(&place.path, keys(&[1])).unwrap();
    store.write(|done| Command::Remove { ids: Vec::new(), done }).await.unwrap();
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
