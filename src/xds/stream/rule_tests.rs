//! The rules of the delta protocol, each as a script (see `test_client`).

#![allow(clippy::unwrap_used, reason = "tests")]

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::google::rpc::Status;

use super::super::resource::{ResourceSet, TypeUrl};
use super::test_client::{Script, check, check_whole, parse_set};
use super::{Delta, DeltaStream, Limits, StreamError, StreamEvent};

#[test]
fn no_names_at_first_are_the_wildcard_for_clusters_and_listeners() {
    check(
        "set cds/a=1 cds/b=1 eds/a=1 lds/l=1 rds/r=1 sds/s=1 ->
         ask cds -> cds +a=1 +b=1
         ask lds -> lds +l=1
         ask eds ->
         ask rds ->
         ask sds ->",
    );
}

#[test]
fn the_explicit_wildcard_gives_everything() {
    check(
        "set cds/a=1 sds/s=1 sds/t=1 ->
         ask cds +* -> cds +a=1
         ask sds +* -> sds +s=1 +t=1
         ack sds -* ->
         set cds/a=1 sds/s=2 sds/t=2 ->
         ask sds +* -> sds +s=2 +t=2",
    );
}

#[test]
fn the_wildcard_covers_what_was_on_its_way_when_its_name_was_dropped() {
    check(
        "set lds/l=1 ->
         ask lds +l -> lds +l=1
         stale lds -l ->
         set ->
         ack lds +* -> lds -l",
    );
}

#[test]
fn a_wildcard_without_resources_gets_an_empty_first_answer() {
    check(
        "set ->
         ask cds -> cds
         ack cds ->
         ask lds +* -> lds
         ack lds ->
         set cds/a=1 -> cds +a=1",
    );
}

#[test]
fn empty_lists_after_names_mean_no_change() {
    check(
        "set cds/a=1 cds/b=1 ->
         ask cds +a -> cds +a=1
         ack cds ->
         ask cds ->
         ask cds -a ->
         ask cds ->
         set cds/a=2 cds/b=2 ->",
    );
}

#[test]
fn a_name_beside_the_legacy_wildcard_keeps_the_wildcard() {
    check(
        "set cds/a=1 cds/b=1 ->
         ask cds -> cds +a=1 +b=1
         ack cds +a -> cds +a=1
         ack cds ->
         set cds/a=2 cds/b=2 -> cds +a=2 +b=2",
    );
}

#[test]
fn a_name_taken_from_beside_the_wildcard_is_answered() {
    check(
        "set cds/a=1 ->
         ask cds +* +a +gone -> cds +a=1 -gone
         ack cds -a -> cds +a=1
         ack cds -gone -> cds -gone
         ack cds -never-asked ->
         ack cds -* ->
         set cds/a=2 ->",
    );
}

#[test]
fn every_name_asked_for_is_answered_even_if_it_is_held() {
    check(
        "set rds/r=1 rds/q=1 ->
         ask rds +r have:r=1 -> rds +r=1
         ack rds +r -> rds +r=1
         ack rds +r +q -> rds +q=1 +r=1",
    );
}

#[test]
fn unknown_names_are_answered_as_removed_and_pushed_when_they_appear() {
    check(
        "set sds/s=1 ->
         ask sds +s +t -> sds +s=1 -t
         ack sds ->
         set sds/s=1 sds/u=1 ->
         set sds/s=1 sds/t=1 -> sds +t=1
         ack sds ->
         set sds/s=1 -> sds -t
         ack sds ->
         set sds/s=1 sds/t=1 -> sds +t=1",
    );
}

#[test]
fn a_subscription_counts_even_with_a_stale_nonce() {
    check(
        "set eds/a=1 eds/b=1 ->
         ask eds +a -> eds +a=1
         stale eds +b ->
         ack eds -> eds +b=1
         stale eds -a ->
         ack eds ->
         set eds/a=2 eds/b=2 -> eds +b=2",
    );
}

#[test]
fn unsubscribing_needs_no_answer_and_what_is_unknown_is_ignored() {
    check(
        "set rds/r=1 sds/s=1 ->
         ask rds +r -> rds +r=1
         ack rds -r -other ->
         set rds/r=2 sds/s=1 ->
         ask sds -s ->
         ask sds +s -> sds +s=1
         ack sds +s -s -> sds +s=1",
    );
}

#[test]
fn a_reconnecting_client_gets_the_difference() {
    check(
        "set cds/a=1 cds/b=2 cds/c=1 lds/l=1 ->
         ask cds have:a=1 have:b=1 have:vanished=1 -> cds +b=2 +c=1 -vanished
         ack cds ->
         ask lds have:l=1 -> lds
         ack lds ->
         set cds/a=1 cds/b=2 cds/c=1 lds/l=2 -> lds +l=2",
    );
}

#[test]
fn initial_versions_count_on_the_first_request_only() {
    check(
        "set cds/a=1 ->
         ask cds -> cds +a=1
         ack cds have:a=1 have:z=1 ->",
    );
}

#[test]
fn endpoints_are_owed_after_each_cluster_push() {
    check(
        "set cds/a=1 cds/b=1 eds/a=1 eds/b=1 ->
         ask cds -> cds +a=1 +b=1
         ask eds +a +b -> eds +a=1 +b=1
         ack eds ->
         ack cds ->
         set cds/a=2 cds/b=1 eds/a=1 eds/b=1 -> cds +a=2 | eds +a=1
         ack eds ->
         ack cds ->",
    );
}

#[test]
fn endpoints_sent_before_the_cluster_do_not_count() {
    check(
        "set cds/a=1 eds/a=1 ->
         ask cds -> cds +a=1
         ask eds +a -> eds +a=1
         ack cds ->
         set cds/a=2 eds/a=1 -> cds +a=2
         ack eds -> eds +a=1
         ack eds ->
         ack cds ->",
    );
}

#[test]
fn a_client_without_the_assignment_of_a_pushed_cluster_is_told_so() {
    check(
        "set cds/a=1 ->
         ask cds -> cds +a=1
         ask eds +a -> eds -a
         ack eds ->
         ack cds ->
         set cds/a=2 -> cds +a=2 | eds -a",
    );
}

#[test]
fn one_response_at_a_time_and_the_latest_set_wins() {
    check(
        "set cds/a=1 ->
         ask cds -> cds +a=1
         set cds/a=2 ->
         set cds/a=3 cds/b=1 ->
         set cds/a=4 ->
         ack cds -> cds +a=4
         set cds/a=5 ->
         set cds/a=4 ->
         ack cds ->",
    );
}

#[test]
fn an_acknowledgement_of_something_else_does_not_count() {
    check(
        "set cds/a=1 ->
         ask cds -> cds +a=1
         set cds/a=2 ->
         stale cds ->
         ask cds ->
         ack cds -> cds +a=2",
    );
}

#[test]
fn a_refused_response_is_not_sent_again_until_something_changed() {
    check(
        "set cds/a=1 cds/b=1 ->
         ask cds -> cds +a=1 +b=1
         nack cds ->
         ask cds ->
         set cds/a=1 cds/b=1 ->
         set cds/a=1 cds/b=2 -> cds +b=2
         ack cds -> cds +a=1
         nack cds ->
         set cds/a=2 cds/b=2 -> cds +a=2
         ack cds ->",
    );
}

#[test]
fn what_was_refused_is_tried_once_more_by_itself_after_any_change() {
    check(
        "set cds/a=1 cds/b=1 ->
         ask cds -> cds +a=1 +b=1
         nack cds ->
         set cds/a=1 cds/b=1 cds/c=1 -> cds +c=1
         ack cds -> cds +a=1 +b=1
         nack cds ->
         set cds/a=1 cds/b=1 cds/c=1 lds/l=1 -> cds +a=1 +b=1
         ack cds ->",
    );
}

#[test]
fn a_change_that_came_before_the_refusal_counts_as_a_change() {
    check(
        "set cds/a=1 ->
         ask cds -> cds +a=1
         set cds/a=2 ->
         nack cds -> cds +a=2
         ack cds ->",
    );
}

#[test]
fn orphans_of_a_refused_response_are_removed() {
    check(
        "set cds/a=1 cds/bad=1 ->
         ask cds -> cds +a=1 +bad=1
         nack cds ->
         set cds/z=1 -> cds +z=1 -a -bad
         nack cds ->
         set cds/z=2 -> cds +z=2 -a -bad
         ack cds ->
         set cds/z=3 -> cds +z=3",
    );
}

#[test]
fn orphans_are_removed_on_the_next_stream_too() {
    check(
        "set cds/a=1 cds/bad=1 ->
         ask cds -> cds +a=1 +bad=1
         nack cds ->
         reconnect ->
         set ->
         ask cds -> cds -a -bad
         reconnect ->
         ask cds -> cds -a -bad
         ack cds ->
         reconnect ->
         ask cds -> cds",
    );
}

#[test]
fn a_version_that_the_client_lists_is_not_believed_where_it_refused() {
    // It lists the version it acknowledged, and may hold the refused one in part.
    check(
        "set cds/a=1 ->
         ask cds -> cds +a=1
         ack cds ->
         set cds/a=2 -> cds +a=2
         nack cds ->
         reconnect ->
         set cds/a=1 ->
         ask cds have:a=1 -> cds +a=1",
    );
}

#[test]
fn types_go_in_order_and_routes_wait_for_clusters() {
    check(
        "set cds/a=1 eds/a=1 lds/l=1 rds/r=1 sds/s=1 ->
         ask cds -> cds +a=1
         ask eds +a -> eds +a=1
         ack eds ->
         ack cds ->
         ask lds -> lds +l=1
         ask rds +r -> rds +r=1
         ask sds +s -> sds +s=1
         ack lds ->
         ack rds ->
         ack sds ->
         set cds/a=2 eds/a=2 lds/l=2 rds/r=2 sds/s=2 -> cds +a=2 | eds +a=2 | sds +s=2
         ack eds ->
         ack sds ->
         ack cds -> lds +l=2 | rds +r=2
         ack rds ->
         ack lds ->",
    );
}

#[test]
fn clusters_are_removed_after_the_routes_have_moved() {
    check(
        "set cds/old=1 eds/old=1 lds/l=1 rds/r=1 ->
         ask cds -> cds +old=1
         ask eds +old -> eds +old=1
         ack eds ->
         ack cds ->
         ask lds -> lds +l=1
         ack lds ->
         ask rds +r -> rds +r=1
         ack rds ->
         set cds/new=1 eds/new=1 lds/l=1 rds/r=2 -> cds +new=1
         ask eds +new -> eds +new=1
         ack eds ->
         ack cds -> rds +r=2
         ack rds -> cds -old
         ask eds -old ->
         ack cds ->",
    );
}

#[test]
fn a_new_route_does_not_overtake_its_cluster_behind_a_response_that_gives_none() {
    let removal = |check: fn(&str), removed: &str| {
        let script = "set cds/old=1 lds/l=1 rds/r=1 ->
             ask cds -> cds +old=1
             ack cds ->
             ask lds -> lds +l=1
             ack lds ->
             ask rds +r -> rds +r=1
             ack rds ->
             set lds/l=1 rds/r=2 -> rds +r=2
             ack rds -> REMOVED
             set cds/new=1 lds/l=2 rds/r=3 ->
             ack cds -> cds +new=1
             ack cds -> lds +l=2 | rds +r=3";
        check(&script.replace("REMOVED", removed));
    };
    removal(check, "cds -old");
    removal(check_whole, "cds");
    let empty = |check: fn(&str), unknown: &str| {
        let script = "set ->
             ask cds -> cds
             ask lds -> lds
             ack lds ->
             ask rds +r -> UNKNOWN
             set cds/a=1 lds/l=1 rds/r=1 ->
             ack cds -> cds +a=1
             ack cds -> lds +l=1 | rds +r=1";
        check(&script.replace("UNKNOWN", unknown));
    };
    empty(check, "rds -r\n ack rds ->");
    empty(check_whole, "");
}

#[test]
fn a_refused_cluster_does_not_hold_up_the_routes() {
    check(
        "set cds/a=1 rds/r=1 ->
         ask cds -> cds +a=1
         ack cds ->
         ask rds +r -> rds +r=1
         ack rds ->
         set cds/b=1 rds/r=2 -> cds +b=1
         nack cds -> rds +r=2
         ack rds -> cds -a",
    );
}

#[test]
fn answers_to_what_is_asked_for_do_not_wait_for_other_types() {
    check(
        "set cds/a=1 lds/l=1 rds/r=1 ->
         ask cds -> cds +a=1
         ask lds -> lds +l=1
         ask rds +r -> rds +r=1",
    );
}

#[test]
fn the_acknowledged_version_is_the_sets_once_all_is_taken() {
    let mut script = Script::new();
    let state = |script: &Script<Delta>| script.stream.state(TypeUrl::Cluster);
    assert!(!state(&script).requested);
    script.run("set cds/a=1 ->\n ask cds -> cds +a=1");
    assert!(state(&script).requested && state(&script).in_flight);
    assert_eq!(state(&script).acknowledged, None);
    script.run("ack cds ->");
    let first = script.set.type_version(TypeUrl::Cluster).to_owned();
    assert_eq!(state(&script).acknowledged, Some(first.clone()));
    script.run("set cds/a=2 -> cds +a=2\n nack cds ->");
    assert_eq!((state(&script).acknowledged, state(&script).doubtful), (Some(first), 1));
    script.run("set cds/a=3 -> cds +a=3\n ack cds ->");
    assert_eq!(state(&script).acknowledged.as_deref(), Some(script.set.type_version(TypeUrl::Cluster)));
    assert_eq!(state(&script).doubtful, 0);
}

#[test]
fn what_happens_is_told() {
    let mut script = Script::new();
    script.run("set cds/a=1 cds/b=1 ->\n ask cds have:z=1 -> cds +a=1 +b=1 -z\n ack cds ->");
    let (kind, version) = (TypeUrl::Cluster, script.set.type_version(TypeUrl::Cluster).to_owned());
    let pushed = StreamEvent::Pushed { kind, nonce: "1".into(), resources: 2, removed: 1, bytes: 6 };
    assert_eq!(script.stream.take_events(), [pushed, StreamEvent::Acked { kind, nonce: "1".into(), version }]);
    script.run("set cds/a=2 cds/b=1 -> cds +a=2\n nack cds ->\n nack cds ->");
    let pushed = StreamEvent::Pushed { kind, nonce: "2".into(), resources: 1, removed: 0, bytes: 3 };
    let nacked = StreamEvent::Nacked { kind, nonce: "2".into(), message: "refused".into() };
    assert_eq!(script.stream.take_events(), [pushed, nacked], "a refusal counts once");
}

#[test]
fn a_refusal_never_shows_a_secret() {
    let message = |type_url: TypeUrl, text: &str| {
        let set = parse_set("sds/s=1 cds/s=1");
        let mut stream = DeltaStream::new(Limits::default());
        let request = DeltaDiscoveryRequest { type_url: type_url.as_str().into(), ..DeltaDiscoveryRequest::default() };
        let asked = DeltaDiscoveryRequest { resource_names_subscribe: vec!["s".into()], ..request.clone() };
        let nonce = stream.on_request(asked, &set).unwrap().remove(0).nonce;
        let error_detail = Some(Status { message: text.into(), ..Status::default() });
        stream.on_request(DeltaDiscoveryRequest { response_nonce: nonce, error_detail, ..request }, &set).unwrap();
        stream
            .take_events()
            .into_iter()
            .find_map(|e| if let StreamEvent::Nacked { message, .. } = e { Some(message) } else { None })
            .unwrap()
    };
    let quoting = "Proto constraint validation failed (X: Y): name: \"s\"\ntls_certificate {\n inline_string: \"KEY\" }";
    assert_eq!(message(TypeUrl::Secret, quoting), "Proto constraint validation failed (X: Y): name:...");
    assert_eq!(message(TypeUrl::Secret, "Failed to load private key\r\nKEY"), "Failed to load private key ...".replace(" ...", "..."));
    assert_eq!(message(TypeUrl::Cluster, "bad \"x\"\u{1b}[2J\n{}"), "bad \"x\" [2J {}");
    assert_eq!(message(TypeUrl::Cluster, &"é".repeat(5000)).chars().count(), 1024);
}

#[test]
fn too_many_names_and_invalid_names_end_the_stream() {
    let check = |subscribe: &[&str], listed: usize, expected: Result<usize, StreamError>| {
        let mut stream = DeltaStream::new(Limits { names_per_type: 3, ..Limits::default() });
        let request = DeltaDiscoveryRequest {
            type_url: TypeUrl::Secret.as_str().into(),
            resource_names_subscribe: subscribe.iter().map(|&name| name.into()).collect(),
            initial_resource_versions: (0..listed).map(|i| (i.to_string(), String::new())).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        let got = stream.on_request(request, &ResourceSet::default());
        assert_eq!(got.map(|responses| responses.len()), expected, "{subscribe:?}");
    };
    let too_many = Err(StreamError::TooManyNames { kind: TypeUrl::Secret, limit: 3 });
    check(&["a", "b", "c", "c"], 0, Ok(1));
    check(&["a", "b", "c", "d"], 0, too_many.clone());
    check(&["a"], 4, too_many);
    check(&[""], 0, Err(StreamError::InvalidName { kind: TypeUrl::Secret }));
    check(&[&"x".repeat(1025)], 0, Err(StreamError::InvalidName { kind: TypeUrl::Secret }));
}
