//! The process is killed while it writes.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command as Process, Stdio};

use super::*;

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
            .args(["--exact", "server::store::tests::kill::child_that_puts_until_it_is_killed", "--nocapture", "--test-threads=1"])
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
