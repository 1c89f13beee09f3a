//! How often a check asks the allocator for memory, exactly: a budget in `tests/bench/allocations.txt` that cannot drift unseen.
//! `UPDATE_BUDGET=1 cargo test --test allocations` takes the counts as they are; the reviewer sees the difference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../../it/fixture.rs"]
#[allow(dead_code, reason = "made for other tests; only its configurations are needed here")]
mod fixture;
#[path = "../scene.rs"]
mod scene;

use std::fmt::Write as _;
use std::hint::black_box;

use allocation_counter::measure;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization as _;
use kubepass::access::{Outcome, authenticate, decide};
use kubepass::audit::decision_event;
use kubepass::server::ext_authz::convert::{self, Minted};
use kubepass::snapshot::NodeView;
use prost::Message as _;
use scene::{Method, Scene};

const BUDGET: &str = "tests/bench/allocations.txt";

/// Enough that what a channel or a timer allocates once in a while is a part of each.
const CHECKS: u64 = 1_024;

#[test]
fn a_check_allocates_what_its_budget_says() {
    let scene = Scene::usual(Method::Impersonate);
    let bytes = scene.check().encode_to_vec();
    let check = CheckRequest::decode(bytes.as_slice()).unwrap();
    let request = convert::access_request(&check, NodeView::UNNAMED);
    let authenticated = || authenticate(&scene.snapshot, &request, &scene.sessions, scene.now);
    // The first time verifies the token and makes what is made once.
    let decision = decide(&scene.snapshot, &request, authenticated(), scene.now);
    let Outcome::Allow(grant) = &decision.outcome else { panic!("{:?}", decision.outcome) };
    let session = authenticated();
    let answer = convert::grant(grant, &Minted::Nothing, request.request_id);
    let parts = [
        ("decode", count(|| CheckRequest::decode(bytes.as_slice()))),
        ("convert", count(|| convert::access_request(&check, NodeView::UNNAMED))),
        ("authenticate", count(authenticated)),
        ("decide", count(|| decide(&scene.snapshot, &request, session.clone(), scene.now))),
        ("audit line", count(|| serde_json::to_vec(&decision_event(&request, &decision, None, "0123456789abcdef")))),
        ("answer", count(|| convert::grant(grant, &Minted::Nothing, request.request_id))),
        ("encode", count(|| answer.encode_to_vec())),
    ];
    let mut found = "# Allocations of a hot check (5 rules of which the fourth allows, 2 groups), part by part.\n".to_owned();
    for (part, counted) in parts {
        writeln!(found, "{part:<16}{counted:>4}").unwrap();
    }
    for (part, method) in [("whole check", Method::Impersonate), ("... with a JWT", Method::Jwt)] {
        writeln!(found, "{part:<16}{:>4}", whole_check(&Scene::usual(method))).unwrap();
    }
    compare(&found);
}

/// What making one thing allocates.
fn count<T>(make: impl FnOnce() -> T) -> u64 {
    measure(|| {
        black_box(make());
    })
    .count_total
}

/// Decoded and answered by the service, the trail included; what its writer allocates in its own thread is not counted.
fn whole_check(scene: &Scene) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (service, _folder) = scene.service(&runtime);
    let bytes = scene.check().encode_to_vec();
    let ask = || {
        let check = CheckRequest::decode(bytes.as_slice()).unwrap();
        let answer = runtime.block_on(service.check(tonic::Request::new(check))).unwrap().into_inner();
        drop(answer.encode_to_vec());
    };
    (0..CHECKS).for_each(|_| ask());
    let counted = measure(|| (0..CHECKS).for_each(|_| ask()));
    (counted.count_total + CHECKS / 2) / CHECKS
}

fn compare(found: &str) {
    let path = fixture::root().join(BUDGET);
    if std::env::var_os("UPDATE_BUDGET").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let budget = std::fs::read_to_string(&path).unwrap_or_default();
    let counts = |text: &str| -> Vec<(String, u64)> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.rsplit_once(' ')).map(|(part, count)| (part.trim().to_owned(), count.parse().unwrap())).collect()
    };
    let (allowed, counted) = (counts(&budget), counts(found));
    let names = |counts: &[(String, u64)]| counts.iter().map(|(part, _)| part.clone()).collect::<Vec<_>>();
    assert_eq!(names(&allowed), names(&counted), "{BUDGET} speaks of other parts: take it anew with UPDATE_BUDGET=1");
    let within = allowed.iter().zip(&counted).all(|((_, allowed), (_, counted))| counted <= allowed);
    assert!(within, "a check allocates more than {BUDGET} allows\nbudget:\n{budget}\nfound:\n{found}");
    if budget != found {
        println!("a check allocates less than {BUDGET} allows: lower the budget with UPDATE_BUDGET=1\n{found}");
    }
}
