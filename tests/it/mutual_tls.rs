//! The control plane over TCP: real handshakes, good and bad ones, and what a node gets over a good one.

mod fixed;

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request as AttributeRequest, TlsSession};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, DeniedHttpResponse};
use kubepass::server::ads::AdsLimits;
use kubepass::xds::resource::TypeUrl;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tonic::Code;

use self::fixed::{BOTH, EDGE, Fixture, Hello, SIDECAR, TLS_1_2};
use crate::support::pki::Authority;
use crate::xds_client::{Client, Variant};

const DELTA: Variant = Variant { delta: true, aggregated: true };
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_node_gets_its_own_by_its_certificate() {
    let fixture = Fixture::start().await;
    for (name, san, cluster, token, others) in [
        ("edge-1", EDGE, "kubernetes:prod@", "token:prod@", "staging@"),
        ("edge-1/replica-7", EDGE, "kubernetes:prod@", "token:prod@", "staging@"),
        ("staging-sidecar", SIDECAR, "kubernetes:staging@", "token:staging@", "prod@"),
    ] {
        let mut client = Client::over(DELTA, fixture.channel(&fixture.hello(&[san])).await.unwrap(), name);
        client.subscribe(TypeUrl::Cluster, &[]).await.unwrap();
        let clusters = client.take(TypeUrl::Cluster).await.resources;
        assert!(
            clusters.keys().any(|name| name.starts_with(cluster)) && !clusters.keys().any(|name| name.contains(others)),
            "{clusters:?}"
        );
        client.subscribe(TypeUrl::Secret, &["*"]).await.unwrap();
        let secrets = client.take(TypeUrl::Secret).await.resources;
        assert!(secrets.keys().any(|name| name.starts_with(token)) && !secrets.keys().any(|name| name.contains(others)), "{secrets:?}");
        // Asked for by its name, another's secret is one that there is not.
        let foreign = fixture.name_of_token(if others == "prod@" { "prod" } else { "staging" });
        client.subscribe(TypeUrl::Secret, &[&foreign]).await.unwrap();
        let got = client.take(TypeUrl::Secret).await;
        assert!(got.resources.is_empty() && got.removed.contains(&foreign), "{got:?}");
    }
}

#[tokio::test]
async fn who_is_no_node_or_says_it_is_another_is_told_so() {
    let fixture = Fixture::start().await;
    for (sans, id, part) in [
        (&["spiffe://example.com/kubepass/edge-9"][..], "edge-1", "add it to `nodes`"),
        (&["edge-1"], "edge-1", "add it to `nodes`"),
        (&["spiffe://example.com/kubepass/edge-1/"], "edge-1", "add it to `nodes`"),
        (&[EDGE, SIDECAR], "edge-1", "several nodes"),
        (&[EDGE], "staging-sidecar", "its node.id names another"),
        (&[EDGE], "edge-10", "its node.id names another"),
        (&[SIDECAR], "edge-1", "its node.id names another"),
    ] {
        let mut client = Client::over(DELTA, fixture.channel(&fixture.hello(sans)).await.unwrap(), id);
        let refused = match client.subscribe(TypeUrl::Cluster, &[]).await {
            Err(status) => status,
            Ok(()) => client.next(TypeUrl::Cluster).await.unwrap_err(),
        };
        assert_eq!(refused.code(), Code::PermissionDenied, "{sans:?} {id}: {refused}");
        assert!(refused.message().contains(part), "{sans:?} {id}: {refused}");
    }
}

#[tokio::test]
async fn one_node_leaves_the_others_their_streams() {
    let fixture = Fixture::start_with(AdsLimits { streams_of_one_node: 3, ..AdsLimits::default() }).await;
    let connect = async |san: &str, name: &str| {
        let mut client = Client::over(DELTA, fixture.channel(&fixture.hello(&[san])).await.unwrap(), name);
        client.subscribe(TypeUrl::Cluster, &[]).await.map(|()| client)
    };
    let mut open = Vec::new();
    for replica in 0..3 {
        // What it calls itself is no matter.
        let mut client = connect(EDGE, &format!("edge-1/replica-{replica}")).await.unwrap();
        client.take(TypeUrl::Cluster).await;
        open.push(client);
    }
    let refused = connect(EDGE, "edge-1/replica-3").await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("the node `edge-1` has 3 xDS streams open already"), "{refused}");
    let mut other = connect(SIDECAR, "staging-sidecar").await.unwrap();
    other.take(TypeUrl::Cluster).await;
    open.pop();
    fixture.until(async || connect(EDGE, "edge-1").await.is_ok()).await;
}

#[tokio::test]
async fn a_bad_handshake_reaches_no_service() {
    let fixture = Fixture::start().await;
    let good = fixture.hello(&[EDGE]);
    assert!(fixture.handshake(&good).await.is_ok());
    let stranger = Authority::new("another authority");
    let check = async |what: &str, hello: Hello| {
        let error = fixture.handshake(&hello).await.expect_err(what);
        println!("{what}: {error}");
    };
    check("a certificate of another CA", Hello { identity: Some(stranger.node(&[EDGE])), ..good.clone() }).await;
    check("no certificate", Hello { identity: None, ..good.clone() }).await;
    check("a certificate that is over", Hello { identity: Some(fixture.authority.expired_node(&[EDGE])), ..good.clone() }).await;
    check("a certificate for servers", Hello { identity: Some(fixture.authority.server(&["edge-1.example.com"])), ..good.clone() }).await;
    check("TLS 1.2", Hello { versions: TLS_1_2, ..good.clone() }).await;
    check("another protocol", Hello { alpn: Some("http/1.1"), ..good.clone() }).await;
    check("no protocol", Hello { alpn: None, ..good.clone() }).await;
    assert!(fixture.handshake(&Hello { versions: BOTH, ..good }).await.is_ok(), "and the newest of several");
}

#[tokio::test]
async fn certificates_change_under_an_open_stream() {
    let fixture = Fixture::start().await;
    let old = fixture.hello(&[EDGE]);
    let mut client = Client::over(DELTA, fixture.channel(&old).await.unwrap(), "edge-1");
    client.subscribe(TypeUrl::Cluster, &[]).await.unwrap();
    let before = client.take(TypeUrl::Cluster).await.resources.len();

    let next = Authority::new("the next authority");
    fixture.publish(|text| text.replace("staging.k8s", "moved.k8s"), Some(&next));
    // The old CA counts no more, and the new certificate is the new CA's.
    let new = Hello { identity: Some(next.node(&[EDGE])), ca: next.pem().to_owned(), ..old.clone() };
    fixture.until(async || fixture.handshake(&new).await.is_ok()).await;
    assert!(fixture.handshake(&old).await.is_err());
    assert!(fixture.handshake(&Hello { ca: next.pem().to_owned(), ..old }).await.is_err(), "a certificate of the old CA");

    fixture.publish(|text| text.replace("- name: lab ", "- name: labor "), Some(&next));
    let got = client.take(TypeUrl::Cluster).await;
    assert!(got.resources.keys().any(|name| name.starts_with("kubernetes:labor@")) && before > 0, "the open stream goes on: {got:?}");
}

#[tokio::test]
async fn a_node_that_is_taken_out_loses_its_streams() {
    let fixture = Fixture::start().await;
    let mut client = Client::over(DELTA, fixture.channel(&fixture.hello(&[EDGE])).await.unwrap(), "edge-1");
    client.subscribe(TypeUrl::Cluster, &[]).await.unwrap();
    client.take(TypeUrl::Cluster).await;
    let mut other = Client::over(DELTA, fixture.channel(&fixture.hello(&[SIDECAR])).await.unwrap(), "staging-sidecar");
    other.subscribe(TypeUrl::Cluster, &[]).await.unwrap();
    other.take(TypeUrl::Cluster).await;
    let mut idle = fixture.handshake(&fixture.hello(&[EDGE])).await.unwrap();

    fixture.publish(|text| text.replace(EDGE, "spiffe://example.com/kubepass/edge-1-new").replace("- name: lab ", "- name: labor "), None);
    let refused = client.next(TypeUrl::Cluster).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    // Not only its streams: the connection ends too, though nothing is asked over it.
    let end = tokio::time::timeout(DEADLINE, async { while idle.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} }).await;
    assert!(end.is_ok(), "the connection stays open");
    other.take(TypeUrl::Cluster).await;
}

/// Who took a certificate has what it gives as long as it lasts, and no longer.
#[tokio::test]
async fn a_stream_ends_with_the_certificate_that_it_was_opened_with() {
    let fixture = Fixture::start().await;
    let mut lasting = Client::over(DELTA, fixture.channel(&fixture.hello(&[EDGE])).await.unwrap(), "edge-1");
    lasting.subscribe(TypeUrl::Cluster, &[]).await.unwrap();
    lasting.take(TypeUrl::Cluster).await;
    let short = Hello { identity: Some(fixture.authority.short_node(&[EDGE], Duration::from_secs(8))), ..fixture.hello(&[EDGE]) };
    let mut client = Client::over(DELTA, fixture.channel(&short).await.unwrap(), "edge-1/short");
    client.subscribe(TypeUrl::Cluster, &[]).await.unwrap();
    client.take(TypeUrl::Cluster).await;
    let mut idle = fixture.handshake(&short).await.unwrap();

    fixture.publish(|text| text.replace("- name: lab ", "- name: labor "), None);
    assert!(client.take(TypeUrl::Cluster).await.resources.keys().any(|name| name.starts_with("kubernetes:labor@")), "it is good still");
    let end = tokio::time::timeout(DEADLINE, async { while idle.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} }).await;
    assert!(end.is_ok(), "the connection stays open");
    client.next(TypeUrl::Cluster).await.unwrap_err();
    lasting.take(TypeUrl::Cluster).await;
    fixture.publish(|text| text, None);
    lasting.take(TypeUrl::Cluster).await;
}

#[tokio::test]
async fn a_forged_check_is_refused_and_told() {
    let fixture = Fixture::start().await;
    let ask = async |san: &str, route: &str| {
        let mut client = AuthorizationClient::new(fixture.channel_to(fixture.ports[1], &fixture.hello(&[san])).await.unwrap());
        let answer = client.check(fixture.check(route)).await?.into_inner();
        let code = match &answer.http_response {
            Some(HttpResponse::DeniedResponse(DeniedHttpResponse { status: Some(status), .. })) => status.code,
            other => panic!("{san} {route}: {other:?}"),
        };
        Ok::<_, tonic::Status>((code, answer.status.unwrap().message))
    };
    assert_eq!(ask(EDGE, "prod").await.unwrap(), (401, "no_credential".to_owned()));
    assert_eq!(ask(SIDECAR, "prod").await.unwrap(), (503, "route_not_served".to_owned()));
    assert_eq!(ask(EDGE, "staging").await.unwrap(), (503, "route_not_served".to_owned()));
    let unknown = ask("spiffe://example.com/kubepass/edge-9", "prod").await.unwrap_err();
    assert_eq!(unknown.code(), Code::PermissionDenied, "{unknown}");
    let lines = fixture.audit_lines();
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["node"].as_str().unwrap(), line["route"].as_str().unwrap(), line["reason"].as_str().unwrap()))
        .collect();
    let expected =
        [("edge-1", "prod", "no_credential"), ("staging-sidecar", "prod", "route_not_served"), ("edge-1", "staging", "route_not_served")];
    assert_eq!(told, expected);
}

/// As many connections as one address may open at a time say nothing; from another address one comes in all the same.
#[tokio::test]
async fn handshakes_that_stand_still_hold_nobody_else_up() {
    let fixture = Fixture::start().await;
    let address = format!("127.0.0.1:{}", fixture.ports[0]);
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(&address).await.unwrap());
    }
    let from_elsewhere = async || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.connect(address.parse().unwrap()).await.unwrap()
    };
    let began = std::time::Instant::now();
    fixture.handshake_over(from_elsewhere().await, &fixture.hello(&[EDGE])).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "it waited for the others: {:?}", began.elapsed());
    // Those are ended, the surplus at once and the rest when their time is over.
    for mut stream in idle {
        let end = tokio::time::timeout(DEADLINE, stream.read(&mut [0; 1])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}

impl Fixture {
    /// What an Envoy asks for a request to the route; its context extensions say what it likes.
    fn check(&self, route: &str) -> CheckRequest {
        let (target, host) = self.target_of(route);
        let header = |key: &str, value: &str| HeaderValue { key: key.into(), raw_value: value.into(), ..HeaderValue::default() };
        let http = HttpRequest {
            method: "GET".into(),
            path: "/version".into(),
            host: host.clone(),
            header_map: Some(HeaderMap { headers: vec![header("x-request-id", "7373a616-45b1-4144-adf1-bd54fdb28e23")] }),
            ..HttpRequest::default()
        };
        let attributes = AttributeContext {
            request: Some(AttributeRequest { http: Some(http), ..AttributeRequest::default() }),
            context_extensions: [("target".to_owned(), target)].into(),
            tls_session: Some(TlsSession { sni: host }),
            ..AttributeContext::default()
        };
        CheckRequest { attributes: Some(attributes) }
    }
}
