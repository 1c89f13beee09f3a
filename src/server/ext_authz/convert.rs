//! `CheckRequest` to `AccessRequest`, and `Decision` to `CheckResponse`. One builder makes every response.
//!
//! What Envoy 1.40 does with a response (measured; see `envoy/README.md`): a default-constructed one allows; status OK with a denied body
//! allows; removals run after sets; `raw_value` yields an empty header; `append_action` is ignored, so a name can be sent once only. So:
//! allow and deny never mix, nothing is removed here, only `value` is used, and lists travel as dynamic metadata.

use std::net::IpAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue as EnvoyHeader, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{BoolValue, Struct, Value};
use envoy_types::pb::google::rpc::Status as RpcStatus;

use crate::access::request::RequestHeaders;
use crate::access::{AccessRequest, Answer, Form, Grant, Malformed, RequestTarget};
use crate::config::{KubernetesTarget, Method, Target};
use crate::envoy_names as names;
use crate::server::ext_authz::refusal::Refusal;
use crate::snapshot::NodeView;
use crate::token::{AssertionToken, UpstreamToken};

/// gRPC codes (google/rpc/code.proto). Envoy allows on OK only.
const GRPC_OK: i32 = 0;
const GRPC_PERMISSION_DENIED: i32 = 7;

/// Characters of a request id; Envoy's own (a UUID) has 36. The API server takes an `Audit-ID` of up to 64.
const MAX_REQUEST_ID: usize = 64;

/// Reads a check of `node`. Whatever is missing becomes a value that denies.
pub fn access_request<'a>(check: &'a CheckRequest, node: &'a NodeView) -> AccessRequest<'a> {
    let attributes = check.attributes.as_ref();
    let http = attributes.and_then(|attributes| attributes.request.as_ref()).and_then(|request| request.http.as_ref());
    let target = attributes
        .and_then(|attributes| attributes.context_extensions.get(names::TARGET_KEY))
        .map_or(RequestTarget::Unknown, |text| RequestTarget::parse(text));
    let connected =
        attributes.and_then(|attributes| attributes.source.as_ref()).and_then(|peer| peer.address.as_ref()).and_then(|address| {
            match &address.address {
                Some(Address::SocketAddress(socket)) => Some(socket.address.as_str()),
                _ => None,
            }
        });
    let source_ip = http.and_then(told_source).or(connected).unwrap_or("");
    let sni = attributes.and_then(|attributes| attributes.tls_session.as_ref()).map_or("", |session| &session.sni);
    AccessRequest {
        node,
        request_id: http.map_or("", request_id),
        target,
        method: http.map_or("", |http| &http.method),
        path: http.map_or("", |http| &http.path),
        host: http.map_or("", |http| &http.host),
        sni,
        source_ip,
        headers: http.map_or_else(missing, |http| with_id(headers(http), request_id(http))),
    }
}

fn headers(http: &HttpRequest) -> RequestHeaders<'_> {
    // Only the raw list shows every value of a repeated header. Envoy sends it when `encode_raw_headers` is set; ours always is.
    match &http.header_map {
        Some(map) if http.headers.is_empty() => RequestHeaders::read(map.headers.iter().map(|header| (header.key.as_str(), bytes(header)))),
        _ => missing(),
    }
}

/// Without an id no audit line could be joined with the API server's.
fn with_id<'a>(headers: RequestHeaders<'a>, request_id: &str) -> RequestHeaders<'a> {
    if request_id.is_empty() { missing() } else { headers }
}

fn missing<'a>() -> RequestHeaders<'a> {
    RequestHeaders { malformed: Some(Malformed::MissingAttributes), ..RequestHeaders::default() }
}

/// See `names::SOURCE`.
fn told_source(http: &HttpRequest) -> Option<&str> {
    let mut told = http.header_map.iter().flat_map(|map| &map.headers).filter(|header| header.key == names::SOURCE);
    let source = told.next().filter(|_| told.next().is_none())?;
    std::str::from_utf8(bytes(source)).ok().filter(|source| source.parse::<IpAddr>().is_ok())
}

fn bytes(header: &EnvoyHeader) -> &[u8] {
    if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value }
}

/// Envoy makes the id itself and overwrites what a client sends; empty when it is not there or has not the form of an id.
fn request_id(http: &HttpRequest) -> &str {
    let map = http.header_map.as_ref();
    let header = map.and_then(|map| map.headers.iter().find(|header| header.key == "x-request-id"));
    let id = header.and_then(|header| std::str::from_utf8(bytes(header)).ok()).unwrap_or("");
    let is_id = id.len() <= MAX_REQUEST_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if is_id { id } else { "" }
}

/// Lets a request through to kubepass's own web part, without identity.
pub fn to_web() -> CheckResponse {
    allow(vec![], vec![(names::GRANT_KEY.to_owned(), names::WEB_TARGET.to_owned())])
}

/// What a grant needs besides itself.
#[derive(Debug)]
pub enum Minted {
    Nothing,
    Upstream(Arc<UpstreamToken>),
    Assertion(Arc<AssertionToken>),
}

/// Lets a request through to the route's upstream under the identity of the grant.
///
/// INVARIANT: a grant is never answered without the token that its route needs; were it so, the guard before the upstream would stop the request.
pub fn grant(grant: &Grant, minted: &Minted, request_id: &str) -> CheckResponse {
    match (&grant.route().target, minted) {
        (Target::Kubernetes(KubernetesTarget { method: Method::Impersonate(_), .. }), _) => impersonate(grant, request_id),
        (Target::Kubernetes(KubernetesTarget { method: Method::Jwt(_), .. }), Minted::Upstream(token)) => {
            with_token(grant, token, request_id)
        }
        (Target::Http(_), Minted::Assertion(token)) => with_assertion(grant, token, request_id),
        (Target::Kubernetes(_) | Target::Http(_), _) => allow(limits(grant, request_id).into(), vec![granted(grant)]),
    }
}

fn impersonate(grant: &Grant, request_id: &str) -> CheckResponse {
    let identity = grant.identity();
    let mut metadata = Vec::with_capacity(3 + identity.groups().len());
    metadata.push(granted(grant));
    metadata.push((names::USER_KEY.to_owned(), identity.user().as_str().to_owned()));
    if let Some(uid) = identity.uid() {
        metadata.push((names::UID_KEY.to_owned(), uid.as_str().to_owned()));
    }
    metadata.extend(identity.groups().iter().enumerate().map(|(index, group)| (names::group_key(index), group.as_str().to_owned())));
    for (key, values) in identity.extra() {
        metadata.extend(values.iter().enumerate().map(|(index, value)| (names::extra_key(key, index), value.as_str().to_owned())));
    }
    allow(limits(grant, request_id).into(), metadata)
}

/// Lets a request through to the route's API server with a token that says who it is. The identity is in the token alone: metadata stands in
/// access logs, and names there would fill the slots of impersonation headers.
fn with_token(grant: &Grant, token: &UpstreamToken, request_id: &str) -> CheckResponse {
    let bearer = overwrite(names::UPSTREAM_AUTHORIZATION, format!("Bearer {}", token.expose()));
    allow(limits(grant, request_id).into_iter().chain([bearer]).collect(), vec![granted(grant)])
}

/// Lets a request through to the upstream of a plain HTTP route, with a token that says who it is and with the upstream's own cookies.
fn with_assertion(grant: &Grant, assertion: &AssertionToken, request_id: &str) -> CheckResponse {
    let assertion = overwrite(names::UPSTREAM_ASSERTION, assertion.expose().to_owned());
    let cookies = grant.cookies().map(|cookies| overwrite(names::UPSTREAM_COOKIE, cookies.as_str().to_owned()));
    allow(limits(grant, request_id).into_iter().chain([assertion]).chain(cookies).collect(), vec![granted(grant)])
}

fn granted(grant: &Grant) -> (String, String) {
    let id = grant.route().id();
    let target = match grant.route().target {
        Target::Kubernetes(_) => names::kubernetes_target(&id),
        Target::Http(_) => names::http_target(&id),
    };
    (names::GRANT_KEY.to_owned(), target)
}

/// What every request to an upstream carries.
fn limits(grant: &Grant, request_id: &str) -> [HeaderValueOption; 2] {
    [overwrite(names::AUDIT_ID, request_id.to_owned()), overwrite(names::STREAM_DURATION, grant.stream_limit_ms().to_string())]
}

fn allow(headers: Vec<HeaderValueOption>, metadata: Vec<(String, String)>) -> CheckResponse {
    CheckResponse {
        status: Some(RpcStatus { code: GRPC_OK, ..RpcStatus::default() }),
        dynamic_metadata: Some(strings(metadata)),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse { headers, ..OkHttpResponse::default() })),
    }
}

/// Refuses, in the form that the answer names.
pub fn refuse(answer: &Answer, request: &AccessRequest<'_>, public_url: &str) -> CheckResponse {
    let refusal = Refusal::of(answer, request, public_url);
    let mut headers = vec![
        overwrite("content-type", refusal.content_type.to_owned()),
        overwrite("cache-control", "no-store".to_owned()),
        overwrite("x-content-type-options", "nosniff".to_owned()),
        overwrite(names::AUDIT_ID, request.request_id.to_owned()),
    ];
    if refusal.code == 401 {
        headers.push(overwrite("www-authenticate", "Bearer realm=\"kubepass\"".to_owned()));
    }
    if matches!(answer.form, Form::ApiServerPage | Form::Page) {
        headers.push(overwrite("content-security-policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'".to_owned()));
    }
    if refusal.code == 503 {
        headers.push(overwrite("retry-after", "1".to_owned()));
    }
    headers.extend(refusal.location.map(|location| overwrite("location", location)));
    let metadata = strings(vec![(names::REASON_KEY.to_owned(), answer.word.to_owned())]);
    CheckResponse {
        status: Some(RpcStatus { code: GRPC_PERMISSION_DENIED, message: answer.word.to_owned(), ..RpcStatus::default() }),
        dynamic_metadata: Some(metadata),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: i32::from(refusal.code) }),
            headers,
            body: refusal.body,
        })),
    }
}

/// Both fields are set: versions that honour only `append`, only `append_action`, or either, all overwrite.
#[allow(deprecated, reason = "Envoy 1.40 reads `append` and ignores its successor; both are set")]
fn overwrite(name: &str, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(EnvoyHeader { key: name.to_owned(), value, ..EnvoyHeader::default() }),
        append: Some(BoolValue { value: false }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        keep_empty_value: false,
    }
}

fn strings(entries: Vec<(String, String)>) -> Struct {
    Struct { fields: entries.into_iter().map(|(key, text)| (key, Value { kind: Some(Kind::StringValue(text)) })).collect() }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::{Address as EnvoyAddress, HeaderMap, SocketAddress};
    use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
    use envoy_types::pb::envoy::service::auth::v3::attribute_context::{Peer, Request};

    use super::*;

    /// A check of a connection from 192.0.2.1 with these values of the header in which Envoy tells the source.
    fn check(told: &[&str]) -> CheckRequest {
        let socket = SocketAddress { address: "192.0.2.1".to_owned(), ..SocketAddress::default() };
        let address = EnvoyAddress { address: Some(Address::SocketAddress(socket)) };
        let header =
            |value: &&str| EnvoyHeader { key: names::SOURCE.to_owned(), raw_value: value.as_bytes().to_vec(), ..EnvoyHeader::default() };
        let http = HttpRequest { header_map: Some(HeaderMap { headers: told.iter().map(header).collect() }), ..HttpRequest::default() };
        let attributes = AttributeContext {
            source: Some(Peer { address: Some(address), ..Peer::default() }),
            request: Some(Request { http: Some(http), ..Request::default() }),
            ..AttributeContext::default()
        };
        CheckRequest { attributes: Some(attributes) }
    }

    #[test]
    fn the_source_is_the_connection_unless_envoy_tells_another() {
        let check =
            |told: &[&str], expected: &str| assert_eq!(access_request(&check(told), NodeView::UNNAMED).source_ip, expected, "{told:?}");
        check(&[], "192.0.2.1");
        check(&["198.51.100.7"], "198.51.100.7");
        check(&["2001:db8::7"], "2001:db8::7");
        for odd in [&[""][..], &["evil"], &["198.51.100.7, 192.0.2.9"], &["198.51.100.7:80"], &["198.51.100.7", "198.51.100.8"]] {
            check(odd, "192.0.2.1");
        }
        assert_eq!(access_request(&CheckRequest::default(), NodeView::UNNAMED).source_ip, "");
    }
}
