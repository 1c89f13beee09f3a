//! One client that asks for checks over kubepass's socket, one after the other, as an Envoy with one connection does.

use std::path::PathBuf;
use std::time::Instant;

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request as AttributeRequest, TlsSession};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use hyper_util::rt::TokioIo;
use kubepass::session::Session;
use kubepass::snapshot::Snapshot;
use tonic::transport::{Channel, Endpoint, Uri};

const ROUTE: &str = "route-50";

pub(super) struct Asking {
    client: AuthorizationClient<Channel>,
    target: String,
    host: String,
}

impl Asking {
    pub(super) async fn connect(socket: PathBuf, snapshot: &Snapshot) -> Self {
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://kubepass.invalid").connect_with_connector(connector).await.expect("the socket");
        let route = snapshot.route(ROUTE).expect("the route");
        let (target, host) = (format!("kubernetes:{}", route.id()), route.host.clone());
        Self { client: AuthorizationClient::new(channel), target, host }
    }

    /// A new token of this session.
    pub(super) fn token(&self, snapshot: &Snapshot, session: &Session, id: &str, now: u64) -> String {
        let claims = session.session_token_claims(&self.host, id.to_owned(), now);
        snapshot.token_keys().sign_session_token(&claims).expect("a token")
    }

    /// Microseconds until the answer, which must be leave to pass.
    ///
    /// # Errors
    /// What else came.
    pub(super) async fn check(&mut self, token: &str) -> Result<f64, String> {
        let header = |key: &str, value: &str| HeaderValue { key: key.into(), raw_value: value.into(), ..HeaderValue::default() };
        let headers = vec![
            header("x-request-id", "7373a616-45b1-4144-adf1-bd54fdb28e23"),
            header("authorization", &format!("Bearer {token}")),
            header("user-agent", "kubectl/v1.36.3 (linux/amd64) kubernetes/0000000"),
        ];
        let http = HttpRequest {
            method: "GET".into(),
            path: "/version".into(),
            host: self.host.clone(),
            header_map: Some(HeaderMap { headers }),
            ..HttpRequest::default()
        };
        let request = CheckRequest {
            attributes: Some(AttributeContext {
                request: Some(AttributeRequest { http: Some(http), ..AttributeRequest::default() }),
                context_extensions: [("target".to_owned(), self.target.clone())].into(),
                tls_session: Some(TlsSession { sni: self.host.clone() }),
                ..AttributeContext::default()
            }),
        };
        let began = Instant::now();
        let answer = self.client.check(request).await.map_err(|status| status.to_string())?.into_inner();
        let micros = began.elapsed().as_secs_f64() * 1e6;
        match answer.http_response {
            Some(HttpResponse::OkResponse(_)) => Ok(micros),
            other => Err(format!("a check was refused: {other:?}")),
        }
    }
}
