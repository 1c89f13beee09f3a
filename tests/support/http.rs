//! Blocking HTTP clients for the harness itself.

use std::sync::Once;
use std::time::Duration;

use reqwest::blocking::{Client, ClientBuilder};
use reqwest::redirect::Policy;

/// A client that trusts only the given authorities, follows no redirect and uses no proxy of the environment.
pub fn client(authorities: &[&str]) -> Client {
    builder(authorities).no_proxy().build().expect("a client")
}

/// The same, to be completed.
pub fn builder(authorities: &[&str]) -> ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Another part of the process may have been first; any provider will do.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
    let certificates = authorities.iter().map(|pem| reqwest::Certificate::from_pem(pem.as_bytes()).expect("a certificate"));
    Client::builder().tls_certs_only(certificates).redirect(Policy::none()).timeout(Duration::from_secs(30))
}
