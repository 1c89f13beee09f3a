//! The configuration: `parse` (text to a draft and the files that it names) and `resolve` (draft and the contents of those files to a
//! `Config` in which every value is valid, or every located error at once). Does no I/O itself and reads no clock.
//!
//! One file per section holds its shape and its checks; what the sections mean together is `consistency`; what comes out is `model`.

pub mod model;

pub mod objects;

mod certificate;
mod cluster_source;
mod consistency;
mod control_plane;
mod draft;
mod envoy_versions;
mod error;
mod expressions;
mod http_target;
mod kubernetes_target;
mod listener;
mod method;
mod names;
mod network;
mod node;
mod place;
mod provider;
mod reach;
mod reader;
mod reference;
mod resolving;
mod rotation;
mod route;
mod service;
mod signing_keys;
mod tree;

pub use draft::{Draft, parse};
pub use envoy_versions::EnvoyVersions;
pub use error::{ConfigError, ConfigErrors};
pub use model::*;
pub use reach::{Reach, ReachError};
pub use reference::{Contents, KeyReference, MaterialId, MaterialKind, Noted, Reference, Sensitivity};
pub use rotation::{Part, Use, rotate};

use crate::policy::Compiled;
use resolving::Resolving;

/// Checks a draft against the contents of what it names and makes it a configuration.
///
/// `contents` must have an entry for each of [`Draft::references`]; `now` (Unix seconds) is the time at which certificates must be valid.
///
/// # Errors
/// Every mistake at once, of shape and of meaning, in the order of the text.
pub fn resolve(draft: Draft, contents: &Contents, now: u64) -> Result<Config, ConfigErrors> {
    resolve_after(None, draft, contents, now)
}

/// The same, when `before` is in force: routes that are equal to those of before are those of before, and what is written the same way still is not
/// compiled again.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_after(before: Option<&Config>, draft: Draft, contents: &Contents, now: u64) -> Result<Config, ConfigErrors> {
    let mut resolving = Resolving::new(draft.faults.clone(), contents, &draft.text, now);
    let routes = || before.into_iter().flat_map(|before| &before.routes);
    resolving.compiled = Compiled::of(routes().map(|route| &route.policy));
    resolving.before = routes().map(|route| (route.name.as_str(), route)).collect();
    let config = assemble(&draft, &mut resolving);
    let errors = resolving.faults.into_errors();
    match config {
        Some(config) if errors.0.is_empty() => Ok(config),
        _ => Err(errors),
    }
}

/// `None` only after a mistake was noted.
fn assemble(draft: &Draft, resolving: &mut Resolving<'_>) -> Option<Config> {
    let public_url = draft.public_url.as_ref().and_then(|url| service::resolve_public_url(url, resolving));
    let secrets = service::resolve_secrets(&draft.secrets, resolving);
    let keys = draft.signing_keys.resolve(resolving);
    let providers = provider::resolve(&draft.identity_providers, resolving);
    let routes = route::resolve(&draft.routes, resolving);
    let hosts = |gateway: Option<&node::GatewayDraft>| draft.served_hosts(gateway, public_url.as_ref());
    let listeners = listener::resolve(&draft.listeners, &hosts(None), resolving);
    let gateways = node::resolve_gateways(&draft.gateways, |gateway| hosts(Some(gateway)), resolving);
    let nodes = node::resolve(&draft.nodes, resolving);
    let control_plane = draft.control_plane.as_ref();
    let admin = draft.admin.as_ref().zip(control_plane).and_then(|(admin, sockets)| admin.resolve(sockets.socket_dir(), resolving));
    let control_plane = control_plane.and_then(|sockets| sockets.resolve(!draft.nodes.is_empty(), resolving));
    let cluster_source = draft.cluster_source.as_ref().map(|draft| draft.resolve(resolving));
    consistency::check_nodes(draft, resolving);
    consistency::check_names(&draft.identity_providers, &draft.routes, public_url.as_ref(), resolving);
    consistency::check_audiences(&draft.routes, public_url.as_ref(), resolving);
    consistency::check_assertion_audiences(&draft.routes, public_url.as_ref(), resolving);
    if let (Some(providers), Some(routes)) = (&providers, &routes) {
        consistency::check_identities(&draft.identity_providers, providers, routes, resolving);
    }
    let keys = keys?;
    Some(Config {
        public_url: public_url?,
        listeners: listeners?,
        control_plane: control_plane?,
        admin: admin?,
        nodes: nodes?,
        gateways: gateways?,
        secrets,
        signing_keys: keys.signing_keys,
        assertion_keys: keys.assertion_keys,
        publish_before_use_seconds: keys.publish_before_use_seconds,
        revoked_keys: keys.revoked_keys,
        identity_providers: providers?,
        sessions: draft.sessions.as_ref()?.resolve(),
        routes: routes?,
        audit: draft.audit.as_ref()?.resolve(),
        cluster_source: cluster_source.map_or(Some(None), |source| source.map(Some))?,
        strict_file_modes: draft.strict_file_modes(),
        valid_at: resolving.valid_at.clone(),
    })
}
