#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::config::{self, Contents, Reference};
use crate::session::Session;
use crate::token::{KEY_RETENTION_SECONDS, KeyLedger, SessionId, SigningKey, TokenKeys};

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://pass.example.com";

static KEYS: LazyLock<Vec<Arc<SigningKey>>> = LazyLock::new(|| {
    let key = |_| Arc::new(SigningKey::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem(), None).unwrap());
    (0..3).map(key).collect()
});

fn session(number: u8, subject: &str, expires_at: u64) -> Session {
    let identity = serde_json::json!({
        "principal": {"idp": "corp", "subject": subject},
        "username": format!("{subject}@example.com"),
        "email": format!("{subject}@example.com"),
        "groups": [format!("team-{subject}"), "all"],
        "claims": {},
    });
    Session {
        id: SessionId::from_random([number; 16]),
        identity: serde_json::from_value(identity).unwrap(),
        created_at: NOW,
        expires_at,
        client: "kubepass".into(),
        source_ip: "192.0.2.77".into(),
    }
}

/// Signs with these keys; nothing is kept.
fn signing(keys: &[usize]) -> Signing {
    let ring = |keys: &[usize]| {
        let keys = keys.iter().map(|key| Arc::clone(&KEYS[*key])).collect();
        KeyRing::new(keys, &KeyLedger::default(), 600, NOW)
    };
    Signing {
        upstream: KeyHolder::of(Kind::Upstream, ring(keys)),
        assertion: KeyHolder::of(Kind::Assertion, ring(&[2])),
        upstream_tokens: TokenCache::new(),
        assertion_tokens: TokenCache::new(),
    }
}

type Request<'a> = UpstreamTokenRequest<'a, String>;

fn request<'a>(session: &'a Session, groups: &'a [String], extra: &'a [(String, Vec<String>)]) -> Request<'a> {
    UpstreamTokenRequest {
        session,
        route_id: "prod@10.0.0.1:6443/kubernetes",
        issuer: ISSUER,
        audience: "prod",
        lifetime_seconds: 300,
        username: "alice@example.com",
        uid: Some("u"),
        groups,
        extra,
        policy_version: "v1",
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_token_is_used_again_until_most_of_its_life_is_over() {
    let (signing, session, groups) = (signing(&[0]), session(1, "a", NOW + 43_200), texts(&["x"]));
    let request = request(&session, &groups, &[]);
    let at = |seconds: u64| signing.upstream_token(&request, NOW + seconds).unwrap();
    let first = at(0);
    assert!(Arc::ptr_eq(&first, &at(0)) && Arc::ptr_eq(&first, &at(239)));
    let second = at(240);
    assert!(!Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&second, &at(479)));
    assert_eq!(signing.upstream.tokens_minted(), 2);
    // The clock was set back: others would not take the newer token yet.
    assert!(!Arc::ptr_eq(&second, &at(100)));
    signing.upstream_tokens.drop_expired(NOW + 100 + 299);
    assert_eq!(signing.upstream_tokens.len(), 1);
    signing.upstream_tokens.drop_expired(NOW + 100 + 300);
    assert_eq!(signing.upstream_tokens.len(), 0);
}

#[test]
fn whatever_changes_makes_a_new_token() {
    let (signing, alice) = (signing(&[0]), session(1, "a", NOW + 43_200));
    let groups = texts(&["x", "y"]);
    let extra = [("example.com/team".to_owned(), texts(&["1", "2"]))];
    let base = request(&alice, &groups, &extra);
    let mut tokens = vec![signing.upstream_token(&base, NOW).unwrap()];
    let mut is_new = |what: &str, changed: &Request<'_>| {
        let token = signing.upstream_token(changed, NOW).unwrap();
        assert!(!tokens.iter().any(|old| Arc::ptr_eq(old, &token)), "{what}");
        assert!(Arc::ptr_eq(&token, &signing.upstream_token(changed, NOW).unwrap()), "{what}");
        let claims =
            signing.upstream_ring().jwks(NOW).verify_upstream_token(token.expose(), changed.issuer, changed.audience, NOW).unwrap();
        assert!(changed.is_said_by(&claims), "{what}");
        tokens.push(token);
    };
    is_new("issuer", &Request { issuer: "https://other.example.com", ..base });
    is_new("audience", &Request { audience: "staging", ..base });
    is_new("route", &Request { route_id: "staging@10.0.0.2:6443/kubernetes", ..base });
    is_new("lifetime", &Request { lifetime_seconds: 60, ..base });
    is_new("username", &Request { username: "oidc:alice@example.com", ..base });
    is_new("uid", &Request { uid: Some("w"), ..base });
    is_new("no uid", &Request { uid: None, ..base });
    is_new("policy version", &Request { policy_version: "v2", ..base });
    for changed in [texts(&["x"]), texts(&["y", "x"]), texts(&["x", "y", "z"]), texts(&["xy"]), texts(&[])] {
        is_new("groups", &Request { groups: &changed, ..base });
    }
    let other = |key: &str, values: &[&str]| [(key.to_owned(), texts(values))];
    for changed in [other("example.com/team", &["1"]), other("example.com/other", &["1", "2"])] {
        is_new("extra", &Request { extra: &changed, ..base });
    }
    is_new("no extra", &Request { extra: &[], ..base });
    is_new("session", &Request { session: &session(2, "a", NOW + 43_200), ..base });
    // Cannot happen, since a session never changes; it must not matter if it did.
    is_new("principal", &Request { session: &session(1, "b", NOW + 43_200), ..base });
    is_new("end", &Request { session: &session(1, "a", NOW + 200), ..base });
    let again = KeyRing::new(vec![Arc::clone(&KEYS[1])], signing.upstream_ring().ledger(), 600, NOW);
    signing.upstream.ring.store(Arc::new(again));
    is_new("key", &base);
}

#[test]
fn no_token_outlives_its_session() {
    let (signing, session, groups) = (signing(&[0]), session(1, "a", NOW + 100), texts(&[]));
    let request = request(&session, &groups, &[]);
    let end = |now: u64| {
        let token = signing.upstream_token(&request, now)?;
        Ok(signing.upstream_ring().jwks(now).verify_upstream_token(token.expose(), ISSUER, "prod", now).unwrap().expires_at)
    };
    for now in NOW..NOW + 100 {
        assert_eq!(end(now), Ok(NOW + 100));
    }
    assert_eq!(end(NOW + 100), Err(MintRefusal::SessionEnded));
    assert_eq!(end(NOW + 101), Err(MintRefusal::SessionEnded));
    // 100 requests, one a second: a new token only when most of what was left is over.
    assert!(signing.upstream.tokens_minted() < 12, "{}", signing.upstream.tokens_minted());
}

#[test]
fn a_refusal_never_gives_the_token_of_before() {
    let (signing, session, few) = (signing(&[0]), session(1, "a", NOW + 43_200), texts(&["x"]));
    signing.upstream_token(&request(&session, &few, &[]), NOW).unwrap();
    let many: Vec<String> = (0..600).map(|number| format!("{number:040}")).collect();
    let refusal = signing.upstream_token(&request(&session, &many, &[]), NOW).unwrap_err();
    assert_eq!(refusal, MintRefusal::TooLarge);
    assert!(refusal.to_string().contains("too many groups"));
    signing.upstream.ring.store(Arc::new(KeyRing::new(Vec::new(), &KeyLedger::default(), 600, NOW)));
    assert_eq!(signing.upstream_token(&request(&session, &few, &[]), NOW).unwrap_err(), MintRefusal::NoKey);
}

#[test]
fn many_requests_at_once_make_one_token() {
    let (signing, session, groups) = (signing(&[0]), session(1, "a", NOW + 43_200), texts(&["x"]));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for seconds in 0..200 {
                    signing.upstream_token(&request(&session, &groups, &[]), NOW + seconds).unwrap();
                }
            });
        }
    });
    assert_eq!(signing.upstream.tokens_minted(), 1);
}

#[test]
fn an_assertion_says_who_the_session_is() {
    let (signing, session) = (signing(&[0]), session(1, "a", NOW + 400));
    let request = AssertionTokenRequest { session: &session, route_id: "http:wiki", issuer: ISSUER, audience: "https://wiki.example.com" };
    let token = signing.assertion_token(&request, NOW).unwrap();
    assert!(Arc::ptr_eq(&token, &signing.assertion_token(&request, NOW + 239).unwrap()));
    let ring = signing.assertion_ring();
    let claims = ring.jwks(NOW).verify_assertion_token(token.expose(), ISSUER, "https://wiki.example.com", NOW).unwrap();
    assert_eq!((claims.username.as_str(), claims.email.as_str(), claims.subject.as_str()), ("a@example.com", "a@example.com", "corp:a"));
    assert_eq!((claims.groups, claims.expires_at, claims.session), (texts(&["team-a", "all"]), NOW + 300, session.id));
    let late = signing.assertion_token(&request, NOW + 240).unwrap();
    let late = ring.jwks(NOW).verify_assertion_token(late.expose(), ISSUER, "https://wiki.example.com", NOW + 240).unwrap();
    assert_eq!(late.expires_at, NOW + 400);
    // Never in what API servers read.
    let token = signing.assertion_token(&request, NOW + 240).unwrap();
    assert!(
        signing.upstream_ring().jwks(NOW).verify_assertion_token(token.expose(), ISSUER, "https://wiki.example.com", NOW + 240).is_err()
    );
    let other = AssertionTokenRequest { audience: "https://other.example.com", ..request };
    assert!(!Arc::ptr_eq(&token, &signing.assertion_token(&other, NOW + 240).unwrap()));
}

/// One request in a row of them: who, where, as whom, with which key, and how the clock moves before it.
#[derive(Debug, Clone)]
struct Step {
    session: u8,
    route: u8,
    prefix: bool,
    uid: bool,
    groups: u8,
    extra: u8,
    version: u8,
    lifetime: u64,
    forward: u64,
    back: u64,
    keys: Option<Vec<usize>>,
}

/// Mostly the usual, so that two steps often differ in one thing only: what a cache could miss.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rarely = |others: u8| prop_oneof![5 => Just(0), 1 => 1..=others];
    let flag = || proptest::bool::weighted(0.15);
    let clock = prop_oneof![4 => (0u64..60, Just(0)), 1 => (0u64..4000, Just(0)), 1 => (Just(0), 0u64..500)];
    let keys = proptest::option::weighted(0.15, proptest::sample::subsequence(vec![0, 1, 2], 1..=2).prop_shuffle());
    let lifetime = prop_oneof![5 => Just(300u64), 1 => Just(60), 1 => Just(3600)];
    let whom = (rarely(3), rarely(2), flag(), flag(), rarely(3), rarely(2), rarely(1), lifetime);
    let step = (whom, clock, keys).prop_map(|((session, route, prefix, uid, groups, extra, version, lifetime), (forward, back), keys)| {
        Step { session, route, prefix, uid, groups, extra, version, lifetime, forward, back, keys }
    });
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever asked before, whatever the clock and the keys do: a token says what was asked and nothing else, is signed by the key that
    /// signs now, and ends with its session at the latest.
    #[test]
    fn a_token_says_what_was_asked_and_nothing_else(steps in steps()) {
        let signing = signing(&[0]);
        let mut now = NOW;
        for Step { session: who, route, prefix, uid, groups, extra, version, lifetime, forward, back, keys } in steps {
            now = now + forward - back.min(now - NOW);
            if let Some(keys) = keys {
                let keys = keys.iter().map(|key| Arc::clone(&KEYS[*key])).collect();
                let ring = KeyRing::new(keys, signing.upstream_ring().ledger(), 600, now);
                signing.upstream.ring.store(Arc::new(ring));
            }
            let session = session(who, &format!("user-{who}"), NOW + 2000 * (u64::from(who) + 1));
            let (route_id, audience, version) = (format!("r{route}@h:1/n"), format!("cluster-{route}"), format!("v{version}"));
            let username = format!("{}{}", if prefix { "oidc:" } else { "" }, session.identity.username);
            let groups: Vec<String> = (0..groups).map(|number| format!("g{number}")).collect();
            let extra: Vec<_> = (0..extra).map(|number| (format!("example.com/k{number}"), vec![format!("{extra}")])).collect();
            let request = UpstreamTokenRequest {
                session: &session, route_id: &route_id, issuer: ISSUER, audience: &audience, lifetime_seconds: lifetime, username: &username,
                uid: uid.then_some("u"), groups: &groups, extra: &extra, policy_version: &version,
            };
            let asserted = AssertionTokenRequest { session: &session, route_id: &route_id, issuer: ISSUER, audience: &audience };
            let (token, assertion) = match (signing.upstream_token(&request, now), signing.assertion_token(&asserted, now)) {
                (Ok(token), Ok(assertion)) => (token, assertion),
                (token, assertion) => {
                    prop_assert_eq!(token.err(), Some(MintRefusal::SessionEnded));
                    prop_assert_eq!(assertion.err(), Some(MintRefusal::SessionEnded));
                    prop_assert!(now >= session.expires_at);
                    continue;
                }
            };
            let ring = signing.upstream_ring();
            let kid = ring.signer(now).unwrap().kid().to_owned();
            let jwks = ring.jwks(now);
            prop_assert_eq!(jsonwebtoken::decode_header(token.expose()).unwrap().kid, Some(kid));
            let claims = jwks.verify_upstream_token(token.expose(), ISSUER, &audience, now).unwrap();
            prop_assert_eq!(&claims.session, &session.id);
            prop_assert_eq!(&claims.subject, &format!("corp:user-{who}"));
            prop_assert_eq!(&claims.username, &username);
            prop_assert_eq!(&claims.groups, &groups);
            prop_assert_eq!(claims.uid.as_deref(), request.uid);
            prop_assert_eq!(claims.extra, extra.iter().cloned().collect::<BTreeMap<_, _>>());
            prop_assert_eq!(&claims.policy_version, &version);
            prop_assert!(claims.issued_at <= now && now < claims.expires_at);
            prop_assert_eq!(claims.expires_at, (claims.issued_at + lifetime).min(session.expires_at));
            prop_assert!((now - claims.issued_at) * 10 < (claims.expires_at - claims.issued_at) * 9);

            let jwks = signing.assertion_ring().jwks(now);
            let claims = jwks.verify_assertion_token(assertion.expose(), ISSUER, &audience, now).unwrap();
            prop_assert_eq!((&claims.session, &claims.subject), (&session.id, &format!("corp:user-{who}")));
            prop_assert_eq!((&claims.username, &claims.email), (&session.identity.username, &session.identity.email));
            prop_assert_eq!(claims.groups.as_slice(), session.identity.groups.as_slice());
            prop_assert_eq!(claims.expires_at, (claims.issued_at + 300).min(session.expires_at));
        }
    }
}

/// A configuration with these files as `signing_keys`; `secrets` are seeds.
fn configured(keys: &[&str], secrets: &[u8]) -> Config {
    let list = |names: Vec<String>| names.iter().map(|name| format!("{{file: {name}}}")).collect::<Vec<_>>().join(", ");
    let keys = match keys {
        [] => String::new(),
        keys => format!("signing_keys: [{}]\n", list(keys.iter().map(|name| format!("keys/{name}")).collect())),
    };
    let text = format!(
        "public_url: https://pass.example.com\n\
         listeners: [{{address: '127.0.0.1:443', certificates: [{{chain: {{file: tls.crt}}, key: {{file: tls.key}}}}]}}]\n\
         secrets: [{}]\n{keys}\
         identity_providers: [{{name: corp, issuer: 'https://idp.example.com', client_id: c, client_secret: {{file: client}}, \
         identity: {{username: claims.email}}}}]\n\
         sessions: {{store: {{embedded: {{path: kubepass.db}}}}}}\nroutes: []\naudit: {{sinks: [{{file: {{path: audit.jsonl}}}}]}}\n",
        list(secrets.iter().map(|seed| format!("secret-{seed}")).collect())
    );
    let draft = config::parse(&text, "kubepass.yaml").unwrap();
    let content = |reference: &Reference| {
        let name = reference.to_string();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixture").join(&name);
        (reference.clone(), Ok(std::fs::read(path).unwrap_or_else(|_| format!("{name}-0123456789abcdefghijklmnopqrstuvwxyz").into_bytes())))
    };
    let contents = Contents(draft.references().keys().map(content).collect());
    config::resolve(draft, &contents, NOW).unwrap()
}

/// A restart: the same file, opened anew with the keys of this configuration's secrets.
fn store(folder: &Path, config: &Config) -> Store {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        match Store::open(&folder.join("kubepass.db"), Arc::new(TokenKeys::derive(&config.secrets))) {
            // The writer of the handle that was dropped closes the file in its own time.
            Err(StoreError::InUse { .. }) if std::time::Instant::now() < deadline => std::thread::yield_now(),
            result => return result.unwrap(),
        }
    }
}

fn kids(ring: &KeyRing, now: u64) -> (String, Vec<String>) {
    let kid = |key: &crate::token::PublicJwk| key.kid().to_owned();
    (ring.signer(now).unwrap().kid().to_owned(), ring.jwks(now).keys.iter().map(kid).collect())
}

#[tokio::test]
async fn a_restart_keeps_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let (old, both, new) =
        (configured(&["signing.pem"], &[1]), configured(&["signing-2.pem", "signing.pem"], &[1]), configured(&["signing-2.pem"], &[1]));
    let (old_kid, new_kid) = (old.signing_keys[0].kid().to_owned(), new.signing_keys[0].kid().to_owned());
    let open = async |config: &Config, now: u64| {
        let signing = Signing::open(config, &store(folder.path(), config), now).await.unwrap();
        kids(&signing.upstream_ring(), now)
    };
    assert_eq!(open(&old, NOW).await, (old_kid.clone(), vec![old_kid.clone()]));
    assert_eq!(open(&both, NOW + 60).await, (old_kid.clone(), vec![new_kid.clone(), old_kid.clone()]));
    assert_eq!(open(&both, NOW + 659).await.0, old_kid);
    assert_eq!(open(&both, NOW + 660).await.0, new_kid);
    assert_eq!(open(&new, NOW + 700).await, (new_kid.clone(), vec![new_kid.clone(), old_kid]));
    assert_eq!(open(&new, NOW + 700 + KEY_RETENTION_SECONDS).await, (new_kid.clone(), vec![new_kid]));
}

#[tokio::test]
async fn a_key_of_our_own_lasts_and_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let open = async |config: &Config| {
        let store = store(folder.path(), config);
        (Signing::open(config, &store, NOW).await.unwrap(), store)
    };
    let config = configured(&[], &[1]);
    let (signing, store) = open(&config).await;
    let (upstream, assertion) = (kids(&signing.upstream_ring(), NOW), kids(&signing.assertion_ring(), NOW));
    assert_ne!(upstream.0, assertion.0);
    drop((signing, store));
    let file = std::fs::read(folder.path().join("kubepass.db")).unwrap();
    assert!(!file.windows(11).any(|bytes| bytes == b"PRIVATE KEY"), "the key is readable in the file");

    // The secret is replaced; what was kept is sealed anew while both are configured.
    let both = configured(&[], &[2, 1]);
    let (signing, store) = open(&both).await;
    assert_eq!((kids(&signing.upstream_ring(), NOW), kids(&signing.assertion_ring(), NOW)), (upstream.clone(), assertion.clone()));
    signing.upstream.renew(&both, &store, true, NOW).await;
    signing.assertion.renew(&both, &store, true, NOW).await;
    drop((signing, store));
    let (signing, store) = open(&configured(&[], &[2])).await;
    assert_eq!((kids(&signing.upstream_ring(), NOW), kids(&signing.assertion_ring(), NOW)), (upstream.clone(), assertion));
    drop((signing, store));

    // A key that nobody can open is replaced: nothing else can sign.
    let (signing, _store) = open(&configured(&[], &[3])).await;
    assert_ne!(kids(&signing.upstream_ring(), NOW).0, upstream.0);
}

#[tokio::test]
async fn from_a_key_of_our_own_to_configured_ones_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let (none, some) = (configured(&[], &[1]), configured(&["signing.pem"], &[1]));
    let store = store(folder.path(), &none);
    let signing = Signing::open(&none, &store, NOW).await.unwrap();
    let own = kids(&signing.upstream_ring(), NOW).0;
    let configured = some.signing_keys[0].kid().to_owned();
    let renewed = async |config: &Config, now: u64| {
        signing.upstream.renew(config, &store, false, now).await;
        kids(&signing.upstream_ring(), now)
    };
    assert_eq!(renewed(&some, NOW + 1000).await, (own.clone(), vec![configured.clone(), own.clone()]));
    assert_eq!(renewed(&some, NOW + 1600).await, (configured.clone(), vec![configured.clone(), own.clone()]));
    let gone = NOW + 1600 + KEY_RETENTION_SECONDS;
    assert_eq!(renewed(&some, gone).await, (configured.clone(), vec![configured.clone()]));
    assert_eq!(renewed(&none, gone + 1).await, (own.clone(), vec![own, configured]));
}

/// A stolen key is out of what verifiers read at once, and another signs at once; whether it was configured or our own, running or at a start.
#[tokio::test]
async fn a_revoked_key_neither_signs_nor_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (configured(&["signing.pem"], &[1]), configured(&["signing-2.pem"], &[1]));
    let stolen = old.signing_keys[0].kid().to_owned();
    let kid = new.signing_keys[0].kid().to_owned();
    let (store, signing) = {
        let store = store(folder.path(), &old);
        let signing = Signing::open(&old, &store, NOW).await.unwrap();
        (store, signing)
    };
    signing.upstream.renew(&new, &store, false, NOW + 5000).await;
    assert_eq!(kids(&signing.upstream_ring(), NOW + 5000), (kid.clone(), vec![kid.clone(), stolen.clone()]));
    let new = config::Config { revoked_keys: [stolen].into(), ..new };
    signing.upstream.renew(&new, &store, false, NOW + 5001).await;
    assert_eq!(kids(&signing.upstream_ring(), NOW + 5001), (kid.clone(), vec![kid.clone()]));
    let told: Vec<_> = signing.upstream.unrecorded_changes().iter().map(|change| (change.kid.clone(), change.what.name())).collect();
    assert_eq!(told, [(kid.clone(), "published"), (kid.clone(), "signs")]);
    drop((signing, store));
    let store = self::store(folder.path(), &new);
    let again = Signing::open(&new, &store, NOW + 5002).await.unwrap();
    assert_eq!(kids(&again.upstream_ring(), NOW + 5002), (kid.clone(), vec![kid]));
}

#[tokio::test]
async fn a_revoked_key_of_our_own_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let none = configured(&[], &[1]);
    let (store, signing) = {
        let store = store(folder.path(), &none);
        let signing = Signing::open(&none, &store, NOW).await.unwrap();
        (store, signing)
    };
    let stolen = kids(&signing.upstream_ring(), NOW).0;
    let revoked = config::Config { revoked_keys: [stolen.clone()].into(), ..none };
    signing.upstream.renew(&revoked, &store, false, NOW + 60).await;
    let (own, published) = kids(&signing.upstream_ring(), NOW + 60);
    assert!(own != stolen && published == [own.as_str()], "{own} {published:?}");
    drop((signing, store));
    let store = self::store(folder.path(), &revoked);
    let again = Signing::open(&revoked, &store, NOW + 61).await.unwrap();
    assert_eq!(kids(&again.upstream_ring(), NOW + 61), (own.clone(), vec![own]));
}

#[tokio::test]
async fn each_change_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let (old, both) = (configured(&["signing.pem"], &[1]), configured(&["signing-2.pem", "signing.pem"], &[1]));
    let (store, signing) = {
        let store = store(folder.path(), &old);
        let signing = Signing::open(&old, &store, NOW).await.unwrap();
        (store, signing)
    };
    let told = || -> Vec<_> { signing.upstream.unrecorded_changes().iter().map(|change| change.what.name()).collect() };
    assert_eq!(told(), ["published", "signs"]);
    assert_eq!(told(), [""; 0]);
    signing.upstream.renew(&both, &store, false, NOW + 100).await;
    assert_eq!(told(), ["published"]);
    signing.upstream.renew(&both, &store, false, NOW + 700).await;
    assert_eq!(told(), ["signs"]);
    drop((signing, store));
    let store = self::store(folder.path(), &both);
    let again = Signing::open(&both, &store, NOW + 800).await.unwrap();
    assert_eq!(again.upstream.unrecorded_changes(), []);
}

#[tokio::test]
async fn changes_of_keys_stand_in_the_trail_and_the_metrics_without_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (old, both) = (configured(&["signing.pem"], &[1]), configured(&["signing-2.pem", "signing.pem"], &[1]));
    let (old_kid, new_kid) = (old.signing_keys[0].kid().to_owned(), both.signing_keys[0].kid().to_owned());
    let store = store(folder.path(), &old);
    let audit = folder.path().join("audit.jsonl");
    let settings = config::AuditSettings { sinks: vec![config::AuditSink::File { path: audit.clone() }], ..old.audit.clone() };
    let trail = Trail::open(&settings).unwrap();
    // Long ago: the old key is known by now.
    let signing = Signing::open(&old, &store, clock::unix_now() - 10_000).await.unwrap();
    let metrics = Metrics::default();
    signing.register(&metrics);
    let alice = session(1, "a", NOW + 43_200);
    let token = signing.upstream_token(&request(&alice, &[], &[]), NOW).unwrap();

    let (publisher, snapshots) = watch::channel(Arc::new(Snapshot::new(Arc::new(old), "1")));
    let stop = CancellationToken::new();
    let following = tokio::spawn(Arc::clone(&signing).follow(snapshots, store.clone(), trail, stop.clone()));
    let lines = async |wanted: usize| loop {
        let text = std::fs::read_to_string(&audit).unwrap();
        if text.lines().count() >= wanted {
            return text;
        }
        tokio::task::yield_now().await;
    };
    lines(4).await;
    publisher.send(Arc::new(Snapshot::new(Arc::new(both), "2"))).unwrap();
    let text = lines(5).await;
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of =
        |kid: &str| -> Vec<_> { events.iter().filter(|line| line["key"] == kid).map(|line| line["change"].as_str().unwrap()).collect() };
    assert_eq!((of(&old_kid), of(&new_kid)), (vec!["published", "signs"], vec!["published"]));
    assert!(events.iter().all(|line| line["event"] == "signing_key" && line["algorithm"] == "ES256"), "{text}");
    assert_eq!(signing.upstream_ring().signer(clock::unix_now()).unwrap().kid(), old_kid);

    let shown = metrics.encode();
    for line in [
        "kubepass_signing_keys_published{tokens=\"upstream\"} 2",
        "kubepass_signing_keys_published{tokens=\"assertion\"} 1",
        "kubepass_signing_key_age_seconds{tokens=\"upstream\"} 1000",
        "kubepass_tokens_minted_total{tokens=\"upstream\"} 1",
        "kubepass_tokens_minted_total{tokens=\"assertion\"} 0",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    for text in [&shown, &text, &format!("{signing:?}")] {
        assert!(!text.contains("PRIVATE") && !text.contains(token.expose()), "{text}");
    }
    stop.cancel();
    assert_eq!(following.await.unwrap(), Ok(()));
}
