//! Certificates for the tests: one authority per run or cluster, certificates for servers and clients under it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// A certificate and its private key (PKCS #8), both PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Pair {
    /// The certificate without its armour.
    pub fn der(&self) -> Vec<u8> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("a certificate").to_vec()
    }
}

/// A certificate authority that exists for one run only.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new(common_name: &str) -> Self {
        let mut params = named(common_name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("an authority").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The authority's own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server certificate for DNS names (wildcards allowed) and IP addresses.
    pub fn server(&self, names: &[&str]) -> Pair {
        let mut params = named(names[0], &[]);
        params.subject_alt_names = names.iter().map(|name| alternative(name)).collect();
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate; Kubernetes reads the user from the common name and the groups from the organizations.
    pub fn client(&self, common_name: &str, organizations: &[&str]) -> Pair {
        self.sign(named(common_name, organizations), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The certificate of an Envoy: names with a colon are URIs, the others DNS names.
    pub fn node(&self, names: &[&str]) -> Pair {
        self.sign(node(names), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A server certificate whose time is over.
    pub fn expired_server(&self, names: &[&str]) -> Pair {
        let mut params = named(names[0], &[]);
        params.subject_alt_names = names.iter().map(|name| alternative(name)).collect();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// One whose time is over.
    pub fn expired_node(&self, names: &[&str]) -> Pair {
        let mut params = node(names);
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// One that is valid from now on for so long, in whole seconds.
    pub fn short_node(&self, names: &[&str], lifetime: Duration) -> Pair {
        let mut params = node(names);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + lifetime;
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Pair {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// A key pair without a certificate, as (private, public) PEM: for service-account tokens.
pub fn key_pair() -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    (key.serialize_pem(), key.public_key_pem())
}

fn node(names: &[&str]) -> CertificateParams {
    let mut params = named("an Envoy", &[]);
    let name = |name: &&str| match name.contains(':') {
        true => SanType::URI((*name).try_into().expect("a URI")),
        false => SanType::DnsName((*name).try_into().expect("a DNS name")),
    };
    params.subject_alt_names = names.iter().map(name).collect();
    params
}

fn named(common_name: &str, organizations: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    for organization in organizations {
        params.distinguished_name.push(DnType::OrganizationName, *organization);
    }
    params
}

fn alternative(name: &str) -> SanType {
    match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into().expect("a DNS name")),
    }
}
