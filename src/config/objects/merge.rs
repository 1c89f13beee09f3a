//! The file's configuration with all that the API server's objects add to it.

use std::sync::Arc;

use super::gateway::{Policies, Serving, Sources};
use super::granted::Grants;
use super::memory::{Kept, Memory};
use super::room::Room;
use super::route::{Candidate, Made, Making};
use super::together::{Provable, Together, check_certificates};
use super::{InForce, Kind, Object, Objects, Verdict, read};
use crate::config::model::{ClusterSource, Config, Gateway, Listener, Route};
use crate::policy::Compiled;

/// More Routes than this are not taken: the youngest are left out.
const MAX_ROUTES: usize = 20_000;

/// The CA certificates that this machine trusts, or why they cannot be read.
#[derive(Debug, Clone)]
pub struct Roots(pub Result<Vec<u8>, String>);

/// What a merge gave.
#[derive(Debug)]
pub struct Merged {
    pub config: Config,
    /// What tells the objects' part of the configuration from another: one line for each part that is in force.
    pub identity: Vec<String>,
    /// One for each object, in the order of their names; of Grants for those with a mistake.
    pub verdicts: Vec<Verdict>,
}

/// Puts the objects on top of the file's configuration. Always gives one: an object with a mistake is left out or stays as it was.
///
/// `now` (Unix seconds) is the time at which certificates must be valid.
pub fn merge(file: &Config, source: &ClusterSource, objects: &Objects, roots: &Roots, memory: &mut Memory, now: u64) -> Merged {
    memory.keep_only(objects);
    let mut verdicts = Vec::new();
    let grants = Grants::of(objects, &mut verdicts);
    let policies = Policies::of(objects, memory, now, &mut verdicts);
    let operator_namespace = source.namespace.as_str();
    let sources = Sources { file, objects, grants: &grants, policies: &policies, roots, operator_namespace, now };
    let gateways = Serving::all(&sources, memory, &mut verdicts);
    let file = &with_certificates(file, &gateways);
    let compiled = Compiled::of(file.routes.iter().map(|route| &route.policy).chain(memory.good_policies())).into();
    let making = Making { objects, grants: &grants, policies: &policies, gateways: &gateways, roots, compiled, now };
    let provable = Provable::all(file);
    let mut taking = Taking {
        together: Together::of(file, operator_namespace),
        provable: &provable,
        room: Room::new(operator_namespace),
        routes: Vec::new(),
        identity: Vec::new(),
    };
    for object in by_age(objects) {
        let kept = Kept::look(&mut memory.routes, object, read::route, |memory| memory.tried = None);
        let made = making.make(object, &kept.drafted.clone(), &kept.stamp(), &mut kept.memory, &mut taking.room);
        verdicts.push(taking.take(object, made));
    }
    verdicts.sort_by(|one, other| one.id.cmp(&other.id));
    let Taking { routes, mut identity, .. } = taking;
    identity
        .extend(gateways.iter().filter(|gateway| gateway.is_whole()).map(|gateway| format!("{}: {:?}", gateway.name(), names(gateway))));
    let routes = file.routes.iter().cloned().chain(routes).collect();
    let config = Config { routes, ..file.clone() };
    Merged { config, identity, verdicts }
}

/// The routes that are taken, one after the other.
struct Taking<'a> {
    together: Together<'a>,
    provable: &'a [Provable<'a>],
    room: Room<'a>,
    routes: Vec<Arc<Route>>,
    identity: Vec<String>,
}

impl Taking<'_> {
    /// A host is its oldest Route's also while that cannot be in force: a Secret that is made anew must not hand it to whoever waits for it.
    fn take(&mut self, object: &Object, Made { candidate, host, verdict }: Made) -> Verdict {
        let verdict = self.judge(object, candidate, verdict);
        if let Some(host) = host {
            self.together.reserve(host, &object.id);
        }
        verdict
    }

    fn judge(&mut self, object: &Object, candidate: Option<Candidate>, verdict: Verdict) -> Verdict {
        let Some(candidate) = candidate else { return verdict };
        let Some(route) = candidate.in_force.route().cloned() else { return verdict };
        if self.routes.len() >= MAX_ROUTES {
            return verdict
                .refused("TooMany", format!("{}: there are {MAX_ROUTES} older Routes already, which is as many as are taken", object.id));
        }
        if let Err(errors) = check_certificates(&object.id, &route, self.provable) {
            return verdict.refused("NoCertificate", errors.to_string());
        }
        if let Err(message) = self.room.take_route(&object.id) {
            return verdict.refused("TooMany", format!("{}: {message}", object.id));
        }
        match self.together.take(&object.id, &route) {
            Ok(()) => {
                self.identity.push(format!("{}: {}", object.id, candidate.stamp));
                self.routes.push(route);
                Verdict { in_force: Some(candidate.in_force), ..verdict }
            }
            Err(errors) => Verdict { in_force: Some(InForce::No), ..verdict.refused("Conflicted", errors.to_string()) },
        }
    }
}

/// The oldest first; of two of the same second, by namespace and name.
fn by_age(objects: &Objects) -> Vec<&Arc<Object>> {
    let mut routes: Vec<_> = objects.of_kind(Kind::Route).collect();
    routes.sort_by_key(|object| object.created_at);
    routes
}

/// The file's configuration with the certificates that the Gateways bring to the listeners where their routes are served. They stand behind
/// what the file has: the first that fits is shown.
fn with_certificates(file: &Config, gateways: &[Serving]) -> Config {
    let added = |listeners: &[Listener], at: Option<&Gateway>| -> Vec<Listener> {
        let here = || gateways.iter().filter(|gateway| gateway.scope.reaches(at, file));
        let brought = || here().flat_map(|gateway| gateway.certificates.iter().cloned());
        let more = |listener: &Listener| Listener {
            certificates: listener.certificates.iter().cloned().chain(brought()).collect(),
            ..listener.clone()
        };
        listeners.iter().map(more).collect()
    };
    let of_file = file.gateways.iter();
    let with_more = of_file.map(|gateway| Gateway { listeners: added(&gateway.listeners, Some(gateway)), ..gateway.clone() });
    Config { listeners: added(&file.listeners, None), gateways: with_more.collect(), ..file.clone() }
}

/// What tells a Gateway's certificates from others: their public half.
fn names(gateway: &Serving) -> Vec<&str> {
    gateway.certificates.iter().map(|certificate| certificate.chain_pem.as_str()).collect()
}
