//! Routes that lead to one API server under different prefixes. There a name that one of them gives must not be a name that another gives to
//! somebody else: `corp:` in front of `ada`, and nothing in front of someone who is called `corp:ada`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, KubernetesTarget, Route, Target};

/// By id of a route: the others at its server whose names begin with its own prefix and go on.
#[derive(Debug, Default)]
pub(super) struct Neighbours(HashMap<String, Vec<Arc<Route>>>);

/// A route and the API server that it leads to.
type ToServer<'c> = (&'c Arc<Route>, &'c KubernetesTarget);

impl Neighbours {
    pub(super) fn of(config: &Config) -> Self {
        let mut at_server: HashMap<(&str, u16), Vec<ToServer<'_>>> = HashMap::new();
        for route in &config.routes {
            if let Target::Kubernetes(target) = &route.target {
                at_server.entry((&target.server.host, target.server.port)).or_default().push((route, target));
            }
        }
        let of = |(route, target): &ToServer<'_>, all: &[ToServer<'_>]| {
            let longer = all.iter().filter(|(_, other)| goes_on(target, other)).map(|(other, _)| Arc::clone(other)).collect::<Vec<_>>();
            (!longer.is_empty()).then(|| (route.id().to_owned(), longer))
        };
        Self(at_server.values().flat_map(|all| all.iter().filter_map(move |one| of(one, all))).collect())
    }

    pub(super) fn of_route(&self, route: &Route) -> &[Arc<Route>] {
        self.0.get(route.id()).map_or(&[], Vec::as_slice)
    }
}

/// Whether a name with the prefix of `target` can look like one with the prefix of `other`.
fn goes_on(target: &KubernetesTarget, other: &KubernetesTarget) -> bool {
    let longer = |own: &str, other: &str| other != own && other.starts_with(own);
    longer(&target.username_prefix, &other.username_prefix) || longer(&target.groups.prefix, &other.groups.prefix)
}
