//! `routes`: a host, what stands behind it, and who may do what there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::{At, Spot};
use super::expressions;
use super::http_target::HttpDraft;
use super::kubernetes_target::KubernetesDraft;
use super::method::JwtDraft;
use super::model::{Route, Target};
use super::names::{host_fault, quote};
use super::provider::checked_name;
use super::reader::{Item, Reading, Section};
use super::reference::Reference;
use super::resolving::Resolving;
use super::rotation::Part;

const POLICY_HINT: &str = "write for example: policy: [{allow: '\"staff\" in user.groups'}]";
const NOWHERE: &str = "the route would be served nowhere; leave the key out to serve it everywhere";
const MIN_STREAM_SECONDS: u64 = 1;
const MAX_STREAM_SECONDS: u64 = 30 * 86400;

#[derive(Debug)]
pub(super) struct RouteDraft {
    pub(super) name: Option<At<String>>,
    pub(super) host: Option<At<String>>,
    labels: Vec<(At<String>, String)>,
    pub(super) nodes: Option<Vec<At<String>>>,
    pub(super) gateways: Option<Vec<At<String>>>,
    pub(super) identity_providers: Option<Vec<At<String>>>,
    pomerium_cli: bool,
    max_stream_seconds: Option<u64>,
    target: Option<TargetDraft>,
    policy: Option<Vec<RuleDraft>>,
}

/// Where a route is written, which decides what it may say.
#[derive(Debug, Clone, Copy)]
enum Written {
    InFile,
    /// Where it is served is for others to say. `has_rules`: there are rules besides those of `policy`.
    AsObject {
        has_rules: bool,
    },
}

#[derive(Debug)]
enum TargetDraft {
    Kubernetes(Box<KubernetesDraft>),
    Http(Box<HttpDraft>),
}

#[derive(Debug, Clone)]
pub(super) struct RuleDraft {
    pub(super) spot: Spot,
    pub(super) name: Option<At<String>>,
    /// For a rule that another object brings, which has checked it: its name here.
    pub(super) known_as: Option<String>,
    pub(super) effect: RuleEffect,
    pub(super) source: At<String>,
    pub(super) message: Option<At<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RuleEffect {
    Allow,
    Deny,
}

impl RouteDraft {
    pub(super) fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let name = section.required("name", reading).and_then(|item| item.text(reading));
        Self::read_below_name(section, name, Written::InFile, reading)
    }

    /// The route of an object, whose metadata names it, and the `policies` that it refers to.
    pub(super) fn read_object(item: &Item<'_>, reading: &mut Reading) -> Option<(Self, Vec<At<String>>)> {
        let mut section = item.section(reading)?;
        let policies = section.optional("policies");
        let written = Written::AsObject { has_rules: policies.is_some() };
        let policies = policies.and_then(|item| item.filled_list("leave the key out instead", reading, |item, reading| item.text(reading)));
        Some((Self::read_below_name(section, None, written, reading)?, policies.unwrap_or_default()))
    }

    fn read_below_name(mut section: Section<'_>, name: Option<At<String>>, written: Written, reading: &mut Reading) -> Option<Self> {
        let host = section.required("host", reading).and_then(|item| item.text(reading));
        let labels = section.optional("labels").and_then(|item| read_labels(&item, reading));
        let (nodes, gateways) = match written {
            Written::InFile => (names(&mut section, "nodes", NOWHERE, reading), names(&mut section, "gateways", NOWHERE, reading)),
            Written::AsObject { .. } => (None, None),
        };
        let identity_providers =
            names(&mut section, "identity_providers", "no session would be taken; leave the key out to take all", reading);
        let pomerium_cli = section.optional("pomerium_cli");
        let max_stream = section.optional("max_stream").and_then(|item| item.duration(MIN_STREAM_SECONDS, MAX_STREAM_SECONDS, reading));
        let target = TargetDraft::read(&mut section, reading);
        if let (Some(item), Some(TargetDraft::Http(_))) = (&pomerium_cli, &target) {
            reading.faults.add(&item.spot(), "pomerium-cli logs in to clusters only");
        }
        let pomerium_cli = pomerium_cli.and_then(|item| item.boolean(reading));
        let policy = section.optional("policy");
        if policy.is_none() && !matches!(written, Written::AsObject { has_rules: true }) {
            reading.faults.add_with_hint(section.spot(), "the key `policy` is missing: without a rule everything is denied", POLICY_HINT);
        }
        let policy = policy.and_then(|item| item.filled_list("without a rule everything is denied", reading, RuleDraft::read));
        section.finish(reading);
        Some(Self {
            name,
            host,
            labels: labels.unwrap_or_default(),
            nodes,
            gateways,
            identity_providers,
            pomerium_cli: pomerium_cli.unwrap_or(false),
            max_stream_seconds: max_stream,
            target,
            policy,
        })
    }

    pub(super) fn jwt(&self) -> Option<&JwtDraft> {
        self.kubernetes()?.jwt()
    }

    pub(super) fn http(&self) -> Option<&HttpDraft> {
        match &self.target {
            Some(TargetDraft::Http(draft)) => Some(draft),
            _ => None,
        }
    }

    fn kubernetes(&self) -> Option<&KubernetesDraft> {
        match &self.target {
            Some(TargetDraft::Kubernetes(draft)) => Some(draft),
            _ => None,
        }
    }

    /// The address of the API server as it is written.
    pub(super) fn server(&self) -> Option<&At<String>> {
        self.kubernetes()?.server()
    }

    pub(super) fn impersonation_token(&self) -> Option<&Reference> {
        self.kubernetes()?.impersonation_token()
    }

    /// What of it is the content of a reference.
    pub(super) fn references(&self) -> [Option<(&Reference, Part)>; 2] {
        let ca = match &self.target {
            Some(TargetDraft::Kubernetes(draft)) => draft.ca(),
            Some(TargetDraft::Http(draft)) => draft.ca(),
            None => None,
        };
        [ca.map(|ca| (ca, Part::Ca)), self.impersonation_token().map(|token| (token, Part::Token))]
    }

    /// The rules that stand in the route itself.
    pub(super) fn rules(&self) -> &[RuleDraft] {
        self.policy.as_deref().unwrap_or_default()
    }

    fn resolve(&self, resolving: &mut Resolving<'_>) -> Option<Route> {
        let name = self.name.as_ref().and_then(|name| checked_name(name, resolving));
        self.resolve_named(name, self.policy.as_deref(), resolving)
    }

    /// Under a name that is valid already, with these rules.
    pub(super) fn resolve_named(&self, name: Option<String>, rules: Option<&[RuleDraft]>, resolving: &mut Resolving<'_>) -> Option<Route> {
        let host = self.host.as_ref().and_then(|host| resolve_host(host, resolving));
        if let Some((key, _)) = self.labels.iter().find(|(key, _)| key.value.is_empty()) {
            resolving.faults.add(&key.spot, "the name of a label is empty");
        }
        let target = self.target.as_ref().and_then(|target| target.resolve(host.as_deref(), resolving));
        let policy = rules.and_then(|rules| expressions::policy(rules, resolving));
        let (name, target) = (name?, target?);
        Some(Route {
            id: Route::id_of(&name, &target),
            name,
            host: host?,
            labels: self.labels.iter().map(|(key, value)| (key.value.clone(), value.clone())).collect::<BTreeMap<_, _>>(),
            nodes: values(self.nodes.as_ref()),
            gateways: values(self.gateways.as_ref()),
            identity_providers: values(self.identity_providers.as_ref()),
            pomerium_cli: self.pomerium_cli,
            target,
            policy: policy?,
            max_stream_seconds: self.max_stream_seconds,
        })
    }
}

impl TargetDraft {
    /// Reads the one key of the two that a route has.
    fn read(section: &mut Section<'_>, reading: &mut Reading) -> Option<Self> {
        match (section.optional("kubernetes"), section.optional("http")) {
            (Some(item), None) => KubernetesDraft::read(&item, reading).map(Box::new).map(Self::Kubernetes),
            (None, Some(item)) => HttpDraft::read(&item, reading).map(Box::new).map(Self::Http),
            (Some(_), Some(http)) => {
                reading.faults.add(&http.spot(), "`http` beside `kubernetes`: a route leads to one of them; make two routes");
                None
            }
            (None, None) => {
                let message = "the key `kubernetes` is missing (or `http`, for a web page)";
                reading.faults.add(section.spot(), message);
                None
            }
        }
    }

    fn resolve(&self, host: Option<&str>, resolving: &mut Resolving<'_>) -> Option<Target> {
        match self {
            Self::Kubernetes(draft) => draft.resolve(resolving).map(Target::Kubernetes),
            Self::Http(draft) => draft.resolve(host, resolving).map(Target::Http),
        }
    }
}

impl RuleDraft {
    pub(super) fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        let mut section = item.section(reading)?;
        let name = section.optional("name").and_then(|item| item.text(reading));
        let allow = section.optional("allow").map(|item| item.text(reading));
        let deny = section.optional("deny").map(|item| item.text(reading));
        let message = section.optional("message").and_then(|item| item.text(reading));
        section.finish(reading);
        let (effect, source) = match (allow, deny) {
            (Some(source), None) => (RuleEffect::Allow, source?),
            (None, Some(source)) => (RuleEffect::Deny, source?),
            (Some(_), Some(_)) => {
                reading.faults.add(&item.spot(), "a rule allows or denies, not both; make two rules");
                return None;
            }
            (None, None) => {
                reading.faults.add(&item.spot(), "the rule has neither `allow` nor `deny`");
                return None;
            }
        };
        Some(Self { spot: item.spot(), name, known_as: None, effect, source, message })
    }
}

pub(super) fn resolve(drafts: &[RouteDraft], resolving: &mut Resolving<'_>) -> Option<Vec<Arc<Route>>> {
    let routes: Vec<_> = drafts.iter().map(|draft| draft.resolve(resolving).map(|route| resolving.shared(route))).collect();
    routes.into_iter().collect()
}

/// A list of names of things that stand elsewhere in the configuration.
fn names(section: &mut Section<'_>, key: &'static str, if_empty: &str, reading: &mut Reading) -> Option<Vec<At<String>>> {
    section.optional(key).and_then(|item| item.filled_list(if_empty, reading, |item, reading| item.text(reading)))
}

fn values(names: Option<&Vec<At<String>>>) -> Option<Vec<String>> {
    names.map(|names| names.iter().map(|name| name.value.clone()).collect())
}

fn resolve_host(host: &At<String>, resolving: &mut Resolving<'_>) -> Option<String> {
    if let Some(fault) = host_fault(&host.value) {
        resolving.faults.add_with_hint(
            &host.spot,
            format!("{} {fault}", quote(&host.value)),
            "write a DNS name, for example prod.k8s.example.com",
        );
        return None;
    }
    Some(host.value.clone())
}

fn read_labels(item: &Item<'_>, reading: &mut Reading) -> Option<Vec<(At<String>, String)>> {
    let pairs = item.pairs(reading)?;
    Some(pairs.into_iter().filter_map(|(key, item)| item.text(reading).map(|value| (key, value.value))).collect())
}
