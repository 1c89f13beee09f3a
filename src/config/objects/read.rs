//! An object's spec as a draft, by the readers of the configuration file.

use std::collections::BTreeSet;

use super::Object;
use crate::config::error::{At, ConfigErrors, Faults, Spot};
use crate::config::listener::CertificateDraft;
use crate::config::names::{host_fault, quote};
use crate::config::reader::{Item, Reading};
use crate::config::reference::{MaterialKind, Reference};
use crate::config::route::{RouteDraft, RuleDraft};
use crate::config::tree;

/// Where a spec begins in messages.
const ROOT: &str = "spec";

/// What reading gave: the draft as far as it could be read, and the mistakes.
#[derive(Debug)]
pub(super) struct Drafted<T> {
    pub(super) value: Option<T>,
    pub(super) faults: Faults,
    /// What must be at hand to resolve it.
    pub(super) references: BTreeSet<Reference>,
}

#[derive(Debug)]
pub(super) struct RouteSpec {
    pub(super) route: RouteDraft,
    pub(super) policies: Vec<At<String>>,
}

#[derive(Debug)]
pub(super) struct PolicySpec {
    pub(super) rules: Vec<RuleDraft>,
}

#[derive(Debug)]
pub(super) struct GatewaySpec {
    pub(super) hosts: Vec<At<String>>,
    pub(super) namespaces: Vec<At<String>>,
    pub(super) policies: Vec<At<String>>,
    pub(super) certificates: Vec<CertificateDraft>,
    /// Of the file, where its routes are served.
    pub(super) nodes: Option<Vec<At<String>>>,
    pub(super) gateways: Option<Vec<At<String>>>,
}

#[derive(Debug)]
pub(super) struct GrantSpec {
    /// Kind and namespace.
    pub(super) from: Vec<(super::Kind, String)>,
    /// Kind and name.
    pub(super) to: Vec<(MaterialKind, String)>,
}

pub(super) fn route(object: &Object) -> Drafted<RouteSpec> {
    read(object, |item, reading| {
        let (route, policies) = RouteDraft::read_object(item, reading)?;
        Some(RouteSpec { route, policies })
    })
}

pub(super) fn policy(object: &Object) -> Drafted<PolicySpec> {
    read(object, |item, reading| {
        let mut section = item.section(reading)?;
        let rules = section.required("rules", reading);
        let rules = rules.and_then(|item| item.filled_list("leave the object out instead", reading, RuleDraft::read));
        section.finish(reading);
        Some(PolicySpec { rules: rules? })
    })
}

pub(super) fn gateway(object: &Object) -> Drafted<GatewaySpec> {
    read(object, |item, reading| {
        let mut section = item.section(reading)?;
        let hosts = section.required("hosts", reading).and_then(|item| item.filled_list("nothing would be served", reading, host_pattern));
        let namespaces = section.required("namespaces", reading);
        let namespaces = namespaces.and_then(|item| item.filled_list("nobody would be served", reading, Item::text));
        let policies = section.optional("policies").and_then(|item| item.filled_list("leave the key out instead", reading, Item::text));
        let certificates = section.optional("certificates");
        let certificates = certificates.and_then(|item| item.filled_list("leave the key out instead", reading, CertificateDraft::read));
        let mut names = |key| {
            let item = section.optional(key)?;
            item.filled_list("its routes would be served nowhere; leave the key out", reading, |item, reading| item.text(reading))
        };
        let (nodes, gateways) = (names("nodes"), names("gateways"));
        section.finish(reading);
        Some(GatewaySpec {
            hosts: hosts?,
            namespaces: namespaces?,
            policies: policies.unwrap_or_default(),
            certificates: certificates.unwrap_or_default(),
            nodes,
            gateways,
        })
    })
}

pub(super) fn grant(object: &Object) -> Drafted<GrantSpec> {
    read(object, |item, reading| {
        let mut section = item.section(reading)?;
        let from = section.required("from", reading).and_then(|item| item.filled_list("nobody would be let", reading, grant_from));
        let to = section.required("to", reading).and_then(|item| item.filled_list("nobody would be let to anything", reading, grant_to));
        section.finish(reading);
        Some(GrantSpec { from: from?, to: to? })
    })
}

/// What is wrong with an object's shape, before anything is asked about what its words mean.
pub fn shape_errors(object: &Object) -> ConfigErrors {
    let faults = match object.id.kind {
        super::Kind::Grant => grant(object).faults,
        super::Kind::Policy => policy(object).faults,
        super::Kind::Gateway => gateway(object).faults,
        super::Kind::Route => route(object).faults,
    };
    faults.into_errors()
}

fn read<T>(object: &Object, read: impl FnOnce(&Item<'_>, &mut Reading) -> Option<T>) -> Drafted<T> {
    let mut reading = Reading::of_object(&object.id.to_string(), &object.id.namespace);
    let value = match tree::of_json(&object.spec) {
        Some(node) => read(&Item::below(&node, ROOT), &mut reading),
        None => {
            reading.faults.add(&root(), "holds more than an object may");
            None
        }
    };
    let (faults, references) = reading.into_parts();
    Drafted { value, faults, references: references.into_keys().collect() }
}

/// The place of what concerns the spec as a whole.
pub(super) fn root() -> Spot {
    below_root("")
}

/// The place of a key below the spec, for what is wrong with a value that is known by its name only.
pub(super) fn below_root(path: &str) -> Spot {
    let path = if path.is_empty() { ROOT.to_owned() } else { format!("{ROOT}.{path}") };
    Spot { path, ..Spot::default() }
}

/// A host, or `*.` and a suffix.
fn host_pattern(item: &Item<'_>, reading: &mut Reading) -> Option<At<String>> {
    let text = item.text(reading)?;
    if let Some(fault) = host_fault(text.value.strip_prefix("*.").unwrap_or(&text.value)) {
        let hint = "write a DNS name, or for every host below one *.k8s.example.com";
        reading.faults.add_with_hint(&text.spot, format!("{} {fault}", quote(&text.value)), hint);
        return None;
    }
    Some(text)
}

fn grant_from(item: &Item<'_>, reading: &mut Reading) -> Option<(super::Kind, String)> {
    let mut section = item.section(reading)?;
    let kind = section.required("kind", reading).and_then(|item| item.text(reading));
    let namespace = section.required("namespace", reading).and_then(|item| item.text(reading));
    section.finish(reading);
    let kind = one_of(&kind?, &[("Route", super::Kind::Route), ("Gateway", super::Kind::Gateway)], reading)?;
    Some((kind, namespace?.value))
}

fn grant_to(item: &Item<'_>, reading: &mut Reading) -> Option<(MaterialKind, String)> {
    let mut section = item.section(reading)?;
    let kind = section.required("kind", reading).and_then(|item| item.text(reading));
    let name = section.required("name", reading).and_then(|item| item.text(reading));
    section.finish(reading);
    let kind = one_of(&kind?, &[("Secret", MaterialKind::Secret), ("ConfigMap", MaterialKind::ConfigMap)], reading)?;
    Some((kind, name?.value))
}

fn one_of<T: Copy>(written: &At<String>, choices: &[(&str, T)], reading: &mut Reading) -> Option<T> {
    let found = choices.iter().find(|(name, _)| *name == written.value).map(|(_, value)| *value);
    if found.is_none() {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        reading.faults.add(&written.spot, format!("{} must be one of: {}", quote(&written.value), names.join(", ")));
    }
    found
}
