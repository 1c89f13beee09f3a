//! The self-test's ext_authz: what it answers is chosen by the request's path. Some answers are such as kubepass never gives, to see that
//! Envoy lets nothing pass on them.

use std::io;
use std::path::Path;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use envoy_types::pb::envoy::r#type::v3::{HttpStatus, StatusCode};
use envoy_types::pb::google::protobuf::{BoolValue, Struct, Value, value::Kind};
use envoy_types::pb::google::rpc;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

use super::cases::{ASSERTION, AUDIT_ID, COOKIE, GROUPS, REASONS, USER, user_token};
use crate::xds::resources::names;
use crate::xds::resources::self_test::{EXTRA_KEY, HTTP_ROUTE, JWT_ROUTE, ROUTE};

/// Serves until dropped.
#[derive(Debug)]
pub(super) struct Script {
    task: JoinHandle<()>,
}

impl Script {
    pub(super) fn serve(socket: &Path) -> io::Result<Self> {
        let listener = UnixListenerStream::new(UnixListener::bind(socket)?);
        let task = tokio::spawn(async move {
            // Where it ends early, the cases fail.
            let _ = Server::builder().serve_with_incoming(AuthorizationServer::new(Answers), listener).await;
        });
        Ok(Self { task })
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Answers;

#[tonic::async_trait]
impl Authorization for Answers {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let attributes = request.into_inner().attributes.unwrap_or_default();
        let target = attributes.context_extensions.get(names::TARGET_KEY).cloned().unwrap_or_default();
        let http = attributes.request.and_then(|request| request.http).unwrap_or_default();
        answer(&http, &target).map(Response::new)
    }
}

fn answer(http: &HttpRequest, target: &str) -> Result<CheckResponse, Status> {
    let grant = names::kubernetes_cluster(ROUTE);
    let user = (names::USER_KEY.to_owned(), USER.to_owned());
    let granted = (names::GRANT_KEY.to_owned(), grant);
    let path = http.path.split('?').next().unwrap_or_default();
    Ok(match path.rsplit('/').next().unwrap_or_default() {
        "identity" | "ends" => allow(identity(granted), if path == super::upstream::NEVER_ANSWERED { "150" } else { "60000" }),
        "web" => allow(vec![(names::GRANT_KEY.to_owned(), names::WEB_TARGET.to_owned())], "60000"),
        "seen" => denied(rpc_status(Code::PermissionDenied), &seen(http, target)),
        "no-grant" => allow(vec![user], "60000"),
        "wrong-grant" => allow(vec![user, (names::GRANT_KEY.to_owned(), "kubernetes:other".to_owned())], "60000"),
        "no-user" => allow(vec![granted], "60000"),
        "blank-user" => allow(vec![granted, (names::USER_KEY.to_owned(), " ".to_owned())], "60000"),
        "token" => with_token(jwt_granted()),
        "token-and-user" => with_token([jwt_granted(), vec![user]].concat()),
        "no-token" => allow(jwt_granted(), "60000"),
        "wrong-grant-token" => with_token(vec![granted]),
        "assertion" => with_headers(http_granted(), &[(names::UPSTREAM_ASSERTION, ASSERTION), (names::UPSTREAM_COOKIE, COOKIE)]),
        "assertion-alone" => with_header(http_granted(), names::UPSTREAM_ASSERTION, ASSERTION),
        "no-assertion" => with_header(http_granted(), names::UPSTREAM_COOKIE, COOKIE),
        "wrong-grant-assertion" => with_header(jwt_granted(), names::UPSTREAM_ASSERTION, ASSERTION),
        "assertion-and-user" => with_header([http_granted(), vec![user]].concat(), names::UPSTREAM_ASSERTION, ASSERTION),
        "empty" => CheckResponse::default(),
        "denied-but-ok" => denied(rpc_status(Code::Ok), "denied"),
        "identity-header" => with_header(vec![granted, user], "impersonate-user", "root"),
        "invalid-header" => with_header(vec![granted, user], names::AUDIT_ID, "a\r\nimpersonate-user: root"),
        _ => return Err(Status::internal("scripted failure")),
    })
}

fn jwt_granted() -> Vec<(String, String)> {
    vec![(names::GRANT_KEY.to_owned(), names::kubernetes_cluster(JWT_ROUTE))]
}

fn http_granted() -> Vec<(String, String)> {
    vec![(names::GRANT_KEY.to_owned(), names::http_target(HTTP_ROUTE).to_string())]
}

fn with_token(metadata: Vec<(String, String)>) -> CheckResponse {
    with_header(metadata, names::UPSTREAM_AUTHORIZATION, &format!("Bearer {}", user_token()))
}

fn identity(granted: (String, String)) -> Vec<(String, String)> {
    let groups = GROUPS.iter().map(|(slot, group)| (names::group_key(*slot).to_string(), (*group).to_owned()));
    let reasons = REASONS.iter().enumerate().map(|(slot, reason)| (names::extra_key(EXTRA_KEY, slot).to_string(), (*reason).to_owned()));
    let user = [granted, (names::USER_KEY.to_owned(), USER.to_owned()), (names::UID_KEY.to_owned(), "uid-1".to_owned())];
    user.into_iter().chain(groups).chain(reasons).collect()
}

/// What ext_authz was told, one line for each header line.
fn seen(http: &HttpRequest, target: &str) -> String {
    let headers = http.header_map.iter().flat_map(|map| &map.headers);
    let lines = headers.map(|header| format!("{}: {}\n", header.key, String::from_utf8_lossy(&header.raw_value)));
    std::iter::once(format!("target={target}\n")).chain(lines).collect()
}

fn allow(metadata: Vec<(String, String)>, stream_milliseconds: &str) -> CheckResponse {
    let headers = vec![header(names::AUDIT_ID, AUDIT_ID), header(names::STREAM_DURATION, stream_milliseconds)];
    ok(metadata, headers)
}

fn with_header(metadata: Vec<(String, String)>, name: &str, value: &str) -> CheckResponse {
    with_headers(metadata, &[(name, value)])
}

fn with_headers(metadata: Vec<(String, String)>, headers: &[(&str, &str)]) -> CheckResponse {
    ok(metadata, headers.iter().map(|(name, value)| header(name, value)).collect())
}

fn ok(metadata: Vec<(String, String)>, headers: Vec<HeaderValueOption>) -> CheckResponse {
    let value = |text| Value { kind: Some(Kind::StringValue(text)) };
    let fields = metadata.into_iter().map(|(key, text)| (key, value(text))).collect();
    CheckResponse {
        status: rpc_status(Code::Ok),
        dynamic_metadata: Some(Struct { fields }),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse { headers, ..Default::default() })),
    }
}

fn denied(status: Option<rpc::Status>, body: &str) -> CheckResponse {
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: StatusCode::Forbidden.into() }),
        headers: vec![header("content-type", "text/html; charset=utf-8")],
        body: body.to_owned(),
    };
    CheckResponse { status, http_response: Some(HttpResponse::DeniedResponse(denied)), ..Default::default() }
}

/// Both fields are set, for Envoy's versions differ in which of them they read.
fn header(name: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: name.to_owned(), value: value.to_owned(), ..Default::default() };
    let mut option =
        HeaderValueOption { header: Some(header), append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(), ..Default::default() };
    #[allow(deprecated, reason = "Envoy 1.40 reads this field and not its successor")]
    {
        option.append = Some(BoolValue { value: false });
    }
    option
}

fn rpc_status(code: Code) -> Option<rpc::Status> {
    Some(rpc::Status { code: code.into(), ..Default::default() })
}
