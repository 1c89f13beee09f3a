//! Where the routes of a Gateway are served: by which nodes, and so at which listeners.

use super::super::model::{Config, Gateway, Route};

/// Names of nodes and of gateways of the file; neither: everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) nodes: Option<Vec<String>>,
    pub(super) gateways: Option<Vec<String>>,
}

impl Scope {
    pub(super) fn of(route: &Route) -> Self {
        Self { nodes: route.nodes.clone(), gateways: route.gateways.clone() }
    }

    fn is_everywhere(&self) -> bool {
        self.nodes.is_none() && self.gateways.is_none()
    }

    /// Where either is served.
    pub(super) fn or(self, other: &Self) -> Self {
        if self.is_everywhere() || other.is_everywhere() {
            return Self::default();
        }
        let both = |mine: Option<Vec<String>>, other: &Option<Vec<String>>| {
            let mut names: Vec<String> = mine.into_iter().flatten().chain(other.iter().flatten().cloned()).collect();
            names.sort_unstable();
            names.dedup();
            Some(names)
        };
        Self { nodes: both(self.nodes, &other.nodes), gateways: both(self.gateways, &other.gateways) }
    }

    /// Whether the listeners of a gateway of the file, or the top-level ones, are among those where it is served.
    pub(super) fn reaches(&self, gateway: Option<&Gateway>, file: &Config) -> bool {
        let here = |node: &String| match gateway {
            Some(gateway) => gateway.nodes.contains(node),
            None => !file.gateways.iter().any(|gateway| gateway.nodes.contains(node)),
        };
        let named = |name: &String| gateway.is_some_and(|gateway| gateway.name == *name);
        self.is_everywhere() || self.nodes.iter().flatten().any(here) || self.gateways.iter().flatten().any(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_scopes_together_are_where_either_is() {
        let scope = |nodes: &[&str], gateways: &[&str]| {
            let names = |names: &[&str]| (!names.is_empty()).then(|| names.iter().map(|&name| name.to_owned()).collect());
            Scope { nodes: names(nodes), gateways: names(gateways) }
        };
        let check = |one: Scope, other: Scope, want: &str| {
            let or = one.clone().or(&other);
            assert_eq!(format!("{:?} {:?}", or.nodes, or.gateways), want, "{one:?} {other:?}");
            assert_eq!(or, other.or(&one));
        };
        check(scope(&[], &[]), scope(&["a"], &[]), "None None");
        check(scope(&["b"], &[]), scope(&["a"], &["g"]), r#"Some(["a", "b"]) Some(["g"])"#);
        check(scope(&["a"], &[]), scope(&["a"], &[]), r#"Some(["a"]) Some([])"#);
    }
}
