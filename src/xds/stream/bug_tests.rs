//! Bugs that other control planes shipped: each must not happen here, in either protocol. Each test has the name of the projects and their
//! issues; `gcp` is go-control-plane. What only a real connection shows stands in `server::ads::tests`.

#![allow(clippy::unwrap_used, reason = "tests")]

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

use super::super::resource::{Resource, ResourceSet, TypeUrl};
use super::test_client::{Script, check, check_whole, parse_set, received, shown};
use super::{Delta, DeltaStream, Limits, StateOfTheWorldStream, StreamEvent};

#[test]
fn gcp_59_544_752_801_types_are_sent_in_random_order() {
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
    for _ in 0..20 {
        check_whole(
            "set ->
             ask cds -> cds
             ack cds ->
             ask sds +s ->
             ask eds +a ->
             ask lds -> lds
             ack lds ->
             ask rds +r ->
             set cds/a=1 eds/a=1 lds/l=1 rds/r=1 sds/s=1 -> cds +a=1 | eds +a=1 | sds +s=1
             ack cds -> lds +l=1 | rds +r=1",
        );
    }
}

#[test]
fn gcp_583_kuma_12098_java_127_287_envoy_control_70_a_request_whose_names_lag_the_snapshot_is_never_answered() {
    check(
        "set cds/a=1 cds/b=1 eds/a=1 eds/b=1 ->
         ask cds -> cds +a=1 +b=1
         ask eds +a +gone -> eds +a=1 -gone
         ack eds +b -> eds +b=1",
    );
    check_whole(
        "set cds/a=1 cds/b=1 eds/a=1 eds/b=1 ->
         ask cds -> cds +a=1 +b=1
         ask eds +a +gone -> eds +a=1
         ack eds +b -> eds +b=1",
    );
}

#[test]
fn gcp_1298_1299_1300_1301_watches_leak_names_are_missed_and_answers_are_partial() {
    check(
        "set rds/r=1 rds/q=1 ->
         ask rds +r -> rds +r=1
         ack rds +q -> rds +q=1
         ack rds ->
         set rds/r=2 rds/q=2 -> rds +q=2 +r=2",
    );
    check_whole(
        "set lds/l=1 lds/m=1 rds/r=1 rds/q=1 ->
         ask lds +l -> lds +l=1
         ack lds +m -> lds +l=1 +m=1
         ack lds ->
         ask rds +r -> rds +r=1
         ack rds +q -> rds +q=1
         ack rds ->
         set lds/l=1 lds/m=2 rds/r=2 rds/q=2 -> lds +l=1 +m=2 | rds +q=2 +r=2",
    );
}

#[test]
fn gcp_1319_a_name_that_is_not_there_makes_a_loop() {
    check(
        "set ->
         ask sds +nowhere -> sds -nowhere
         ack sds ->
         ask sds ->
         set cds/a=1 ->
         set ->",
    );
    check_whole(
        "set lds/l=1 ->
         ask sds +nowhere ->
         ask sds ->
         ask lds +nowhere -> lds
         ack lds ->
         ask lds ->
         set lds/l=1 cds/a=1 ->",
    );
}

#[test]
fn gcp_1498_a_response_that_waited_is_sent_after_the_client_unsubscribed() {
    check(
        "set sds/s=1 sds/t=1 ->
         ask sds +s +t -> sds +s=1 +t=1
         set sds/s=2 sds/t=2 ->
         stale sds -s ->
         ack sds -> sds +t=2
         ack sds -t ->",
    );
    check_whole(
        "set sds/s=1 sds/t=1 ->
         ask sds +s +t -> sds +s=1 +t=1
         set sds/s=2 sds/t=2 ->
         ack sds -s -> sds +t=2
         ack sds -t ->
         set sds/s=3 sds/t=3 ->",
    );
}

#[test]
fn gcp_458_399_508_a_stream_stops_watching_after_its_first_response() {
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
    check_whole(
        "set sds/s=1 ->
         ask sds +s -> sds +s=1
         ack sds ->
         set sds/s=2 -> sds +s=2
         ack sds ->
         set sds/s=3 -> sds +s=3
         ack sds ->
         set ->
         set sds/s=3 -> sds +s=3",
    );
}

#[test]
fn gcp_570_913_916_1036_579_an_unknown_type_panics() {
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
        let mut stream = StateOfTheWorldStream::new(Limits::default());
        let request = DiscoveryRequest { type_url: type_url.into(), resource_names: vec!["x".into()], ..DiscoveryRequest::default() };
        assert_eq!(stream.on_request(request, &ResourceSet::default()), Ok(Vec::new()));
    }
}

#[test]
fn gcp_238_java_98_resources_are_encoded_again_for_each_client() {
    let set = parse_set("cds/a=1");
    let copy = set.clone();
    let (one, other) = (set.get(TypeUrl::Cluster, "a").unwrap(), copy.get(TypeUrl::Cluster, "a").unwrap());
    assert!(std::sync::Arc::ptr_eq(one, other));
}

#[test]
fn istio_28402_36273_a_cluster_is_pushed_without_its_endpoints() {
    check(
        "set cds/a=1 cds/b=1 eds/a=1 eds/b=1 ->
         ask cds -> cds +a=1 +b=1
         ask eds +a +b -> eds +a=1 +b=1
         ack eds ->
         ack cds ->
         set cds/a=2 cds/b=2 eds/a=1 eds/b=1 -> cds +a=2 +b=2 | eds +a=1 +b=1",
    );
    check_whole(
        "set cds/a=1 cds/b=1 eds/a=1 eds/b=1 ->
         ask cds -> cds +a=1 +b=1
         ask eds +a +b -> eds +a=1 +b=1
         ack eds ->
         ack cds ->
         set cds/a=2 cds/b=2 eds/a=1 eds/b=1 -> cds +a=2 +b=2 | eds +a=1 +b=1",
    );
}

#[test]
fn istio_34949_39960_an_update_of_one_endpoint_removes_the_others() {
    check(
        "set eds/a=1 eds/b=1 eds/c=1 ->
         ask eds +a +b +c -> eds +a=1 +b=1 +c=1
         ack eds ->
         set eds/a=1 eds/b=2 eds/c=1 -> eds +b=2",
    );
    check_whole(
        "set eds/a=1 eds/b=1 eds/c=1 ->
         ask eds +a +b +c -> eds +a=1 +b=1 +c=1
         ack eds ->
         set eds/a=1 eds/b=2 eds/c=1 -> eds +b=2
         ack eds ->
         ask eds -> ",
    );
}

/// A client that reconnects while a cluster warms lists endpoints that it holds, but needs them again.
#[test]
fn istio_50579_named_resources_are_skipped_as_current_after_a_reconnect() {
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
    check_whole(
        "set cds/a=1 eds/a=1 ->
         ask cds -> cds +a=1
         ask eds +a -> eds +a=1
         ack eds ->
         ack cds ->
         reconnect ->
         ask eds +a -> eds +a=1",
    );
}

#[test]
fn istio_41494_initial_resource_versions_are_ignored() {
    check(
        "set cds/a=1 lds/l=1 ->
         ask cds have:a=1 have:stale=7 -> cds -stale
         ask lds have:l=1 have:stale=7 -> lds -stale
         ask sds +s have:s=7 -> sds -s",
    );
}

/// The request that changes the subscription crosses a response: what counts is that the answer to that response repeats it.
#[test]
fn envoy_10363_a_stale_nonce_drops_a_change_of_the_subscription() {
    check_whole(
        "set eds/a=1 eds/b=1 ->
         ask eds +a -> eds +a=1
         ack eds ->
         set eds/a=2 eds/b=1 -> eds +a=2
         stale eds +b ->
         ack eds -> eds +b=1
         ack eds ->",
    );
    check(
        "set eds/a=1 eds/b=1 ->
         ask eds +a -> eds +a=1
         ack eds ->
         set eds/a=2 eds/b=1 -> eds +a=2
         stale eds +b ->
         ack eds -> eds +b=1
         ack eds ->",
    );
}

/// After a refusal and a reconnect Envoy may never ask for clusters again. Only an alarm can help: the state shows it.
#[test]
fn envoy_34334_36951_nobody_sees_that_a_type_was_never_asked_for() {
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

#[test]
fn consul_10381_a_parent_update_does_not_send_its_children_again() {
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
    check_whole(
        "set cds/a=1 eds/a=1 lds/l=1 rds/r=1 ->
         ask cds -> cds +a=1
         ask eds +a -> eds +a=1
         ack eds ->
         ack cds ->
         ask lds -> lds +l=1
         ack lds ->
         ask rds +r -> rds +r=1
         ack rds ->
         set cds/a=2 eds/a=1 lds/l=1 rds/r=1 -> cds +a=2 | eds +a=1
         ack eds ->
         ack cds ->
         set cds/a=2 eds/a=1 lds/l=2 rds/r=1 -> lds +l=2 | rds +r=1",
    );
}

#[test]
fn envoy_gateway_8889_equal_content_is_sent_again() {
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

/// It ignores the names of a subscription, and takes a refused version as held, so that its orphans stay.
#[test]
fn pomerium_xdsmgr_the_names_of_a_subscription_are_ignored_and_refused_names_stay() {
    let mut script = Script::new();
    script.run(
        "set sds/mine=1 sds/other=1 cds/a=1 ->
         ask sds +mine -> sds +mine=1
         ask cds -> cds +a=1
         nack cds ->
         set sds/mine=1 sds/other=2 -> cds -a",
    );
    let shown_again: Vec<String> = received::<Delta>(script.stream.on_snapshot(&script.set)).iter().map(shown).collect();
    assert_eq!(shown_again, Vec::<String>::new());
    check_whole(
        "set sds/mine=1 sds/other=1 cds/a=1 ->
         ask sds +mine -> sds +mine=1
         ask cds -> cds +a=1
         nack cds ->
         set sds/mine=1 sds/other=2 -> cds",
    );
}
