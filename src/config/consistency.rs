//! What must fit together across the configuration: names, hosts, references between sections, and identities that stay apart.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::draft::Draft;
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
    let known: Vec<_> = providers.iter().filter_map(|provider| provider.name.as_ref()).collect();
    check_known("identity provider", &known, routes.iter().flat_map(|route| route.identity_providers.iter().flatten()), resolving);
}

/// Nodes and gateways exist where they are named, each node has listeners, and one gateway at most.
pub(super) fn check_nodes(draft: &Draft, resolving: &mut Resolving<'_>) {
    let nodes: Vec<_> = draft.nodes.iter().filter_map(|node| node.name.as_ref()).collect();
    let gateways: Vec<_> = draft.gateways.iter().filter_map(|gateway| gateway.name.as_ref()).collect();
    check_unique("node", nodes.iter().copied(), resolving);
    check_unique("gateway", gateways.iter().copied(), resolving);
    let selected = || draft.gateways.iter().flat_map(|gateway| &gateway.nodes);
    check_known("node", &nodes, selected().chain(draft.routes.iter().flat_map(|route| route.nodes.iter().flatten())), resolving);
    check_known("gateway", &gateways, draft.routes.iter().flat_map(|route| route.gateways.iter().flatten()), resolving);
    let mut seen: HashMap<&str, &At<String>> = HashMap::new();
    for name in selected() {
        if let Some(first) = seen.get(name.value.as_str()) {
            let message = format!("the node {} is selected already, in line {}", quote(&name.value), first.spot.place.line);
            resolving.faults.add_with_hint(&name.spot, message, "a node has one gateway; a gateway may have several listeners");
        } else {
            seen.insert(&name.value, name);
        }
    }
    for name in
        nodes.iter().filter(|name| draft.listeners.is_empty() && !draft.gateways.is_empty() && !seen.contains_key(name.value.as_str()))
    {
        let message = format!("the node {} would have no listeners: no gateway selects it", quote(&name.value));
        resolving.faults.add_with_hint(&name.spot, message, "name it in the `selector` of a gateway, or write top-level `listeners`");
    }
}

fn check_known<'a>(what: &str, known: &[&At<String>], names: impl Iterator<Item = &'a At<String>>, resolving: &mut Resolving<'_>) {
    let known: Vec<&str> = known.iter().map(|name| name.value.as_str()).collect();
    for name in names.filter(|name| !known.contains(&name.value.as_str())) {
        let (message, hint) = unknown(what, &name.value, &known);
        resolving.faults.add_with_hint(&name.spot, message, hint);
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
            let (message, hint) = is_public_host(&host.value);
            resolving.faults.add_with_hint(&host.spot, message, hint);
        }
        if let Some(first) = seen.get(&folded) {
            resolving.faults.add(&host.spot, host_taken(&host.value, &in_line(first)));
        } else {
            seen.insert(folded, host);
        }
    }
}

/// An audience that is also a host of ours would make a token for the one a token for the other. One that two clusters share makes a token that
/// one of them has seen good for the other: only where the operator says so for both.
pub(super) fn check_audiences(routes: &[RouteDraft], public_url: Option<&PublicUrl>, resolving: &mut Resolving<'_>) {
    let hosts = routes.iter().filter_map(|route| route.host.as_ref()).map(|host| host.value.as_str());
    let hosts = hosts.chain(public_url.map(|public_url| public_url.host.as_str()));
    let hosts: HashMap<String, &str> = hosts.map(|host| (host.to_ascii_lowercase(), host)).collect();
    let mut seen: HashMap<&str, [Earlier<'_>; 2]> = HashMap::new();
    for route in routes {
        let Some((jwt, audience)) = route.jwt().and_then(|jwt| Some((jwt, jwt.audience.as_ref()?))) else { continue };
        if let Some(host) = hosts.get(&named_host(&audience.value).to_ascii_lowercase()) {
            let (message, hint) = audience_is_host(&audience.value, host);
            resolving.faults.add_with_hint(&audience.spot, message, hint);
        }
        let server = route.server().map(|server| server.value.as_str());
        let [any, unshared] = seen.entry(&audience.value).or_default();
        // Who shares is at odds with those that do not; who does not, with everybody.
        if let Some(first) = (if jwt.shared_audience { &*unshared } else { &*any }).of_another(server) {
            let (message, hint) = audience_taken(&audience.value, &in_line(first));
            resolving.faults.add_with_hint(&audience.spot, message, hint);
        }
        any.note(server, audience);
        if !jwt.shared_audience {
            unshared.note(server, audience);
        }
    }
}

/// Where an audience was written before: for the first two servers that differ, which is enough to find one that differs from any.
#[derive(Debug, Default)]
struct Earlier<'a>(Vec<(Option<&'a str>, &'a At<String>)>);

impl<'a> Earlier<'a> {
    fn note(&mut self, server: Option<&'a str>, audience: &'a At<String>) {
        if self.0.len() < 2 && self.of(server).is_none() {
            self.0.push((server, audience));
        }
    }

    fn of(&self, server: Option<&str>) -> Option<&'a At<String>> {
        self.0.iter().find(|(other, _)| *other == server).map(|(_, audience)| *audience)
    }

    fn of_another(&self, server: Option<&str>) -> Option<&'a At<String>> {
        self.0.iter().find(|(other, _)| *other != server).map(|(_, audience)| *audience)
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
            resolving.faults.add(&written.spot, audience_of_logins(&audience));
        } else if let Some((first, other)) = seen.get(&audience) {
            if *other != upstream {
                let (message, hint) = assertion_audience_taken(&audience, &in_line(first));
                resolving.faults.add_with_hint(&written.spot, message, hint);
            }
        } else {
            seen.insert(audience, (written, upstream));
        }
    }
}

/// The host that an audience could be read as, or as a URL of.
pub(super) fn named_host(audience: &str) -> &str {
    let rest = audience.strip_prefix("https://").unwrap_or(audience);
    rest.split(['/', ':']).next().unwrap_or(rest)
}

fn in_line<T>(first: &At<T>) -> String {
    format!("in line {}", first.spot.place.line)
}

// What is said of two that do not go together; `place` says where the other one stands.

pub(super) fn unknown(what: &str, name: &str, known: &[&str]) -> (String, String) {
    let hint = match suggestion(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "none is configured".to_owned(),
        None => format!("configured are: {}", known.join(", ")),
    };
    (format!("there is no {what} {}", quote(name)), hint)
}

pub(super) fn is_public_host(host: &str) -> (String, &'static str) {
    let hint = "login pages and routes must not share a host, or a cluster could read login cookies";
    (format!("{} is the host of `public_url`", quote(host)), hint)
}

pub(super) fn host_taken(host: &str, place: &str) -> String {
    format!("another route has the host {} already, {place}", quote(host))
}

pub(super) fn audience_is_host(audience: &str, host: &str) -> (String, &'static str) {
    let message = format!("the audience {} names the host {host}, for which there are tokens of another kind", quote(audience));
    (message, "name the cluster, for example the route's name")
}

pub(super) fn audience_taken(audience: &str, place: &str) -> (String, &'static str) {
    let hint =
        "a token that one of the clusters has seen would be good for the other; if that is meant, say shared_audience: true for both";
    (format!("another cluster has the audience {} already, {place}", quote(audience)), hint)
}

pub(super) fn audience_of_others(audience: &str, namespace: &str, operator_namespace: &str) -> (String, String) {
    let message =
        format!("the audience {} is none of the namespace {namespace}: tokens for it may be good for what others own", quote(audience));
    let hint = format!(
        "write one that begins with `{namespace}/`; any other is for Routes of the namespace {operator_namespace}, or for the configuration file"
    );
    (message, hint)
}

pub(super) fn audience_of_logins(audience: &str) -> String {
    format!("the audience {} is that of logins", quote(audience))
}

pub(super) fn assertion_audience_taken(audience: &str, place: &str) -> (String, &'static str) {
    let hint = "leave `audience` out: it is https://HOST then, and each route has another";
    (format!("another upstream has the audience {} already, {place}", quote(audience)), hint)
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
            let (message, hint) = ambiguous((one, earlier), (other, provider));
            resolving.faults.add_with_hint(&draft.spot, message, hint);
        }
    }
}

/// What is said of two providers that meet behind two routes, or behind one.
pub(super) fn ambiguous((one, earlier): (&Route, &IdentityProvider), (other, provider): (&Route, &IdentityProvider)) -> (String, String) {
    let (earlier, provider) = (&earlier.name, &provider.name);
    let ambiguous = format!("identities are ambiguous: `{earlier}` and `{provider}` could both give the username of one person, and");
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
    (message, hint)
}

/// Two routes, or one, by which a user of each identity provider could reach one API server under one name.
fn meeting<'r>(routes: &'r [Arc<Route>], one: &IdentityProvider, other: &IdentityProvider) -> Option<(&'r Route, &'r Route)> {
    if !domains_meet(one.mapping.email_domains(), other.mapping.email_domains()) {
        return None;
    }
    let meet = |a: &str, b: &str| a.starts_with(b) || b.starts_with(a);
    // One route that takes both says it best.
    let prefix = |route: &Route, provider: &IdentityProvider| format!("{}{}", behind(route).1, provider.mapping.username_prefix());
    let both = |route: &&Arc<Route>| takes(route, one) && takes(route, other) && meet(&prefix(route, one), &prefix(route, other));
    if let Some(route) = routes.iter().find(both) {
        return Some((route, route));
    }
    let (ones, others) = (ways(routes, one), ways(routes, other));
    let meetings = ones.iter().flat_map(|(server, ones)| {
        let others = others.get(server);
        let pairs = ones.iter().flat_map(move |first| others.into_iter().flatten().map(move |second| (first, second)));
        pairs.filter(|((a, _), (b, _))| meet(a, b)).map(|((_, first), (_, second))| (*first, *second))
    });
    let (first, second) = meetings.min()?;
    Some((routes.get(first)?, routes.get(second)?))
}

/// By server: what stands before the usernames of `provider` there, each with the first of the routes (its place among them) that is so.
fn ways<'r>(routes: &'r [Arc<Route>], provider: &IdentityProvider) -> HashMap<(&'r str, u16), BTreeMap<String, usize>> {
    let mut ways: HashMap<(&str, u16), BTreeMap<String, usize>> = HashMap::new();
    for (place, route) in routes.iter().enumerate().filter(|(_, route)| takes(route, provider)) {
        let (server, prefix) = behind(route);
        let prefix = format!("{prefix}{}", provider.mapping.username_prefix());
        ways.entry((&server.host, server.port)).or_default().entry(prefix).or_insert(place);
    }
    ways
}

/// Whether a user of the one, by the one route, could reach an API server under the name of a user of the other, by the other route.
pub(super) fn identities_meet((first, one): (&Route, &IdentityProvider), (second, other): (&Route, &IdentityProvider)) -> bool {
    if !domains_meet(one.mapping.email_domains(), other.mapping.email_domains()) {
        return false;
    }
    let prefix = |route: &Route, provider: &IdentityProvider| format!("{}{}", behind(route).1, provider.mapping.username_prefix());
    let (a, b) = (prefix(first, one), prefix(second, other));
    let (here, there) = (behind(first).0, behind(second).0);
    takes(first, one)
        && takes(second, other)
        && (&here.host, here.port) == (&there.host, there.port)
        && (a.starts_with(&b) || b.starts_with(&a))
}

fn takes(route: &Route, provider: &IdentityProvider) -> bool {
    route.identity_providers.as_ref().is_none_or(|names| names.contains(&provider.name))
}

/// The server behind a route, and what the route puts before usernames there.
pub(super) fn behind(route: &Route) -> (&ServerAddress, &str) {
    match &route.target {
        Target::Kubernetes(target) => (&target.server, &target.username_prefix),
        Target::Http(target) => (&target.upstream, ""),
    }
}

/// No domains are all domains.
fn domains_meet(one: &[String], other: &[String]) -> bool {
    one.is_empty() || other.is_empty() || one.iter().any(|domain| other.contains(domain))
}
