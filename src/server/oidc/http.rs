//! The HTTP client towards one identity provider: bounded in time and size, follows no redirect, trusts the configured CA bundle alone when there is
//! one. It knows nothing of OpenID Connect, and its errors never hold a body or a header.

use std::error::Error;
use std::time::Duration;

use openidconnect::{HttpRequest, HttpResponse, http};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client};
use url::Url;

/// The largest answer that is read, in bytes.
pub const ANSWER_LIMIT: usize = 1 << 20;

/// Why no answer came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("no answer within {0} s")]
    Slow(u64),
    #[error("the answer is larger than {ANSWER_LIMIT} bytes")]
    TooLarge,
    #[error("{0}")]
    Network(String),
    #[error("the HTTP client cannot be built: {0}")]
    Client(String),
}

/// One pooled client; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct HttpClient {
    client: Client,
    timeout: Duration,
}

impl HttpClient {
    /// `timeout` bounds a whole exchange, connecting included. With an `https` issuer no plain HTTP endpoint is called, whatever discovery says.
    ///
    /// # Errors
    /// `FetchError::Client` when `ca_pem` is not a PEM bundle or the system's roots cannot be read.
    pub(super) fn new(issuer: &Url, ca_pem: Option<&str>, timeout: Duration) -> Result<Self, FetchError> {
        // The first caller in the process wins; both would install the same provider.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut builder = Client::builder()
            .redirect(Policy::none())
            .timeout(timeout)
            .connect_timeout(timeout)
            .https_only(issuer.scheme() == "https")
            .pool_max_idle_per_host(2)
            .user_agent(concat!("kubepass/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = ca_pem {
            let roots = Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| FetchError::Client(causes(&error)))?;
            if roots.is_empty() {
                return Err(FetchError::Client("the CA bundle holds no certificate".to_owned()));
            }
            builder = builder.tls_certs_only(roots);
        }
        let client = builder.build().map_err(|error| FetchError::Client(causes(&error)))?;
        Ok(Self { client, timeout })
    }

    /// Sends one request and reads the whole answer, whatever its status.
    pub(super) async fn call(&self, request: HttpRequest) -> Result<HttpResponse, FetchError> {
        let request = reqwest::Request::try_from(request).map_err(|error| self.fault(error))?;
        let mut response = self.client.execute(request).await.map_err(|error| self.fault(error))?;
        if response.content_length().is_some_and(|length| length > ANSWER_LIMIT as u64) {
            return Err(FetchError::TooLarge);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.fault(error))? {
            if body.len() + chunk.len() > ANSWER_LIMIT {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let mut answer = http::Response::new(body);
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }

    fn fault(&self, error: reqwest::Error) -> FetchError {
        if error.is_timeout() { FetchError::Slow(self.timeout.as_secs()) } else { FetchError::Network(causes(&error.without_url())) }
    }
}

/// An error with its causes in one line: the last one usually says what happened ("connection refused").
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
