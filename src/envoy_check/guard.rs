//! The guard: the RBAC filter on a cluster's own side. What every request must have that it lets through, read from its rules; a rule that is not
//! understood demands nothing.

use std::collections::BTreeSet;

use super::part::Part;
use crate::envoy_names::{EXT_AUTHZ_NAMESPACE, GRANT_KEY};
use crate::kubernetes::impersonation;

pub(super) const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";

/// Not blank, at neither end: Go trims blanks, and a blank user runs as the service account.
const NOT_BLANK: [&str; 2] = [r"\S(.*\S)?", r"\S+"];
const BEARER: &str = r"Bearer \S+";

#[derive(Debug)]
pub(super) struct Guard<'a> {
    /// The filter.
    pub(super) part: Part<'a>,
    pub(super) demands: Demands,
}

/// What all requests have that pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Demands {
    /// One of these grants. None: no grant is asked for.
    pub(super) grants: Option<BTreeSet<String>>,
    headers: BTreeSet<Header>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Header {
    /// There, and not blank.
    Something(String),
    /// `authorization` with a bearer token.
    Bearer,
    Absent(String),
}

impl Demands {
    pub(super) fn user(&self) -> bool {
        self.headers.contains(&Header::Something(impersonation::USER.to_owned()))
    }

    pub(super) fn no_user(&self) -> bool {
        self.headers.contains(&Header::Absent(impersonation::USER.to_owned()))
    }

    pub(super) fn bearer(&self) -> bool {
        self.headers.contains(&Header::Bearer)
    }

    pub(super) fn no_authorization(&self) -> bool {
        self.headers.contains(&Header::Absent("authorization".to_owned()))
    }

    /// The header in which a web server finds the user.
    pub(super) fn identity_header(&self) -> bool {
        self.headers.iter().any(|header| matches!(header, Header::Something(name) if name != impersonation::USER))
    }

    fn both(self, other: Self) -> Self {
        let grants = self.grants.or(other.grants);
        Self { grants, headers: self.headers.into_iter().chain(other.headers).collect() }
    }

    fn either(self, other: Self) -> Self {
        let grants = self.grants.zip(other.grants).map(|(one, two)| one.into_iter().chain(two).collect());
        Self { grants, headers: self.headers.intersection(&other.headers).cloned().collect() }
    }

    fn all(parts: impl Iterator<Item = Self>) -> Self {
        parts.fold(Self::default(), Self::both)
    }

    /// Of nothing: nothing.
    fn any(parts: impl Iterator<Item = Self>) -> Self {
        parts.reduce(Self::either).unwrap_or_default()
    }

    fn header(header: Header) -> Self {
        Self { headers: BTreeSet::from([header]), ..Self::default() }
    }
}

/// The first RBAC filter on the side of the cluster.
pub(super) fn of_cluster<'a>(cluster: &Part<'a>) -> Option<Guard<'a>> {
    super::cluster::http_filters(cluster).into_iter().find_map(|filter| {
        let config = filter.typed(RBAC)?;
        Some(Guard { demands: demands(&config), part: filter })
    })
}

/// The rules that count, whatever they say.
pub(super) fn known(config: &Part<'_>) {
    config.only(&["rules", "rules_stat_prefix", "shadow_rules", "shadow_rules_stat_prefix", "track_per_rule_stats"]);
    let rules = config.field("rules");
    rules.only(&["action", "policies", "audit_logging_options"]);
    for (_, policy) in rules.field("policies").entries() {
        policy.only(&["permissions", "principals", "condition", "checked_condition"]);
    }
}

fn demands(config: &Part<'_>) -> Demands {
    let rules = config.field("rules");
    let allows = !rules.field("action").is_there() || rules.field("action").is_one_of(&[("ALLOW", 0)]);
    if !rules.is_there() || !allows || config.field("matcher").is_there() {
        return Demands::default();
    }
    let policies = rules.field("policies").entries();
    // Conditions and principals narrow a policy further.
    let permissions = |policy: &Part<'_>| Demands::any(policy.field("permissions").items().iter().map(permission));
    Demands::any(policies.iter().map(|(_, policy)| permissions(policy)))
}

fn permission(part: &Part<'_>) -> Demands {
    let and = part.path("and_rules.rules");
    if and.is_there() {
        return Demands::all(and.items().iter().map(permission));
    }
    let or = part.path("or_rules.rules");
    if or.is_there() {
        return Demands::any(or.items().iter().map(permission));
    }
    let denied = part.path("not_rule.header");
    if denied.is_there() {
        return absent(&denied).map(Demands::header).unwrap_or_default();
    }
    let sourced = part.field("sourced_metadata");
    if sourced.is_there() {
        let source = sourced.field("metadata_source");
        let dynamic = !source.is_there() || source.is_one_of(&[("DYNAMIC", 0)]);
        return if dynamic { granted(&sourced.field("metadata_matcher")) } else { Demands::default() };
    }
    let metadata = part.field("metadata");
    if metadata.is_there() {
        return granted(&metadata);
    }
    present(&part.field("header")).map(Demands::header).unwrap_or_default()
}

fn granted(matcher: &Part<'_>) -> Demands {
    let path: Vec<_> = matcher.field("path").items().iter().map(|segment| segment.field("key").text()).collect();
    let fits = matcher.field("filter").text() == Some(EXT_AUTHZ_NAMESPACE)
        && path == [Some(GRANT_KEY)]
        && !matcher.field("invert").may_be_true()
        && !matcher.path("value.string_match.ignore_case").may_be_true();
    let exact = matcher.path("value.string_match.exact").text().filter(|_| fits);
    Demands { grants: exact.map(|grant| BTreeSet::from([grant.to_owned()])), ..Demands::default() }
}

fn present(header: &Part<'_>) -> Option<Header> {
    if header.field("invert_match").may_be_true() || header.field("treat_missing_header_as_empty").may_be_true() {
        return None;
    }
    let name = header.field("name").text()?.to_ascii_lowercase();
    let pattern = header.path("string_match.safe_regex.regex").text().or_else(|| header.path("safe_regex_match.regex").text())?;
    match pattern {
        BEARER if name == "authorization" => Some(Header::Bearer),
        _ if NOT_BLANK.contains(&pattern) => Some(Header::Something(name)),
        _ => None,
    }
}

fn absent(header: &Part<'_>) -> Option<Header> {
    let plain = header.field("present_match").is_true() && !header.field("invert_match").may_be_true();
    header.field("name").text().filter(|_| plain).map(|name| Header::Absent(name.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};

    use super::super::part::Findings;
    use super::*;

    fn grant(name: &str) -> Value {
        let matcher =
            json!({"filter": "envoy.filters.http.ext_authz", "path": [{"key": "grant"}], "value": {"string_match": {"exact": name}}});
        json!({"sourced_metadata": {"metadata_source": "DYNAMIC", "metadata_matcher": matcher}})
    }

    fn user(pattern: &str) -> Value {
        json!({"header": {"name": "Impersonate-User", "string_match": {"safe_regex": {"regex": pattern}}}})
    }

    fn of(rules: &Value) -> Demands {
        let (findings, config) = (Findings::default(), json!({"rules": rules}));
        demands(&Part::root(&config, &findings))
    }

    fn check(permissions: &Value, grants: Option<&[&str]>, has_user: bool) {
        let found = of(&json!({"policies": {"p": {"permissions": permissions, "principals": [{"any": true}]}}}));
        let grants = grants.map(|grants| grants.iter().map(|grant| (*grant).to_owned()).collect());
        assert_eq!((&found.grants, found.user()), (&grants, has_user), "{permissions}");
    }

    #[test]
    fn a_demand_is_what_every_way_through_asks_for() {
        let not_blank = user(r"\S(.*\S)?");
        check(&json!([{"and_rules": {"rules": [grant("a"), not_blank]}}]), Some(&["a"]), true);
        check(&json!([{"andRules": {"rules": [grant("a")]}}]), Some(&["a"]), false);
        check(&json!([grant("a"), grant("b")]), Some(&["a", "b"]), false);
        check(&json!([grant("a"), {"any": true}]), None, false);
        check(&json!([{"or_rules": {"rules": [grant("a"), not_blank]}}]), None, false);
        check(&json!([{"and_rules": {"rules": [grant("a"), {"or_rules": {"rules": [not_blank, {"any": true}]}}]}}]), Some(&["a"]), false);
        check(&json!([{"and_rules": {"rules": [grant("a"), user(".+")]}}]), Some(&["a"]), false);
        check(&json!([{"not_rule": grant("a")}]), None, false);
        check(&json!([]), None, false);
    }

    #[test]
    fn another_action_another_source_and_a_matcher_demand_nothing() {
        let policies = json!({"p": {"permissions": [grant("a")]}});
        assert!(of(&json!({"action": "ALLOW", "policies": policies})).grants.is_some());
        assert_eq!(of(&json!({"action": "DENY", "policies": policies})), Demands::default());
        assert_eq!(of(&json!({"action": "LOG", "policies": policies})), Demands::default());
        let mut route = grant("a");
        route.pointer_mut("/sourced_metadata/metadata_source").map(|source| *source = "ROUTE".into()).unwrap();
        check(&json!([route]), None, false);
        let (findings, config) = (Findings::default(), json!({"matcher": {}, "rules": {"policies": policies}}));
        assert_eq!(demands(&Part::root(&config, &findings)), Demands::default());
    }

    #[test]
    fn what_must_not_be_there_is_told_from_what_must() {
        let none = json!({"not_rule": {"header": {"name": "impersonate-user", "present_match": true}}});
        let bearer = json!({"header": {"name": "authorization", "string_match": {"safe_regex": {"regex": r"Bearer \S+"}}}});
        let found = of(&json!({"policies": {"p": {"permissions": [{"and_rules": {"rules": [none, bearer]}}]}}}));
        assert!(found.no_user() && found.bearer() && !found.user() && !found.no_authorization() && !found.identity_header());
    }
}
