//! Entries of the corpora that are encoded messages.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request, TlsSession};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::rpc::Status;
use kubepass::xds::resource::TypeUrl;
use prost::Message as _;

use super::entry::decision::Scene;
use crate::support::logs;

type Entry = (&'static str, &'static str, Vec<u8>);

pub(super) fn entries() -> Vec<Entry> {
    [decisions(), access_log(), xds()].concat()
}

fn decisions() -> Vec<Entry> {
    let scene = Scene::get();
    let target = |route: &str| match route {
        "web" => "web".to_owned(),
        route => format!("{}:{}", if route == "prod" { "kubernetes" } else { "http" }, scene.snapshot.route(route).unwrap().id()),
    };
    let check = |name, route: &str, method: &str, path: &str, headers: &[(&str, &str)]| {
        let host = scene.snapshot.route(route).map_or("pass.example.com", |route| &route.host);
        let sni = if name == "other-host" { "wiki.k8s.example.com" } else { host };
        ("decision", name, question(&target(route), (host, sni), method, path, headers))
    };
    let bearer = |route: &str| format!("Bearer {}", scene.token(route));
    let (prod, wiki) = (bearer("prod"), bearer("wiki"));
    vec![
        check("get-pods", "prod", "GET", "/api/v1/namespaces/web/pods", &[("authorization", &prod)]),
        check(
            "exec",
            "prod",
            "POST",
            "/api/v1/namespaces/web/pods/a/exec?command=sh",
            &[("authorization", &prod), ("connection", "Upgrade")],
        ),
        check("impersonation", "prod", "GET", "/version", &[("authorization", &prod), ("Impersonate-User", "system:admin")]),
        check("no-credential", "prod", "GET", "/version", &[("accept", "text/html")]),
        check("other-host", "prod", "GET", "/version", &[("authorization", &prod)]),
        check("wiki", "wiki", "GET", "/page?a=b", &[("authorization", &wiki), ("cookie", "a=b; __Host-kubepass-route=x")]),
        check("wiki-admin", "wiki", "POST", "/admin", &[("authorization", &wiki), ("origin", "https://wiki.k8s.example.com")]),
        check("wiki-browser", "wiki", "GET", "/", &[("accept", "text/html"), ("sec-fetch-mode", "navigate")]),
        check("web", "web", "GET", "/login", &[]),
    ]
}

fn question(target: &str, (host, sni): (&str, &str), method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let id = ("x-request-id", "0198c0de-0000-7000-8000-000000000001");
    let header =
        |(key, value): &(&str, &str)| HeaderValue { key: (*key).into(), raw_value: value.as_bytes().to_vec(), ..HeaderValue::default() };
    let http = HttpRequest {
        method: method.into(),
        path: path.into(),
        host: host.into(),
        header_map: Some(HeaderMap { headers: headers.iter().chain([&id]).map(header).collect() }),
        ..HttpRequest::default()
    };
    let attributes = AttributeContext {
        request: Some(Request { http: Some(http), ..Request::default() }),
        context_extensions: HashMap::from([("target".to_owned(), target.to_owned())]),
        tls_session: Some(TlsSession { sni: sni.into() }),
        ..AttributeContext::default()
    };
    CheckRequest { attributes: Some(attributes) }.encode_to_vec()
}

fn access_log() -> Vec<Entry> {
    let end: &[(&str, &str)] = &[
        ("kind", "DownstreamEnd"),
        ("id", "0198c0de-0000-7000-8000-000000000001"),
        ("grant", "kubernetes:prod@a/b"),
        ("route", "kubernetes:prod@a/b"),
        ("reason", "-"),
        ("status", "200"),
        ("details", "via_upstream"),
        ("connection", "a\nb"),
        ("flags", "UR,DC"),
        ("received", "300"),
        ("sent", "5000"),
        ("ms", "1234"),
        ("method", "GET"),
        ("path", "/api/v1/pods?watch=1"),
    ];
    let of_kind = |kind| -> Vec<_> { end.iter().map(|&(word, value)| (word, if word == "kind" { kind } else { value })).collect() };
    let (start, periodic) = (of_kind("DownstreamStart"), of_kind("DownstreamPeriodic"));
    let without_id: Vec<_> = end.iter().copied().filter(|(word, _)| *word != "id").collect();
    vec![
        ("access_log", "end", logs::export(&[end]).encode_to_vec()),
        ("access_log", "watch", logs::export(&[&start, &periodic, end]).encode_to_vec()),
        ("access_log", "no-id", logs::export(&[&without_id, &[]]).encode_to_vec()),
    ]
}

fn xds() -> Vec<Entry> {
    let delta = |kind: TypeUrl, names: &[&str], nonce: &str| DeltaDiscoveryRequest {
        type_url: kind.as_str().into(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.into(),
        ..DeltaDiscoveryRequest::default()
    };
    let whole = |kind: TypeUrl, names: &[&str], nonce: &str| DiscoveryRequest {
        type_url: kind.as_str().into(),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.into(),
        ..DiscoveryRequest::default()
    };
    let refusal = || Some(Status { message: "no\nsuch cluster".into(), ..Status::default() });
    let kinds = [TypeUrl::Cluster, TypeUrl::ClusterLoadAssignment, TypeUrl::Listener, TypeUrl::RouteConfiguration, TypeUrl::Secret];
    let held = HashMap::from([("a".to_owned(), "1".to_owned())]);
    let together = |messages: &[Vec<u8>]| messages.concat();
    vec![
        ("xds_delta", "start-up", together(&kinds.map(|kind| delta(kind, &["*"], "").encode_length_delimited_to_vec()))),
        (
            "xds_delta",
            "acknowledged",
            together(&["", "1", "2", "3"].map(|nonce| delta(TypeUrl::Cluster, &[], nonce).encode_length_delimited_to_vec())),
        ),
        (
            "xds_delta",
            "refused-then-back",
            together(&[
                DeltaDiscoveryRequest { initial_resource_versions: held, ..delta(TypeUrl::Secret, &["a", "b"], "") }
                    .encode_length_delimited_to_vec(),
                DeltaDiscoveryRequest { error_detail: refusal(), ..delta(TypeUrl::Secret, &[], "1") }.encode_length_delimited_to_vec(),
                DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["a".into()], ..delta(TypeUrl::Secret, &["c"], "9") }
                    .encode_length_delimited_to_vec(),
            ]),
        ),
        ("xds_state_of_the_world", "start-up", together(&kinds.map(|kind| whole(kind, &["a"], "").encode_length_delimited_to_vec()))),
        (
            "xds_state_of_the_world",
            "acknowledged",
            together(&["", "1", "2", "3"].map(|nonce| whole(TypeUrl::Listener, &[], nonce).encode_length_delimited_to_vec())),
        ),
        (
            "xds_state_of_the_world",
            "refused-then-others",
            together(&[
                whole(TypeUrl::Secret, &["a", "b"], "").encode_length_delimited_to_vec(),
                DiscoveryRequest { error_detail: refusal(), ..whole(TypeUrl::Secret, &["a", "b"], "1") }.encode_length_delimited_to_vec(),
                whole(TypeUrl::Secret, &[], "1").encode_length_delimited_to_vec(),
            ]),
        ),
    ]
}
