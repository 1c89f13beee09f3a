//! Bugs that other control planes shipped, as far as they concern the delta protocol: each must not happen here. The names are of the
//! projects and their issues.

#![allow(clippy::unwrap_used, reason = "tests")]

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::super::resource::{Resource, ResourceSet, TypeUrl};
use super::test_client::{Script, check, parse_set, shown};
use super::{DeltaStream, Limits, StreamEvent};

/// go-control-plane 59, 544, 752, 801.
#[test]
fn types_are_sent_in_random_order() {
    for _ in 0..20 {
        check(
            "set ->
             ask cds -> cds
             ack cds ->
             ask sds +s -> sds -s
             ack sds ->
             ask eds +a -> eds -a
             ack eds ->
             ask lds -> lds
             ack lds ->
             ask rds +r -> rds -r
             ack rds ->
             set cds/a=1 eds/a=1 lds/l=1 rds/r=1 sds/s=1 -> cds +a=1 | eds +a=1 | sds +s=1
             ack cds -> lds +l=1 | rds +r=1",
        );
    }
}

/// go-control-plane 583, kuma 12098, java-control-plane 127 and 287, allegro envoy-control 70.
#[test]
fn a_request_whose_names_lag_the_snapshot_is_never_answered() {
    check(
        "set cds/a=1 cds/b=1 eds/a=1 eds/b=1 ->
         ask cds -> cds +a=1 +b=1
         ask eds +a +gone -> eds +a=1 -gone
         ack eds +b -> eds +b=1",
    );
}

/// go-control-plane 1298 to 1301.
#[test]
fn newly_subscribed_resources_are_missed() {
    check(
        "set rds/r=1 rds/q=1 ->
         ask rds +r -> rds +r=1
         ack rds +q -> rds +q=1
         ack rds ->
         set rds/r=2 rds/q=2 -> rds +q=2 +r=2",
    );
}

/// go-control-plane 1319.
#[test]
fn a_name_that_is_not_there_makes_a_loop() {
    check(
        "set ->
         ask sds +nowhere -> sds -nowhere
         ack sds ->
         ask sds ->
         set cds/a=1 ->
         set ->",
    );
}

/// go-control-plane 1498.
#[test]
fn a_response_that_waited_is_sent_after_the_client_unsubscribed() {
    check(
        "set sds/s=1 sds/t=1 ->
         ask sds +s +t -> sds +s=1 +t=1
         set sds/s=2 sds/t=2 ->
         stale sds -s ->
         ack sds -> sds +t=2
         ack sds -t ->",
    );
}

/// go-control-plane 458, 399, 508.
#[test]
fn a_stream_stops_watching_after_its_first_response() {
    check(
        "set sds/s=1 ->
         ask sds +s -> sds +s=1
         ack sds ->
         set sds/s=2 -> sds +s=2
         ack sds ->
         set sds/s=3 -> sds +s=3
         ack sds ->
         set -> sds -s
         ack sds ->
         set sds/s=3 -> sds +s=3",
    );
}

/// go-control-plane 570, 913, 916, 1036, 579.
#[test]
fn an_unknown_type_panics() {
    let mut stream = DeltaStream::new(Limits::default());
    for type_url in ["", "type.googleapis.com/envoy.service.runtime.v3.Runtime", "\u{0}\u{7f}"] {
        let request = DeltaDiscoveryRequest {
            type_url: type_url.into(),
            resource_names_subscribe: vec!["x".into()],
            response_nonce: "1".into(),
            ..DeltaDiscoveryRequest::default()
        };
        assert_eq!(stream.on_request(request, &ResourceSet::default()), Ok(Vec::new()));
        assert!(matches!(stream.take_events().as_slice(), [StreamEvent::UnknownType { .. }]));
    }
}

/// go-control-plane 238, java-control-plane 98.
#[test]
fn resources_are_encoded_again_for_each_client() {
    let set = parse_set("cds/a=1");
    let copy = set.clone();
    let (one, other) = (set.get(TypeUrl::Cluster, "a").unwrap(), copy.get(TypeUrl::Cluster, "a").unwrap());
    assert_eq!(one.body.as_ptr(), other.body.as_ptr());
}

/// istio 28402, 36273.
#[test]
fn a_cluster_is_pushed_without_its_endpoints() {
    check(
        "set cds/a=1 cds/b=1 eds/a=1 eds/b=1 ->
         ask cds -> cds +a=1 +b=1
         ask eds +a +b -> eds +a=1 +b=1
         ack eds ->
         ack cds ->
         set cds/a=2 cds/b=2 eds/a=1 eds/b=1 -> cds +a=2 +b=2 | eds +a=1 +b=1",
    );
}

/// istio 34949, 39960.
#[test]
fn an_update_of_one_endpoint_removes_the_others() {
    check(
        "set eds/a=1 eds/b=1 eds/c=1 ->
         ask eds +a +b +c -> eds +a=1 +b=1 +c=1
         ack eds ->
         set eds/a=1 eds/b=2 eds/c=1 -> eds +b=2",
    );
}

/// istio 50579, 33607 of Envoy: a client that reconnects while a cluster warms lists endpoints that it holds, but needs them again.
#[test]
fn named_resources_are_skipped_as_current_after_a_reconnect() {
    check(
        "set cds/a=1 eds/a=1 ->
         ask cds -> cds +a=1
         ask eds +a -> eds +a=1
         ack eds ->
         ack cds ->
         reconnect ->
         set cds/a=2 eds/a=1 ->
         ask cds have:a=1 -> cds +a=2
         ask eds +a have:a=1 -> eds +a=1
         ack eds ->
         ack cds ->
         reconnect ->
         ask eds +a have:a=1 -> eds +a=1",
    );
}

/// istio 41494.
#[test]
fn initial_resource_versions_are_ignored() {
    check(
        "set cds/a=1 lds/l=1 ->
         ask cds have:a=1 have:stale=7 -> cds -stale
         ask lds have:l=1 have:stale=7 -> lds -stale
         ask sds +s have:s=7 -> sds -s",
    );
}

/// Envoy 34334, 36951: after a refusal and a reconnect Envoy may never ask for clusters again. Only an alarm can help: the state shows it.
#[test]
fn nobody_sees_that_a_type_was_never_asked_for() {
    let mut script = Script::new();
    script.run(
        "set cds/a=1 lds/l=1 ->
         ask cds -> cds +a=1
         nack cds ->
         reconnect ->
         ask lds -> lds +l=1
         ack lds ->",
    );
    assert!(!script.stream.state(TypeUrl::Cluster).requested);
    assert_eq!(script.stream.state(TypeUrl::Cluster).acknowledged, None);
    assert!(script.stream.state(TypeUrl::Listener).requested);
}

/// consul 10381.
#[test]
fn a_listener_update_does_not_send_its_routes_again() {
    check(
        "set lds/l=1 rds/r=1 ->
         ask lds -> lds +l=1
         ack lds ->
         ask rds +r -> rds +r=1
         ack rds ->
         set lds/l=2 rds/r=1 -> lds +l=2 | rds +r=1
         ack lds ->
         ack rds ->
         set rds/r=1 -> lds -l",
    );
}

/// Envoy Gateway 8889.
#[test]
fn equal_content_is_sent_again() {
    let message = |alt: &str| envoy_types::pb::envoy::config::listener::v3::Listener { stat_prefix: alt.into(), ..Default::default() };
    let set = |alt| {
        let mut builder = ResourceSet::builder();
        builder.insert(TypeUrl::Listener, Resource::new("l", &message(alt))).unwrap();
        builder.build()
    };
    let mut stream = DeltaStream::new(Limits::default());
    let request = DeltaDiscoveryRequest { type_url: TypeUrl::Listener.as_str().into(), ..DeltaDiscoveryRequest::default() };
    let nonce = stream.on_request(request.clone(), &set("x")).unwrap().remove(0).nonce;
    assert_eq!(stream.on_request(DeltaDiscoveryRequest { response_nonce: nonce, ..request }, &set("x")), Ok(Vec::new()));
    assert_eq!(stream.on_snapshot(&set("x")), Vec::new());
    assert_eq!(stream.on_snapshot(&set("y")).len(), 1);
}

/// pomerium's server ignores the names of a subscription, and takes a refused version as held, so that its orphans stay.
#[test]
fn the_names_of_a_subscription_are_ignored_and_refused_names_stay() {
    let mut script = Script::new();
    script.run(
        "set sds/mine=1 sds/other=1 cds/a=1 ->
         ask sds +mine -> sds +mine=1
         ask cds -> cds +a=1
         nack cds ->
         set sds/mine=1 sds/other=2 -> cds -a",
    );
    let shown_again: Vec<String> = script.stream.on_snapshot(&script.set).iter().map(shown).collect();
    assert_eq!(shown_again, Vec::<String>::new());
}
