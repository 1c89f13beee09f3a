//! Ending sessions, and what tests of its callers need for it.

#![allow(clippy::unwrap_used, reason = "tests")]
use std::sync::Arc;

use futures::FutureExt;

use super::*;
use crate::config::{AuditSettings, AuditSink, Durability, OnAuditFailure};
use crate::identity::{Groups, Identity, Principal};
use crate::server::store::Store;
use crate::session::Session;
use crate::token::{Secret, TokenKeys};

/// Over real files in `folder`.
pub(in crate::server) fn ender(folder: &std::path::Path) -> SessionEnder {
    let keys = TokenKeys::derive(&[Secret::new("a-secret-of-tests-that-is-long-enough").unwrap()]);
    let store = Store::open(&folder.join("store"), Arc::new(keys)).unwrap();
    let sink = AuditSink::File { path: folder.join("audit/audit.jsonl") };
    std::fs::create_dir(folder.join("audit")).unwrap();
    let settings = AuditSettings { sinks: vec![sink], on_failure: OnAuditFailure::Deny, durability: Durability::Written };
    SessionEnder::new(Sessions::new(Arc::default(), store), Trail::open(&settings).unwrap(), Errands::default())
}

pub(in crate::server) fn session(id: u8, user: &str) -> Arc<Session> {
    Arc::new(Session {
        id: SessionId::from_random([id; 16]),
        identity: Identity {
            principal: Principal { idp: "corp".into(), subject: user.into() },
            username: user.into(),
            email: String::new(),
            groups: Groups::default(),
            claims: serde_json::Map::new(),
        },
        created_at: 0,
        expires_at: u64::MAX,
        client: "kubepass".into(),
        source_ip: String::new(),
    })
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_session_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (ender, session) = (ender(folder.path()), session(7, "foo"));
    ender.sessions().keep(&session).await.unwrap();
    // Polled once, then dropped, as the server does with a request whose client has left.
    assert!(ender.end(&session.id, None, "user").now_or_never().is_none());
    assert!(ender.sessions().table().is_empty());
    until_written(&ender, folder.path(), &["foo"]).await;
}

/// Waits until no session is in the store, and the trail tells of the ends of sessions of these users.
pub(in crate::server) async fn until_written(ender: &SessionEnder, folder: &std::path::Path, users: &[&str]) {
    let written = async {
        loop {
            let left = ender.sessions().store().at_rest(0).await.unwrap().sessions;
            let trail = std::fs::read_to_string(folder.join("audit/audit.jsonl")).unwrap();
            let told = trail.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let told: Vec<_> = told.filter_map(|line| line.get("user").cloned()).collect();
            if left.is_empty() && told == users {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), written).await.unwrap();
}

/// As a browser that is closed while its login is being written: the row must not outlive what everybody else knows of the session.
#[tokio::test]
async fn a_session_whose_caller_goes_away_is_kept_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (ender, session) = (ender(folder.path()), session(7, "foo"));
    assert!(ender.sessions().keep(&session).now_or_never().is_none());
    let kept = async {
        while ender.sessions().store().get(&session.id).await.unwrap().is_none() || !ender.sessions().table().holds(&session.id) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), kept).await.unwrap();
}
