#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;

use super::*;
use crate::audit::LogoutEvent;
use crate::config::OnAuditFailure;

fn settings(path: &Path) -> AuditSettings {
    AuditSettings {
        sinks: vec![AuditSink::File { path: path.to_owned() }],
        on_failure: OnAuditFailure::Deny,
        durability: Durability::Written,
    }
}

fn event(user: &str) -> AuditEvent<'static> {
    AuditEvent::Logout(LogoutEvent { session: "s".into(), user: user.into(), by: "user" })
}

fn users(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "half a line");
    text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["user"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_recorded_event_stands_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let trail = Trail::open(&settings(&path)).unwrap();
    let all = futures::future::join_all((0..500).map(|n| trail.record(event(&format!("u{n}"))))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(users(&path), (0..500).map(|n| format!("u{n}")).collect::<Vec<_>>());
    assert_eq!(trail.counts(), (500, 0));
}

#[tokio::test]
async fn what_a_crash_cut_off_does_not_spoil_the_next_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let check = |before: &'static str, want: &'static str| {
        std::fs::write(&path, before).unwrap();
        let path = path.clone();
        async move {
            Trail::open(&settings(&path)).unwrap().record(event("a")).await.unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            let line = text.strip_prefix(want).unwrap_or_else(|| panic!("{text:?}"));
            assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap()["user"], "a");
        }
    };
    check("", "").await;
    check("{}\n", "{}\n").await;
    check("{}\n{\"schema\":1,\"ti", "{}\n{\"schema\":1,\"ti\n").await;
}

#[tokio::test]
async fn a_file_moved_away_is_made_anew_and_a_folder_gone_is_refused_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (inner, path) = (folder.path().join("log"), folder.path().join("log/audit.jsonl"));
    std::fs::create_dir(&inner).unwrap();
    let trail = Trail::open(&settings(&path)).unwrap();
    trail.record(event("a")).await.unwrap();
    std::fs::rename(&path, folder.path().join("rotated")).unwrap();
    trail.record(event("b")).await.unwrap();
    assert_eq!((users(&folder.path().join("rotated")), users(&path)), (vec!["a".to_owned()], vec!["b".to_owned()]));
    std::fs::rename(&inner, folder.path().join("elsewhere")).unwrap();
    assert!(matches!(trail.record(event("c")).await, Err(TrailError::Failed(_))));
    assert!(!trail.healthy());
    std::fs::rename(folder.path().join("elsewhere"), &inner).unwrap();
    trail.record(event("d")).await.unwrap();
    assert!(trail.healthy());
    assert_eq!(users(&path), ["b", "d"]);
}

#[tokio::test]
async fn a_trail_that_failed_says_what_is_missing_and_is_healthy_again_without_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let (inner, path) = (folder.path().join("log"), folder.path().join("log/audit.jsonl"));
    std::fs::create_dir(&inner).unwrap();
    let trail = Trail::open(&settings(&path)).unwrap();
    trail.report_loss().await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "", "nothing is missing");
    std::fs::remove_dir_all(&inner).unwrap();
    for user in ["a", "b"] {
        trail.record(event(user)).await.unwrap_err();
    }
    trail.report_loss().await;
    assert!(!trail.healthy());
    std::fs::create_dir(&inner).unwrap();
    trail.report_loss().await;
    assert!(trail.healthy());
    trail.report_loss().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert_eq!((&lines[0]["event"], &lines[0]["lines_lost"]), (&"trail_restored".into(), &2.into()));
    assert_eq!(trail.counts(), (0, 2));
}

#[tokio::test]
async fn a_full_device_is_refused() {
    // /dev/full answers every write with ENOSPC.
    let trail = Trail::open(&settings(Path::new("/dev/full"))).unwrap();
    assert!(matches!(trail.record(event("a")).await, Err(TrailError::Failed(_))));
    assert_eq!(trail.counts(), (0, 1));
}

#[test]
fn a_sink_that_cannot_be_opened_is_named() {
    let error = Trail::open(&settings(Path::new("/nonexistent/audit.jsonl"))).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/audit.jsonl"), "{error}");
}

#[test]
fn callers_write_themselves_only_where_that_cannot_hold_up_who_may_pass_without() {
    let folder = tempfile::tempdir().unwrap();
    let usual = settings(&folder.path().join("audit.jsonl"));
    let check = |settings: &AuditSettings, expected: bool| assert_eq!(Trail::open(settings).unwrap().at_once, expected, "{settings:?}");
    check(&usual, true);
    check(&AuditSettings { durability: Durability::Synced, ..usual.clone() }, false);
    check(&AuditSettings { on_failure: OnAuditFailure::Allow, ..usual.clone() }, false);
    check(&settings(Path::new("/dev/null")), false);
    let and_a_device = [usual.sinks.clone(), vec![AuditSink::File { path: "/dev/null".into() }]].concat();
    check(&AuditSettings { sinks: and_a_device, ..usual }, false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lines_of_many_callers_stand_whole_and_once() {
    const CALLERS: usize = 16;
    const LINES: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let trail = Trail::open(&settings(&path)).unwrap();
    let caller = |caller: usize| {
        let trail = trail.clone();
        tokio::spawn(async move {
            for line in 0..LINES {
                trail.record(event(&format!("{caller}-{line}"))).await.unwrap();
            }
        })
    };
    futures::future::join_all((0..CALLERS).map(caller)).await.into_iter().for_each(Result::unwrap);
    let mut found = users(&path);
    found.sort();
    found.dedup();
    assert_eq!(found.len(), CALLERS * LINES);
    assert_eq!(trail.counts(), ((CALLERS * LINES) as u64, 0));
}

/// As when the disk hangs under another caller.
#[tokio::test(start_paused = true)]
#[allow(clippy::await_holding_lock, reason = "that is what is tried")]
async fn who_finds_the_sinks_taken_waits_no_longer_than_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let trail = Trail::open(&settings(&path)).unwrap();
    {
        let _held = trail.sinks.lock().unwrap();
        let late = trail.record(event("late")).await;
        assert_eq!(late, Err(TrailError::Slow));
    }
    // What was asked is told all the same.
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while users(&path).is_empty() && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(users(&path), ["late"]);
}
