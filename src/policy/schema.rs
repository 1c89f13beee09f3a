//! The variables of a policy: the one place where each is named, with its type and where its value comes from.
//!
//! Every field always has a value. On paths that are no resource the texts of `k8s` are empty and its verb is the method in lower case, so
//! that a deny rule about resources does not refuse discovery by an error.

use std::sync::LazyLock;

use super::input::{PolicyInput, RequestView, RouteView, UserView};
use crate::expression::{FieldValue, Fields, Schema, Type};
use crate::kubernetes::RequestInfo;

/// Types as they can stand in a table.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Bool,
    Text,
    Texts,
    TextMap,
    /// Claims: whatever the identity provider sends.
    Claims,
    Timestamp,
    Duration,
}

impl From<Kind> for Type {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Bool => Self::Bool,
            Kind::Text => Self::Text,
            Kind::Texts => Self::list(Self::Text),
            Kind::TextMap => Self::map(Self::Text),
            Kind::Claims => Self::map(Self::Dynamic),
            Kind::Timestamp => Self::Timestamp,
            Kind::Duration => Self::Duration,
        }
    }
}

type Table<Read, const N: usize> = [(&'static str, Kind, Read); N];

/// `user`.
const USER: Table<for<'a> fn(&'a UserView<'a>) -> FieldValue<'a>, 6> = [
    ("name", Kind::Text, |user| FieldValue::Text(user.name)),
    ("email", Kind::Text, |user| FieldValue::Text(user.email)),
    ("groups", Kind::Texts, |user| FieldValue::TextList(user.groups)),
    ("claims", Kind::Claims, |user| FieldValue::JsonMap(user.claims)),
    ("idp", Kind::Text, |user| FieldValue::Text(user.idp)),
    ("session_age", Kind::Duration, |user| FieldValue::Duration(user.session_age)),
];

/// `request`.
const REQUEST: Table<for<'a> fn(&'a RequestView<'a>) -> FieldValue<'a>, 6> = [
    ("method", Kind::Text, |request| FieldValue::Text(request.method)),
    ("path", Kind::Text, |request| FieldValue::Text(&request.info.path)),
    ("host", Kind::Text, |request| FieldValue::Text(request.host)),
    ("source_ip", Kind::Text, |request| FieldValue::Text(request.source_ip)),
    ("user_agent", Kind::Text, |request| FieldValue::Text(request.user_agent)),
    ("time", Kind::Timestamp, |request| FieldValue::Timestamp(request.time)),
];

/// `k8s`.
const KUBERNETES: Table<for<'a> fn(&'a RequestInfo<'a>) -> FieldValue<'a>, 8> = [
    ("verb", Kind::Text, |info| FieldValue::Text(info.policy_verb())),
    ("group", Kind::Text, |info| FieldValue::Text(&info.api_group)),
    ("version", Kind::Text, |info| FieldValue::Text(&info.api_version)),
    ("resource", Kind::Text, |info| FieldValue::Text(&info.resource)),
    ("subresource", Kind::Text, |info| FieldValue::Text(&info.subresource)),
    ("namespace", Kind::Text, |info| FieldValue::Text(&info.namespace)),
    ("name", Kind::Text, |info| FieldValue::Text(&info.name)),
    ("read_only", Kind::Bool, |info| FieldValue::Bool(info.read_only())),
];

/// `route`.
const ROUTE: Table<for<'a> fn(&'a RouteView<'a>) -> FieldValue<'a>, 2> =
    [("name", Kind::Text, |route| FieldValue::Text(route.name)), ("labels", Kind::TextMap, |route| FieldValue::TextMap(route.labels))];

struct Variable {
    name: &'static str,
    kind: fn() -> Type,
    read: for<'a> fn(&'a PolicyInput<'a>) -> FieldValue<'a>,
}

/// The variables themselves.
const VARIABLES: [Variable; 4] = [
    Variable { name: USER_VARIABLE, kind: || object(&USER), read: |input| FieldValue::Object(&input.user) },
    Variable { name: "request", kind: || object(&REQUEST), read: |input| FieldValue::Object(&input.request) },
    Variable { name: "k8s", kind: || object(&KUBERNETES), read: |input| FieldValue::Object(input.request.info) },
    Variable { name: "route", kind: || object(&ROUTE), read: |input| FieldValue::Object(&input.route) },
];

const USER_VARIABLE: &str = "user";

fn object<Read>(table: &[(&'static str, Kind, Read)]) -> Type {
    Type::object(table.iter().map(|(name, kind, _)| (*name, Type::from(*kind))))
}

/// What a rule can read.
pub(super) fn policy() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::new(VARIABLES.iter().map(|variable| (variable.name, (variable.kind)()))));
    &SCHEMA
}

/// What a `UserExpression` can read.
pub(super) fn user() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::new([(USER_VARIABLE, object(&USER))]));
    &SCHEMA
}

/// The variables of a `UserExpression`.
#[derive(Debug)]
pub(super) struct OnlyUser<'a>(pub(super) &'a UserView<'a>);

impl Fields for OnlyUser<'_> {
    fn field<'a>(&'a self, name: &str) -> Option<FieldValue<'a>> {
        (name == USER_VARIABLE).then_some(FieldValue::Object(self.0))
    }
}

impl Fields for PolicyInput<'_> {
    fn field<'a>(&'a self, name: &str) -> Option<FieldValue<'a>> {
        VARIABLES.iter().find(|variable| variable.name == name).map(|variable| (variable.read)(self))
    }
}

macro_rules! fields_from_table {
    ($($view:ident: $table:ident),*) => {
        $(impl Fields for $view<'_> {
            fn field<'a>(&'a self, name: &str) -> Option<FieldValue<'a>> {
                $table.iter().find(|(known, ..)| *known == name).map(|(_, _, read)| read(self))
            }
        })*
    };
}

fields_from_table!(UserView: USER, RequestView: REQUEST, RequestInfo: KUBERNETES, RouteView: ROUTE);

#[cfg(test)]
mod tests {
    use super::*;

    /// The golden list: a change here is a change of what operators can write.
    #[test]
    fn variables() {
        let mut lines = Vec::new();
        for (variable, kind) in policy().variables() {
            let Type::Object(fields) = kind else { continue };
            lines.extend(fields.iter().map(|(field, kind)| format!("{variable}.{field}: {kind}")));
        }
        let golden = [
            "user.name: string",
            "user.email: string",
            "user.groups: list(string)",
            "user.claims: map",
            "user.idp: string",
            "user.session_age: duration",
            "request.method: string",
            "request.path: string",
            "request.host: string",
            "request.source_ip: string",
            "request.user_agent: string",
            "request.time: timestamp",
            "k8s.verb: string",
            "k8s.group: string",
            "k8s.version: string",
            "k8s.resource: string",
            "k8s.subresource: string",
            "k8s.namespace: string",
            "k8s.name: string",
            "k8s.read_only: bool",
            "route.name: string",
            "route.labels: map",
        ];
        assert_eq!(lines, golden);
    }
}
