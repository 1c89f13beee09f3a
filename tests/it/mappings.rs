//! Sessions whose person the configuration makes another of end, and no others do: at a change, and at a start after one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kubepass::config::{AuditSettings, AuditSink, Durability, OnAuditFailure};
use kubepass::server::ending::{SessionEnder, mappings};
use kubepass::server::sessions::Sessions;
use kubepass::server::store::Store;
use kubepass::server::trail::Trail;
use kubepass::session::Session;
use kubepass::snapshot::Snapshot;
use kubepass::token::SessionId;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::fixture;

/// What the example says, and what keeps its users apart from those of a second provider.
const EXAMPLE: &str = "username: claims.email, groups: claims.groups";
const USUAL: &str = "username: claims.email, groups: claims.groups, username_prefix: corp-";
/// Who is logged in; of the second provider, which keeps its mapping, the last.
const PEOPLE: [(&str, &str); 3] = [("corp", "foo@example.com"), ("corp", "bar@contractor.example"), ("partner", "zoe@partner.example")];

fn snapshot(mapping: &str) -> Arc<Snapshot> {
    let text = std::fs::read_to_string(fixture::root().join("config/two-clusters.yaml")).unwrap();
    let partner = "- name: partner\n  issuer: https://idp.partner.example\n  client_id: kubepass\n  client_secret: {env: PARTNER}\n  \
                   identity: {username: claims.email, username_prefix: \"partner-\"}\n";
    let text = text.replacen(&format!("identity: {{{EXAMPLE}}}\n"), &format!("identity: {{{mapping}}}\n{partner}"), 1);
    let config = fixture::load(&text, "kubepass.yaml", &BTreeMap::new()).unwrap_or_else(|errors| panic!("{mapping}:\n{errors}"));
    assert_eq!(config.identity_providers.len(), 2);
    Arc::new(Snapshot::new(Arc::new(config), mapping))
}

fn id(index: usize) -> SessionId {
    SessionId::from_random([u8::try_from(index).unwrap(); 16])
}

struct Scene {
    ender: SessionEnder,
    folder: tempfile::TempDir,
}

impl Scene {
    /// Everybody is logged in, by the usual mapping.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let usual = snapshot(USUAL);
        let store = Store::open(&folder.path().join("kubepass.db"), Arc::clone(usual.token_keys())).unwrap();
        let sink = AuditSink::File { path: folder.path().join("audit.jsonl") };
        let settings = AuditSettings { sinks: vec![sink], on_failure: OnAuditFailure::Deny, durability: Durability::Written };
        let sessions = Sessions::new(Arc::default(), store);
        for (index, (provider, email)) in PEOPLE.into_iter().enumerate() {
            let claims = json!({"sub": email, "email": email, "email_verified": true, "groups": ["a", "b"], "department": "x"});
            let mapping = &usual.identity_provider(provider).unwrap().mapping;
            let session = Arc::new(Session {
                id: id(index),
                identity: mapping.map(provider, claims.as_object().unwrap()).unwrap(),
                created_at: 0,
                expires_at: u64::MAX,
                client: "kubepass".into(),
                source_ip: String::new(),
            });
            sessions.keep(&session).await.unwrap();
        }
        Self { ender: SessionEnder::new(sessions, Trail::open(&settings).unwrap()), folder }
    }

    /// The same after a restart: everybody's session rests, and `changed` is the configuration.
    async fn at_rest(changed: &Arc<Snapshot>) -> Self {
        let Self { ender, folder } = Self::new().await;
        let changed = Arc::clone(changed);
        let (sessions, _) = Sessions::at_rest(ender.sessions().store().clone(), 1).await.unwrap();
        let sessions = sessions.judged_by(move |session| mappings::is_still(&changed, session));
        let sink = AuditSink::File { path: folder.path().join("audit.jsonl") };
        let settings = AuditSettings { sinks: vec![sink], on_failure: OnAuditFailure::Deny, durability: Durability::Written };
        Self { ender: SessionEnder::new(sessions, Trail::open(&settings).unwrap()), folder }
    }

    fn left(&self) -> Vec<String> {
        let lives = |index: &usize| self.ender.sessions().table().holds(&id(*index));
        (0..PEOPLE.len()).filter(lives).map(|index| PEOPLE[index].1.to_owned()).collect()
    }

    /// Users and reasons of the ends that the trail tells of.
    fn told(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.folder.path().join("audit.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| (line["user"].as_str().unwrap().to_owned(), line["by"].as_str().unwrap().to_owned())).collect()
    }
}

/// What a change does to those who are logged in: `left` are those of [`PEOPLE`] whose sessions go on.
async fn check(mapping: &str, left: &[usize]) {
    let wanted: Vec<String> = left.iter().map(|index| PEOPLE[*index].1.to_owned()).collect();
    let (usual, changed) = (snapshot(USUAL), snapshot(mapping));
    let scene = Scene::new().await;
    let snapshots = watch::Sender::new(usual);
    let changes = snapshots.subscribe();
    ended(&scene, changes, mapping, &wanted, || drop(snapshots.send_replace(Arc::clone(&changed)))).await;
    // The same where the change was made while kubepass was not there: nobody who reads such a session before it has ended gets it.
    let scene = Scene::at_rest(&changed).await;
    for index in 0..PEOPLE.len() {
        let live = scene.ender.sessions().live(&id(index)).await.unwrap();
        assert_eq!(live.is_some(), left.contains(&index), "{mapping}: {index}");
    }
    assert_eq!((scene.left().len(), scene.told().len()), (PEOPLE.len(), 0), "{mapping}: none has ended yet");
    let snapshots = watch::Sender::new(changed);
    ended(&scene, snapshots.subscribe(), mapping, &wanted, || {}).await;
}

/// Follows until those who are not `wanted` have ended, each with its line.
async fn ended(scene: &Scene, changes: watch::Receiver<Arc<Snapshot>>, mapping: &str, wanted: &[String], change: impl FnOnce()) {
    let stop = CancellationToken::new();
    let follow = tokio::spawn(mappings::follow(scene.ender.clone(), changes, stop.clone()));
    change();
    let ended = async {
        while scene.told().len() < PEOPLE.len() - wanted.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap_or_else(|_| panic!("{mapping}: {:?} are left", scene.left()));
    stop.cancel();
    follow.await.unwrap().unwrap();
    assert_eq!(scene.left(), wanted, "{mapping}");
    assert!(scene.told().iter().all(|(_, by)| by == "identity_changed"), "{mapping}: {:?}", scene.told());
    let stored = scene.ender.sessions().store().load(1).await.unwrap().sessions.len();
    assert_eq!(stored, wanted.len(), "{mapping}: a restart brings nobody back");
}

#[tokio::test]
async fn a_session_ends_where_the_configuration_makes_another_of_its_person() {
    check("username: claims.email, groups: claims.groups, username_prefix: staff-", &[2]).await;
    check("username: claims.department, groups: claims.groups, username_prefix: corp-", &[2]).await;
    check("username: claims.email, groups: claims.groups, username_prefix: corp-, email_domains: [example.com]", &[0, 2]).await;
    check(
        "username: claims.email, groups: claims.groups, username_prefix: corp-, require: 'claims.email.endsWith(\"@contractor.example\")'",
        &[1, 2],
    )
    .await;
    check("username: claims.email, groups: '[\"c\"]', username_prefix: corp-", &[2]).await;
    check("username: claims.email, username_prefix: corp-", &[2]).await;
}

#[tokio::test]
async fn a_session_goes_on_where_it_would_be_the_same() {
    check(USUAL, &[0, 1, 2]).await;
    check("username: claims.email, groups: '[\"a\", \"b\"]', username_prefix: corp-", &[0, 1, 2]).await;
    check("username: claims.email, groups: claims.groups, username_prefix: corp-, require: claims.email_verified", &[0, 1, 2]).await;
    check(
        "username: claims.email, groups: claims.groups, username_prefix: corp-, email_domains: [contractor.example, example.com]",
        &[0, 1, 2],
    )
    .await;
}
