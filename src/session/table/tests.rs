#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
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

/// Those whose numbers differ by less than a million are in the same shard.
fn id(number: u64) -> SessionId {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&u16::try_from(number / 1_000_000 * 128).unwrap().to_be_bytes());
    id[8..].copy_from_slice(&number.to_be_bytes());
    SessionId::from_random(id)
}

fn session(number: u64, expires_at: u64) -> Arc<Session> {
    session_of(number, &number.to_string(), expires_at)
}

fn session_of(number: u64, subject: &str, expires_at: u64) -> Arc<Session> {
    Arc::new(Session {
        id: id(number),
        identity: Identity {
            principal: Principal { idp: "corp".into(), subject: subject.into() },
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

/// Who that token is, where the session is in memory.
fn authenticated(table: &SessionTable, keys: &TokenKeys, token: &str, now: u64) -> Authenticated {
    match table.authenticate(keys, token, HOST, now).unwrap() {
        Shown::Live(authenticated) => authenticated,
        Shown::AtRest { .. } => panic!("it is at rest"),
    }
}

fn resting(session: &Session) -> Resting {
    Resting { id: session.id, expires_at: session.expires_at }
}

fn learn(table: &SessionTable, sessions: &[&Session]) {
    table.learn(
        sessions.iter().map(|session| (session.id, &session.identity.principal, session.identity.username.as_str(), session.created_at)),
    );
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
        let authenticated = authenticated(&table, &keys, &token, NOW);
        assert!(Arc::ptr_eq(&authenticated.session, &session));
        assert_eq!(authenticated.token_expires_at, NOW + MAX_SESSION_TOKEN_SECONDS);
    }
    assert_eq!(table.verified_tokens.len(), 1);
    assert!(table.end(&session.id));
    assert_eq!(table.verified_tokens.len(), 0);
    refuses(&table, &keys, &token, HOST, NOW, TokenRejection::SessionEnded);
    assert!(!table.end(&session.id));
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
    assert!(table.holds(&short.id));
    assert_eq!(table.look(&short.id, NOW + 60), Look::Gone);
    assert_eq!(table.remove_expired(NOW + 59).len(), 0);
    assert_eq!(table.verified_tokens.len(), 1);
    assert_eq!(table.remove_expired(NOW + 60), [short.id]);
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
    let Shown::Live(shown) = table.authenticate_login(&keys, &login, PUBLIC, NOW).unwrap() else { panic!("it is at rest") };
    assert_eq!(shown.token_expires_at, NOW + 7200);
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
    assert_eq!(table.look(&id(1), NOW), Look::Live(session(1, NOW + 60)));
    table.count.store(MAX_SESSIONS, Ordering::Release);
    assert_eq!(table.insert(session(2, NOW + 60)), Err(InsertRefusal::Full));
    assert_eq!(table.take_resting(&[resting(&session(2, NOW + 60))]), 1);
    table.end(&session(1, 0).id);
    assert_eq!(table.insert(session(2, NOW + 60)), Ok(()));
}

#[test]
fn a_session_at_rest_counts_when_it_was_read() {
    let (keys, session) = (keys(&[1]), session(1, NOW + 600));
    let (table, token) = (SessionTable::new(), token(&keys, &session, NOW));
    assert_eq!(table.take_resting(&[resting(&session), resting(&session)]), 1, "an id is taken once");
    assert_eq!((table.len(), table.awake_len()), (1, 0));
    for _ in 0..2 {
        let shown = table.authenticate(&keys, &token, HOST, NOW).unwrap();
        assert!(matches!(shown, Shown::AtRest { session: id, token_expires_at } if id == session.id && token_expires_at == NOW + 600));
    }
    assert_eq!(table.verified_tokens.len(), 1, "it is not verified again when it was read");
    refuses(&table, &keys, &token, PUBLIC, NOW, TokenRejection::WrongAudience);
    refuses(&table, &keys, &token, HOST, NOW + 600, TokenRejection::Expired);
    assert_eq!(table.look(&session.id, NOW + 600), Look::Gone);

    // A row with another end than the one that the table was told of is not that session.
    assert_eq!(table.wake(session_of(1, "1", NOW + 601), NOW), None);
    assert_eq!(table.wake(Arc::clone(&session), NOW + 600), None);
    assert_eq!(table.awake_len(), 0);
    let awake = table.wake(Arc::clone(&session), NOW).unwrap();
    assert!(Arc::ptr_eq(&awake, &authenticated(&table, &keys, &token, NOW).session));
    let again = table.wake(Arc::new(Session::clone(&session)), NOW).unwrap();
    assert!(Arc::ptr_eq(&again, &awake), "who reads it twice has it once");
    assert_eq!((table.len(), table.awake_len()), (1, 1));
}

/// The row was read, then the session ended, then the reader comes with it.
#[test]
fn what_was_read_before_the_end_does_not_come_back() {
    type End = fn(&SessionTable);
    let keys = keys(&[1]);
    let ends: [(&str, End); 3] = [
        ("ended", |table| assert!(table.end(&id(1)))),
        ("expired", |table| assert_eq!(table.remove_expired(NOW + 600), [id(1)])),
        ("set aside", |table| assert!(table.set_aside(&id(1)))),
    ];
    for (how, end) in ends {
        let (table, session) = (SessionTable::new(), session(1, NOW + 600));
        let token = token(&keys, &session, NOW);
        table.take_resting(&[resting(&session)]);
        assert!(matches!(table.authenticate(&keys, &token, HOST, NOW), Ok(Shown::AtRest { .. })));
        let read = Arc::clone(&session);
        end(&table);
        assert_eq!(table.wake(read, NOW), None, "{how}");
        refuses(&table, &keys, &token, HOST, NOW, TokenRejection::SessionEnded);
        learn(&table, &[&session]);
        assert_eq!((table.len(), table.awake_len(), table.of(&session.identity.principal).len()), (0, 0, 0), "{how}");
    }
}

#[test]
fn what_is_in_memory_is_bounded_and_who_asks_often_stays() {
    let table = SessionTable::new();
    let often = session(0, NOW + 600);
    table.insert(Arc::clone(&often)).unwrap();
    let many = 10 * HOT_OF_SHARD as u64;
    for number in 1..=many {
        assert!(matches!(table.look(&often.id, NOW), Look::Live(_)), "pushed out by the {number}th");
        table.insert(session(number, NOW + 600)).unwrap();
    }
    assert_eq!((table.len(), table.awake_len()), (1 + 10 * HOT_OF_SHARD, HOT_OF_SHARD));
    for number in 0..=many {
        assert_ne!(table.look(&id(number), NOW), Look::Gone);
        assert!(table.wake(session(number, NOW + 600), NOW).is_some());
        assert!(matches!(table.look(&id(number), NOW), Look::Live(_)));
        assert!(table.awake_len() <= HOT_OF_SHARD);
    }
    for shard in 0..SHARDS as u64 {
        for number in 0..2 * HOT_OF_SHARD as u64 {
            table.insert(session(2_000 + shard * 1_000_000 + number, NOW + 600)).unwrap();
        }
    }
    assert_eq!(table.awake_len(), HOT_SESSIONS);
}

#[test]
fn a_persons_sessions_are_found_the_oldest_first() {
    let table = SessionTable::new();
    let made = |number: u64, subject: &str, created_at: u64| {
        Arc::new(Session { created_at, ..Session::clone(&session_of(number, subject, NOW + 600)) })
    };
    let (old, middle, new) = (made(3_000_000, "a", NOW - 9), made(1, "a", NOW - 5), made(2_000_000, "a", NOW));
    let other = made(2, "b", NOW - 7);
    table.insert(Arc::clone(&middle)).unwrap();
    table.take_resting(&[&other, &new, &old].map(|session| resting(session)));
    let of = |subject: &str| table.of(&Principal { idp: "corp".into(), subject: subject.into() });
    assert_eq!(of("a"), [middle.id], "nobody has said whose the others are");
    learn(&table, &[&other, &new, &old, &middle]);
    assert_eq!(of("a"), [old.id, middle.id, new.id]);
    assert_eq!(of("b"), [other.id]);
    assert_eq!(table.of(&Principal { idp: "partner".into(), subject: "a".into() }), []);
    assert_eq!(table.of_user("alice").len(), 4);
    assert_eq!(table.of_user("Alice"), []);
    assert!(!table.set_aside(&old.id), "somebody has read it");
    table.end(&middle.id);
    assert_eq!((of("a"), table.of_user("alice").len()), (vec![old.id, new.id], 3));
    table.remove_expired(NOW + 600);
    assert!(of("a").is_empty() && of("b").is_empty() && table.of_user("alice").is_empty() && table.people().is_empty());
}

#[test]
fn shards_are_all_used_and_follow_the_ids() {
    let shard = |first: u8, second: u8| {
        let mut bytes = [0xff; 16];
        bytes[..2].copy_from_slice(&[first, second]);
        shard_of(&SessionId::from_random(bytes))
    };
    assert_eq!((shard(0, 0), shard(0, 127), shard(0, 128), shard(255, 255)), (0, 0, 1, SHARDS - 1));
    let all: std::collections::BTreeSet<usize> = (0..=255).flat_map(|first| [shard(first, 0), shard(first, 200)]).collect();
    assert_eq!(all.len(), SHARDS);
}

#[test]
fn after_end_returns_no_thread_gets_in() {
    let (keys, table) = (keys(&[1]), SessionTable::new());
    for round in 0..50 {
        // Neighbours in the same shard are written at the same time, and the session is read again and again.
        let (ours, neighbour) = (session(round, NOW + 7200), session(1_000 + round, NOW + 7200));
        if round % 2 == 0 {
            table.insert(Arc::clone(&ours)).unwrap();
        } else {
            table.take_resting(&[resting(&ours)]);
        }
        let token = token(&keys, &ours, NOW);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let was_ended = ended.load(Ordering::SeqCst);
                        let result = table.authenticate(&keys, &token, HOST, NOW);
                        assert!(!(was_ended && result.is_ok()), "authenticated after the end");
                        let read = table.wake(Arc::clone(&ours), NOW);
                        assert!(!(was_ended && read.is_some()), "read after the end");
                        if was_ended {
                            break;
                        }
                    }
                });
            }
            scope.spawn(|| {
                while !ended.load(Ordering::SeqCst) {
                    table.insert(Arc::clone(&neighbour)).unwrap();
                    assert!(table.end(&neighbour.id));
                }
            });
            for _ in 0..100 {
                table.authenticate(&keys, &token, HOST, NOW).unwrap();
            }
            assert!(table.end(&ours.id));
            ended.store(true, Ordering::SeqCst);
        });
    }
    assert_eq!((table.len(), table.awake_len(), table.people().len()), (0, 0, 0));
}

#[test]
fn writers_of_one_shard_lose_nothing_of_each_other() {
    let table = SessionTable::new();
    for number in 0..200 {
        table.insert(session(number, NOW + 60)).unwrap();
    }
    std::thread::scope(|scope| {
        for thread in 1..=4u64 {
            let table = &table;
            scope.spawn(move || {
                for round in 0..300 {
                    let ours = session(thread * 1000 + round, NOW + 60);
                    table.insert(Arc::clone(&ours)).unwrap();
                    assert!(table.holds(&ours.id), "an insertion was lost");
                    assert!(table.end(&ours.id));
                    assert!(!table.holds(&ours.id), "an end was lost");
                }
            });
        }
    });
    assert_eq!((table.len(), table.people().len()), (200, 200));
    assert_eq!((0..200).filter(|number| table.holds(&id(*number))).count(), 200);
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u64, u64),
    /// Found in the store.
    Rest(u64, u64),
    /// A reading begins; it comes back later, or never.
    Read(u64),
    ComeBack,
    /// So many others are asked for.
    Push(u64),
    Learn(u64),
    End(u64),
    Expire,
    Authenticate(u64, bool),
    Pass(u64),
    Rotate(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..6u64, 1..200u64).prop_map(|(number, life)| Step::Insert(number, life)),
        3 => (0..6u64, 1..200u64).prop_map(|(number, life)| Step::Rest(number, life)),
        4 => (0..6u64).prop_map(Step::Read),
        4 => Just(Step::ComeBack),
        1 => (1..2 * HOT_OF_SHARD as u64).prop_map(Step::Push),
        2 => (0..6u64).prop_map(Step::Learn),
        2 => (0..6u64).prop_map(Step::End),
        1 => Just(Step::Expire),
        8 => (0..6u64, any::<bool>()).prop_map(|(number, right_host)| Step::Authenticate(number, right_host)),
        2 => (0..80u64).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Rotate),
    ]
}

/// A session as the model has it: its end, and whether it is known whose it is.
#[derive(Debug, Clone, Copy)]
struct Kept {
    expires_at: u64,
    known: bool,
}

/// A person has two of these sessions.
fn kept_session(number: u64, expires_at: u64) -> Arc<Session> {
    session_of(number, &(number / 2).to_string(), expires_at)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The table against a plain map: it authenticates exactly when the session is here, not ended, not expired, and the key is accepted, whether it
    /// is in memory or not, and whatever comes back of readings that began before it ended.
    #[test]
    fn authenticates_exactly_the_living(steps in proptest::collection::vec(step(), 1..80)) {
        let table = SessionTable::new();
        let mut model: BTreeMap<u64, Kept> = BTreeMap::new();
        let mut under_way: Vec<Arc<Session>> = Vec::new();
        let (all, other) = (keys(&[1, 2]), keys(&[2]));
        let tokens: Vec<String> = (0..6).map(|number| token(&all, &session(number, NOW + 3600), NOW)).collect();
        let (mut now, mut accepted, mut others) = (NOW, true, 0);
        for step in steps {
            match step {
                Step::Insert(number, life) => {
                    let inserted = table.insert(kept_session(number, now + life));
                    prop_assert_eq!(inserted.is_ok(), !model.contains_key(&number));
                    model.entry(number).or_insert(Kept { expires_at: now + life, known: true });
                }
                Step::Rest(number, life) => {
                    let refused = table.take_resting(&[resting(&kept_session(number, now + life))]);
                    prop_assert_eq!(refused == 0, !model.contains_key(&number));
                    model.entry(number).or_insert(Kept { expires_at: now + life, known: false });
                }
                Step::Read(number) => under_way.extend(model.get(&number).map(|kept| kept_session(number, kept.expires_at))),
                Step::ComeBack => {
                    if let Some(read) = under_way.pop() {
                        let same = model.iter().any(|(number, kept)| id(*number) == read.id && kept.expires_at == read.expires_at);
                        prop_assert_eq!(table.wake(Arc::clone(&read), now).is_some(), same && now < read.expires_at);
                    }
                }
                Step::Push(count) => {
                    for number in others..others + count {
                        table.insert(session(10_000 + number, NOW + 1_000_000)).unwrap();
                    }
                    others += count;
                }
                Step::Learn(number) => {
                    learn(&table, &[&kept_session(number, 0)]);
                    model.entry(number).and_modify(|kept| kept.known = true);
                }
                Step::End(number) => prop_assert_eq!(table.end(&id(number)), model.remove(&number).is_some()),
                Step::Expire => {
                    let before = model.len();
                    model.retain(|_, kept| now < kept.expires_at);
                    prop_assert_eq!(table.remove_expired(now).len(), before - model.len());
                }
                Step::Authenticate(number, right_host) => {
                    let keys = if accepted { &all } else { &other };
                    let audience = if right_host { HOST } else { PUBLIC };
                    let result = table.authenticate(keys, &tokens[usize::try_from(number).unwrap()], audience, now);
                    let kept = model.get(&number).filter(|kept| now < kept.expires_at);
                    prop_assert_eq!(result.is_ok(), kept.is_some() && accepted && right_host && now < NOW + 3600);
                    if let Ok(Shown::Live(authenticated)) = result {
                        prop_assert_eq!(Some(authenticated.session.expires_at), kept.map(|kept| kept.expires_at));
                    }
                }
                Step::Pass(seconds) => now += seconds,
                Step::Rotate(keep) => accepted = keep,
            }
            prop_assert_eq!(table.len(), model.len() + usize::try_from(others).unwrap());
            prop_assert!(table.awake_len() <= HOT_OF_SHARD, "all are in one shard");
            for person in 0..3 {
                let known = (2 * person..2 * person + 2).filter(|number| model.get(number).is_some_and(|kept| kept.known));
                let of: Vec<SessionId> = known.map(id).collect();
                prop_assert_eq!(table.of(&Principal { idp: "corp".into(), subject: person.to_string() }), of);
            }
        }
    }
}
