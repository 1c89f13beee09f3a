#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::identity::{Groups, Identity, Principal};
use crate::token::{CLOCK_LEEWAY_SECONDS, MAX_SESSION_TOKEN_SECONDS, Secret};

const NOW: u64 = 1_800_000_000;
const HOST: &str = "prod.k8s.example.com";
const PUBLIC: &str = "https://pass.example.com";

fn keys(seeds: &[u8]) -> TokenKeys {
    TokenKeys::derive(&seeds.iter().map(|seed| Secret::new([*seed; 32]).unwrap()).collect::<Vec<_>>())
}

fn session(number: u64, expires_at: u64) -> Arc<Session> {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    Arc::new(Session {
        id: SessionId::from_random(id),
        identity: Identity {
            principal: Principal { idp: "corp".into(), subject: number.to_string() },
            username: "alice".into(),
            email: String::new(),
            groups: Groups::default(),
            claims: serde_json::Map::new(),
        },
        created_at: NOW,
        expires_at,
        client: "kubepass".into(),
        source_ip: "192.0.2.1".into(),
    })
}

fn table_with(session: &Arc<Session>) -> SessionTable {
    let table = SessionTable::new();
    table.insert(Arc::clone(session)).unwrap();
    table
}

fn token(keys: &TokenKeys, session: &Session, now: u64) -> String {
    keys.sign_session_token(&session.session_token_claims(HOST, "id".into(), now)).unwrap()
}

#[track_caller]
fn refuses(table: &SessionTable, keys: &TokenKeys, token: &str, audience: &str, now: u64, rejection: TokenRejection) {
    assert_eq!(table.authenticate(keys, token, audience, now).map(|_| ()), Err(rejection));
}

#[test]
fn a_token_counts_while_its_session_lives() {
    let (keys, session) = (keys(&[1]), session(1, NOW + 7200));
    let table = table_with(&session);
    let token = token(&keys, &session, NOW);
    for _ in 0..2 {
        let authenticated = table.authenticate(&keys, &token, HOST, NOW).unwrap();
        assert!(Arc::ptr_eq(&authenticated.session, &session));
        assert_eq!(authenticated.token_expires_at, NOW + MAX_SESSION_TOKEN_SECONDS);
    }
    assert_eq!(table.verified_tokens.len(), 1);
    assert!(table.end(&session.id).is_some());
    assert_eq!(table.verified_tokens.len(), 0);
    refuses(&table, &keys, &token, HOST, NOW, TokenRejection::SessionEnded);
    assert!(table.end(&session.id).is_none());
    assert_eq!(table.verified_tokens.len(), 0);
    assert!(table.is_empty());
}

#[test]
fn a_known_token_is_checked_anew_each_time() {
    let (one, session) = (keys(&[1]), session(1, NOW + 7200));
    let table = table_with(&session);
    let token = token(&one, &session, NOW);
    table.authenticate(&one, &token, HOST, NOW).unwrap();
    refuses(&table, &one, &token, "dev.k8s.example.com", NOW, TokenRejection::WrongAudience);
    refuses(&table, &one, &token, "", NOW, TokenRejection::WrongAudience);
    refuses(&table, &one, &token, HOST, NOW + MAX_SESSION_TOKEN_SECONDS, TokenRejection::Expired);
    refuses(&table, &one, &token, HOST, NOW - CLOCK_LEEWAY_SECONDS - 1, TokenRejection::NotYetValid);
    refuses(&table, &keys(&[2]), &token, HOST, NOW, TokenRejection::BadSignature);
    refuses(&table, &keys(&[]), &token, HOST, NOW, TokenRejection::BadSignature);
    assert!(table.authenticate(&keys(&[2, 1]), &token, HOST, NOW).is_ok());
    assert_eq!(table.verified_tokens.len(), 1, "the same token stays one entry");
}

#[test]
fn the_sessions_own_end_binds_too() {
    let keys = keys(&[1]);
    let (long, short) = (session(1, NOW + 7200), session(1, NOW + 60));
    // A token that outlives its session, as after a change that shortens sessions.
    let token = token(&keys, &long, NOW);
    let table = table_with(&short);
    assert!(table.authenticate(&keys, &token, HOST, NOW + 59).is_ok());
    refuses(&table, &keys, &token, HOST, NOW + 60, TokenRejection::SessionEnded);
    assert!(table.get(&short.id).is_some());
    assert!(table.live(&short.id, NOW + 60).is_none());
    assert_eq!(table.remove_expired(NOW + 59).len(), 0);
    assert_eq!(table.verified_tokens.len(), 1);
    assert_eq!(table.remove_expired(NOW + 60), [short]);
    assert_eq!(table.verified_tokens.len(), 0);
    refuses(&table, &keys, &token, HOST, NOW, TokenRejection::SessionEnded);
}

#[test]
fn a_token_never_outlives_its_session_when_made() {
    let session = session(1, NOW + 100);
    assert_eq!(session.session_token_claims(HOST, "id".into(), NOW).expires_at, NOW + 100);
    assert!(keys(&[1]).sign_session_token(&session.session_token_claims(HOST, "id".into(), NOW + 100)).is_err());
}

#[test]
fn a_login_token_is_for_the_public_url_only() {
    let (keys, session) = (keys(&[1]), session(1, NOW + 7200));
    let table = table_with(&session);
    let login = keys.sign_login_token(&session.login_token_claims(PUBLIC, "id".into(), NOW)).unwrap();
    assert_eq!(table.authenticate_login(&keys, &login, PUBLIC, NOW).unwrap().token_expires_at, NOW + 7200);
    refuses(&table, &keys, &login, PUBLIC, NOW, TokenRejection::WrongType);
    let session_token = token(&keys, &session, NOW);
    assert_eq!(table.authenticate_login(&keys, &session_token, HOST, NOW).map(|_| ()), Err(TokenRejection::WrongType));
    table.end(&session.id);
    assert_eq!(table.authenticate_login(&keys, &login, PUBLIC, NOW).map(|_| ()), Err(TokenRejection::SessionEnded));
}

#[test]
fn only_good_tokens_are_remembered() {
    let (keys, session) = (keys(&[1]), session(1, NOW + 7200));
    let table = table_with(&session);
    let good = token(&keys, &session, NOW);
    for index in 0..good.len() {
        let bad = format!("{}~{}", &good[..index], &good[index + 1..]);
        assert!(table.authenticate(&keys, &bad, HOST, NOW).is_err());
    }
    refuses(&table, &keys, &good, "dev.k8s.example.com", NOW, TokenRejection::WrongAudience);
    refuses(&table, &keys, &"x".repeat(MAX_TOKEN_BYTES + 1), HOST, NOW, TokenRejection::Malformed);
    let other = token(&keys, &super::tests::session(2, NOW + 7200), NOW);
    refuses(&table, &keys, &other, HOST, NOW, TokenRejection::SessionEnded);
    assert_eq!(table.verified_tokens.len(), 0);
}

#[test]
fn what_is_remembered_is_bounded() {
    let (keys, session) = (keys(&[1]), session(1, NOW + 7200));
    let verified = VerifiedTokens::new();
    let claims = session.session_token_claims(HOST, "id".into(), NOW);
    let (_, key) = keys.verify_session_token_and_key(&token(&keys, &session, NOW), HOST, NOW).unwrap();
    let entry = |last: u8, life: u64| {
        let mut hash = [0; 32];
        hash[31] = last;
        let claims = crate::token::SessionTokenClaims { expires_at: NOW + life, ..claims.clone() };
        (hash, Arc::new(VerifiedToken::new(hash, key, &claims)))
    };
    for last in 0..=255 {
        verified.insert(&entry(last, 1000 + u64::from(last)).1, NOW);
    }
    assert_eq!(verified.len(), 8, "one set never grows beyond its ways");
    assert!(verified.get(&entry(255, 0).0).is_some());
    verified.insert(&entry(7, 5000).1, NOW + 1254);
    assert_eq!(verified.len(), 2, "expired entries go first");
}

#[test]
fn an_id_is_taken_once_and_the_table_is_bounded() {
    let table = table_with(&session(1, NOW + 60));
    assert_eq!(table.insert(session(1, NOW + 9999)), Err(InsertRefusal::Exists));
    assert_eq!(table.get(&session(1, 0).id).unwrap().expires_at, NOW + 60);
    table.count.store(MAX_SESSIONS, Ordering::Release);
    assert_eq!(table.insert(session(2, NOW + 60)), Err(InsertRefusal::Full));
    table.end(&session(1, 0).id);
    assert_eq!(table.insert(session(2, NOW + 60)), Ok(()));
}

#[test]
fn after_end_returns_no_thread_gets_in() {
    let (keys, table) = (keys(&[1]), SessionTable::new());
    for round in 0..50 {
        // Neighbours in the same shard are written at the same time.
        let (ours, neighbour) = (session(round * 64, NOW + 7200), session(1_000_000 + round * 64, NOW + 7200));
        table.insert(Arc::clone(&ours)).unwrap();
        let token = token(&keys, &ours, NOW);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let was_ended = ended.load(Ordering::SeqCst);
                        let result = table.authenticate(&keys, &token, HOST, NOW);
                        assert!(!(was_ended && result.is_ok()), "authenticated after the end");
                        if was_ended {
                            break;
                        }
                    }
                });
            }
            scope.spawn(|| {
                while !ended.load(Ordering::SeqCst) {
                    table.insert(Arc::clone(&neighbour)).unwrap();
                    table.end(&neighbour.id).unwrap();
                }
            });
            for _ in 0..100 {
                table.authenticate(&keys, &token, HOST, NOW).unwrap();
            }
            table.end(&ours.id).unwrap();
            ended.store(true, Ordering::SeqCst);
        });
    }
    assert_eq!((table.len(), table.list().len()), (0, 0));
}

#[test]
fn writers_of_one_shard_lose_nothing_of_each_other() {
    let table = SessionTable::new();
    for number in 0..200 {
        table.insert(session(number * 64, NOW + 60)).unwrap();
    }
    std::thread::scope(|scope| {
        for thread in 1..=4u64 {
            let table = &table;
            scope.spawn(move || {
                for round in 0..300 {
                    let ours = session((thread * 1000 + round) * 64, NOW + 60);
                    table.insert(Arc::clone(&ours)).unwrap();
                    assert!(table.get(&ours.id).is_some(), "an insertion was lost");
                    let shard = table.shard(&ours.id);
                    assert_eq!(shard.remove(&table.count, |session| session.id == ours.id).len(), 1);
                    assert!(table.get(&ours.id).is_none(), "an end was lost");
                }
            });
        }
    });
    assert_eq!((table.len(), table.list().len()), (200, 200));
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u64, u64),
    End(u64),
    Expire,
    Authenticate(u64, bool),
    Pass(u64),
    Rotate(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..6u64, 1..200u64).prop_map(|(number, life)| Step::Insert(number, life)),
        2 => (0..6u64).prop_map(Step::End),
        1 => Just(Step::Expire),
        8 => (0..6u64, any::<bool>()).prop_map(|(number, right_host)| Step::Authenticate(number, right_host)),
        2 => (0..80u64).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Rotate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The table against a plain map: it authenticates exactly when the session was inserted, not ended, not expired, and the key is accepted.
    #[test]
    fn authenticates_exactly_the_living(steps in proptest::collection::vec(step(), 1..60)) {
        let table = SessionTable::new();
        let mut model: HashMap<u64, u64> = HashMap::new();
        let (all, other) = (keys(&[1, 2]), keys(&[2]));
        let tokens: Vec<String> = (0..6).map(|number| token(&all, &session(number, NOW + 3600), NOW)).collect();
        let (mut now, mut accepted) = (NOW, true);
        for step in steps {
            match step {
                Step::Insert(number, life) => {
                    let inserted = table.insert(session(number, now + life));
                    prop_assert_eq!(inserted.is_ok(), !model.contains_key(&number));
                    model.entry(number).or_insert(now + life);
                }
                Step::End(number) => {
                    prop_assert_eq!(table.end(&session(number, 0).id).is_some(), model.remove(&number).is_some());
                }
                Step::Expire => {
                    let before = model.len();
                    model.retain(|_, expires_at| now < *expires_at);
                    prop_assert_eq!(table.remove_expired(now).len(), before - model.len());
                }
                Step::Authenticate(number, right_host) => {
                    let keys = if accepted { &all } else { &other };
                    let audience = if right_host { HOST } else { PUBLIC };
                    let result = table.authenticate(keys, &tokens[usize::try_from(number).unwrap()], audience, now);
                    let alive = model.get(&number).is_some_and(|expires_at| now < *expires_at);
                    prop_assert_eq!(result.is_ok(), alive && accepted && right_host && now < NOW + 3600);
                }
                Step::Pass(seconds) => now += seconds,
                Step::Rotate(keep) => accepted = keep,
            }
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.list().len(), model.len());
        }
    }
}
