#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

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

fn event(user: &str) -> AuditEvent {
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
