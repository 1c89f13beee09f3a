//! What a node may have, by its identity: resources, answers to checks, and nothing of another's.

use std::collections::BTreeMap;
use std::sync::Arc;

use kubepass::access::request::RequestHeaders;
use kubepass::access::{AccessRequest, Answer, RequestTarget, SessionState, decide};
use kubepass::audit::decision_event;
use kubepass::config::Target;
use kubepass::operator::xds::diff_of_nodes;
use kubepass::snapshot::{NodeView, Snapshot};
use kubepass::xds::resource::{ResourceSet, TypeUrl};
use kubepass::xds::resources::{NodeResources, build_all};

use crate::fixture;

const GATEWAYS: &str = "config/gateways.yaml";

fn snapshot() -> Arc<Snapshot> {
    fixture::snapshot_of(GATEWAYS)
}

/// `config/gateways.yaml`, changed.
fn changed(change: impl Fn(String) -> String) -> Snapshot {
    let text = change(std::fs::read_to_string(fixture::root().join(GATEWAYS)).unwrap());
    let config = fixture::load(&text, GATEWAYS, &BTreeMap::new()).unwrap_or_else(|errors| panic!("{errors}"));
    Snapshot::new(Arc::new(config), "0123456789abcdef")
}

fn of(resources: &NodeResources, node: &str) -> ResourceSet {
    resources.of(resources.nodes().named(node).unwrap())
}

fn names(set: &ResourceSet, kind: TypeUrl) -> Vec<&str> {
    set.resources(kind).map(|resource| resource.name.split('@').next().unwrap()).collect()
}

#[test]
fn a_node_has_the_resources_of_its_own_routes_and_listeners() {
    let resources = build_all(&snapshot()).unwrap();
    let check = |node: &str, listeners: &[&str], clusters: &[&str], secrets: &[&str]| {
        let set = of(&resources, node);
        assert_eq!(names(&set, TypeUrl::Listener), listeners, "{node}");
        assert_eq!(names(&set, TypeUrl::Cluster), clusters, "{node}");
        assert_eq!(names(&set, TypeUrl::ClusterLoadAssignment), clusters, "{node}");
        assert_eq!(names(&set, TypeUrl::Secret), secrets, "{node}");
    };
    for node in ["edge-1", "edge-2"] {
        check(
            node,
            &["listener-public-0", "listener-public-1"],
            &["kubernetes:lab", "kubernetes:prod"],
            &["ca:lab", "ca:prod", "serving:listener-public-0:0", "serving:listener-public-1:0", "token:lab", "token:prod"],
        );
    }
    check(
        "staging-sidecar",
        &["listener-staging-0"],
        &["kubernetes:lab", "kubernetes:staging"],
        &["ca:lab", "ca:staging", "serving:listener-staging-0:0", "token:lab", "token:staging"],
    );
    let unnamed = resources.of(NodeView::UNNAMED);
    assert_eq!((names(&unnamed, TypeUrl::Cluster), names(&unnamed, TypeUrl::Listener)), (vec!["kubernetes:lab"], vec![]));
}

/// Whatever the resources are called: no byte of what is for others alone.
#[test]
fn nothing_of_another_node_is_in_a_nodes_resources() {
    let resources = build_all(&snapshot()).unwrap();
    let holds = |set: &ResourceSet, text: &str| {
        TypeUrl::ALL.into_iter().flat_map(|kind| set.resources(kind)).any(|resource| {
            resource.name.contains(text) || resource.body.bytes().windows(text.len()).any(|window| window == text.as_bytes())
        })
    };
    let check = |node: &str, text: &str, expected: bool| assert_eq!(holds(&of(&resources, node), text), expected, "{node}: {text}");
    for (text, edge, sidecar) in [
        ("prod.k8s.example.com", true, false),
        ("test-only-content-of-prod-token", true, false),
        ("10.0.0.1", true, false),
        ("staging.k8s.example.com", false, true),
        ("test-only-content-of-staging-token", false, true),
        ("test-only-content-of-lab-token", true, true),
        ("pass.example.com", true, false),
    ] {
        check("edge-1", text, edge);
        check("edge-2", text, edge);
        check("staging-sidecar", text, sidecar);
    }
}

#[test]
fn nodes_with_the_same_share_it_and_a_name_stands_for_one_content() {
    let resources = build_all(&snapshot()).unwrap();
    assert_eq!(of(&resources, "edge-1"), of(&resources, "edge-2"));
    let only_edge_2 =
        changed(|text| text.replace("  nodes: [staging-sidecar]\n  kubernetes", "  nodes: [staging-sidecar, edge-2]\n  kubernetes"));
    let resources = build_all(&only_edge_2).unwrap();
    assert_eq!(names(&of(&resources, "edge-1"), TypeUrl::Cluster), ["kubernetes:lab", "kubernetes:prod"]);
    assert_eq!(names(&of(&resources, "edge-2"), TypeUrl::Cluster), ["kubernetes:lab", "kubernetes:prod", "kubernetes:staging"]);
    let mut seen: BTreeMap<(TypeUrl, Arc<str>), Arc<str>> = BTreeMap::new();
    for node in ["edge-1", "edge-2", "staging-sidecar"] {
        let set = of(&resources, node);
        for kind in TypeUrl::ALL {
            for resource in set.resources(kind) {
                let first = seen.entry((kind, resource.name.clone())).or_insert_with(|| resource.version.clone());
                assert_eq!(*first, resource.version, "{node}: {kind} {}", resource.name);
            }
        }
    }
}

#[test]
fn a_check_is_answered_for_the_nodes_that_serve_the_route() {
    let snapshot = snapshot();
    let check = |node: Option<&str>, route: &str, served: bool| {
        let route = snapshot.route(route).unwrap();
        let id = route.id();
        let request = AccessRequest {
            node: node.map_or(NodeView::UNNAMED, |name| snapshot.nodes().named(name).unwrap()),
            request_id: "id",
            target: match route.target {
                Target::Kubernetes(_) => RequestTarget::Kubernetes(id),
                Target::Http(_) => RequestTarget::Http(id),
            },
            method: "GET",
            path: "/version",
            host: &route.host,
            sni: &route.host,
            source_ip: "192.0.2.1",
            headers: RequestHeaders::default(),
        };
        let decision = decide(&snapshot, &request, SessionState::NoCredential, fixture::NOW);
        let answer = Answer::to(&decision).unwrap();
        let expected = if served { ("no_credential", 401) } else { ("route_not_served", 503) };
        assert_eq!((answer.word, answer.status.code), expected, "{node:?} {}", route.name);
        let line = serde_json::to_value(decision_event(&request, &decision, Some(&answer), "v")).unwrap();
        assert_eq!((line["node"].as_str(), line["reason"].as_str()), (node, Some(expected.0)), "{line}");
        assert_eq!(line["route"], route.name.as_str(), "the line says what was asked for");
    };
    for (node, prod, staging) in
        [(Some("edge-1"), true, false), (Some("edge-2"), true, false), (Some("staging-sidecar"), false, true), (None, false, false)]
    {
        check(node, "prod", prod);
        check(node, "staging", staging);
        check(node, "lab", true);
    }
}

#[test]
fn the_difference_of_two_configurations_is_told_by_node() {
    let after = changed(|text| {
        text.replace("- name: staging\n  host", "- name: moved\n  host")
            .replace("edge-2, identity", "edge-3, identity")
            .replace("edge-1, edge-2", "edge-1, edge-3")
    });
    let said = diff_of_nodes(&build_all(&snapshot()).unwrap(), &build_all(&after).unwrap());
    let of = |heading: &str| said.split("\n\n").find(|part| part.starts_with(heading)).unwrap_or_else(|| panic!("{heading}:\n{said}"));
    assert_eq!(of("edge-1:"), "edge-1:\nno Envoy would be told anything");
    assert!(of("edge-2:").contains("- cds  kubernetes:prod@") && of("edge-3:").contains("+ cds  kubernetes:prod@"), "{said}");
    assert!(of("staging-sidecar:").contains("+ cds  kubernetes:moved@") && !of("staging-sidecar:").contains("prod@"), "{said}");
    let own = build_all(&fixture::snapshot_of("config/kubepass.yaml")).unwrap();
    assert_eq!(diff_of_nodes(&own, &own), "no Envoy would be told anything");
}
