//! Whether one route more can stand beside those that are in force: hosts, audiences and identities stay apart, as they do in the file.
//!
//! The file's routes come first, then the Routes of the API server from the oldest on: who comes later and does not fit is the one that is
//! refused.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::ObjectId;
use super::read::below_root;
use super::scope::Scope;
use crate::config::certificate;
use crate::config::consistency;
use crate::config::error::{ConfigErrors, Faults, Spot};
use crate::config::http_target::default_audience;
use crate::config::model::{Config, Gateway, Listener, Method, Route, Target};

/// What is in force so far.
pub(super) struct Together<'a> {
    config: &'a Config,
    /// Its Routes are the operator's own.
    operator_namespace: &'a str,
    /// By host, whether its route is in force or not; the file's routes and `public_url` have no object.
    hosts: HashMap<String, Owner>,
    /// By audience of upstream tokens.
    audiences: HashMap<String, Vec<(Owner, String, bool)>>,
    /// Hosts that those audiences could be read as, each with the audience.
    named: HashMap<String, String>,
    /// By audience of assertion tokens.
    assertions: HashMap<String, (Owner, String)>,
    /// By host and port of the server, where two identity providers could give one name.
    servers: HashMap<(String, u16), Vec<Arc<Route>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    File,
    Object(ObjectId),
}

impl Owner {
    fn place(&self) -> String {
        match self {
            Self::File => "in the configuration file".to_owned(),
            Self::Object(id) => format!("in {id}"),
        }
    }
}

impl<'a> Together<'a> {
    /// With the routes of the file.
    pub(super) fn of(config: &'a Config, operator_namespace: &'a str) -> Self {
        let mut together = Self {
            config,
            operator_namespace,
            hosts: HashMap::new(),
            audiences: HashMap::new(),
            named: HashMap::new(),
            assertions: HashMap::new(),
            servers: HashMap::new(),
        };
        config.routes.iter().for_each(|route| together.add(Owner::File, route));
        together
    }

    /// Takes the route in, or says what it meets.
    pub(super) fn take(&mut self, id: &ObjectId, route: &Arc<Route>) -> Result<(), ConfigErrors> {
        let mut faults = Faults::new(&id.to_string());
        self.check_host(route, &mut faults);
        self.check_providers(route, &mut faults);
        self.check_audience(id, route, &mut faults);
        self.check_assertion(id, route, &mut faults);
        self.check_identities(route, &mut faults);
        if faults.is_empty() {
            self.add(Owner::Object(id.clone()), route);
            return Ok(());
        }
        Err(faults.into_errors())
    }

    /// Keeps a host for the Route that had it first.
    pub(super) fn reserve(&mut self, host: String, id: &ObjectId) {
        self.hosts.entry(host).or_insert_with(|| Owner::Object(id.clone()));
    }

    fn add(&mut self, owner: Owner, route: &Arc<Route>) {
        self.hosts.insert(route.host.clone(), owner.clone());
        if let Some((audience, shared)) = upstream_audience(route) {
            self.named.insert(consistency::named_host(audience).to_ascii_lowercase(), audience.to_owned());
            self.audiences.entry(audience.to_owned()).or_default().push((owner.clone(), server_of(route), shared));
        }
        if let Some(http) = route.http() {
            self.assertions.insert(http.audience.clone(), (owner, server_of(route)));
        }
        if self.config.identity_providers.len() > 1 {
            let (server, _) = consistency::behind(route);
            self.servers.entry((server.host.clone(), server.port)).or_default().push(Arc::clone(route));
        }
    }

    fn check_host(&self, route: &Route, faults: &mut Faults) {
        let spot = below_root("host");
        if self.config.public_url.host == route.host {
            let (message, hint) = consistency::is_public_host(&route.host);
            faults.add_with_hint(&spot, message, hint);
        }
        if let Some(owner) = self.hosts.get(&route.host) {
            faults.add(&spot, consistency::host_taken(&route.host, &owner.place()));
        }
    }

    fn check_providers(&self, route: &Route, faults: &mut Faults) {
        let known: Vec<&str> = self.config.identity_providers.iter().map(|provider| provider.name.as_str()).collect();
        for (index, name) in route.identity_providers.iter().flatten().enumerate().filter(|(_, name)| !known.contains(&name.as_str())) {
            let (message, hint) = consistency::unknown("identity provider", name, &known);
            faults.add_with_hint(&below_root(&format!("identity_providers[{index}]")), message, hint);
        }
    }

    /// Only Routes of one namespace share an audience: a token for the operator's cluster must not go to a server that somebody else names.
    fn check_audience(&self, id: &ObjectId, route: &Route, faults: &mut Faults) {
        // Of an older route, whose audience would become a host.
        if let Some(audience) = self.named.get(&route.host) {
            let message = format!("another route has the audience `{audience}`, which names this host");
            faults.add(&below_root("host"), message);
        }
        let Some((audience, shared)) = upstream_audience(route) else { return };
        let spot = below_root("kubernetes.jwt.audience");
        self.check_owner(id, audience, &spot, faults);
        let name = consistency::named_host(audience).to_ascii_lowercase();
        if name == self.config.public_url.host || name.eq_ignore_ascii_case(&route.host) || self.hosts.contains_key(&name) {
            let (message, hint) = consistency::audience_is_host(audience, &name);
            faults.add_with_hint(&spot, message, hint);
        }
        let server = server_of(route);
        let may_share =
            |owner: &Owner, also: bool| shared && also && matches!(owner, Owner::Object(other) if other.namespace == id.namespace);
        let meets = |(owner, other, also): &&(Owner, String, bool)| *other != server && !may_share(owner, *also);
        let foreign = |(owner, _, _): &&(Owner, String, bool)| !matches!(owner, Owner::Object(other) if other.namespace == id.namespace);
        let all = self.audiences.get(audience).map(Vec::as_slice).unwrap_or_default();
        if let Some((owner, _, _)) = all.iter().find(|entry| meets(entry) || foreign(entry)) {
            let (message, hint) = consistency::audience_taken(audience, &owner.place());
            faults.add_with_hint(&spot, message, hint);
        }
    }

    /// Who may write Routes of a namespace must not get at tokens for what is another's, not even while no route leads there: so audiences bear
    /// the name of their namespace.
    fn check_owner(&self, id: &ObjectId, audience: &str, spot: &Spot, faults: &mut Faults) {
        let begins = audience.strip_prefix(id.namespace.as_str()).is_some_and(|rest| rest.starts_with('/'));
        if id.namespace != self.operator_namespace && !begins {
            let (message, hint) = consistency::audience_of_others(audience, &id.namespace, self.operator_namespace);
            faults.add_with_hint(spot, message, hint);
        }
    }

    fn check_assertion(&self, id: &ObjectId, route: &Route, faults: &mut Faults) {
        let Some(http) = route.http() else { return };
        let spot = below_root("http.audience");
        if http.audience != default_audience(&route.host) {
            self.check_owner(id, &http.audience, &spot, faults);
        }
        if self.config.public_url.url.origin().ascii_serialization() == http.audience {
            faults.add(&spot, consistency::audience_of_logins(&http.audience));
        } else if let Some((owner, upstream)) = self.assertions.get(&http.audience)
            && *upstream != server_of(route)
        {
            let (message, hint) = consistency::assertion_audience_taken(&http.audience, &owner.place());
            faults.add_with_hint(&spot, message, hint);
        }
    }

    fn check_identities(&self, route: &Arc<Route>, faults: &mut Faults) {
        let providers = &self.config.identity_providers;
        if providers.len() < 2 {
            return;
        }
        let (server, _) = consistency::behind(route);
        let beside = self.servers.get(&(server.host.clone(), server.port)).map(Vec::as_slice).unwrap_or_default();
        for (index, provider) in providers.iter().enumerate() {
            for earlier in providers.iter().take(index) {
                let meets = beside.iter().chain([route]).find(|other| {
                    let pair = [(&***other, &**route), (&**route, &***other)];
                    pair.iter().any(|(one, two)| consistency::identities_meet((one, earlier), (two, provider)))
                });
                if let Some(other) = meets {
                    let (message, hint) = consistency::ambiguous((other, earlier), (route, provider));
                    faults.add_with_hint(&below_root("identity_providers"), message, hint);
                    return;
                }
            }
        }
    }
}

/// The DNS names of a listener's certificates.
pub(super) struct Provable<'a> {
    file: &'a Config,
    /// Whose listener it is.
    gateway: Option<&'a Gateway>,
    listener: SocketAddr,
    names: HashSet<&'a str>,
}

impl<'a> Provable<'a> {
    pub(super) fn all(file: &'a Config) -> Vec<Self> {
        let top_level = file.listeners.iter().map(|listener| (None, listener));
        let others = file.gateways.iter().flat_map(|gateway| gateway.listeners.iter().map(move |listener| (Some(gateway), listener)));
        let provable = |(gateway, listener): (Option<&'a Gateway>, &'a Listener)| {
            let names = listener.certificates.iter().flat_map(|certificate| &certificate.dns_names).map(String::as_str).collect();
            Self { file, gateway, listener: listener.address, names }
        };
        top_level.chain(others).map(provable).collect()
    }
}

/// Whether every listener where the route is served can prove its host to a TLS client.
pub(super) fn check_certificates(id: &ObjectId, route: &Route, provable: &[Provable<'_>]) -> Result<(), ConfigErrors> {
    let (mut faults, scope) = (Faults::new(&id.to_string()), Scope::of(route));
    let served = provable.iter().filter(|provable| scope.reaches(provable.gateway, provable.file));
    for Provable { listener, .. } in served.filter(|provable| !certificate::covers(&provable.names, &route.host)) {
        let message = format!("no certificate of the listener {listener} covers `{}`", route.host);
        faults.add_with_hint(&below_root("host"), message, "a Gateway that serves the host can bring one under `certificates`");
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.into_errors()) }
}

fn upstream_audience(route: &Route) -> Option<(&str, bool)> {
    match &route.target {
        Target::Kubernetes(target) => match &target.method {
            Method::Jwt(jwt) => Some((&jwt.audience, jwt.shared_audience)),
            Method::Impersonate(_) => None,
        },
        Target::Http(_) => None,
    }
}

/// Two routes with one of these lead to one server.
fn server_of(route: &Route) -> String {
    let (server, _) = consistency::behind(route);
    format!("{}:{}/{}", server.host, server.port, server.server_name)
}
