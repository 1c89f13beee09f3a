//! The header mutations: which client-sent headers go, and that nothing but kubepass's answer becomes an identity.

use std::collections::BTreeSet;

use regex::Regex;

use super::access_log;
use super::part::Part;
use crate::envoy_names::{
    AUDIT_ID, EXT_AUTHZ_NAMESPACE, GROUP_SLOTS, NOT_FOR_UPSTREAM, OTHER_REQUEST, SOURCE, STREAM_DURATION, UID_KEY, UPSTREAM_ASSERTION,
    UPSTREAM_AUTHORIZATION, UPSTREAM_COOKIE, USER_KEY, group_key,
};
use crate::kubernetes::impersonation;

pub(super) const HEADER_MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";

/// By this header a connection manager looks up its routes; all of them are judged, whatever it says.
const SCOPE: &str = "x-kubepass-scope";

/// Where a request came from, as the connection manager found out.
const FOUND_SOURCE: &str = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%";

/// One mutation in its order.
#[derive(Debug)]
pub(super) enum Step<'a> {
    Remove(String),
    RemoveWhere(Matcher<'a>),
    Write { name: String, value: &'a str },
    Unknown,
}

/// Which names a mutation removes.
#[derive(Debug)]
pub(super) enum Matcher<'a> {
    Prefix(&'a str),
    Suffix(&'a str),
    Contains(&'a str),
    Exact(&'a str),
    Pattern(Regex),
}

impl Matcher<'_> {
    /// Names are in lower case when Envoy compares.
    pub(super) fn takes(&self, name: &str) -> bool {
        match self {
            Self::Prefix(text) => name.starts_with(&text.to_ascii_lowercase()),
            Self::Suffix(text) => name.ends_with(&text.to_ascii_lowercase()),
            Self::Contains(text) => name.contains(&text.to_ascii_lowercase()),
            Self::Exact(text) => name.eq_ignore_ascii_case(text),
            Self::Pattern(pattern) => pattern.is_match(name),
        }
    }

    /// Whether every name that begins so is taken.
    fn takes_all_with(&self, prefix: &str) -> bool {
        match self {
            Self::Prefix(text) => !text.is_empty() && prefix.starts_with(&text.to_ascii_lowercase()),
            // Every name there is, in the form of `matcher`.
            Self::Pattern(pattern) => pattern.as_str() == "^(?:.*)$",
            _ => false,
        }
    }
}

impl Step<'_> {
    pub(super) fn removes(&self, name: &str) -> bool {
        match self {
            Self::Remove(removed) => removed == name,
            Self::RemoveWhere(matcher) => matcher.takes(name),
            Self::Write { .. } | Self::Unknown => false,
        }
    }

    pub(super) fn removes_all_with(&self, prefix: &str) -> bool {
        matches!(self, Self::RemoveWhere(matcher) if matcher.takes_all_with(prefix))
    }
}

/// The steps of a list of mutations, each with its place.
pub(super) fn steps<'a>(mutations: &Part<'a>) -> Vec<(Step<'a>, Part<'a>)> {
    mutations.items().into_iter().map(|part| (step(&part), part)).collect()
}

fn step<'a>(part: &Part<'a>) -> Step<'a> {
    part.only(&["remove", "append", "remove_on_match"]);
    if let Some(name) = part.field("remove").text() {
        return Step::Remove(name.to_ascii_lowercase());
    }
    let matched = part.path("remove_on_match.key_matcher");
    if matched.is_there() {
        return matcher(&matched).map_or(Step::Unknown, Step::RemoveWhere);
    }
    let append = part.field("append");
    append.only(&["header", "append_action", "keep_empty_value", "append"]);
    let header = append.field("header");
    header.only(&["key", "value"]);
    match (header.field("key").text(), header.field("value").text()) {
        (Some(name), Some(value)) => Step::Write { name: name.to_ascii_lowercase(), value },
        _ => Step::Unknown,
    }
}

/// A pattern in another case than the names' would take none of them; that only ever removes less, and what must go is asked for.
fn matcher<'a>(part: &Part<'a>) -> Option<Matcher<'a>> {
    part.only(&["exact", "prefix", "suffix", "contains", "safe_regex", "ignore_case"]);
    let of = |name: &str| part.field(name).text();
    let plain = of("prefix").map(Matcher::Prefix).or_else(|| of("suffix").map(Matcher::Suffix));
    let plain = plain.or_else(|| of("contains").map(Matcher::Contains)).or_else(|| of("exact").map(Matcher::Exact));
    let has_capitals = |name: &str| of(name).is_some_and(|text| text.chars().any(|c| c.is_ascii_uppercase()));
    if ["exact", "prefix", "suffix", "contains"].iter().any(|name| has_capitals(name)) && !part.field("ignore_case").is_true() {
        return None;
    }
    plain.or_else(|| Regex::new(&format!("^(?:{})$", part.path("safe_regex.regex").text()?)).ok().map(Matcher::Pattern))
}

/// The late mutation for all routes: everything `impersonate-*` goes, then what kubepass granted is written.
/// `impersonates`: some cluster here needs the identity in headers.
pub(super) fn late(config: &Part<'_>, impersonates: bool) {
    config.only(&["mutations", "most_specific_header_mutations_wins"]);
    if config.field("most_specific_header_mutations_wins").may_be_true() {
        config.not_understood("the order of the filter's and the routes' mutations is turned round.");
    }
    let mutations = config.field("mutations");
    shape(&mutations);
    let list = mutations.field("request_mutations");
    let steps = steps(&list);
    let strip = steps.iter().position(|(step, _)| step.removes_all_with(impersonation::PREFIX));
    let first_write = steps.iter().position(|(step, _)| writes_identity(step));
    let instead = "first of all {remove_on_match: {key_matcher: {prefix: impersonate-, ignore_case: true}}}";
    match (strip, first_write) {
        (None, _) => list.is_unsafe("late-strip-missing", "impersonate-* headers that the client sent stay beside what kubepass grants, and the API server takes the first user and every group.", instead),
        (Some(strip), Some(write)) if write < strip => {
            list.is_unsafe("late-strip-order", "the granted identity is written before the client's impersonate-* headers are removed, and goes with them.", instead);
        }
        _ => {}
    }
    written(&steps);
    trailers(&mutations.field("request_trailers_mutations"));
    if impersonates {
        slots(&list, &steps);
    }
}

/// Trailers come when all has been judged, so they may only go.
fn trailers(list: &Part<'_>) {
    let steps = steps(list);
    for (step, part) in &steps {
        if matches!(step, Step::Write { .. } | Step::Unknown) {
            part.not_understood("of trailers only removals are understood.");
        }
    }
    if !steps.iter().any(|(step, _)| step.removes_all_with(impersonation::PREFIX)) {
        list.is_unsafe(
            "trailers",
            "a client's trailers reach the server, which may read them as headers (RFC 9110, 6.5.1), and nothing has judged them.",
            "request_trailers_mutations: [{remove_on_match: {key_matcher: {safe_regex: {regex: \".*\"}}}}]",
        );
    }
}

/// Nothing may change but headers and trailers, and no answer tells a credential.
pub(super) fn shape(mutations: &Part<'_>) {
    mutations.only(&["request_mutations", "request_trailers_mutations", "response_mutations", "response_trailers_mutations"]);
    for name in ["response_mutations", "response_trailers_mutations"] {
        access_log::answers(&mutations.field(name));
    }
}

fn writes_identity(step: &Step<'_>) -> bool {
    matches!(step, Step::Write { name, .. } if name.starts_with(impersonation::PREFIX))
}

/// Identities come from kubepass's answer alone.
pub(super) fn written(steps: &[(Step<'_>, Part<'_>)]) {
    for (step, part) in steps {
        if [AUDIT_ID, STREAM_DURATION].iter().any(|name| step.removes(name)) {
            part.is_unsafe(
                "answer-removed",
                "what kubepass answered is removed: the id that joins the audit trails, or the limit by which a stream ends with its session.",
                "leave audit-id and x-envoy-* to the early header mutation",
            );
        }
        let Step::Write { name, value } = step else {
            if matches!(step, Step::Unknown) {
                part.not_understood("what this mutation does cannot be told.");
            }
            continue;
        };
        if part.path("append.keep_empty_value").may_be_true() && name.starts_with(impersonation::PREFIX) {
            part.is_unsafe(
                "blank-identity",
                "a header with an empty value is sent, and an empty user runs as the service account.",
                "keep_empty_value: false, or leave it out",
            );
        }
        if !may_be_written(name, value) {
            part.is_unsafe(
                "identity-from-elsewhere",
                "a header by which the API server learns who asks, from where or under which id is written from something else than kubepass's answer.",
                "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:user)% and so on, as in envoy/own.yaml",
            );
        }
    }
}

/// Whether a header may have this value, as far as identities are concerned.
pub(super) fn may_be_written(name: &str, value: &str) -> bool {
    let metadata = value.strip_prefix("%DYNAMIC_METADATA(").and_then(|rest| rest.strip_suffix(")%"));
    let key = metadata.and_then(|rest| rest.strip_prefix(EXT_AUTHZ_NAMESPACE)?.strip_prefix(':'));
    match name {
        impersonation::USER => key == Some(USER_KEY),
        impersonation::UID => key == Some(UID_KEY),
        impersonation::GROUP => key.and_then(|key| key.strip_prefix('g')?.parse::<u16>().ok()).is_some(),
        "authorization" => value == request_header(UPSTREAM_AUTHORIZATION),
        "cookie" => value == request_header(UPSTREAM_COOKIE),
        "x-forwarded-for" => value == FOUND_SOURCE,
        AUDIT_ID | STREAM_DURATION => false,
        _ if name.starts_with(impersonation::EXTRA_PREFIX) => key.is_some_and(|key| key.starts_with("e.")),
        _ => {
            !name.starts_with(impersonation::PREFIX)
                && !name.starts_with("x-remote-")
                && !name.starts_with(':')
                && name != "connection"
                && name != "upgrade"
        }
    }
}

fn request_header(name: &str) -> String {
    format!("%REQ({name})%")
}

fn slots(list: &Part<'_>, steps: &[(Step<'_>, Part<'_>)]) {
    let mut found = BTreeSet::new();
    for (step, part) in steps {
        let Step::Write { name, value } = step else { continue };
        let action = part.path("append.append_action");
        let group = name == impersonation::GROUP;
        let adds = !action.is_there() || action.is_one_of(&[("APPEND_IF_EXISTS_OR_ADD", 0)]);
        let writes = if group { adds } else { !action.is_one_of(&[("OVERWRITE_IF_EXISTS", 3)]) };
        if writes {
            found.insert((name.as_str(), *value));
        }
    }
    let value = |key: &str| format!("%DYNAMIC_METADATA({EXT_AUTHZ_NAMESPACE}:{key})%");
    let groups = (0..GROUP_SLOTS).map(|index| (impersonation::GROUP, value(&group_key(index).to_string())));
    let wanted = [(impersonation::USER, value(USER_KEY)), (impersonation::UID, value(UID_KEY))].into_iter().chain(groups);
    let missing: Vec<String> = wanted.filter(|(name, value)| !found.contains(&(*name, value.as_str()))).map(|(_, value)| value).collect();
    if let Some(first) = missing.first() {
        let why = format!(
            "{} of the {} slots for what kubepass grants are missing (the first: {first}), and what has no slot is lost.",
            missing.len(),
            GROUP_SLOTS + 2
        );
        list.breaks(
            "identity-slots",
            &why,
            "a slot for the user, the uid and each of 64 groups, groups by APPEND_IF_EXISTS_OR_ADD, as in envoy/own.yaml",
        );
    }
}

/// Whether a mutation only tells kubepass where a request came from, as the connection manager found out.
pub(super) fn tells_source(config: &Part<'_>) -> bool {
    let steps = steps(&config.path("mutations.request_mutations"));
    let [(Step::Write { name, value }, _)] = steps.as_slice() else { return false };
    name == SOURCE && *value == FOUND_SOURCE
}

/// The connection manager's early mutation, which may only remove, and say by which host routes are looked up.
pub(super) fn early<'a>(lists: impl Iterator<Item = Part<'a>>) -> Vec<Step<'a>> {
    let all = lists.flat_map(|list| steps(&list));
    all.map(|(step, part)| {
        let scope = matches!(&step, Step::Write { name, .. } if name == SCOPE);
        if !scope && matches!(step, Step::Write { .. } | Step::Unknown) {
            part.not_understood(
                "before the check only removals are understood: what is written here, kubepass would take for the client's.",
            );
        }
        step
    })
    .collect()
}

/// What a route's mutations must do beside, by what its cluster is. `steps` in the order in which they run.
pub(super) fn for_route(route: &Part<'_>, steps: &[&Step<'_>], kind: RouteKind) {
    for name in NOT_FOR_UPSTREAM.iter().filter(|name| !steps.iter().any(|step| step.removes(name))) {
        let why = format!("the client's `{name}`, which means something to kubepass only, reaches the server and what is behind it.");
        route.is_unsafe("credentials-upstream", &why, &format!("{{remove: {name}}} in the route's header_mutation"));
    }
    let goes = |name: &str| steps.iter().any(|step| step.removes(name));
    if kind == RouteKind::Http && !OTHER_REQUEST.iter().all(|name| goes(name)) {
        let why = "by these headers a client asks some web frameworks for another path or method than the one that was judged.";
        route.is_unsafe("other-request", why, &format!("{{remove: ...}} in the route's header_mutation: {}", OTHER_REQUEST.join(", ")));
    }
    let moved = match kind {
        RouteKind::Impersonate => return,
        RouteKind::ImpersonateByCertificate => goes("authorization"),
        RouteKind::Jwt => is_moved(steps, UPSTREAM_AUTHORIZATION, |name| name == "authorization"),
        RouteKind::Http => {
            goes("authorization")
                && is_moved(steps, UPSTREAM_ASSERTION, |name| name != "authorization")
                && is_moved(steps, UPSTREAM_COOKIE, |name| name == "cookie")
        }
    };
    if !moved {
        route.is_unsafe(
            "credential-of-the-client",
            "the client's own `authorization` goes on: no credential that kubepass made is put in its place.",
            "remove the header, write it from %REQ(x-kubepass-...)%, remove that one: see the golden files of config/jwt.yaml and config/web-pages.yaml",
        );
    }
}

/// What a route's upstream goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteKind {
    Impersonate,
    /// Without a token that would overwrite the client's own.
    ImpersonateByCertificate,
    Jwt,
    Http,
}

/// Removed, written from kubepass's own header, which is then removed itself.
fn is_moved(steps: &[&Step<'_>], from: &str, to: impl Fn(&str) -> bool) -> bool {
    let written = steps.iter().enumerate().find_map(|(at, step)| match step {
        Step::Write { name, value } if to(name) && *value == request_header(from) => Some((at, name)),
        _ => None,
    });
    let Some((at, name)) = written else { return false };
    let before = steps.iter().take(at).any(|step| step.removes(name));
    before && steps.iter().skip(at).any(|step| step.removes(from))
}

/// Whether an upstream mutation is the one of `connection`; anything else is a finding.
pub(super) fn only_rewrites_connection(config: &Part<'_>) -> bool {
    config.only(&["mutations", "most_specific_header_mutations_wins"]);
    let mutations = config.field("mutations");
    mutations.only(&["request_mutations"]);
    let mut rewrites = false;
    for (step, part) in steps(&mutations.field("request_mutations")) {
        match step {
            Step::Write { name, value } if name == "connection" => {
                rewrites =
                    value.eq_ignore_ascii_case("upgrade") && part.path("append.append_action").is_one_of(&[("OVERWRITE_IF_EXISTS", 3)]);
            }
            Step::Write { name, value }
                if may_be_written(&name, value) && !name.starts_with(impersonation::PREFIX) && name != "authorization" => {}
            _ => part.not_understood("behind the guard nothing may change the identity or the credential."),
        }
    }
    rewrites
}
