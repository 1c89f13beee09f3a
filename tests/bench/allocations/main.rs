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
use kubepass::access::{Outcome, authenticate, decide};
use kubepass::audit::{AuditEvent, DecisionEvent, decision_event};
use kubepass::server::ext_authz::convert::{self, Minted};
use kubepass::server::ext_authz::question;
use kubepass::snapshot::NodeView;
use scene::{Method, Scene};

const BUDGET: &str = "tests/bench/allocations.txt";

/// Enough that what a channel or a timer allocates once in a while is a part of each.
const CHECKS: u64 = 1_024;

#[test]
fn a_check_allocates_what_its_budget_says() {
    let scene = Scene::usual(Method::Impersonate);
    let bytes = scene.check();
    let request = question::read(&bytes, NodeView::UNNAMED).unwrap();
    let authenticated = || authenticate(&scene.snapshot, &request, &scene.sessions, scene.now);
    // The first time verifies the token and makes what is made once.
    let decision = decide(&scene.snapshot, &request, authenticated(), scene.now);
    let Outcome::Allow(grant) = &decision.outcome else { panic!("{:?}", decision.outcome) };
    let session = authenticated();
    let parts = [
        ("read", count(|| question::read(&bytes, NodeView::UNNAMED))),
        ("authenticate", count(authenticated)),
        ("decide", count(|| decide(&scene.snapshot, &request, session.clone(), scene.now))),
        ("audit line", count(|| audit_line(&decision_event(&request, &decision, None, "0123456789abcdef")))),
        ("answer", count(|| convert::grant(grant, &Minted::Nothing, request.request_id))),
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

/// As the trail writes it.
fn audit_line(event: &DecisionEvent<'_>) -> Vec<u8> {
    let mut line = Vec::with_capacity(1_024);
    serde_json::to_writer(&mut line, &AuditEvent::Decision(event)).unwrap();
    line
}

/// What making one thing allocates.
fn count<T>(make: impl FnOnce() -> T) -> u64 {
    measure(|| {
        black_box(make());
    })
    .count_total
}

/// Answered by the service, from bytes to bytes, the trail included; what its writer allocates in its own thread is not counted.
fn whole_check(scene: &Scene) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (service, _folder) = scene.service(&runtime);
    let bytes = scene.check();
    let ask = || drop(runtime.block_on(service.check(&bytes, None)).unwrap());
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
