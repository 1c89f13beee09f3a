//! Checks of PEM material, so that Envoy never meets a certificate or key that it would refuse.

use std::collections::HashSet;
use std::net::IpAddr;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::SecretString;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::error::At;
use super::model::ServingCertificate;
use super::reference::Reference;
use super::resolving::Resolving;

/// Envoy refuses smaller RSA keys.
const MIN_RSA_BITS: usize = 2048;

/// A serving certificate of a listener with its key; every check that a TLS client or Envoy would make, made now.
pub(super) fn resolve_serving(chain: &At<Reference>, key: &At<Reference>, resolving: &mut Resolving<'_>) -> Option<ServingCertificate> {
    resolve_pair(chain, key, Names::Dns, resolving)
}

/// The same of a server that may be known by an address alone.
pub(super) fn resolve_server(chain: &At<Reference>, key: &At<Reference>, resolving: &mut Resolving<'_>) -> Option<ServingCertificate> {
    resolve_pair(chain, key, Names::Any, resolving)
}

/// Which names a certificate must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Dns,
    Any,
}

fn resolve_pair(chain: &At<Reference>, key: &At<Reference>, needed: Names, resolving: &mut Resolving<'_>) -> Option<ServingCertificate> {
    let certificates = certificates(chain, resolving);
    let signing_key = private_key(key, resolving);
    let certificates = certificates?;
    let (dns_names, ip_addresses) = check_chain(chain, &certificates, needed, resolving)?;
    let certified = CertifiedKey::new(certificates, signing_key?);
    if certified.keys_match().is_err() {
        let message = format!("the key in {} does not belong to the first certificate in {}", key.value, chain.value);
        resolving.faults.add_with_hint(&key.spot, message, "the chain begins with the certificate of this key, its issuers follow");
        return None;
    }
    let chain_pem = resolving.text(chain)?.to_owned();
    let key_pem = SecretString::from(resolving.text(key)?.to_owned());
    Some(ServingCertificate { chain_pem, key_pem, dns_names, ip_addresses })
}

/// A bundle of CA certificates, at least one of them valid at `now`.
pub(super) fn resolve_bundle(reference: &At<Reference>, resolving: &mut Resolving<'_>) -> Option<String> {
    let certificates = certificates(reference, resolving)?;
    // Some of a system's roots are always odd or over; which ones count is for TLS.
    if reference.value == Reference::SystemRoots {
        return resolving.text(reference).map(str::to_owned);
    }
    let mut last_expiry = String::new();
    let mut end = i64::MIN;
    for (index, der) in certificates.iter().enumerate() {
        let certificate = parse(reference, index, der, resolving)?;
        end = end.max(certificate.validity().not_after.timestamp());
        last_expiry = certificate.validity().not_after.to_string();
    }
    resolving.expires(end);
    if end <= seconds(resolving.now) {
        resolving
            .faults
            .add(&reference.spot, format!("every CA certificate in {} has expired (the last on {last_expiry})", reference.value));
        return None;
    }
    resolving.text(reference).map(str::to_owned)
}

/// As `resolve_bundle`, where each certificate must be one that client certificates can be verified by.
pub(super) fn resolve_client_ca(reference: &At<Reference>, resolving: &mut Resolving<'_>) -> Option<String> {
    let text = resolve_bundle(reference, resolving)?;
    let mut roots = RootCertStore::empty();
    for (index, der) in certificates(reference, resolving)?.into_iter().enumerate() {
        if roots.add(der).is_err() {
            let message = format!("{}: certificate {} cannot be a CA that certificates are verified by", reference.value, index + 1);
            resolving.faults.add(&reference.spot, message);
            return None;
        }
    }
    Some(text)
}

/// Whether one of the DNS names of certificates covers `host` (RFC 9525: a wildcard stands for exactly one label, the first).
pub(super) fn covers(dns_names: &HashSet<&str>, host: &str) -> bool {
    let parent = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    dns_names.contains(host) || parent.is_some_and(|wildcard| dns_names.contains(wildcard.as_str()))
}

fn certificates(reference: &At<Reference>, resolving: &mut Resolving<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = resolving.bytes(reference)?;
    let mut refuse = |message: String| resolving.faults.add(&reference.spot, format!("{} {message}", reference.value));
    if PrivateKeyDer::from_pem_slice(bytes).is_ok() {
        refuse("holds a private key; only certificates may stand here".to_owned());
        return None;
    }
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(bytes) {
        match certificate {
            Ok(certificate) => certificates.push(certificate),
            Err(error) => {
                refuse(format!("is not valid PEM: {}", pem_fault(&error)));
                return None;
            }
        }
    }
    if certificates.is_empty() {
        refuse("holds no certificate in PEM form (`-----BEGIN CERTIFICATE-----`)".to_owned());
        return None;
    }
    Some(certificates)
}

fn private_key(reference: &At<Reference>, resolving: &mut Resolving<'_>) -> Option<std::sync::Arc<dyn rustls::sign::SigningKey>> {
    let bytes = resolving.bytes(reference)?;
    let mut refuse = |message: String| resolving.faults.add(&reference.spot, format!("{} {message}", reference.value));
    let mut keys = PrivateKeyDer::pem_slice_iter(bytes);
    let key = match keys.next() {
        Some(Ok(key)) => key,
        Some(Err(error)) => {
            refuse(format!("is not valid PEM: {}", pem_fault(&error)));
            return None;
        }
        None => {
            let encrypted = bytes.windows(9).any(|window| window == b"ENCRYPTED");
            let why = if encrypted {
                "holds an encrypted key; it must be stored without a passphrase"
            } else {
                "holds no private key in PEM form"
            };
            refuse(why.to_owned());
            return None;
        }
    };
    if keys.next().is_some() {
        refuse("holds more than one private key".to_owned());
        return None;
    }
    match any_supported_type(&key) {
        Ok(key) => Some(key),
        Err(_) => {
            refuse("holds a private key that cannot be used; RSA (2048 bits or more) and ECDSA (P-256, P-384) are supported".to_owned());
            None
        }
    }
}

/// The DNS names and addresses of the leaf, when the chain is one that clients accept now.
fn check_chain(
    reference: &At<Reference>,
    chain: &[CertificateDer<'static>],
    needed: Names,
    resolving: &mut Resolving<'_>,
) -> Option<(Vec<String>, Vec<IpAddr>)> {
    let mut parsed = Vec::new();
    for (index, der) in chain.iter().enumerate() {
        parsed.push(parse(reference, index, der, resolving)?);
    }
    let leaf = parsed.first()?;
    let now = seconds(resolving.now);
    let mut faults = Vec::new();
    for (index, certificate) in parsed.iter().enumerate() {
        let validity = certificate.validity();
        resolving.expires(validity.not_after.timestamp());
        if validity.not_after.timestamp() <= now {
            faults.push(format!("certificate {} expired on {}", index + 1, validity.not_after));
        } else if validity.not_before.timestamp() > now {
            faults.push(format!("certificate {} is not valid before {}", index + 1, validity.not_before));
        }
    }
    for (index, pair) in parsed.windows(2).enumerate() {
        if let [lower, upper] = pair
            && lower.issuer().as_raw() != upper.subject().as_raw()
        {
            faults.push(format!(
                "certificate {} was not issued by certificate {}; the order is leaf first, then each issuer",
                index + 1,
                index + 2
            ));
        }
    }
    faults.extend(leaf_faults(leaf));
    let names = names(leaf);
    if needed == Names::Dns && names.0.is_empty() {
        faults.push("its first certificate names no DNS host (subject alternative name)".to_owned());
    }
    let good = faults.is_empty();
    for fault in faults {
        resolving.faults.add(&reference.spot, format!("{}: {fault}", reference.value));
    }
    good.then_some(names)
}

fn leaf_faults(leaf: &X509Certificate<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    match leaf.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < MIN_RSA_BITS => {
            faults.push(format!("the RSA key has {} bits; at least {MIN_RSA_BITS} are needed", key.key_size()));
        }
        Ok(PublicKey::RSA(_) | PublicKey::EC(_)) => {}
        _ => faults.push("the key is neither RSA nor ECDSA, which TLS clients of API servers and Envoy need".to_owned()),
    }
    if let Ok(Some(usage)) = leaf.extended_key_usage()
        && !usage.value.server_auth
        && !usage.value.any
    {
        faults.push("the certificate is not meant for servers (extended key usage)".to_owned());
    }
    faults
}

fn names(leaf: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut dns_names, mut addresses) = (Vec::new(), Vec::new());
    let extension = leaf.subject_alternative_name().ok().flatten();
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => dns_names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => {}
        }
    }
    (dns_names, addresses)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

fn parse<'d>(
    reference: &At<Reference>,
    index: usize,
    der: &'d CertificateDer<'static>,
    resolving: &mut Resolving<'_>,
) -> Option<X509Certificate<'d>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        _ => {
            resolving
                .faults
                .add(&reference.spot, format!("{}: certificate {} is not a valid X.509 certificate", reference.value, index + 1));
            None
        }
    }
}

/// Never repeats the text: it may be a key.
fn pem_fault(error: &PemError) -> &'static str {
    match error {
        PemError::MissingSectionEnd { .. } => "a section has no end line",
        PemError::IllegalSectionStart { .. } => "a `-----BEGIN` line is malformed",
        PemError::Base64Decode(_) => "a section is not Base64",
        _ => "a section cannot be read",
    }
}

fn seconds(now: u64) -> i64 {
    i64::try_from(now).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{HashSet, covers};

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let names = HashSet::from(["*.k8s.example.com", "pass.example.com"]);
        let check = |host: &str, want: bool| assert_eq!(covers(&names, host), want, "{host}");
        check("prod.k8s.example.com", true);
        check("pass.example.com", true);
        check("a.prod.k8s.example.com", false);
        check("k8s.example.com", false);
        check("example.com", false);
        check("xk8s.example.com", false);
    }
}
