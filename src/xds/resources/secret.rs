//! SDS: serving certificates, CA bundles and service-account tokens. The only resources with secrets in them; `Resource` does not show its
//! body.

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, GenericSecret, Secret, TlsCertificate, secret,
};
use secrecy::{ExposeSecret, SecretString};

use super::input::{ListenerInput, MethodInput, RouteInput};
use super::message::inline_text;
use super::names;
use crate::config::ServingCertificate;

pub(super) fn of_route(route: &RouteInput<'_>) -> impl Iterator<Item = Secret> + use<> {
    ca(route).into_iter().chain(service_account(route))
}

pub(super) fn serving<'a>(listener: &'a ListenerInput<'a>) -> impl Iterator<Item = Secret> + 'a {
    listener.configured.certificates.iter().enumerate().map(|(number, certificate)| {
        named(names::serving_secret(&listener.name, number), secret::Type::TlsCertificate(tls_certificate(certificate)))
    })
}

fn tls_certificate(certificate: &ServingCertificate) -> TlsCertificate {
    TlsCertificate {
        certificate_chain: inline_text(&certificate.chain_pem),
        private_key: inline_text(certificate.key_pem.expose_secret()),
        ..Default::default()
    }
}

fn ca(route: &RouteInput<'_>) -> Option<Secret> {
    let context = CertificateValidationContext { trusted_ca: inline_text(route.ca_pem?), ..Default::default() };
    Some(named(names::ca_secret(&route.id), secret::Type::ValidationContext(context)))
}

fn service_account(route: &RouteInput<'_>) -> Option<Secret> {
    match &route.method {
        MethodInput::Impersonate { token: secret, .. } => Some(token(&route.id, secret)),
        MethodInput::Jwt | MethodInput::Http { .. } => None,
    }
}

pub(super) fn token(route: &str, token: &SecretString) -> Secret {
    let generic = GenericSecret { secret: inline_text(token.expose_secret()), ..Default::default() };
    named(names::token_secret(route), secret::Type::GenericSecret(generic))
}

fn named(name: String, kind: secret::Type) -> Secret {
    Secret { name, r#type: Some(kind) }
}
