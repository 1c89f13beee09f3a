#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::token::{KeyChangeKind, MAX_UPSTREAM_TOKEN_SECONDS};

const START: u64 = 1_800_000_000;
const WAIT: u64 = 600;

/// Keys A to E.
static KEYS: LazyLock<Vec<Arc<SigningKey>>> = LazyLock::new(|| {
    let key = |_| Arc::new(SigningKey::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem(), None).unwrap());
    (0..5).map(key).collect()
});

fn keys(letters: &str) -> Vec<Arc<SigningKey>> {
    letters.bytes().map(|letter| Arc::clone(&KEYS[usize::from(letter - b'A')])).collect()
}

fn letter(kid: &str) -> char {
    let index = KEYS.iter().position(|key| key.kid() == kid).unwrap();
    char::from(b'A' + u8::try_from(index).unwrap())
}

fn signer(ring: &KeyRing, now: u64) -> char {
    letter(ring.signer(now).unwrap().kid())
}

fn jwks(ring: &KeyRing, now: u64) -> String {
    ring.jwks(now).keys.iter().map(|key| letter(key.kid())).collect()
}

/// Configurations at times, each continued from the ledger of the one before as a restart would: `(seconds since START, keys, signer, JWKS)`.
fn check(steps: &[(u64, &str, char, &str)]) {
    let mut ledger = KeyLedger::default();
    for (seconds, configured, wanted_signer, wanted_jwks) in steps {
        let now = START + seconds;
        let ring = KeyRing::new(keys(configured), &ledger, WAIT, now);
        assert_eq!((signer(&ring, now), jwks(&ring, now).as_str()), (*wanted_signer, *wanted_jwks), "at {seconds} of {steps:?}");
        ledger = serde_json::from_str(&serde_json::to_string(ring.ledger()).unwrap()).unwrap();
    }
}

#[test]
fn a_new_first_key_waits_and_then_signs() {
    check(&[(0, "A", 'A', "A"), (5000, "BA", 'A', "BA"), (5599, "BA", 'A', "BA"), (5600, "BA", 'B', "BA"), (9000, "BA", 'B', "BA")]);
    // Without a look in between: the ring itself knows the time.
    let ring = KeyRing::new(keys("A"), &KeyLedger::default(), WAIT, START);
    let ring = KeyRing::new(keys("BA"), ring.ledger(), WAIT, START + 5000);
    assert_eq!((signer(&ring, START + 5599), signer(&ring, START + 5600)), ('A', 'B'));
}

#[test]
fn the_first_start_signs_at_once() {
    check(&[(0, "AB", 'A', "AB")]);
    // What signed at once is in use: a newer key before it still waits.
    check(&[(0, "A", 'A', "A"), (60, "BA", 'A', "BA"), (659, "BA", 'A', "BA"), (660, "BA", 'B', "BA")]);
}

#[test]
fn a_removed_key_stays_while_tokens_of_it_may_live() {
    let end = 7000 + KEY_RETENTION_SECONDS;
    check(&[(0, "A", 'A', "A"), (1000, "BA", 'A', "BA"), (7000, "B", 'B', "BA"), (end - 1, "B", 'B', "BA"), (end, "B", 'B', "B")]);
    // Without a look in between.
    let ring = KeyRing::new(keys("A"), &KeyLedger::default(), WAIT, START);
    let ring = KeyRing::new(keys("B"), ring.ledger(), WAIT, START + 7000);
    assert_eq!((jwks(&ring, START + end - 1).as_str(), jwks(&ring, START + end).as_str()), ("BA", "B"));
    const { assert!(KEY_RETENTION_SECONDS > MAX_UPSTREAM_TOKEN_SECONDS) }
}

#[test]
fn when_all_are_replaced_at_once_the_first_signs_at_once() {
    check(&[(0, "A", 'A', "A"), (5000, "BC", 'B', "BCA")]);
    // The waiting key is taken back while the old one is gone already.
    check(&[(0, "A", 'A', "A"), (5000, "BA", 'A', "BA"), (5100, "B", 'B', "BA")]);
}

#[test]
fn a_key_that_comes_back_waits_only_when_it_had_left() {
    check(&[(0, "A", 'A', "A"), (5000, "B", 'B', "BA"), (6000, "AB", 'A', "AB")]);
    let end = 5000 + KEY_RETENTION_SECONDS;
    check(&[(0, "A", 'A', "A"), (5000, "B", 'B', "BA"), (end, "AB", 'B', "AB"), (end + WAIT, "AB", 'A', "AB")]);
    // Also when nobody looked at the time of its leaving.
    check(&[(0, "A", 'A', "A"), (5000, "B", 'B', "BA"), (end + 9, "AB", 'B', "AB")]);
}

#[test]
fn the_order_decides_among_known_keys() {
    check(&[(0, "ABC", 'A', "ABC"), (1000, "CAB", 'C', "CAB"), (1001, "BC", 'B', "BCA")]);
    check(&[(0, "AA", 'A', "A")]);
}

#[test]
fn a_clock_that_is_set_back_neither_rushes_a_key_nor_drops_one() {
    // A day back: B waits anew from there, A goes on.
    check(&[(90_000, "A", 'A', "A"), (95_000, "BA", 'A', "BA"), (5000, "BA", 'A', "BA"), (5599, "BA", 'A', "BA"), (5600, "BA", 'B', "BA")]);
    // B signs already: it goes on.
    check(&[(90_000, "A", 'A', "A"), (91_000, "BA", 'A', "BA"), (91_600, "BA", 'B', "BA"), (0, "BA", 'B', "BA")]);
    // A withdrawn key stays for a whole retention from there.
    let end = 1000 + KEY_RETENTION_SECONDS;
    check(&[(90_000, "A", 'A', "A"), (91_000, "B", 'B', "BA"), (1000, "B", 'B', "BA"), (end - 1, "B", 'B', "BA"), (end, "B", 'B', "B")]);
    let ring = KeyRing::new(keys("A"), &KeyLedger::default(), WAIT, START);
    let ring = KeyRing::new(keys("BA"), ring.ledger(), WAIT, START);
    assert_eq!((signer(&ring, 0), jwks(&ring, 0).as_str()), ('A', "BA"));
}

#[test]
fn a_stand_in_signs_until_a_configured_key_may() {
    let ring = |configured: &str, before: &KeyLedger, seconds: u64| {
        KeyRing::with_stand_in(keys(configured), Some(keys("E").remove(0)), before, WAIT, START + seconds)
    };
    // One that was never published stands in for nothing.
    let first = ring("A", &KeyLedger::default(), 0);
    assert_eq!((signer(&first, START), jwks(&first, START).as_str()), ('A', "A"));

    let own = KeyRing::new(keys("E"), &KeyLedger::default(), WAIT, START);
    let waiting = ring("AB", own.ledger(), 1000);
    assert_eq!((signer(&waiting, START + 1000), jwks(&waiting, START + 1000).as_str()), ('E', "ABE"));
    assert_eq!(signer(&waiting, START + 1600), 'A');
    let done = ring("AB", waiting.ledger(), 1600);
    assert_eq!((signer(&done, START + 1600), jwks(&done, START + 1600).as_str()), ('A', "ABE"));
    let gone = 1600 + KEY_RETENTION_SECONDS;
    assert_eq!(jwks(&ring("AB", done.ledger(), gone), START + gone), "AB");
}

#[test]
fn without_a_wait_the_first_signs() {
    let ring = KeyRing::new(keys("A"), &KeyLedger::default(), 0, START);
    let ring = KeyRing::new(keys("BA"), ring.ledger(), 0, START);
    assert_eq!(signer(&ring, START), 'B');
    let ring = KeyRing::new(Vec::new(), &KeyLedger::default(), 0, START);
    assert!(ring.signer(START).is_none() && ring.jwks(START).keys.is_empty());
}

#[test]
fn another_algorithm_of_the_same_key_is_another_key() {
    let pem = crate::token::signing_key::tests::pem("rsa.pem");
    let key = |algorithm| Arc::new(SigningKey::from_pem(&pem, Some(algorithm)).unwrap());
    let ring = KeyRing::new(vec![key(SigningAlgorithm::Rs256), keys("A").remove(0)], &KeyLedger::default(), WAIT, START);
    let ring = KeyRing::new(vec![key(SigningAlgorithm::Ps256), keys("A").remove(0)], ring.ledger(), WAIT, START + WAIT);
    assert_eq!(signer(&ring, START + WAIT), 'A');
    assert_eq!(ring.signer(START + 2 * WAIT).unwrap().algorithm(), SigningAlgorithm::Ps256);
}

#[test]
fn states_and_changes_say_what_happens() {
    let status = |ring: &KeyRing, now: u64| -> Vec<_> { ring.states(now).iter().map(|key| (letter(&key.kid), key.status)).collect() };
    let changes = |ring: &KeyRing, before: &KeyRing| -> Vec<_> {
        ring.ledger().changes_since(before.ledger()).iter().map(|change| (letter(&change.kid), change.what)).collect()
    };
    use KeyChangeKind::{Published, Removed, Signs, Withdrawn};
    let none = KeyRing::new(Vec::new(), &KeyLedger::default(), WAIT, START);
    let first = KeyRing::new(keys("AB"), none.ledger(), WAIT, START);
    assert_eq!(changes(&first, &none), [('A', Published), ('B', Published), ('A', Signs)]);
    assert_eq!(status(&first, START), [('A', KeyStatus::Signs), ('B', KeyStatus::Published)]);

    let second = KeyRing::new(keys("CA"), first.ledger(), WAIT, START + 1000);
    assert_eq!(changes(&second, &first), [('C', Published), ('B', Withdrawn)]);
    let expected = [
        ('C', KeyStatus::Waits { until: START + 1600 }),
        ('A', KeyStatus::Signs),
        ('B', KeyStatus::Withdrawn { until: START + 1000 + KEY_RETENTION_SECONDS }),
    ];
    assert_eq!(status(&second, START + 1000), expected);

    let third = KeyRing::new(keys("CA"), second.ledger(), WAIT, START + 9000);
    assert_eq!(changes(&third, &second), [('C', Signs), ('B', Removed)]);
    assert_eq!(changes(&third, &third), []);
    let fourth = KeyRing::new(keys("BC"), second.ledger(), WAIT, START + 1001);
    assert_eq!(changes(&fourth, &second), [('B', Published), ('A', Withdrawn), ('B', Signs)]);
}

fn configurations() -> impl Strategy<Value = Vec<(u64, String)>> {
    let configured = proptest::sample::subsequence(vec!['A', 'B', 'C', 'D', 'E'], 1..=3).prop_shuffle();
    let step = (0u64..4000, configured.prop_map(|letters| letters.into_iter().collect::<String>()));
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However the configuration changes: what signs is configured and published, what may still be shown is published, and nobody but the
    /// only choice signs before its time.
    #[test]
    fn no_token_outlives_its_key_and_no_key_signs_unknown(steps in configurations(), wait in 0u64..2000) {
        let (mut now, mut previous) = (START, KeyRing::new(Vec::new(), &KeyLedger::default(), wait, START));
        let mut living: Vec<(String, u64)> = Vec::new();
        let mut published_since: std::collections::HashMap<String, u64> = std::collections::HashMap::new();
        let mut have_signed: std::collections::HashSet<String> = std::collections::HashSet::new();
        for (passed, configured) in steps {
            now += passed;
            // What left the JWKS by now begins anew, even when it comes back at this very moment.
            let still = previous.jwks(now);
            published_since.retain(|kid, _| still.find(kid).is_some());
            have_signed.retain(|kid| still.find(kid).is_some());
            let ring = KeyRing::new(keys(&configured), previous.ledger(), wait, now);
            let set = ring.jwks(now);
            for key in &set.keys {
                published_since.entry(key.kid().to_owned()).or_insert(now);
            }
            let signer = ring.signer(now).unwrap().kid().to_owned();
            prop_assert!(configured.contains(letter(&signer)) && set.find(&signer).is_some());
            let known = |kid: &str| have_signed.contains(kid) || now - published_since[kid] >= wait;
            let expected = ring.keys().iter().find(|key| known(key.kid())).unwrap_or(&ring.keys()[0]);
            prop_assert_eq!(expected.kid(), &signer);
            living.push((signer.clone(), now + MAX_UPSTREAM_TOKEN_SECONDS));
            have_signed.insert(signer);
            living.retain(|(_, expires_at)| now < *expires_at);
            for (kid, _) in &living {
                prop_assert!(set.find(kid).is_some(), "{} is gone while a token of it lives", letter(kid));
            }
            previous = ring;
        }
    }

    /// Whatever the clock does, there is a signer among the configured keys and it is published.
    #[test]
    fn any_clock_leaves_a_published_signer(steps in configurations(), clocks in proptest::collection::vec(any::<u64>(), 25)) {
        let mut ledger = KeyLedger::default();
        for ((_, configured), now) in steps.into_iter().zip(clocks) {
            let ring = KeyRing::new(keys(&configured), &ledger, WAIT, now);
            for then in [now, now.saturating_sub(5000), now.saturating_add(5000)] {
                let signer = ring.signer(then).unwrap();
                prop_assert!(configured.contains(letter(signer.kid())) && ring.jwks(then).find(signer.kid()).is_some());
                prop_assert_eq!(ring.states(then).iter().filter(|state| state.status == KeyStatus::Signs).count(), 1);
            }
            ledger = ring.ledger().clone();
        }
    }
}
