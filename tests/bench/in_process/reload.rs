//! A reload: the text to a snapshot, the snapshot to Envoy's resources, and what one stream then has to push.

use divan::{Bencher, black_box};
use kubepass::snapshot::Snapshot;
use kubepass::xds::resources::{self, Maker};
use std::sync::Arc;

use super::scene::{self, Method};

const ROUTES: [usize; 3] = [100, 1_000, 10_000];

#[divan::bench(args = ROUTES, sample_count = 3, sample_size = 1)]
fn snapshot(bencher: Bencher<'_, '_>, routes: usize) {
    let text = scene::configuration(routes, 2, Method::Impersonate);
    bencher.bench(|| Snapshot::new(Arc::new(scene::config(black_box(&text))), "0123456789abcdef"));
}

#[divan::bench(args = ROUTES, sample_count = 3, sample_size = 1)]
fn resources(bencher: Bencher<'_, '_>, routes: usize) {
    let snapshot = scene::snapshot(routes, 2, Method::Impersonate);
    bencher.bench(|| resources::build(black_box(&snapshot)).unwrap());
}

/// One route has changed, and changes back: the sets after those before.
#[divan::bench(args = ROUTES, sample_count = 20, sample_size = 1)]
fn next_sets(bencher: Bencher<'_, '_>, routes: usize) {
    let text = scene::configuration(routes, 2, Method::Impersonate);
    let one = Arc::new(scene::config(&text));
    let other = Arc::new(scene::config_after(&one, &text.replacen("https://10.0.11.1:6443", "https://10.0.11.2:6443", 1)));
    let [one, other] = [(one, "0123456789abcdef"), (other, "fedcba9876543210")].map(|(config, hash)| Snapshot::new(config, hash));
    let mut maker = Maker::default();
    maker.make(&one).unwrap();
    let mut turns = [&other, &one].into_iter().cycle();
    bencher.with_inputs(|| turns.next().unwrap()).bench_local_values(|snapshot| drop(maker.make(black_box(snapshot)).unwrap()));
}

/// One route's host has changed, and one Envoy is told.
#[divan::bench(args = ROUTES, sample_count = 10, sample_size = 1)]
fn xds_diff(bencher: Bencher<'_, '_>, routes: usize) {
    let before = resources::build(&scene::snapshot(routes, 2, Method::Impersonate)).unwrap();
    let text = scene::configuration(routes, 2, Method::Impersonate).replacen("10.0.0.1:6443", "10.0.0.2:6443", 1);
    let after = resources::build(&Snapshot::new(Arc::new(scene::config(&text)), "fedcba9876543210")).unwrap();
    bencher.with_inputs(|| scene::subscribed(&before)).bench_local_values(|mut stream| {
        let pushed = stream.on_snapshot(black_box(&after));
        assert!(!pushed.is_empty());
        pushed
    });
}
