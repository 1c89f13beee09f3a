//! TLS towards the identity provider: the configured CA bundle alone, or the system's roots; never plain HTTP behind an `https` issuer.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kubepass::config::IdentityProvider;
use kubepass::identity::IdentityMapping;
use kubepass::server::oidc::{OidcError, Providers, Timing};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use url::Url;

/// A CA and an identity provider behind TLS that it certified, which counts the requests that got through.
struct TlsIdp {
    ca_pem: String,
    issuer: String,
    requests: Arc<AtomicUsize>,
}

impl TlsIdp {
    /// `keys_uri` replaces the address of the keys.
    fn start(keys_uri: Option<&str>) -> Self {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(leaf.der().to_vec())], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let keys = keys_uri.map_or_else(|| format!("{issuer}/keys"), str::to_owned);
        let body = serde_json::json!({
            "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"), "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": keys, "keys": [], "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        std::thread::spawn(move || serve(&listener, &Arc::new(config), &body.to_string(), &counted));
        Self { ca_pem, issuer, requests }
    }

    async fn discover(&self, ca_pem: Option<&str>) -> Result<(), OidcError> {
        let settings = IdentityProvider {
            name: "corp".to_owned(),
            issuer: Url::parse(&self.issuer).unwrap(),
            client_id: "kubepass".to_owned(),
            client_secret: "secret".into(),
            scopes: Vec::new(),
            mapping: IdentityMapping::compile("claims.sub", None, None).unwrap(),
            ca_pem: ca_pem.map(str::to_owned),
        };
        let providers = Providers::new(Timing::default());
        let result = async { providers.get(&settings)?.discovered().await.map(drop) }.await;
        if let [health] = &providers.health()[..] {
            assert_eq!(health.reachable, Some(result.is_ok()));
            assert_eq!(health.last_success_at.is_some(), result.is_ok());
            assert_eq!(health.last_error.is_some(), result.is_err());
        }
        result
    }
}

/// Every path has the same answer: it is discovery document and key set in one.
fn serve(listener: &TcpListener, config: &Arc<rustls::ServerConfig>, body: &str, requests: &AtomicUsize) {
    for stream in listener.incoming() {
        let mut tls = rustls::StreamOwned::new(rustls::ServerConnection::new(Arc::clone(config)).unwrap(), stream.unwrap());
        let mut read = Vec::new();
        let mut buffer = [0; 4096];
        while !read.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            match tls.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => read.extend_from_slice(&buffer[..count]),
            }
        }
        if !read.is_empty() {
            requests.fetch_add(1, Ordering::SeqCst);
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = tls.write_all(format!("{head}{body}").as_bytes());
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
    }
}

#[tokio::test]
async fn the_configured_bundle_is_trusted_and_nothing_else() {
    let idp = TlsIdp::start(None);
    idp.discover(Some(&idp.ca_pem)).await.unwrap();
    assert_eq!(idp.requests.load(Ordering::SeqCst), 2);
    let other = TlsIdp::start(None);
    for ca_pem in [Some(other.ca_pem.as_str()), None] {
        let error = idp.discover(ca_pem).await.unwrap_err();
        assert!(matches!(error, OidcError::Unreachable { .. }), "{error}");
    }
    let error = idp.discover(Some("no certificate")).await.unwrap_err();
    assert!(error.to_string().contains("CA bundle"), "{error}");
    assert_eq!(idp.requests.load(Ordering::SeqCst), 2, "nothing was sent without trust");
}

#[tokio::test]
async fn an_https_issuer_cannot_send_us_to_plain_http() {
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    plain.set_nonblocking(true).unwrap();
    let idp = TlsIdp::start(Some(&format!("http://{}/keys", plain.local_addr().unwrap())));
    idp.discover(Some(&idp.ca_pem)).await.unwrap_err();
    assert!(plain.accept().is_err(), "nobody came over plain HTTP");
}
