//! What must fit together across the configuration: names, hosts, references between sections, and identities that stay apart.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::At;
use super::http_target::default_audience;
use super::model::{IdentityProvider, PublicUrl, Route, ServerAddress, Target};
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

/// An audience that is also a host of ours would make a token for the one a token for the other. One that two clusters share makes a token that
/// one of them has seen good for the other: only where the operator says so for both.
pub(super) fn check_audiences(routes: &[RouteDraft], public_url: Option<&PublicUrl>, resolving: &mut Resolving<'_>) {
    let mut hosts: Vec<&str> = routes.iter().filter_map(|route| route.host.as_ref()).map(|host| host.value.as_str()).collect();
    hosts.extend(public_url.map(|public_url| public_url.host.as_str()));
    let audiences = || routes.iter().filter_map(|route| Some((route, route.jwt()?, route.jwt()?.audience.as_ref()?)));
    for (index, (route, jwt, audience)) in audiences().enumerate() {
        if let Some(host) = hosts.iter().find(|host| is_host(&audience.value, host)) {
            resolving.faults.add_with_hint(
                &audience.spot,
                format!("the audience {} names the host {host}, for which there are tokens of another kind", quote(&audience.value)),
                "name the cluster, for example the route's name",
            );
        }
        let earlier = audiences().take(index).find(|(other, other_jwt, other_audience)| {
            other_audience.value == audience.value
                && other.server().map(|server| &server.value) != route.server().map(|server| &server.value)
                && !(jwt.shared_audience && other_jwt.shared_audience)
        });
        if let Some((_, _, first)) = earlier {
            resolving.faults.add_with_hint(
                &audience.spot,
                format!("another cluster has the audience {} already, in line {}", quote(&audience.value), first.spot.place.line),
                "a token that one of the clusters has seen would be good for the other; if that is meant, say shared_audience: true for both",
            );
        }
    }
}

/// Two upstreams with one audience could show each other's visitors' tokens to each other; and the audience of login tokens is taken.
pub(super) fn check_assertion_audiences(routes: &[RouteDraft], public_url: Option<&PublicUrl>, resolving: &mut Resolving<'_>) {
    let mut seen: HashMap<String, (&At<String>, Option<&str>)> = HashMap::new();
    let login = public_url.map(|public_url| public_url.url.origin().ascii_serialization());
    for (route, http) in routes.iter().filter_map(|route| Some((route, route.http()?))) {
        let Some(written) = http.audience.as_ref().or(route.host.as_ref()) else { continue };
        let audience = if http.audience.is_some() { written.value.clone() } else { default_audience(&written.value) };
        let upstream = http.upstream.as_ref().map(|upstream| upstream.value.as_str());
        if login.as_ref() == Some(&audience) {
            resolving.faults.add(&written.spot, format!("the audience {} is that of logins", quote(&audience)));
        } else if let Some((first, other)) = seen.get(&audience) {
            if *other != upstream {
                resolving.faults.add_with_hint(
                    &written.spot,
                    format!("another upstream has the audience {} already, in line {}", quote(&audience), first.spot.place.line),
                    "leave `audience` out: it is https://HOST then, and each route has another",
                );
            }
        } else {
            seen.insert(audience, (written, upstream));
        }
    }
}

/// Whether an audience could be read as a host or as a URL of it.
fn is_host(audience: &str, host: &str) -> bool {
    let rest = audience.strip_prefix("https://").unwrap_or(audience);
    let name = rest.split(['/', ':']).next().unwrap_or(rest);
    name.eq_ignore_ascii_case(host)
}

/// The same username from two identity providers would be one user to an API server or a web server: none may get both, by one route or by two,
/// from providers whose usernames can be equal.
pub(super) fn check_identities(
    drafts: &[ProviderDraft],
    providers: &[Arc<IdentityProvider>],
    routes: &[Arc<Route>],
    resolving: &mut Resolving<'_>,
) {
    for (index, (draft, provider)) in drafts.iter().zip(providers).enumerate() {
        for earlier in providers.iter().take(index) {
            let Some((one, other)) = meeting(routes, earlier, provider) else { continue };
            let (earlier, provider) = (&earlier.name, &provider.name);
            let ambiguous =
                format!("identities are ambiguous: `{earlier}` and `{provider}` could both give the username of one person, and");
            let message = if one.name == other.name {
                format!("{ambiguous} the route `{}` takes both", one.name)
            } else {
                format!("{ambiguous} the routes `{}` and `{}` lead both to one server", one.name, other.name)
            };
            let apart = if one.name == other.name {
                "let every route name one of them under `identity_providers`"
            } else {
                "give each route its own `kubernetes.username_prefix`"
            };
            let hint = format!(
                "do one of: give each a different `identity.username_prefix` (none the beginning of another); give each its own \
                 `identity.email_domains`; or {apart}"
            );
            resolving.faults.add_with_hint(&draft.spot, message, hint);
        }
    }
}

/// Two routes, or one, by which a user of each identity provider could reach one API server under one name.
fn meeting<'r>(routes: &'r [Arc<Route>], one: &IdentityProvider, other: &IdentityProvider) -> Option<(&'r Route, &'r Route)> {
    if !domains_meet(one.mapping.email_domains(), other.mapping.email_domains()) {
        return None;
    }
    let prefix = |route: &Route, provider: &IdentityProvider| format!("{}{}", behind(route).1, provider.mapping.username_prefix());
    let meet = |first: &Route, second: &Route| {
        let (a, b) = (prefix(first, one), prefix(second, other));
        let (here, there) = (behind(first).0, behind(second).0);
        takes(first, one)
            && takes(second, other)
            && (&here.host, here.port) == (&there.host, there.port)
            && (a.starts_with(&b) || b.starts_with(&a))
    };
    // One route that takes both says it best.
    let alone = routes.iter().map(|route| (&**route, &**route));
    let pairs = routes.iter().flat_map(|first| routes.iter().map(move |second| (&**first, &**second)));
    alone.chain(pairs).find(|(first, second)| meet(first, second))
}

fn takes(route: &Route, provider: &IdentityProvider) -> bool {
    route.identity_providers.as_ref().is_none_or(|names| names.contains(&provider.name))
}

/// The server behind a route, and what the route puts before usernames there.
fn behind(route: &Route) -> (&ServerAddress, &str) {
    match &route.target {
        Target::Kubernetes(target) => (&target.server, &target.username_prefix),
        Target::Http(target) => (&target.upstream, ""),
    }
}

/// No domains are all domains.
fn domains_meet(one: &[String], other: &[String]) -> bool {
    one.is_empty() || other.is_empty() || one.iter().any(|domain| other.contains(domain))
}
