//! Where this machine keeps the CA certificates that it trusts.

use std::path::PathBuf;

/// Set where they stand elsewhere (OpenSSL's name for it).
const VARIABLE: &str = "SSL_CERT_FILE";

/// Debian and Alpine; Red Hat; SUSE; OpenBSD and macOS.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The bundle; the usual place where there is none, so that what is missing can be named and watched for.
pub(super) fn bundle() -> PathBuf {
    let named = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let usual = || BUNDLES.iter().map(PathBuf::from).find(|path| path.exists());
    let [first, ..] = BUNDLES;
    named.or_else(usual).unwrap_or_else(|| PathBuf::from(first))
}
