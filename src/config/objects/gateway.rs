//! Which hosts and namespaces the Gateways serve, the rules and certificates that they bring, and the Policies that rules come from.

use std::collections::HashMap;
use std::sync::Arc;

use super::granted::{Grants, Lack};
use super::memory::{GatewayMemory, Kept, Memory, PolicyMemory};
use super::read::{self, Drafted, GatewaySpec};
use super::room;
use super::scope::Scope;
use super::{Kind, Object, ObjectId, Objects, Roots, Verdict};
use crate::config::consistency;
use crate::config::error::{At, ConfigErrors, Faults};
use crate::config::expressions::{self, rule_name};
use crate::config::model::{Config, ServingCertificate};
use crate::config::names::quote;
use crate::config::reference::Contents;
use crate::config::resolving::Resolving;
use crate::config::route::RuleDraft;

/// The rules of every Policy without a mistake, or that there is one.
#[derive(Debug, Default)]
pub(super) struct Policies(HashMap<(String, String), Option<PolicyRules>>);

#[derive(Debug)]
struct PolicyRules {
    rules: Vec<RuleDraft>,
    bytes: usize,
    stamp: String,
}

/// A Gateway.
#[derive(Debug)]
pub(super) struct Serving {
    name: String,
    hosts: Vec<String>,
    namespaces: Vec<String>,
    pub(super) rules: Vec<RuleDraft>,
    /// Where its routes are served.
    pub(super) scope: Scope,
    /// Tells these rules and this scope from others.
    pub(super) stamp: String,
    pub(super) certificates: Vec<ServingCertificate>,
    /// Whether its rules are known. Without them it serves nothing, and nothing that it is to serve may be served without them.
    is_whole: bool,
}

/// What Gateways are made from.
pub(super) struct Sources<'a> {
    pub(super) file: &'a Config,
    pub(super) objects: &'a Objects,
    pub(super) grants: &'a Grants,
    pub(super) policies: &'a Policies,
    pub(super) roots: &'a Roots,
    pub(super) operator_namespace: &'a str,
    pub(super) now: u64,
}

impl Policies {
    pub(super) fn of(objects: &Objects, memory: &mut Memory, now: u64, verdicts: &mut Vec<Verdict>) -> Self {
        let mut policies = HashMap::new();
        for object in objects.of_kind(Kind::Policy) {
            let kept = Kept::look(&mut memory.policies, object, read::policy, |memory| *memory = PolicyMemory::default());
            let stamp = kept.stamp();
            let drafted = &kept.drafted;
            let errors = kept.memory.errors.get_or_insert_with(|| {
                let contents = Contents::default();
                let mut resolving = Resolving::new(drafted.faults.clone(), &contents, "", now);
                if let Some(spec) = &drafted.value {
                    expressions::policy(&spec.rules, &mut resolving);
                }
                resolving.faults.into_errors()
            });
            let rules = drafted.value.as_ref().filter(|_| errors.0.is_empty());
            let rules = rules.map(|spec| PolicyRules { rules: spec.rules.clone(), bytes: room::bytes_of(&spec.rules), stamp });
            policies.insert((object.id.namespace.clone(), object.id.name.clone()), rules);
            verdicts.push(Verdict::of(object).with_errors(errors, None));
        }
        Self(policies)
    }

    /// What tells the rules of these policies from others. Those that cannot be had are noted as faults.
    pub(super) fn stamp(&self, namespace: &str, names: &[At<String>], faults: &mut Faults) -> String {
        let mut stamp = String::new();
        for name in names {
            stamp.push_str(match self.0.get(&(namespace.to_owned(), name.value.clone())) {
                Some(Some(policy)) => &policy.stamp,
                Some(None) => {
                    faults.add(&name.spot, format!("the policy {} has mistakes", quote(&name.value)));
                    "!"
                }
                None => {
                    faults.add(&name.spot, format!("there is no policy {} in the namespace {namespace}", quote(&name.value)));
                    "-"
                }
            });
            stamp.push(';');
        }
        stamp
    }

    /// How long the rules of these policies are.
    pub(super) fn bytes(&self, namespace: &str, names: &[At<String>]) -> usize {
        let policy = |name: &At<String>| self.0.get(&(namespace.to_owned(), name.value.clone()))?.as_ref();
        names.iter().filter_map(policy).map(|policy| policy.bytes).sum()
    }

    /// Their rules, each known as `PREFIX` + `POLICY/RULE`.
    pub(super) fn rules(&self, namespace: &str, names: &[At<String>], prefix: &str) -> Vec<RuleDraft> {
        let policies = names.iter().filter_map(|name| Some((name, self.0.get(&(namespace.to_owned(), name.value.clone()))?.as_ref()?)));
        let known = |(name, policy): (&At<String>, &PolicyRules)| {
            let known = |(index, rule): (usize, &RuleDraft)| {
                let known_as = Some(format!("{prefix}{}/{}", name.value, rule_name(index, rule)));
                RuleDraft { known_as, ..rule.clone() }
            };
            policy.rules.iter().enumerate().map(known).collect::<Vec<_>>()
        };
        policies.flat_map(known).collect()
    }
}

impl Serving {
    /// All Gateways, in the order of their names; those that are not whole among them.
    pub(super) fn all(sources: &Sources<'_>, memory: &mut Memory, verdicts: &mut Vec<Verdict>) -> Vec<Self> {
        let mut serving = Vec::new();
        for object in sources.objects.of_kind(Kind::Gateway) {
            let verdict = Verdict::of(object);
            if object.id.namespace != sources.operator_namespace {
                memory.gateways.remove(&object.id);
                let message = format!("{}: Gateways are taken from the namespace {} only", object.id, sources.operator_namespace);
                verdicts.push(verdict.refused("ForeignNamespace", message));
                continue;
            }
            let kept = Kept::look(&mut memory.gateways, object, read::gateway, |_| ());
            let (gateway, verdict) = Self::of(object, &kept.drafted, &mut kept.memory, sources, verdict);
            serving.extend(gateway);
            verdicts.push(verdict);
        }
        serving
    }

    /// Spec, rules and certificates each stay as they were last good: a broken certificate must not hold back a new rule.
    fn of(
        object: &Object,
        drafted: &Arc<Drafted<GatewaySpec>>,
        memory: &mut GatewayMemory,
        sources: &Sources<'_>,
        verdict: Verdict,
    ) -> (Option<Self>, Verdict) {
        let mut errors = drafted.faults.clone().into_errors();
        if errors.0.is_empty() {
            memory.good = Some(Arc::clone(drafted));
        }
        let Some(good) = memory.good.clone() else {
            let lacking = drafted.value.as_ref().map(|spec| Self::lacking(object, spec));
            return (lacking, verdict.with_errors(&errors, None));
        };
        let Some(spec) = &good.value else { return (None, verdict.with_errors(&errors, None)) };
        let mut faults = Faults::new(&object.id.to_string());
        let prefix = format!("{}:", object.id.name);
        let stamp = sources.policies.stamp(&object.id.namespace, &spec.policies, &mut faults);
        if faults.is_empty() {
            memory.rules = Some((sources.policies.rules(&object.id.namespace, &spec.policies, &prefix), stamp));
        }
        let scope = scope_of(spec, sources.file, &mut faults);
        errors.0.extend(faults.into_errors().0);
        let lack = take_certificates(&object.id, &good, memory, sources, &mut errors);
        let verdict = verdict.with_errors(&errors, lack);
        let lacking = Self::lacking(object, spec);
        let Some((rules, stamp)) = memory.rules.clone() else { return (Some(lacking), verdict) };
        let stamp = format!("{stamp}{:?}{:?}", scope.nodes, scope.gateways);
        let gateway = Self { rules, scope, stamp, certificates: memory.certificates.clone(), is_whole: true, ..lacking };
        (Some(gateway), verdict)
    }

    /// Of which only is known what it is to serve.
    fn lacking(object: &Object, spec: &GatewaySpec) -> Self {
        let texts = |written: &[At<String>]| written.iter().map(|text| text.value.clone()).collect();
        Self {
            name: object.id.name.clone(),
            hosts: texts(&spec.hosts),
            namespaces: texts(&spec.namespaces),
            rules: Vec::new(),
            scope: Scope::default(),
            stamp: String::new(),
            certificates: Vec::new(),
            is_whole: false,
        }
    }

    pub(super) fn serves(&self, namespace: &str, host: &str) -> bool {
        self.namespaces.iter().any(|served| served == "*" || served == namespace) && self.hosts.iter().any(|pattern| matches(pattern, host))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }
}

/// What the file does not have is left out: it serves nobody.
fn scope_of(spec: &GatewaySpec, file: &Config, faults: &mut Faults) -> Scope {
    let mut known = |what: &str, names: &Option<Vec<At<String>>>, known: Vec<&str>| {
        let names = names.as_ref()?;
        let is_known = |name: &&At<String>| {
            let found = known.contains(&name.value.as_str());
            if !found {
                let (message, hint) = consistency::unknown(what, &name.value, &known);
                faults.add_with_hint(&name.spot, message, hint);
            }
            found
        };
        Some(names.iter().filter(is_known).map(|name| name.value.clone()).collect())
    };
    let nodes = known("node", &spec.nodes, file.nodes.iter().map(|node| node.name.as_str()).collect());
    let gateways = known("gateway", &spec.gateways, file.gateways.iter().map(|gateway| gateway.name.as_str()).collect());
    Scope { nodes, gateways }
}

fn take_certificates(
    id: &ObjectId,
    good: &Drafted<GatewaySpec>,
    memory: &mut GatewayMemory,
    sources: &Sources<'_>,
    errors: &mut ConfigErrors,
) -> Option<Lack> {
    let spec = good.value.as_ref()?;
    let lack = sources.grants.look(id, &good.references, sources.objects).lack;
    let contents = sources.grants.fetch(id, &good.references, sources.objects, sources.roots);
    let mut resolving = Resolving::new(Faults::new(&id.to_string()), &contents, "", sources.now);
    let certificates: Vec<_> = spec.certificates.iter().map(|draft| draft.resolve(&mut resolving)).collect();
    match certificates.into_iter().collect::<Option<Vec<_>>>() {
        Some(certificates) => memory.certificates = certificates,
        // What may no longer be used is not kept.
        None if !sources.grants.permit_all(id, &good.references, sources.objects) => memory.certificates.clear(),
        None => {}
    }
    errors.0.extend(resolving.faults.into_errors().0);
    lack
}

fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_is_for_what_stands_below_it() {
        let check = |pattern: &str, host: &str, want: bool| assert_eq!(matches(pattern, host), want, "{pattern} {host}");
        check("a.example.com", "a.example.com", true);
        check("a.example.com", "b.a.example.com", false);
        check("*.example.com", "a.example.com", true);
        check("*.example.com", "b.a.example.com", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", ".example.com", false);
        check("*.example.com", "aexample.com", false);
        check("*.example.com", "a.example.com.evil", false);
    }
}
