//! The whole configuration as it was written: shapes are right where they could be read, values are not judged yet.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::cluster_source::ClusterSourceDraft;
use super::control_plane::ControlPlaneDraft;
use super::error::{At, ConfigErrors, Faults, Spot};
use super::model::{ClusterSource, PublicUrl};
use super::names::host_fault;
use super::node::{GatewayDraft, NodeDraft};
use super::reader::{Item, Reading};
use super::reference::{self, Contents, Noted, Reference};
use super::resolving::Resolving;
use super::rotation::Use;
use super::service::{AdminDraft, AuditDraft, SessionsDraft};
use super::signing_keys::SigningKeysDraft;
use super::{listener::ListenerDraft, provider, provider::ProviderDraft, route::RouteDraft, service, tree};

/// A configuration that was read but not checked. Mistakes of shape are kept inside and come out of `resolve` together with all others.
#[derive(Debug)]
pub struct Draft {
    pub(super) text: String,
    pub(super) faults: Faults,
    references: BTreeMap<Reference, Noted>,
    pub(super) public_url: Option<At<String>>,
    pub(super) listeners: Vec<ListenerDraft>,
    pub(super) control_plane: Option<ControlPlaneDraft>,
    pub(super) admin: Option<AdminDraft>,
    pub(super) nodes: Vec<NodeDraft>,
    pub(super) gateways: Vec<GatewayDraft>,
    pub(super) secrets: Vec<At<Reference>>,
    pub(super) signing_keys: SigningKeysDraft,
    pub(super) identity_providers: Vec<ProviderDraft>,
    pub(super) sessions: Option<SessionsDraft>,
    pub(super) routes: Vec<RouteDraft>,
    pub(super) audit: Option<AuditDraft>,
    pub(super) cluster_source: Option<ClusterSourceDraft>,
    pub(super) strict_file_modes: Option<bool>,
}

impl Draft {
    /// Every file and environment variable that the configuration names.
    pub fn references(&self) -> &BTreeMap<Reference, Noted> {
        &self.references
    }

    /// What of the routes is the content of a reference. Whoever uses one otherwise is not among them.
    pub fn uses(&self) -> impl Iterator<Item = (&Reference, Use)> {
        self.routes.iter().enumerate().flat_map(|(route, draft)| {
            draft.references().into_iter().flatten().map(move |(reference, part)| (reference, Use { route, part }))
        })
    }

    /// Whether a secret in a file that others can read is a mistake. Without a word on it, it is not.
    pub fn strict_file_modes(&self) -> bool {
        self.strict_file_modes.unwrap_or_default()
    }

    /// Where the service-account tokens of the routes come from, for the one verb that must work before there are tokens.
    pub fn impersonation_tokens(&self) -> impl Iterator<Item = &Reference> {
        self.routes.iter().filter_map(RouteDraft::impersonation_token)
    }

    /// Where a running kubepass is asked for its state, although the rest may be full of mistakes; `None` when this part has one.
    pub fn admin_socket(&self) -> Option<PathBuf> {
        let socket_dir = self.control_plane.as_ref().map(ControlPlaneDraft::socket_dir)?;
        self.admin.as_ref().map(|admin| admin.socket(socket_dir))
    }

    /// The API server whose objects are configuration too, in the same way.
    pub fn cluster_source(&self) -> Option<ClusterSource> {
        let contents = Contents::default();
        self.cluster_source.as_ref()?.resolve(&mut Resolving::new(Faults::new(""), &contents, "", 0))
    }

    /// Every host that the nodes of `gateway` serve, or those that have none, each with the place where it was written.
    pub(super) fn served_hosts(&self, gateway: Option<&GatewayDraft>, public_url: Option<&PublicUrl>) -> Vec<At<String>> {
        let login_pages = gateway.is_none_or(|gateway| gateway.login_pages);
        let written = self.public_url.as_ref().zip(public_url).filter(|_| login_pages);
        let login = written.map(|(written, public_url)| At { value: public_url.host.clone(), spot: written.spot.clone() });
        let routes = self.routes.iter().filter(|route| self.is_served(route, gateway)).filter_map(|route| route.host.clone());
        login.into_iter().chain(routes.filter(|host| host_fault(&host.value).is_none())).collect()
    }

    fn is_served(&self, route: &RouteDraft, gateway: Option<&GatewayDraft>) -> bool {
        if route.nodes.is_none() && route.gateways.is_none() {
            return true;
        }
        let selects = |gateway: &GatewayDraft, node: &str| gateway.nodes.iter().any(|selected| selected.value == node);
        let here = |node: &str| match gateway {
            Some(gateway) => selects(gateway, node),
            None => !self.gateways.iter().any(|gateway| selects(gateway, node)),
        };
        let name = gateway.and_then(|gateway| gateway.name.as_ref()).map(|name| name.value.as_str());
        route.nodes.iter().flatten().any(|node| here(&node.value))
            || route.gateways.iter().flatten().any(|gateway| Some(gateway.value.as_str()) == name)
    }
}

/// Reads the text. `file` is the configuration file's path: it stands in every message, and relative paths begin at its folder.
///
/// # Errors
/// When the text is no YAML mapping at all, nests too deeply or is too large. Other mistakes wait for `resolve`.
pub fn parse(text: &str, file: &str) -> Result<Draft, ConfigErrors> {
    let mut reading = Reading::new(file);
    let tree = match tree::read(text) {
        Ok(tree) => tree,
        Err(error) => {
            reading.faults.add(&Spot { place: error.place, path: String::new() }, error.message);
            return Err(reading.faults.into_errors());
        }
    };
    match read(text, &Item::root(&tree), &mut reading) {
        Some(mut draft) => {
            (draft.faults, draft.references) = reading.into_parts();
            Ok(draft)
        }
        None => Err(reading.faults.into_errors()),
    }
}

fn read(text: &str, item: &Item<'_>, reading: &mut Reading) -> Option<Draft> {
    let mut section = item.section(reading)?;
    let public_url = section.required("public_url", reading).and_then(|item| item.text(reading));
    let gateways = section.optional("gateways").and_then(|item| item.list(reading, GatewayDraft::read));
    // A node may have a gateway's instead.
    let listeners = if gateways.is_some() { section.optional("listeners") } else { section.required("listeners", reading) };
    let listeners = listeners.and_then(|item| item.filled_list("at least one listener is needed", reading, ListenerDraft::read));
    let control_plane = section.optional("control_plane").map(|item| ControlPlaneDraft::read(&item, reading));
    let admin = AdminDraft::read(&mut section, reading);
    let nodes = section.optional("nodes");
    let nodes = nodes.and_then(|item| item.filled_list("no Envoy could connect; leave the key out otherwise", reading, NodeDraft::read));
    let secrets = section.required("secrets", reading);
    let secrets = secrets.and_then(|item| item.filled_list(service::NO_SECRET, reading, reference::read_secret));
    let signing_keys = SigningKeysDraft::read(&mut section, reading);
    let identity_providers = section.required("identity_providers", reading);
    let identity_providers = identity_providers.and_then(|item| item.filled_list(provider::NOBODY, reading, ProviderDraft::read));
    let sessions = section.required("sessions", reading).and_then(|item| SessionsDraft::read(&item, reading));
    let routes = section.required("routes", reading).and_then(|item| item.list(reading, RouteDraft::read));
    let audit = section.required("audit", reading).and_then(|item| AuditDraft::read(&item, reading));
    let cluster_source = section.optional("cluster_source").and_then(|item| ClusterSourceDraft::read(&item, reading));
    let strict_file_modes = section.optional("strict_file_modes").and_then(|item| item.boolean(reading));
    section.finish(reading);
    Some(Draft {
        text: text.to_owned(),
        faults: Faults::new(""),
        references: BTreeMap::new(),
        public_url,
        listeners: listeners.unwrap_or_default(),
        control_plane: control_plane.unwrap_or_else(|| Some(ControlPlaneDraft::usual())),
        admin,
        nodes: nodes.unwrap_or_default(),
        gateways: gateways.unwrap_or_default(),
        secrets: secrets.unwrap_or_default(),
        signing_keys,
        identity_providers: identity_providers.unwrap_or_default(),
        sessions,
        routes: routes.unwrap_or_default(),
        audit,
        cluster_source,
        strict_file_modes,
    })
}
