//! Which hosts and namespaces the Gateways serve, the rules and certificates that they bring, and the Policies that rules come from.

use std::collections::HashMap;
use std::sync::Arc;

use super::granted::{Fetched, Grants};
use super::memory::{GatewayMemory, Kept, Memory, PolicyMemory};
use super::read::{self, Drafted, GatewaySpec};
use super::{Kind, Object, ObjectId, Objects, Roots, Verdict};
use crate::config::error::{At, ConfigErrors, Faults};
use crate::config::expressions::{self, rule_name};
use crate::config::model::ServingCertificate;
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
    stamp: String,
}

/// A Gateway in force.
#[derive(Debug)]
pub(super) struct Serving {
    name: String,
    hosts: Vec<String>,
    namespaces: Vec<String>,
    pub(super) rules: Vec<RuleDraft>,
    /// Tells these rules from others.
    pub(super) stamp: String,
    pub(super) certificates: Vec<ServingCertificate>,
}

/// What Gateways are made from.
pub(super) struct Sources<'a> {
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
            let rules = rules.map(|spec| PolicyRules { rules: spec.rules.clone(), stamp });
            policies.insert((object.id.namespace.clone(), object.id.name.clone()), rules);
            verdicts.push(Verdict::of(object).with_errors(errors, None));
        }
        Self(policies)
    }

    /// The rules of the policies that `names` names, each known as `PREFIX` + `POLICY/RULE`, and what tells them apart. Those that cannot be had are
    /// noted as faults.
    pub(super) fn gather(&self, namespace: &str, names: &[At<String>], prefix: &str, faults: &mut Faults) -> (Vec<RuleDraft>, String) {
        let (mut rules, mut stamp) = (Vec::new(), String::new());
        for name in names {
            match self.0.get(&(namespace.to_owned(), name.value.clone())) {
                Some(Some(policy)) => {
                    let known = |(index, rule): (usize, &RuleDraft)| {
                        let known_as = Some(format!("{prefix}{}/{}", name.value, rule_name(index, rule)));
                        RuleDraft { known_as, ..rule.clone() }
                    };
                    rules.extend(policy.rules.iter().enumerate().map(known));
                    stamp.push_str(&policy.stamp);
                }
                Some(None) => {
                    faults.add(&name.spot, format!("the policy {} has mistakes", quote(&name.value)));
                    stamp.push('!');
                }
                None => {
                    faults.add(&name.spot, format!("there is no policy {} in the namespace {namespace}", quote(&name.value)));
                    stamp.push('-');
                }
            }
            stamp.push(';');
        }
        (rules, stamp)
    }
}

impl Serving {
    /// All Gateways in force, in the order of their names.
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
        let Some(good) = memory.good.clone() else { return (None, verdict.with_errors(&errors, None)) };
        let Some(spec) = &good.value else { return (None, verdict.with_errors(&errors, None)) };
        let mut faults = Faults::new(&object.id.to_string());
        let prefix = format!("{}:", object.id.name);
        let gathered = sources.policies.gather(&object.id.namespace, &spec.policies, &prefix, &mut faults);
        if faults.is_empty() {
            memory.rules = Some(gathered);
        }
        errors.0.extend(faults.into_errors().0);
        let lack = take_certificates(&object.id, &good, memory, sources, &mut errors);
        let verdict = verdict.with_errors(&errors, lack);
        // Without its rules it must not serve: they may be what keeps people out.
        let Some((rules, stamp)) = memory.rules.clone() else { return (None, verdict) };
        let texts = |written: &[At<String>]| written.iter().map(|text| text.value.clone()).collect();
        let gateway = Self {
            name: object.id.name.clone(),
            hosts: texts(&spec.hosts),
            namespaces: texts(&spec.namespaces),
            rules,
            stamp,
            certificates: memory.certificates.clone(),
        };
        (Some(gateway), verdict)
    }

    pub(super) fn serves(&self, namespace: &str, host: &str) -> bool {
        self.namespaces.iter().any(|served| served == "*" || served == namespace) && self.hosts.iter().any(|pattern| matches(pattern, host))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

fn take_certificates(
    id: &ObjectId,
    good: &Drafted<GatewaySpec>,
    memory: &mut GatewayMemory,
    sources: &Sources<'_>,
    errors: &mut ConfigErrors,
) -> Option<super::granted::Lack> {
    let spec = good.value.as_ref()?;
    let Fetched { contents, lack, .. } = sources.grants.fetch(id, &good.references, sources.objects, sources.roots);
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
