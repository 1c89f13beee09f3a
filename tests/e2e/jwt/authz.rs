//! A check in the place of kubepass's that allows every request to where it is routed: what is then still refused, Envoy refuses.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse, OkHttpResponse};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{BoolValue, Struct, Value};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::super::support::processes::{envoys, kill};
use super::super::support::wait::eventually;
use super::super::support::world::{STAGING_HOST, World};

/// Of who starts Envoy again: the more often it was killed, the longer the pause.
const PATIENCE: Duration = Duration::from_secs(60);

type Headers = Vec<(&'static str, String)>;

/// Stands in the place of kubepass's own check until [`AllowAll::end`].
pub(super) struct AllowAll {
    socket: PathBuf,
    headers: Arc<Mutex<Headers>>,
    _runtime: Runtime,
}

struct Answers {
    headers: Arc<Mutex<Headers>>,
}

impl AllowAll {
    /// Answers each check with the grant that its route asks for and with the headers of [`AllowAll::add`]. Envoy keeps its connection to
    /// kubepass, so it is started anew.
    pub(super) fn instead_of_kubepass(world: &World) -> Self {
        let socket = world.run.file("kubepass/run/ext_authz.sock");
        std::fs::rename(&socket, away(&socket)).unwrap();
        let runtime = Runtime::new().unwrap();
        let headers: Arc<Mutex<Headers>> = Arc::default();
        let given = Arc::clone(&headers);
        let listener = runtime.block_on(async { UnixListener::bind(&socket).unwrap() });
        runtime.spawn(async move {
            let service = AuthorizationServer::new(Answers { headers: given });
            tonic::transport::Server::builder().serve_with_incoming(service, UnixListenerStream::new(listener)).await.unwrap();
        });
        restart_envoy(world);
        Self { socket, headers, _runtime: runtime }
    }

    /// What the next answers add to a request.
    pub(super) fn add(&self, headers: Headers) {
        *self.headers.lock().unwrap() = headers;
    }

    /// kubepass's own check again.
    pub(super) fn end(self, world: &World) {
        std::fs::rename(away(&self.socket), &self.socket).unwrap();
        restart_envoy(world);
    }
}

fn away(socket: &Path) -> PathBuf {
    socket.with_extension("away")
}

fn restart_envoy(world: &World) {
    let [before] = envoys(world)[..] else { panic!("one Envoy is expected") };
    kill(before);
    eventually("another Envoy answers", PATIENCE, || {
        let answers = || world.client().get(format!("https://{STAGING_HOST}/version?is=up")).send().is_ok();
        (envoys(world).iter().any(|envoy| *envoy != before) && answers()).then_some(())
    });
}

#[tonic::async_trait]
impl Authorization for Answers {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let attributes = request.into_inner().attributes.unwrap_or_default();
        let target = attributes.context_extensions.get("target").cloned().unwrap_or_default();
        let grant = ("grant".to_owned(), Value { kind: Some(Kind::StringValue(target)) });
        let headers = self.headers.lock().unwrap().iter().map(|(name, value)| overwrite(name, value)).collect();
        Ok(Response::new(CheckResponse {
            status: Some(envoy_types::pb::google::rpc::Status::default()),
            dynamic_metadata: Some(Struct { fields: [grant].into() }),
            http_response: Some(HttpResponse::OkResponse(OkHttpResponse { headers, ..OkHttpResponse::default() })),
        }))
    }
}

#[allow(deprecated, reason = "Envoy 1.40 reads `append`")]
fn overwrite(name: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() };
    HeaderValueOption { header: Some(header), append: Some(BoolValue { value: false }), ..HeaderValueOption::default() }
}
