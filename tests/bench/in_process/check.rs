//! A check, part by part in its order, and whole; then how it grows with what there is.

use divan::{Bencher, black_box};
use kubepass::access::{Outcome, authenticate, decide};
use kubepass::audit::decision_event;
use kubepass::kubernetes::request_info::RequestInfo;
use kubepass::server::ext_authz::convert::{self, Minted};
use kubepass::server::ext_authz::question;
use kubepass::session::SessionTable;
use kubepass::snapshot::NodeView;

use super::scene::{Method, PATH, Scene};

#[divan::bench]
fn a_read(bencher: Bencher<'_, '_>) {
    let bytes = Scene::usual(Method::Impersonate).check();
    bencher.bench(|| black_box(question::read(black_box(&bytes), NodeView::UNNAMED).unwrap()).headers.malformed);
}

#[divan::bench]
fn c_token_hot(bencher: Bencher<'_, '_>) {
    let scene = Scene::usual(Method::Impersonate);
    let ask = |sessions: &SessionTable| sessions.authenticate(scene.snapshot.token_keys(), &scene.token, &scene.host, scene.now).unwrap();
    ask(&scene.sessions);
    bencher.bench(|| ask(black_box(&scene.sessions)));
}

/// A token that was not seen before: its signature is verified.
#[divan::bench]
fn c_token_cold(bencher: Bencher<'_, '_>) {
    let scene = Scene::usual(Method::Impersonate);
    bencher.bench(|| scene.snapshot.token_keys().verify_session_token(black_box(&scene.token), &scene.host, scene.now).unwrap());
}

#[divan::bench]
fn d_request_info() -> usize {
    RequestInfo::parse(black_box("GET"), black_box(PATH)).unwrap().resource.len()
}

/// Authentication included: `decide` takes its result.
#[divan::bench]
fn e_authenticate_and_decide(bencher: Bencher<'_, '_>) {
    bench_decide(bencher, &Scene::usual(Method::Impersonate));
}

#[divan::bench]
fn f_audit_event(bencher: Bencher<'_, '_>) {
    let scene = Scene::usual(Method::Impersonate);
    let check = scene.check();
    let request = question::read(&check, NodeView::UNNAMED).unwrap();
    let decision = decide(&scene.snapshot, &request, authenticate(&scene.snapshot, &request, &scene.sessions, scene.now), scene.now);
    bencher.bench(|| serde_json::to_vec(&decision_event(&request, black_box(&decision), None, "0123456789abcdef")).unwrap());
}

#[divan::bench]
fn g_encode(bencher: Bencher<'_, '_>) {
    let scene = Scene::usual(Method::Impersonate);
    let check = scene.check();
    let request = question::read(&check, NodeView::UNNAMED).unwrap();
    let decision = decide(&scene.snapshot, &request, authenticate(&scene.snapshot, &request, &scene.sessions, scene.now), scene.now);
    let Outcome::Allow(grant) = &decision.outcome else { panic!("{:?}", decision.outcome) };
    bencher.bench(|| convert::grant(black_box(grant), &Minted::Nothing, request.request_id));
}

/// Everything but the transport: decode, decide, write the audit line, encode.
#[divan::bench]
fn h_whole_check(bencher: Bencher<'_, '_>) {
    bench_whole_check(bencher, Method::Impersonate);
}

/// The same where the API server gets a signed token.
#[divan::bench]
fn h_whole_check_jwt(bencher: Bencher<'_, '_>) {
    bench_whole_check(bencher, Method::Jwt);
}

fn bench_whole_check(bencher: Bencher<'_, '_>, method: Method) {
    let scene = Scene::usual(method);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (service, _folder) = scene.service(&runtime);
    let bytes = scene.check();
    bencher.bench_local(|| runtime.block_on(service.check(black_box(&bytes), None)).unwrap());
}

#[divan::bench(args = [1, 5, 50, 500])]
fn with_rules(bencher: Bencher<'_, '_>, rules: usize) {
    bench_decide(bencher, &Scene::new(1, rules, 1, 2));
}

#[divan::bench(args = [0, 2, 16, 64])]
fn with_groups(bencher: Bencher<'_, '_>, groups: usize) {
    bench_decide(bencher, &Scene::new(1, 5, 1, groups));
}

#[divan::bench(args = [1, 100, 1_000, 10_000])]
fn with_routes(bencher: Bencher<'_, '_>, routes: usize) {
    bench_decide(bencher, &Scene::new(routes, 2, 1, 2));
}

#[divan::bench(args = [10, 1_000, 100_000, 1_000_000])]
fn with_sessions(bencher: Bencher<'_, '_>, sessions: usize) {
    bench_decide(bencher, &Scene::new(1, 5, sessions, 2));
}

fn bench_decide(bencher: Bencher<'_, '_>, scene: &Scene) {
    let check = scene.check();
    let request = question::read(&check, NodeView::UNNAMED).unwrap();
    bencher.bench(|| {
        let session = authenticate(&scene.snapshot, black_box(&request), &scene.sessions, scene.now);
        let decision = decide(&scene.snapshot, &request, session, scene.now);
        assert!(matches!(decision.outcome, Outcome::Allow(_)), "{:?}", decision.outcome);
    });
}
