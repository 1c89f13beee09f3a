//! The least that an ext_authz server can be: tonic on a Unix socket, and leave for everyone. What kubepass takes longer than this is
//! what kubepass itself costs. A process of its own, as kubepass is.

use std::path::Path;
use std::process::ExitCode;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse, OkHttpResponse};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

pub(super) const VERB: &str = "always-allow";
/// What the guard upstream wants to see.
pub(super) const GRANT: &str = "floor";

/// Runs until it is ended.
pub(super) fn serve(socket: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::bind(socket).expect("a socket");
        let service = AuthorizationServer::new(AlwaysAllow);
        tonic::transport::Server::builder().serve_with_incoming(service, UnixListenerStream::new(listener)).await.expect("serves");
    });
    ExitCode::FAILURE
}

struct AlwaysAllow;

#[tonic::async_trait]
impl Authorization for AlwaysAllow {
    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let grant = ("grant".to_owned(), Value { kind: Some(Kind::StringValue(GRANT.to_owned())) });
        Ok(Response::new(CheckResponse {
            status: Some(RpcStatus::default()),
            dynamic_metadata: Some(Struct { fields: [grant].into() }),
            http_response: Some(HttpResponse::OkResponse(OkHttpResponse::default())),
        }))
    }
}
