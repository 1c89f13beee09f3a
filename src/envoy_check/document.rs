//! A bootstrap or a config dump, brought to one form: the lists of what Envoy has, each with its place in the document.

use std::collections::BTreeMap;

use super::Kind;
use super::part::Part;

#[derive(Debug)]
pub(super) struct Document<'a> {
    pub(super) bootstrap: Part<'a>,
    pub(super) listeners: Vec<Part<'a>>,
    pub(super) clusters: Vec<Part<'a>>,
    /// Route configurations that came by RDS, by name.
    routes: BTreeMap<&'a str, Vec<Part<'a>>>,
    /// The names of route configurations that scopes lead to.
    scopes: Vec<Part<'a>>,
    is_dump: bool,
    /// Load assignments that came by EDS, by cluster.
    endpoints: BTreeMap<&'a str, Vec<Part<'a>>>,
    secrets: BTreeMap<&'a str, Part<'a>>,
}

impl<'a> Document<'a> {
    /// None: neither a bootstrap nor a dump.
    pub(super) fn read(root: Part<'a>) -> Option<Self> {
        if root.field("configs").is_there() {
            return Some(Self::dump(&root));
        }
        let is_bootstrap = root.field("static_resources").is_there() || root.field("dynamic_resources").is_there();
        is_bootstrap.then(|| Self::bootstrap(root))
    }

    fn empty(bootstrap: Part<'a>, is_dump: bool) -> Self {
        Self {
            bootstrap,
            listeners: Vec::new(),
            clusters: Vec::new(),
            routes: BTreeMap::new(),
            scopes: Vec::new(),
            is_dump,
            endpoints: BTreeMap::new(),
            secrets: BTreeMap::new(),
        }
    }

    fn bootstrap(root: Part<'a>) -> Self {
        let resources = root.field("static_resources");
        resources.only(&["listeners", "clusters", "secrets"]);
        let mut document = Self::empty(root, false);
        document.listeners = resources.field("listeners").items();
        document.clusters = resources.field("clusters").items();
        document.keep_secrets(resources.field("secrets").items());
        let dynamic = document.bootstrap.field("dynamic_resources");
        dynamic.only(&["ads_config", "lds_config", "cds_config", "lds_resources_locator", "cds_resources_locator"]);
        for name in ["lds_config", "cds_config"] {
            let source = dynamic.field(name);
            if source.is_there() {
                elsewhere(&source, "listeners or clusters come from a control plane, so this file does not hold all of them.");
            }
        }
        document
    }

    fn dump(root: &Part<'a>) -> Self {
        root.only(&["configs"]);
        let configs = root.field("configs").items();
        let of =
            |name: &'static str| configs.iter().filter(move |part| part.type_name() == Some(&format!("envoy.admin.v3.{name}"))).cloned();
        let bootstrap = of("BootstrapConfigDump").next().map(|part| part.field("bootstrap")).unwrap_or_else(|| root.field("bootstrap"));
        let mut document = Self::empty(bootstrap, true);
        for part in of("ListenersConfigDump") {
            document.listeners.extend(listeners(&part));
        }
        for part in of("ClustersConfigDump") {
            let lists = ["static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"];
            document.clusters.extend(lists.iter().flat_map(|list| part.field(list).items()).map(|item| item.field("cluster")));
        }
        for part in of("RoutesConfigDump") {
            for config in part.field("dynamic_route_configs").items().iter().map(|item| item.field("route_config")) {
                document.routes.entry(config.field("name").text().unwrap_or_default()).or_default().push(config);
            }
        }
        for part in of("ScopedRoutesConfigDump") {
            let lists = ["inline_scoped_route_configs", "dynamic_scoped_route_configs"];
            let configs =
                lists.iter().flat_map(|list| part.field(list).items()).flat_map(|item| item.field("scoped_route_configs").items());
            document.scopes.extend(configs.map(|config| config.field("route_configuration_name")));
        }
        for part in of("EndpointsConfigDump") {
            let lists = ["static_endpoint_configs", "dynamic_endpoint_configs"];
            for config in lists.iter().flat_map(|list| part.field(list).items()).map(|item| item.field("endpoint_config")) {
                document.endpoints.entry(config.field("cluster_name").text().unwrap_or_default()).or_default().push(config);
            }
        }
        for part in of("SecretsConfigDump") {
            let lists = ["static_secrets", "dynamic_active_secrets", "dynamic_warming_secrets"];
            document.keep_secrets(lists.iter().flat_map(|list| part.field(list).items()).map(|item| item.field("secret")).collect());
        }
        must_have(root, &configs);
        document
    }

    fn keep_secrets(&mut self, secrets: Vec<Part<'a>>) {
        self.secrets.extend(secrets.into_iter().filter_map(|secret| Some((secret.field("name").text()?, secret))));
    }

    /// The route configurations of a connection manager; one that is not in the document is a finding.
    pub(super) fn routes_of(&self, manager: &Part<'a>) -> Vec<Part<'a>> {
        let (inline, rds) = (manager.field("route_config"), manager.field("rds"));
        if inline.is_there() {
            return vec![inline];
        }
        let name = rds.field("route_config_name");
        match name.text().and_then(|name| self.routes.get(name)) {
            Some(configs) => configs.clone(),
            None if manager.field("scoped_routes").is_there() => self.scoped_routes(&manager.field("scoped_routes")),
            None if rds.is_there() => {
                elsewhere(&rds, "the routes come from elsewhere, so this document does not hold them.");
                Vec::new()
            }
            None => {
                manager
                    .not_understood("this connection manager has neither `route_config` nor `rds`: what it routes where cannot be told.");
                Vec::new()
            }
        }
    }

    /// All that came by RDS, whichever scope leads to which: more than may be reached is judged, and nothing less.
    fn scoped_routes(&self, scoped: &Part<'a>) -> Vec<Part<'a>> {
        if !scoped.field("scoped_rds").is_there() || !self.is_dump {
            elsewhere(scoped, "the routes of these scopes are not all in this document.");
        }
        for name in &self.scopes {
            if name.text().is_none_or(|name| !self.routes.contains_key(name)) {
                elsewhere(name, "the routes of this scope are not in this document.");
            }
        }
        self.routes.values().flatten().cloned().collect()
    }

    /// Load assignments of a cluster with endpoint discovery; none when they are not in the document.
    pub(super) fn endpoints_of(&self, name: &str) -> Option<&[Part<'a>]> {
        self.endpoints.get(name).map(Vec::as_slice)
    }

    pub(super) fn secret(&self, name: &str) -> Option<&Part<'a>> {
        self.secrets.get(name)
    }
}

/// Those that serve, those that will, and those that still carry open connections.
fn listeners<'a>(part: &Part<'a>) -> Vec<Part<'a>> {
    let fixed = part.field("static_listeners").items();
    let states = ["active_state", "warming_state", "draining_state"];
    let moving = part.field("dynamic_listeners").items();
    let moving = moving.iter().flat_map(|item| states.map(|state| item.field(state).field("listener")));
    fixed.iter().map(|item| item.field("listener")).chain(moving).filter(Part::is_there).collect()
}

/// A dump that was narrowed down shows nothing of the rest.
fn must_have(root: &Part<'_>, configs: &[Part<'_>]) {
    for name in ["BootstrapConfigDump", "ListenersConfigDump", "ClustersConfigDump", "RoutesConfigDump"] {
        if !configs.iter().any(|part| part.type_name() == Some(&format!("envoy.admin.v3.{name}"))) {
            let why = format!("the dump holds no {name}, so it shows only a part of what Envoy does.");
            root.field("configs").report(Kind::NotUnderstood, "incomplete", &why, "the whole of /config_dump?include_eds");
        }
    }
}

pub(super) fn elsewhere(part: &Part<'_>, why: &str) {
    part.report(
        Kind::NotUnderstood,
        "elsewhere",
        why,
        "check the running Envoy: its admin interface (http://127.0.0.1:PORT or unix:PATH), or a saved /config_dump?include_eds",
    );
}
