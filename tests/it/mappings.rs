//! Sessions whose person the configuration makes another of end, and no others do: at a change, and at a start after one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use kubepass::config::{AuditSettings, AuditSink, Durability, OnAuditFailure};
use kubepass::server::ending::{SessionEnder, mappings};
use kubepass::server::lifecycle::Errands;
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
/// Another identity for everybody of the first provider.
const STAFF: &str = "username: claims.email, groups: claims.groups, username_prefix: staff-";
/// Who is logged in; of the second provider, which keeps its mapping, the last.
const PEOPLE: [(&str, &str); 3] = [("corp", "foo@example.com"), ("corp", "bar@contractor.example"), ("partner", "zoe@partner.example")];

fn snapshot(mapping: &str) -> Arc<Snapshot> {
    snapshot_of(&std::fs::read_to_string(fixture::root().join("config/two-clusters.yaml")).unwrap(), mapping)
}

fn snapshot_of(text: &str, mapping: &str) -> Arc<Snapshot> {
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
    in_force: Arc<ArcSwap<Snapshot>>,
    folder: tempfile::TempDir,
}

/// What somebody's login by this configuration gives.
fn session(index: usize, snapshot: &Snapshot, (provider, email): (&str, &str)) -> Arc<Session> {
    let provider = snapshot.identity_provider(provider).unwrap();
    let issuer = provider.issuer.as_str().trim_end_matches('/');
    let claims = json!({"iss": issuer, "sub": email, "email": email, "email_verified": true, "groups": ["a", "b"], "department": "x"});
    Arc::new(Session {
        id: id(index),
        identity: provider.mapping.map(&provider.name, claims.as_object().unwrap()).unwrap(),
        created_at: 0,
        expires_at: u64::MAX,
        client: "kubepass".into(),
        source_ip: String::new(),
    })
}

impl Scene {
    /// Everybody is logged in, by the usual mapping.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let usual = snapshot(USUAL);
        let store = Store::open(&folder.path().join("kubepass.db"), Arc::clone(usual.token_keys())).unwrap();
        let sink = AuditSink::File { path: folder.path().join("audit.jsonl") };
        let settings = AuditSettings { sinks: vec![sink], on_failure: OnAuditFailure::Deny, durability: Durability::Written };
        let (sessions, in_force) = (Sessions::new(Arc::default(), store), Arc::new(ArcSwap::new(Arc::clone(&usual))));
        let current = Arc::clone(&in_force);
        let sessions = sessions.judged_by(move |session| mappings::is_still(&current.load(), session));
        for (index, person) in PEOPLE.into_iter().enumerate() {
            sessions.keep(&session(index, &usual, person)).await.unwrap();
        }
        Self { ender: SessionEnder::new(sessions, Trail::open(&settings).unwrap(), Errands::default()), in_force, folder }
    }

    /// The same after a restart: everybody's session rests, and `changed` is the configuration.
    async fn at_rest(changed: &Arc<Snapshot>) -> Self {
        let Self { ender, in_force, folder } = Self::new().await;
        in_force.store(Arc::clone(changed));
        let (sessions, _) = Sessions::at_rest(ender.sessions().store().clone(), 1).await.unwrap();
        let current = Arc::clone(&in_force);
        let sessions = sessions.judged_by(move |session| mappings::is_still(&current.load(), session));
        let sink = AuditSink::File { path: folder.path().join("audit.jsonl") };
        let settings = AuditSettings { sinks: vec![sink], on_failure: OnAuditFailure::Deny, durability: Durability::Written };
        Self { ender: SessionEnder::new(sessions, Trail::open(&settings).unwrap(), Errands::default()), in_force, folder }
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
    check_change(&snapshot(mapping), mapping, left).await;
}

async fn check_change(changed: &Arc<Snapshot>, mapping: &str, left: &[usize]) {
    let wanted: Vec<String> = left.iter().map(|index| PEOPLE[*index].1.to_owned()).collect();
    let usual = snapshot(USUAL);
    let scene = Scene::new().await;
    let snapshots = watch::Sender::new(usual);
    let changes = snapshots.subscribe();
    let change = || {
        scene.in_force.store(Arc::clone(changed));
        snapshots.send_replace(Arc::clone(changed));
    };
    ended(&scene, changes, mapping, &wanted, change).await;
    // The same where the change was made while kubepass was not there: nobody who reads such a session before it has ended gets it.
    let scene = Scene::at_rest(changed).await;
    for index in 0..PEOPLE.len() {
        let live = scene.ender.sessions().live(&id(index)).await.unwrap();
        assert_eq!(live.is_some(), left.contains(&index), "{mapping}: {index}");
    }
    assert_eq!((scene.left().len(), scene.told().len()), (PEOPLE.len(), 0), "{mapping}: none has ended yet");
    let snapshots = watch::Sender::new(Arc::clone(changed));
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
    check(STAFF, &[2]).await;
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

/// Its subjects are other people, whatever they are called.
#[tokio::test]
async fn a_session_ends_where_another_issuer_stands_under_its_providers_name() {
    let text = std::fs::read_to_string(fixture::root().join("config/two-clusters.yaml")).unwrap();
    assert!(text.contains("issuer: https://idp.example.com\n"));
    let changed = snapshot_of(&text.replacen("issuer: https://idp.example.com\n", "issuer: https://idp.example.net\n", 1), USUAL);
    check_change(&changed, "another issuer", &[2]).await;
}

/// The work that an older configuration began may go on for long; who logs in meanwhile does so by the newer one.
#[tokio::test]
async fn a_login_by_a_newer_configuration_is_not_ended_for_an_older_one() {
    let newer = snapshot(STAFF);
    let scene = Scene::new().await;
    scene.in_force.store(Arc::clone(&newer));
    let new = session(9, &newer, PEOPLE[0]);
    scene.ender.sessions().keep(&new).await.unwrap();
    let (stop, snapshots) = (CancellationToken::new(), watch::Sender::new(snapshot(USUAL)));
    let follow = tokio::spawn(mappings::follow(scene.ender.clone(), snapshots.subscribe(), stop.clone()));
    let ended = async {
        while scene.told().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
    stop.cancel();
    follow.await.unwrap().unwrap();
    assert_eq!(scene.left(), [PEOPLE[2].1], "those of the older one have ended");
    assert!(scene.ender.sessions().table().holds(&new.id), "the new login was ended: {:?}", scene.told());
}

/// A disk that takes its time would otherwise leave the last of them open for as long as it takes for all the others.
#[tokio::test]
async fn nobody_in_memory_counts_any_more_when_the_first_end_is_written() {
    const MANY: usize = 60;
    let (scene, usual) = (Scene::new().await, snapshot(USUAL));
    for index in 10..10 + MANY {
        scene.ender.sessions().keep(&session(index, &usual, PEOPLE[0])).await.unwrap();
    }
    let changed = snapshot(STAFF);
    scene.in_force.store(Arc::clone(&changed));
    let (stop, snapshots) = (CancellationToken::new(), watch::Sender::new(changed));
    let follow = tokio::spawn(mappings::follow(scene.ender.clone(), snapshots.subscribe(), stop.clone()));
    let first = async {
        while scene.told().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), first).await.unwrap();
    let table = scene.ender.sessions().table();
    let left = (0..10 + MANY).filter(|index| table.holds(&id(*index))).count();
    assert_eq!(left, 1, "only the one of the provider that did not change");
    stop.cancel();
    follow.await.unwrap().unwrap();
}

/// Where those who ended at the start are told of, what rests has been read; then there is nothing to do but to wait for the next change.
async fn until_idle(scene: &Scene, ends: usize) {
    let told = async {
        while scene.told().len() < ends {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let left = || scene.left();
    tokio::time::timeout(Duration::from_secs(10), told).await.unwrap_or_else(|_| panic!("{:?} are left", left()));
}

/// Whether a login by `login` goes on that comes when all is done that `first` asked for, and before the last of `later` is in force. The follower has
/// no look at those before it.
async fn goes_on(first: Arc<Snapshot>, login: &Snapshot, later: Vec<Arc<Snapshot>>) -> bool {
    let scene = Scene::at_rest(&first).await;
    let (stop, snapshots) = (CancellationToken::new(), watch::Sender::new(first));
    let follow = tokio::spawn(mappings::follow(scene.ender.clone(), snapshots.subscribe(), stop.clone()));
    until_idle(&scene, 2).await;
    let new = session(9, login, PEOPLE[0]);
    scene.ender.sessions().keep(&new).await.unwrap();
    scene.in_force.store(Arc::clone(later.last().unwrap()));
    for snapshot in later {
        snapshots.send_replace(snapshot);
    }
    until_idle(&scene, 3).await;
    stop.cancel();
    follow.await.unwrap().unwrap();
    scene.ender.sessions().table().holds(&new.id)
}

#[tokio::test]
async fn a_change_that_comes_while_nothing_is_to_do_ends_those_in_memory() {
    let (first, second) = (snapshot(STAFF), snapshot(USUAL));
    assert!(!goes_on(Arc::clone(&first), &first, vec![second]).await);
}

/// Two changes between two looks: the first and the last see everybody alike, and the one in between had somebody log in.
#[tokio::test]
async fn a_login_by_a_configuration_that_nobody_saw_is_ended() {
    let (first, second, third) = (snapshot(STAFF), snapshot(USUAL), snapshot(STAFF));
    assert!(!goes_on(first, &second, vec![Arc::clone(&second), third]).await);
}

#[tokio::test]
async fn a_session_that_ceases_to_count_while_it_is_read_does_not_stay_in_memory() {
    let scene = Scene::at_rest(&snapshot(USUAL)).await;
    let looks = AtomicUsize::new(0);
    // As when the configuration changes right after the first look.
    let sessions = scene.ender.sessions().clone().judged_by(move |_| looks.fetch_add(1, Ordering::Relaxed) == 0);
    assert!(sessions.live(&id(0)).await.unwrap().is_none());
    assert_eq!(sessions.table().awake_len(), 0);
    assert!(sessions.live(&id(0)).await.unwrap().is_none(), "whoever asks next has it judged again");
}
