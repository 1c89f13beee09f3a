//! The rules of the state-of-the-world protocol, each as a script (see `test_client`).

#![allow(clippy::unwrap_used, reason = "tests")]

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;

use super::super::resource::{ResourceSet, TypeUrl};
use super::test_client::{Script, check_whole as check, parse_set};
use super::{Delta, Limits, StateOfTheWorld, StateOfTheWorldStream, StreamError, StreamEvent};

#[test]
fn no_names_are_the_wildcard_for_clusters_and_listeners_until_some_were_sent() {
    check(
        "set cds/a=1 cds/b=1 lds/l=1 rds/r=1 sds/s=1 ->
         ask cds -> cds +a=1 +b=1
         ack cds ->
         ask lds -> lds +l=1
         ask rds ->
         ask sds ->
         ask cds +a -> cds +a=1
         ack cds -a ->
         set cds/a=2 cds/b=2 lds/l=1 rds/r=1 sds/s=1 ->",
    );
}

#[test]
fn the_explicit_wildcard_gives_everything_until_it_is_left_out() {
    check(
        "set cds/a=1 cds/b=1 rds/r=1 ->
         ask cds +* -> cds +a=1 +b=1
         ack cds +a -> cds +a=1 +b=1
         ack cds -* ->
         set cds/a=1 cds/b=2 rds/r=1 ->
         set cds/a=2 cds/b=2 rds/r=1 -> cds +a=2
         ack cds +* -> cds +a=2 +b=2
         ask rds +* -> rds +r=1",
    );
}

#[test]
fn responses_about_clusters_and_listeners_are_complete() {
    check(
        "set cds/a=1 cds/b=1 lds/l=1 lds/m=1 ->
         ask cds -> cds +a=1 +b=1
         ack cds ->
         ask lds -> lds +l=1 +m=1
         ack lds ->
         set cds/a=1 cds/b=2 lds/l=2 lds/m=1 -> cds +a=1 +b=2
         ack cds -> lds +l=2 +m=1
         ack lds ->
         set cds/b=2 lds/m=1 -> lds +m=1
         ack lds -> cds +b=2
         ack cds ->
         set -> lds
         ack lds -> cds",
    );
}

#[test]
fn responses_about_other_types_hold_what_changed() {
    check(
        "set eds/a=1 eds/b=1 rds/r=1 rds/q=1 sds/s=1 sds/t=1 ecds/f=1 ecds/g=1 ->
         ask eds +a +b -> eds +a=1 +b=1
         ack eds ->
         ask rds +r +q -> rds +q=1 +r=1
         ack rds ->
         ask sds +s +t -> sds +s=1 +t=1
         ack sds ->
         ask ecds +f +g -> ecds +f=1 +g=1
         ack ecds ->
         set eds/a=2 eds/b=1 rds/r=1 rds/q=2 sds/s=1 sds/t=2 ecds/f=2 ecds/g=1 -> eds +a=2 | rds +q=2 | sds +t=2 | ecds +f=2",
    );
}

#[test]
fn a_wildcard_without_resources_gets_an_empty_first_answer() {
    check(
        "set ->
         ask cds -> cds
         ack cds ->
         ask lds -> lds
         ack lds ->
         set lds/l=1 -> lds +l=1",
    );
}

/// Of clusters and listeners, absence tells; of the rest nothing does, until the name appears.
#[test]
fn unknown_names_are_told_where_a_response_is_complete_and_pushed_when_they_appear() {
    check(
        "set lds/l=1 sds/s=1 ->
         ask lds +l +gone -> lds +l=1
         ack lds ->
         ask lds +l +gone +more -> lds +l=1
         ack lds ->
         ask sds +gone ->
         ask sds +s -> sds +s=1
         ack sds ->
         set lds/l=1 lds/gone=1 sds/s=1 sds/gone=1 -> lds +gone=1 +l=1 | sds +gone=1
         ack sds ->
         ack lds ->",
    );
}

#[test]
fn a_name_that_goes_and_comes_back_is_sent_again() {
    check(
        "set sds/s=1 ->
         ask sds +s -> sds +s=1
         ack sds ->
         set ->
         set sds/s=1 -> sds +s=1
         ack sds -s ->
         ack sds +s -> sds +s=1",
    );
}

#[test]
fn new_names_are_answered_and_old_ones_are_not_repeated() {
    check(
        "set eds/a=1 eds/b=1 eds/c=1 ->
         ask eds +a -> eds +a=1
         ack eds +b -> eds +b=1
         ack eds +c -a -> eds +c=1
         ack eds ->
         set eds/a=2 eds/b=1 eds/c=1 ->
         ack eds -b -c ->
         set eds/a=2 eds/b=2 eds/c=2 ->",
    );
}

#[test]
fn an_answer_to_an_older_response_is_ignored_whole() {
    let mut script = Script::<StateOfTheWorld>::serving(None);
    script.run(
        "set eds/a=1 eds/b=1 ->
         ask eds +a -> eds +a=1
         ack eds ->
         set eds/a=2 eds/b=1 -> eds +a=2
         stale eds +b ->
         ack eds -> eds +b=1
         stale eds -b ->
         ack eds ->",
    );
    let stale = script.stream.take_events().into_iter().filter(|event| matches!(event, StreamEvent::Stale { .. })).count();
    assert_eq!(stale, 2);
}

/// A client that keeps the nonce of its last stream would wait for ever.
#[test]
fn the_first_request_counts_whatever_its_nonce() {
    check(
        "set cds/a=1 ->
         stale cds -> cds +a=1
         ack cds ->",
    );
}

#[test]
fn a_client_that_connects_again_gets_everything() {
    check(
        "set cds/a=1 eds/a=1 ->
         ask cds -> cds +a=1
         ack cds ->
         ask eds +a -> eds +a=1
         ack eds ->
         reconnect ->
         ask cds -> cds +a=1
         ask eds +a -> eds +a=1",
    );
}

#[test]
fn endpoints_are_owed_after_each_cluster_push_and_only_of_what_changed() {
    check(
        "set cds/a=1 cds/b=1 eds/a=1 eds/b=1 ->
         ask cds -> cds +a=1 +b=1
         ask eds +a +b -> eds +a=1 +b=1
         ack eds ->
         ack cds ->
         set cds/a=2 cds/b=1 eds/a=1 eds/b=1 -> cds +a=2 +b=1 | eds +a=1
         stale eds ->
         ack eds ->
         ack cds ->",
    );
}

/// What is absent is deleted, so what must not go yet is repeated as it was.
#[test]
fn clusters_are_left_out_after_the_routes_have_moved() {
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
         set cds/new=1 eds/new=1 lds/l=1 rds/r=2 -> cds +new=1 +old=1
         ask eds +new -> eds +new=1
         ack eds ->
         ack cds -> rds +r=2
         ack rds -> cds +new=1
         ask eds -old ->
         ack cds ->",
    );
}

#[test]
fn a_listener_that_waits_for_clusters_is_repeated_as_it_was() {
    check(
        "set cds/a=1 lds/l=1 ->
         ask cds -> cds +a=1
         ack cds ->
         ask lds +l +m -> lds +l=1
         ack lds ->
         set cds/a=2 lds/l=2 lds/m=1 -> cds +a=2
         ask lds +n -> lds +l=1
         ack lds ->
         ack cds -> lds +l=2 +m=1",
    );
}

#[test]
fn a_route_that_goes_holds_up_nothing() {
    check(
        "set cds/a=1 cds/b=1 rds/r=1 ->
         ask cds -> cds +a=1 +b=1
         ack cds ->
         ask rds +r -> rds +r=1
         ack rds ->
         set cds/b=1 -> cds +b=1",
    );
}

#[test]
fn a_refused_response_is_not_sent_again_until_something_changed() {
    check(
        "set cds/a=1 cds/bad=1 ->
         ask cds -> cds +a=1 +bad=1
         nack cds ->
         ask cds ->
         set cds/a=1 cds/bad=1 ->
         set cds/a=1 cds/bad=1 cds/c=1 -> cds +a=1 +bad=1 +c=1
         nack cds ->
         set cds/a=1 cds/bad=2 cds/c=1 -> cds +a=1 +bad=2 +c=1
         ack cds ->",
    );
}

/// The client may have taken a part of what it refused: that part must not go away for a while because something else changed.
#[test]
fn what_was_refused_is_repeated_and_orphans_are_left_out() {
    check(
        "set cds/a=1 cds/orphan=1 cds/bad=1 ->
         ask cds -> cds +a=1 +bad=1 +orphan=1
         nack cds ->
         set cds/a=1 -> cds +a=1
         nack cds ->
         reconnect ->
         ask cds -> cds +a=1
         ack cds ->",
    );
}

#[test]
fn one_response_at_a_time_and_the_latest_set_wins() {
    check(
        "set cds/a=1 ->
         ask cds -> cds +a=1
         set cds/a=2 ->
         set cds/a=3 cds/b=1 ->
         ack cds -> cds +a=3 +b=1
         set cds/a=4 ->
         set cds/a=3 cds/b=1 ->
         ack cds ->",
    );
}

#[test]
fn the_acknowledged_version_is_the_sets_once_all_is_taken() {
    let mut script = Script::<StateOfTheWorld>::serving(None);
    let state = |script: &Script<StateOfTheWorld>| script.stream.state(TypeUrl::Cluster);
    script.run("set cds/a=1 ->\n ask cds -> cds +a=1");
    assert!(state(&script).requested && state(&script).in_flight);
    script.run("ack cds ->");
    let first = script.set.type_version(TypeUrl::Cluster).to_owned();
    assert_eq!(state(&script).acknowledged, Some(first.clone()));
    script.run("set cds/a=2 -> cds +a=2\n nack cds ->");
    assert_eq!((state(&script).acknowledged, state(&script).doubtful), (Some(first), 1));
    script.run("set cds/a=2 cds/b=1 -> cds +a=2 +b=1\n ack cds ->");
    assert_eq!(state(&script).acknowledged.as_deref(), Some(script.set.type_version(TypeUrl::Cluster)));
    assert_eq!(state(&script).doubtful, 0);
}

#[test]
fn a_service_of_one_type_needs_no_type_and_refuses_others() {
    let check = |type_url: &str, expected: Result<usize, StreamError>| {
        let mut stream = StateOfTheWorldStream::serving(Some(TypeUrl::Listener), Limits::default());
        let request = DiscoveryRequest { type_url: type_url.into(), ..DiscoveryRequest::default() };
        let got = stream.on_request(request, &parse_set("lds/l=1 cds/a=1"));
        assert_eq!(got.map(|responses| responses.len()), expected, "{type_url:?}");
    };
    check("", Ok(1));
    check(TypeUrl::Listener.as_str(), Ok(1));
    check(TypeUrl::Cluster.as_str(), Err(StreamError::WrongType { kind: TypeUrl::Listener }));
    check("nonsense", Err(StreamError::WrongType { kind: TypeUrl::Listener }));
}

/// Another stream carries the other types, so nothing can be waited for.
#[test]
fn a_service_of_one_type_waits_for_no_other() {
    let mut whole = Script::<StateOfTheWorld>::serving(Some(TypeUrl::RouteConfiguration));
    whole.run("set cds/a=1 rds/r=1 ->\n ask rds +r -> rds +r=1\n ack rds ->\n set cds/a=2 rds/r=2 -> rds +r=2");
    let mut delta = Script::<Delta>::serving(Some(TypeUrl::Cluster));
    delta.run("set cds/a=1 rds/r=1 ->\n ask cds -> cds +a=1\n ack cds ->\n set rds/r=2 -> cds -a");
}

#[test]
fn too_many_names_and_invalid_names_end_the_stream() {
    let check = |limits: Limits, names: &[&str], expected: Result<usize, StreamError>| {
        let mut stream = StateOfTheWorldStream::new(limits);
        let request = DiscoveryRequest {
            type_url: TypeUrl::Secret.as_str().into(),
            resource_names: names.iter().map(|&name| name.into()).collect(),
            ..DiscoveryRequest::default()
        };
        let got = stream.on_request(request, &ResourceSet::default());
        assert_eq!(got.map(|responses| responses.len()), expected, "{names:?}");
    };
    let limits = Limits { names_per_type: 3, ..Limits::default() };
    check(limits, &["a", "b", "c", "c"], Ok(0));
    check(limits, &["a", "b", "c", "d"], Err(StreamError::TooManyNames { kind: TypeUrl::Secret, limit: 3 }));
    check(limits, &[""], Err(StreamError::InvalidName { kind: TypeUrl::Secret }));
    check(limits, &[&"x".repeat(1025)], Err(StreamError::InvalidName { kind: TypeUrl::Secret }));
    check(Limits { name_cost: 200, ..limits }, &["a", "b", "c"], Ok(0));
    check(Limits { name_cost: 190, ..limits }, &["a", "b", "c"], Err(StreamError::TooMuchToKeep { limit: 190 }));
}
