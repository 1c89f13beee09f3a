//! What must fit together across the configuration: names, hosts, references between sections, and identities that stay apart.

use std::collections::HashMap;

use super::error::At;
use super::model::{IdentityProvider, PublicUrl, Route};
use super::names::{quote, suggestion};
use super::provider::ProviderDraft;
use super::resolving::Resolving;
use super::route::RouteDraft;

/// Names and hosts are given once, and every name that is used exists.
pub(super) fn check_names(
    providers: &[ProviderDraft],
    routes: &[RouteDraft],
    public_url: Option<&PublicUrl>,
    resolving: &mut Resolving<'_>,
) {
    check_unique("identity provider", providers.iter().filter_map(|provider| provider.name.as_ref()), resolving);
    check_unique("route", routes.iter().filter_map(|route| route.name.as_ref()), resolving);
    check_hosts(routes, public_url, resolving);
    let known: Vec<_> = providers.iter().filter_map(|provider| provider.name.as_ref()).map(|name| name.value.as_str()).collect();
    for name in routes.iter().flat_map(|route| route.identity_providers.iter().flatten()) {
        if !known.contains(&name.value.as_str()) {
            let hint = match suggestion(&name.value, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("configured are: {}", known.join(", ")),
            };
            resolving.faults.add_with_hint(&name.spot, format!("there is no identity provider {}", quote(&name.value)), hint);
        }
    }
}

fn check_unique<'a>(what: &str, names: impl Iterator<Item = &'a At<String>>, resolving: &mut Resolving<'_>) {
    let mut seen: HashMap<String, &At<String>> = HashMap::new();
    for name in names {
        if let Some(first) = seen.get(&name.value.to_ascii_lowercase()) {
            let message = format!("the {what} {} exists already, in line {}", quote(&name.value), first.spot.place.line);
            resolving.faults.add(&name.spot, message);
        } else {
            seen.insert(name.value.to_ascii_lowercase(), name);
        }
    }
}

fn check_hosts(routes: &[RouteDraft], public_url: Option<&PublicUrl>, resolving: &mut Resolving<'_>) {
    let mut seen: HashMap<String, &At<String>> = HashMap::new();
    for host in routes.iter().filter_map(|route| route.host.as_ref()) {
        let folded = host.value.to_ascii_lowercase();
        if public_url.is_some_and(|public_url| public_url.host == folded) {
            let message = format!("{} is the host of `public_url`", quote(&host.value));
            resolving.faults.add_with_hint(
                &host.spot,
                message,
                "login pages and routes must not share a host, or a cluster could read login cookies",
            );
        }
        if let Some(first) = seen.get(&folded) {
            let message = format!("another route has the host {} already, in line {}", quote(&host.value), first.spot.place.line);
            resolving.faults.add(&host.spot, message);
        } else {
            seen.insert(folded, host);
        }
    }
}

/// The same username from two identity providers would be one user to an API server: no route may take both from providers whose
/// usernames can be equal.
pub(super) fn check_identities(
    drafts: &[ProviderDraft],
    providers: &[std::sync::Arc<IdentityProvider>],
    routes: &[std::sync::Arc<Route>],
    resolving: &mut Resolving<'_>,
) {
    for (index, (draft, provider)) in drafts.iter().zip(providers).enumerate() {
        for earlier in providers.iter().take(index).filter(|earlier| !usernames_differ(earlier, provider)) {
            let takes = |route: &Route, name: &str| route.identity_providers.as_ref().is_none_or(|names| names.iter().any(|n| n == name));
            let Some(route) = routes.iter().find(|route| takes(route, &earlier.name) && takes(route, &provider.name)) else { continue };
            let message = format!(
                "identities are ambiguous: `{}` and `{}` could both give the username of one person, and the route `{}` takes both",
                earlier.name, provider.name, route.name
            );
            let hint = "do one of: give each a different `identity.username_prefix` (none the beginning of another); give each its own \
                        `identity.email_domains`; or let every route name one of them under `identity_providers`";
            resolving.faults.add_with_hint(&draft.spot, message, hint);
        }
    }
}

/// Whether no username of one can be a username of the other.
fn usernames_differ(one: &IdentityProvider, other: &IdentityProvider) -> bool {
    let (one, other) = (&one.mapping, &other.mapping);
    let (a, b) = (one.username_prefix(), other.username_prefix());
    let prefixes = !a.starts_with(b) && !b.starts_with(a);
    let (a, b) = (one.email_domains(), other.email_domains());
    let domains = !a.is_empty() && !b.is_empty() && !a.iter().any(|domain| b.contains(domain));
    prefixes || domains
}
