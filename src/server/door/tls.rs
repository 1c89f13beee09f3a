//! Mutual TLS of the control plane: the server's side from the configuration, and what a node's certificate says. Certificate, key and client CA may
//! change at any time; connections that are open stay as they are,
//! but for those that end with their certificate (`gate`).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::Speech;
use crate::config::{ControlPlaneTls, NodeIdentity};

/// For a whole handshake.
const DEADLINE: Duration = Duration::from_secs(5);
/// Names that a certificate may hold.
const MAX_NAMES: usize = 64;

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
    #[error("{0}")]
    ClientCa(#[from] VerifierBuilderError),
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("it took longer than {} s", DEADLINE.as_secs())]
    Slow,
    #[error("{0}")]
    Tls(#[from] io::Error),
    #[error("the client does not offer the protocol (ALPN) `{0}`")]
    Speech(&'static str),
    #[error("the client's certificate cannot be read")]
    Certificate,
}

/// What a node's certificate says.
#[derive(Debug)]
pub(super) struct ShownCertificate {
    /// Its URIs and DNS names, as they stand there but for the case of DNS names.
    pub(super) names: Vec<NodeIdentity>,
    /// Of its validity, in Unix seconds.
    pub(super) last_second: u64,
}

/// What new connections get.
#[derive(Debug)]
pub(super) struct Tls {
    speech: Speech,
    current: ArcSwap<InForce>,
}

#[derive(Debug)]
struct InForce {
    configured: ControlPlaneTls,
    server: Arc<ServerConfig>,
}

impl Tls {
    pub(super) fn new(speech: Speech, configured: &ControlPlaneTls) -> Result<Self, TlsError> {
        Ok(Self { speech, current: ArcSwap::from_pointee(InForce::of(configured, speech)?) })
    }

    /// Takes what is configured now, when it is another.
    pub(super) fn renew(&self, configured: &ControlPlaneTls) -> Result<(), TlsError> {
        if !same(&self.current.load().configured, configured) {
            self.current.store(Arc::new(InForce::of(configured, self.speech)?));
        }
        Ok(())
    }

    /// The connection, and what stands in the certificate that its node showed.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, ShownCertificate), HandshakeError> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.load().server));
        let stream = tokio::time::timeout(DEADLINE, acceptor.accept(stream)).await.map_err(|_| HandshakeError::Slow)??;
        let (_, connection) = stream.get_ref();
        if connection.alpn_protocol() != Some(self.speech.alpn().as_bytes()) {
            return Err(HandshakeError::Speech(self.speech.alpn()));
        }
        let leaf = connection.peer_certificates().and_then(<[_]>::first).ok_or(HandshakeError::Certificate)?;
        let shown = ShownCertificate::read(leaf).ok_or(HandshakeError::Certificate)?;
        Ok((stream, shown))
    }
}

impl Speech {
    fn alpn(self) -> &'static str {
        match self {
            Self::Grpc => "h2",
            Self::Http1 => "http/1.1",
        }
    }
}

impl InForce {
    fn of(configured: &ControlPlaneTls, speech: Speech) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(configured.client_ca_pem.as_bytes()) {
            roots.add(certificate?)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
        let chain = CertificateDer::pem_slice_iter(configured.certificate.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(configured.certificate.key_pem.expose_secret().as_bytes())?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        server.alpn_protocols = vec![speech.alpn().as_bytes().to_vec()];
        // A resumed session would not show its certificate again, whatever became of the CA meanwhile.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { configured: configured.clone(), server: Arc::new(server) })
    }
}

fn same(one: &ControlPlaneTls, other: &ControlPlaneTls) -> bool {
    let (own, others) = (&one.certificate, &other.certificate);
    own.chain_pem == others.chain_pem
        && own.key_pem.expose_secret() == others.key_pem.expose_secret()
        && one.client_ca_pem == other.client_ca_pem
}

impl ShownCertificate {
    /// The subject is no name: anything can stand there.
    fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let extension = certificate.subject_alternative_name().ok()?;
        let names = extension.iter().flat_map(|extension| &extension.value.general_names);
        let names: Vec<NodeIdentity> = names
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(NodeIdentity::Uri((*uri).to_owned())),
                GeneralName::DNSName(name) => Some(NodeIdentity::Dns(name.to_ascii_lowercase())),
                _ => None,
            })
            .take(MAX_NAMES + 1)
            .collect();
        let last_second = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
        (names.len() <= MAX_NAMES).then_some(Self { names, last_second })
    }
}
