#![allow(clippy::unwrap_used, reason = "tests")]

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{BoolValue, Struct, Value};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::access::RequestTarget;
use crate::access::request::RequestHeaders;
use crate::kubernetes::status::{Reason, Status};
use crate::snapshot::NodeView;

/// The same as a message of the generated types.
fn by_prost(answer: &Answer, request: &AccessRequest<'_>, public_url: &str) -> CheckResponse {
    let refusal = Refusal::of(answer, request, public_url);
    let mut headers = vec![
        overwrite("content-type", refusal.content_type),
        overwrite("cache-control", "no-store"),
        overwrite("x-content-type-options", "nosniff"),
        overwrite("audit-id", request.request_id),
    ];
    if refusal.code == 401 {
        headers.push(overwrite("www-authenticate", "Bearer realm=\"kubepass\""));
    }
    if matches!(answer.form, Form::ApiServerPage | Form::Page) {
        headers.push(overwrite("content-security-policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"));
    }
    if matches!(refusal.code, 429 | 503) {
        headers.push(overwrite("retry-after", "1"));
    }
    headers.extend(refusal.location.map(|location| overwrite("location", &location)));
    CheckResponse {
        status: Some(RpcStatus { code: 7, message: answer.word.to_owned(), ..RpcStatus::default() }),
        dynamic_metadata: Some(metadata("reason", answer.word)),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: i32::from(refusal.code) }),
            headers,
            body: refusal.body,
        })),
    }
}

#[allow(deprecated, reason = "Envoy 1.40 reads `append` and ignores its successor; both are set")]
fn overwrite(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        append: Some(BoolValue { value: false }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        keep_empty_value: false,
    }
}

fn metadata(key: &str, text: &str) -> Struct {
    Struct { fields: [(key.to_owned(), Value { kind: Some(Kind::StringValue(text.to_owned())) })].into() }
}

#[test]
fn the_web_part_gets_requests_without_identity() {
    let expected = CheckResponse {
        status: Some(RpcStatus::default()),
        dynamic_metadata: Some(metadata("grant", "web")),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse::default())),
    };
    assert_eq!(CheckResponse::decode(to_web().as_slice()).unwrap(), expected);
}

proptest! {
    #[test]
    fn a_refusal_is_the_message_that_prost_would_write(
        reason in prop::sample::select(vec![Reason::Unauthorized, Reason::Forbidden, Reason::BadRequest, Reason::ServiceUnavailable]),
        form in prop::sample::select(vec![Form::Status, Form::ApiServerPage, Form::LogIn, Form::Page, Form::Json]),
        word in prop::sample::select(vec!["policy_denied", "identity_provider", ""]),
        message in prop_oneof![".{0,300}", Just("x".repeat(40_000))],
        (request_id, path, host) in (".{0,40}", "/.{0,200}", ".{0,20}"),
        accepts_discovery in any::<bool>(),
    ) {
        let request = AccessRequest {
            node: NodeView::UNNAMED,
            request_id: &request_id,
            target: RequestTarget::Unknown,
            method: "GET",
            path: &path,
            host: &host,
            sni: "",
            source_ip: "",
            headers: RequestHeaders { accepts_discovery, ..RequestHeaders::default() },
        };
        let answer = Answer { word, status: Status::new(reason, message), form };
        let written = refuse(&answer, &request, "https://pass.example.com/");
        prop_assert_eq!(CheckResponse::decode(written.as_slice()).unwrap(), by_prost(&answer, &request, "https://pass.example.com/"));
    }
}
