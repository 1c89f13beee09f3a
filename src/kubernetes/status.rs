//! `Status`: a refusal in the shape in which an API server gives one, so that `kubectl`, `helm` and client libraries print its message
//! instead of "the server could not understand". Source: `metav1.Status` and `k8s.io/apimachinery/pkg/api/errors` (v0.36).

use serde::Serialize;

use super::RequestInfo;

/// The reasons that kubepass gives. kubectl prints `Error from server (REASON): MESSAGE`; client libraries branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Reason {
    BadRequest,
    /// kubectl asks its credential plugin again.
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestEntityTooLarge,
    /// Not among the API server's own reasons (RFC 9110, 15.5.20): the same request on a connection of its own may succeed.
    MisdirectedRequest,
    TooManyRequests,
    /// Not among the API server's own reasons; printed all the same.
    RequestHeaderFieldsTooLarge,
    InternalError,
    ServiceUnavailable,
    Timeout,
}

impl Reason {
    /// The HTTP status that belongs to the reason.
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestEntityTooLarge => 413,
            Self::MisdirectedRequest => 421,
            Self::TooManyRequests => 429,
            Self::RequestHeaderFieldsTooLarge => 431,
            Self::InternalError => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }

    /// The reason for an HTTP status that something on the way gave (Envoy's own replies), if it has one.
    pub fn from_code(code: u16) -> Option<Self> {
        [
            Self::BadRequest,
            Self::Unauthorized,
            Self::Forbidden,
            Self::NotFound,
            Self::MethodNotAllowed,
            Self::RequestEntityTooLarge,
            Self::MisdirectedRequest,
            Self::TooManyRequests,
            Self::RequestHeaderFieldsTooLarge,
            Self::InternalError,
            Self::ServiceUnavailable,
            Self::Timeout,
        ]
        .into_iter()
        .find(|reason| reason.code() == code)
    }
}

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub code: u16,
    pub reason: Reason,
    pub message: String,
    /// Group, resource and name that the refusal is about.
    pub subject: Option<Subject>,
    /// Joins the answer with the audit trail and the API server's `Audit-ID`.
    pub request_id: Option<String>,
}

/// What a refusal is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    pub group: String,
    pub resource: String,
    pub name: String,
}

impl Status {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { code: reason.code(), reason, message: message.into(), subject: None, request_id: None }
    }

    /// No credential, or one that is not valid (any more).
    pub fn unauthorized(why: &str) -> Self {
        Self::new(Reason::Unauthorized, why)
    }

    /// Refused by policy, in the API server's own sentence with the reason after it:
    /// `pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "default": WHY`.
    pub fn forbidden(user: &str, request: &RequestInfo<'_>, why: &str) -> Self {
        let status = Self::new(Reason::Forbidden, format!("{}: {why}", forbidden_sentence(user, request)));
        if !request.is_resource_request {
            return status;
        }
        let subject =
            Subject { group: request.api_group.to_string(), resource: request.resource.to_string(), name: request.name.to_string() };
        Self { subject: Some(subject), ..status }
    }

    /// The id is shown at the end of the message, in a fixed form, and stands alone in `details.causes`.
    #[must_use]
    pub fn with_request_id(self, request_id: &str) -> Self {
        Self { request_id: Some(request_id.to_owned()), ..self }
    }

    /// The message with the request id, for answers that are not JSON.
    pub fn full_message(&self) -> String {
        match &self.request_id {
            Some(request_id) => format!("{} (request id {request_id})", self.message),
            None => self.message.clone(),
        }
    }

    /// The body of the answer; its `Content-Type` is `application/json`.
    pub fn to_json(&self) -> String {
        let subject = self.subject.as_ref();
        let details = (subject.is_some() || self.request_id.is_some()).then(|| Details {
            name: subject.map_or("", |subject| &subject.name),
            group: subject.map_or("", |subject| &subject.group),
            kind: subject.map_or("", |subject| &subject.resource),
            causes: self.request_id.iter().map(|id| Cause { reason: "RequestID", message: id }).collect(),
        });
        let body = Body {
            kind: "Status",
            api_version: "v1",
            metadata: Metadata {},
            status: "Failure",
            message: &self.full_message(),
            reason: self.reason,
            details,
            code: self.code,
        };
        // Strings and numbers only: cannot fail. An empty body with the right code would still be a refusal.
        serde_json::to_string(&body).unwrap_or_default()
    }
}

/// `responsewriters.ForbiddenStatusError` inside `errors.NewForbidden`, but with the verb that policy decided on.
fn forbidden_sentence(user: &str, request: &RequestInfo<'_>) -> String {
    let verb = request.policy_verb();
    if !request.is_resource_request {
        return format!("forbidden: User {user:?} cannot {verb} path {:?}", request.path);
    }
    let RequestInfo { api_group, resource, subresource, namespace, name, .. } = request;
    let qualified = if api_group.is_empty() { resource.to_string() } else { format!("{resource}.{api_group}") };
    let named = if name.is_empty() { qualified } else { format!("{qualified} {name:?}") };
    let full_resource = if subresource.is_empty() { resource.to_string() } else { format!("{resource}/{subresource}") };
    let scope = if namespace.is_empty() { "at the cluster scope".to_owned() } else { format!("in the namespace {namespace:?}") };
    format!("{named} is forbidden: User {user:?} cannot {verb} resource {full_resource:?} in API group {api_group:?} {scope}")
}

/// Field order as the API server writes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata,
    status: &'static str,
    message: &'a str,
    reason: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    code: u16,
}

#[derive(Serialize)]
struct Metadata {}

#[derive(Serialize)]
struct Details<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<Cause<'a>>,
}

#[derive(Serialize)]
struct Cause<'a> {
    reason: &'static str,
    message: &'a str,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    const ID: &str = "0191c0de-0000-7000-8000-000000000001";

    fn check(status: &Status, golden: &str) {
        assert_eq!(status.to_json(), golden);
        let value: serde_json::Value = serde_json::from_str(golden).unwrap();
        assert_eq!(value["code"], status.reason.code());
    }

    fn forbidden(method: &str, path: &str) -> Status {
        Status::forbidden("foo@example.com", &RequestInfo::parse(method, path).unwrap(), "ask the SRE on call").with_request_id(ID)
    }

    #[test]
    fn plain_refusals() {
        check(
            &Status::unauthorized("log in again"),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"log in again","reason":"Unauthorized","code":401}"#,
        );
        check(
            &Status::new(Reason::ServiceUnavailable, "the API server does not answer").with_request_id(ID),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the API server does not answer (request id 0191c0de-0000-7000-8000-000000000001)","reason":"ServiceUnavailable","details":{"causes":[{"reason":"RequestID","message":"0191c0de-0000-7000-8000-000000000001"}]},"code":503}"#,
        );
        for (reason, code, word) in [
            (Reason::BadRequest, 400, "BadRequest"),
            (Reason::Unauthorized, 401, "Unauthorized"),
            (Reason::Forbidden, 403, "Forbidden"),
            (Reason::NotFound, 404, "NotFound"),
            (Reason::MethodNotAllowed, 405, "MethodNotAllowed"),
            (Reason::RequestEntityTooLarge, 413, "RequestEntityTooLarge"),
            (Reason::MisdirectedRequest, 421, "MisdirectedRequest"),
            (Reason::TooManyRequests, 429, "TooManyRequests"),
            (Reason::RequestHeaderFieldsTooLarge, 431, "RequestHeaderFieldsTooLarge"),
            (Reason::InternalError, 500, "InternalError"),
            (Reason::ServiceUnavailable, 503, "ServiceUnavailable"),
            (Reason::Timeout, 504, "Timeout"),
        ] {
            check(
                &Status::new(reason, "m"),
                &format!(
                    r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"m","reason":"{word}","code":{code}}}"#
                ),
            );
            assert_eq!(Reason::from_code(code), Some(reason));
        }
        assert_eq!(Reason::from_code(418), None);
    }

    #[test]
    fn forbidden_reads_like_the_api_server() {
        check(
            &forbidden("GET", "/api/v1/namespaces/default/pods"),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods is forbidden: User \"foo@example.com\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\": ask the SRE on call (request id 0191c0de-0000-7000-8000-000000000001)","reason":"Forbidden","details":{"kind":"pods","causes":[{"reason":"RequestID","message":"0191c0de-0000-7000-8000-000000000001"}]},"code":403}"#,
        );
        let message = |method, path| Status { request_id: None, ..forbidden(method, path) }.full_message();
        assert_eq!(
            message("DELETE", "/apis/apps/v1/namespaces/web/deployments/shop"),
            r#"deployments.apps "shop" is forbidden: User "foo@example.com" cannot delete resource "deployments" in API group "apps" in the namespace "web": ask the SRE on call"#
        );
        assert_eq!(
            message("GET", "/api/v1/namespaces/web/pods/shop-0/exec?command=sh"),
            r#"pods "shop-0" is forbidden: User "foo@example.com" cannot exec resource "pods/exec" in API group "" in the namespace "web": ask the SRE on call"#
        );
        assert_eq!(
            message("GET", "/api/v1/nodes"),
            r#"nodes is forbidden: User "foo@example.com" cannot list resource "nodes" in API group "" at the cluster scope: ask the SRE on call"#
        );
        assert_eq!(message("GET", "/version"), r#"forbidden: User "foo@example.com" cannot get path "/version": ask the SRE on call"#);
    }
}
