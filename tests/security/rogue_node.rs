//! An Envoy elsewhere that means harm: it connects to kubepass's control plane over TLS with whatever certificate it has, says which node it is,
//! and keeps all that it is told.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{BuildVersion, Node};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::scene::Scene;
use super::support::logs::{self, Export};
use super::support::pki::Pair;

const SECRETS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// For what the control plane has to say to a question.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which of the services it goes to, as [`Scene::services`] has their ports.
pub(super) const XDS: usize = 0;
pub(super) const EXT_AUTHZ: usize = 1;
pub(super) const ACCESS_LOG: usize = 2;

pub(super) struct RogueNode<'s> {
    scene: &'s Scene,
    runtime: Runtime,
    /// None: it shows no certificate.
    pub(super) identity: Option<Pair>,
    /// Plain bytes where TLS is expected.
    pub(super) plain: bool,
}

/// What it says in its first message.
pub(super) struct Question<'a> {
    pub(super) node: &'a str,
    pub(super) delta: bool,
    /// None asks for all.
    pub(super) names: &'a [&'a str],
}

impl<'s> RogueNode<'s> {
    pub(super) fn new(scene: &'s Scene, identity: Option<Pair>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { scene, runtime, identity, plain: false }
    }

    /// Everything that it is told about secrets, as bytes; or how it was refused.
    pub(super) fn secrets(&self, question: &Question<'_>) -> Result<Vec<u8>, String> {
        let names: Vec<String> = question.names.iter().map(|&name| name.to_owned()).collect();
        let node = Some(node(question.node));
        self.scene.next();
        self.runtime.block_on(async {
            let mut client = AggregatedDiscoveryServiceClient::new(self.channel(XDS).await?);
            let mut told = Vec::new();
            let refused = |status: tonic::Status| format!("{:?}", status.code());
            if question.delta {
                let request =
                    DeltaDiscoveryRequest { node, type_url: SECRETS.to_owned(), resource_names_subscribe: names, ..Default::default() };
                let open = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
                let mut answers = client.delta_aggregated_resources(open).await.map_err(refused)?.into_inner();
                if let Ok(answer) = tokio::time::timeout(PATIENCE, answers.message()).await
                    && let Some(answer) = answer.map_err(refused)?
                {
                    answer.encode(&mut told).expect("room");
                }
            } else {
                let request = DiscoveryRequest { node, type_url: SECRETS.to_owned(), resource_names: names, ..Default::default() };
                let open = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
                let mut answers = client.stream_aggregated_resources(open).await.map_err(refused)?.into_inner();
                if let Ok(answer) = tokio::time::timeout(PATIENCE, answers.message()).await
                    && let Some(answer) = answer.map_err(refused)?
                {
                    answer.encode(&mut told).expect("room");
                }
            }
            Ok(told)
        })
    }

    pub(super) fn check(&self, request: CheckRequest) -> Result<CheckResponse, String> {
        self.scene.next();
        self.runtime.block_on(async {
            let mut client = AuthorizationClient::new(self.channel(EXT_AUTHZ).await?);
            client.check(request).await.map(tonic::Response::into_inner).map_err(|status| format!("{:?}", status.code()))
        })
    }

    pub(super) fn log(&self, message: Export) -> Result<(), String> {
        self.scene.next();
        self.runtime.block_on(async {
            let channel = self.channel(ACCESS_LOG).await?;
            logs::send(channel, message).await.map_err(|status| format!("{:?}", status.code()))
        })
    }

    async fn channel(&self, service: usize) -> Result<Channel, String> {
        let (port, plain) = (self.scene.services[service], self.plain);
        let config = Arc::new(self.tls());
        let connector = tower::service_fn(move |_| {
            let config = Arc::clone(&config);
            async move {
                let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
                let name = ServerName::try_from("127.0.0.1").expect("a name");
                let stream: Box<dyn Stream> =
                    if plain { Box::new(tcp) } else { Box::new(TlsConnector::from(config).connect(name, tcp).await?) };
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        Endpoint::from_static("http://kubepass").connect_with_connector(connector).await.map_err(|error| format!("no connection: {error}"))
    }

    fn tls(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.scene.world.authority.pem().as_bytes()).expect("a certificate"))
            .expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS versions");
        let config = versions.with_root_certificates(roots);
        let mut config = match &self.identity {
            Some(pair) => {
                let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("a certificate")];
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
                config.with_client_auth_cert(chain, key).expect("a certificate and its key")
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for S {}

/// As an Envoy of a tested version says who it is.
fn node(id: &str) -> Node {
    let version = Some(SemanticVersion { major_number: 1, minor_number: 40, patch: 0 });
    let version = UserAgentVersionType::UserAgentBuildVersion(BuildVersion { version, ..BuildVersion::default() });
    Node { id: id.to_owned(), user_agent_version_type: Some(version), ..Node::default() }
}
