//! `identity_providers`: where people log in, and how their claims become an identity.

use std::sync::Arc;

use url::{Host, Url};

use super::certificate;
use super::error::{At, Spot};
use super::expressions;
use super::kubernetes_target::prefix_fault;
use super::model::IdentityProvider;
use super::names::{host_fault, name_fault, quote};
use super::reader::{Item, Reading};
use super::reference::{self, Reference};
use super::resolving::Resolving;
use crate::identity::IdentityMapping;

pub(super) const NOBODY: &str = "without an identity provider nobody could log in";

const DEFAULT_SCOPES: [&str; 3] = ["openid", "email", "profile"];

#[derive(Debug)]
pub(super) struct ProviderDraft {
    pub(super) name: Option<At<String>>,
    pub(super) spot: Spot,
    issuer: Option<At<String>>,
    client_id: Option<At<String>>,
    client_secret: Option<At<Reference>>,
    scopes: Option<Vec<At<String>>>,
    ca: Option<At<Reference>>,
    identity: Option<IdentityDraft>,
}

/// CEL over `claims`, and what keeps its results apart from those of other identity providers.
#[derive(Debug)]
pub(super) struct IdentityDraft {
    pub(super) username: Option<At<String>>,
    pub(super) groups: Option<At<String>>,
    pub(super) require: Option<At<String>>,
    username_prefix: Option<At<String>>,
    email_domains: Vec<At<String>>,
}

impl ProviderDraft {
    pub(super) fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let name = section.required("name", reading).and_then(|item| item.text(reading));
        let issuer = section.required("issuer", reading).and_then(|item| item.text(reading));
        let client_id = section.required("client_id", reading).and_then(|item| item.text(reading));
        let client_secret = section.required("client_secret", reading);
        let client_secret = client_secret.and_then(|item| reference::read_secret(&item, reading));
        let scopes = section.optional("scopes").and_then(|item| item.text_list(reading));
        let ca = section.optional("ca").and_then(|item| reference::read_public(&item, reading));
        let identity = section.required("identity", reading).and_then(|item| IdentityDraft::read(&item, reading));
        section.finish(reading);
        Some(Self { name, spot: item.spot(), issuer, client_id, client_secret, scopes, ca, identity })
    }

    pub(super) fn resolve(&self, resolving: &mut Resolving<'_>) -> Option<IdentityProvider> {
        let name = self.name.as_ref().and_then(|name| checked_name(name, resolving));
        let issuer = self.issuer.as_ref().and_then(|issuer| resolve_issuer(issuer, resolving));
        let client_id = self.client_id.as_ref().and_then(|id| not_empty(id, resolving));
        let client_secret = self.client_secret.as_ref().and_then(|reference| resolving.client_secret(reference));
        let scopes = self.resolve_scopes(resolving);
        let ca_pem = self.ca.as_ref().map(|reference| certificate::resolve_bundle(reference, resolving));
        let mapping = self.identity.as_ref().and_then(|identity| identity.resolve(resolving));
        Some(IdentityProvider {
            name: name?,
            issuer: issuer?,
            client_id: client_id?,
            client_secret: client_secret?,
            scopes: scopes?,
            mapping: mapping?,
            ca_pem: ca_pem.map_or(Some(None), |pem| pem.map(Some))?,
        })
    }

    fn resolve_scopes(&self, resolving: &mut Resolving<'_>) -> Option<Vec<String>> {
        let Some(written) = &self.scopes else {
            return Some(DEFAULT_SCOPES.map(str::to_owned).to_vec());
        };
        // RFC 6749, 3.3.
        let allowed = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
        for scope in written.iter().filter(|scope| scope.value.is_empty() || !scope.value.chars().all(allowed)) {
            resolving.faults.add_with_hint(
                &scope.spot,
                format!("{} is not a scope", quote(&scope.value)),
                "each item of the list is one scope, without blanks",
            );
        }
        if !written.iter().any(|scope| scope.value == "openid") {
            let spot = written.first().map_or(&self.spot, |scope| &scope.spot);
            resolving.faults.add(spot, "the scope `openid` is missing: without it there is no ID token");
            return None;
        }
        Some(written.iter().map(|scope| scope.value.clone()).collect())
    }
}

impl IdentityDraft {
    fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let username = section.required("username", reading).and_then(|item| item.text(reading));
        let groups = section.optional("groups").and_then(|item| item.text(reading));
        let require = section.optional("require").and_then(|item| item.text(reading));
        let username_prefix = section.optional("username_prefix").and_then(|item| item.text(reading));
        let email_domains = section.optional("email_domains").and_then(|item| item.text_list(reading));
        section.finish(reading);
        Some(Self { username, groups, require, username_prefix, email_domains: email_domains.unwrap_or_default() })
    }

    fn resolve(&self, resolving: &mut Resolving<'_>) -> Option<IdentityMapping> {
        let mapping = expressions::mapping(self, resolving);
        let prefix = self.resolve_prefix(resolving);
        let domains = self.resolve_domains(resolving);
        Some(mapping?.with_username_prefix(prefix?).with_email_domains(domains?))
    }

    fn resolve_prefix(&self, resolving: &mut Resolving<'_>) -> Option<String> {
        let Some(prefix) = &self.username_prefix else { return Some(String::new()) };
        if let Some(fault) = prefix_fault(&prefix.value) {
            resolving.faults.add(&prefix.spot, fault);
            return None;
        }
        Some(prefix.value.clone())
    }

    fn resolve_domains(&self, resolving: &mut Resolving<'_>) -> Option<Vec<String>> {
        let mut good = true;
        for domain in &self.email_domains {
            if let Some(fault) = host_fault(&domain.value) {
                resolving.faults.add_with_hint(
                    &domain.spot,
                    format!("{} {fault}", quote(&domain.value)),
                    "write the part after the @, for example example.com",
                );
                good = false;
            }
        }
        good.then(|| self.email_domains.iter().map(|domain| domain.value.clone()).collect())
    }
}

pub(super) fn resolve(drafts: &[ProviderDraft], resolving: &mut Resolving<'_>) -> Option<Vec<Arc<IdentityProvider>>> {
    let providers: Vec<_> = drafts.iter().map(|draft| draft.resolve(resolving).map(Arc::new)).collect();
    providers.into_iter().collect()
}

pub(super) fn checked_name(name: &At<String>, resolving: &mut Resolving<'_>) -> Option<String> {
    if let Some(fault) = name_fault(&name.value) {
        resolving.faults.add(&name.spot, format!("{} {fault}", quote(&name.value)));
        return None;
    }
    Some(name.value.clone())
}

fn not_empty(text: &At<String>, resolving: &mut Resolving<'_>) -> Option<String> {
    if text.value.trim().is_empty() {
        resolving.faults.add(&text.spot, "is empty");
        return None;
    }
    Some(text.value.clone())
}

/// An issuer identifier (OpenID Connect Core 1.0, 1.2): `https`, no query, no fragment. Plain `http` only on this machine, for development.
fn resolve_issuer(text: &At<String>, resolving: &mut Resolving<'_>) -> Option<Url> {
    const HINT: &str = "write the issuer exactly as the identity provider's discovery document has it, for example https://idp.example.com";
    let mut refuse = |message: String| resolving.faults.add_with_hint(&text.spot, message, HINT);
    let Ok(url) = Url::parse(&text.value) else {
        refuse("is not a URL".to_owned());
        return None;
    };
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
        refuse("must be an https URL (http is accepted for this machine only)".to_owned());
        return None;
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        refuse("must not have a query, fragment, user name or password".to_owned());
        return None;
    }
    if url.path().ends_with("/.well-known/openid-configuration") {
        refuse("is the discovery document, not the issuer: leave out /.well-known/openid-configuration".to_owned());
        return None;
    }
    Some(url)
}
