//! A reload: the text to a snapshot, the snapshot to Envoy's resources, and what one stream then has to push.

use divan::{Bencher, black_box};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use kubepass::snapshot::Snapshot;
use kubepass::xds::resource::{ResourceSet, TypeUrl};
use kubepass::xds::resources;
use kubepass::xds::stream::{DeltaStream, Limits};
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

/// One route's host has changed, and one Envoy is told.
#[divan::bench(args = ROUTES, sample_count = 10, sample_size = 1)]
fn xds_diff(bencher: Bencher<'_, '_>, routes: usize) {
    let before = resources::build(&scene::snapshot(routes, 2, Method::Impersonate)).unwrap();
    let text = scene::configuration(routes, 2, Method::Impersonate).replacen("10.0.0.1:6443", "10.0.0.2:6443", 1);
    let after = resources::build(&Snapshot::new(Arc::new(scene::config(&text)), "fedcba9876543210")).unwrap();
    bencher.with_inputs(|| subscribed(&before)).bench_local_values(|mut stream| {
        let pushed = stream.on_snapshot(black_box(&after));
        assert!(!pushed.is_empty());
        pushed
    });
}

/// A stream whose Envoy has taken all of a set.
fn subscribed(set: &ResourceSet) -> DeltaStream {
    let mut stream = DeltaStream::new(Limits::default());
    for kind in TypeUrl::ALL {
        let wildcard = matches!(kind, TypeUrl::Cluster | TypeUrl::Listener);
        let names = if wildcard { Vec::new() } else { set.resources(kind).map(|resource| resource.name.to_string()).collect() };
        let ask =
            DeltaDiscoveryRequest { type_url: kind.as_str().into(), resource_names_subscribe: names, ..DeltaDiscoveryRequest::default() };
        let mut answers = stream.on_request(ask, set).unwrap();
        while let Some(DeltaDiscoveryResponse { type_url, nonce, .. }) = answers.pop() {
            let ack = DeltaDiscoveryRequest { type_url, response_nonce: nonce, ..DeltaDiscoveryRequest::default() };
            answers.extend(stream.on_request(ack, set).unwrap());
        }
    }
    stream
}
