//! `Decision` to `CheckResponse`. One builder makes every response.
//!
//! What Envoy 1.40 does with a response (measured; see `envoy/README.md`): a default-constructed one allows; status OK with a denied body
//! allows; removals run after sets; `raw_value` yields an empty header; `append_action` is ignored, so a name can be sent once only. So:
//! allow and deny never mix, nothing is removed here, only `value` is used, and lists travel as dynamic metadata.

use std::fmt::Display;
use std::sync::Arc;

use crate::access::request::HeaderSize;
use crate::access::upstream::UpstreamIdentity;
use crate::access::{AccessRequest, Answer, Form, Grant};
use crate::config::{KubernetesTarget, Method, Target};
use crate::envoy_names as names;
use crate::server::ext_authz::refusal::Refusal;
use crate::server::wire::Message;
use crate::token::{AssertionToken, UpstreamToken};

#[cfg(test)]
mod tests;

/// gRPC's code for a refusal (google/rpc/code.proto). Envoy allows on OK only, which is 0 and is written by leaving it out.
const GRPC_PERMISSION_DENIED: u32 = 7;
/// `HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD`.
const OVERWRITE_IF_EXISTS_OR_ADD: u32 = 2;
const BEARER: &str = "Bearer ";
/// The longest number of milliseconds.
const STREAM_DURATION_BYTES: usize = 20;
/// Bytes that a usual answer has, names and all.
const USUAL_BYTES: usize = 2_048;

/// Lets a request through to kubepass's own web part, without identity.
pub fn to_web() -> Vec<u8> {
    allow(|_| {}, |metadata| metadata.text(names::GRANT_KEY, names::WEB_TARGET))
}

/// What a grant needs besides itself.
#[derive(Debug)]
pub enum Minted {
    Nothing,
    Upstream(Arc<UpstreamToken>),
    Assertion(Arc<AssertionToken>),
}

/// Lets a request through to the route's upstream under the identity of the grant.
///
/// INVARIANT: a grant is never answered without the token that its route needs; were it so, the guard before the upstream would stop the request.
pub fn grant(grant: &Grant, minted: &Minted, request_id: &str) -> Vec<u8> {
    let headers = |headers: &mut Headers<'_>| {
        // What every request to an upstream carries.
        headers.overwrite(names::AUDIT_ID, request_id);
        headers.overwrite(names::STREAM_DURATION, grant.stream_limit_ms());
        match (&grant.route().target, minted) {
            (Target::Kubernetes(KubernetesTarget { method: Method::Jwt(_), .. }), Minted::Upstream(token)) => {
                headers.overwrite(names::UPSTREAM_AUTHORIZATION, format_args!("{BEARER}{}", token.expose()));
            }
            (Target::Http(_), Minted::Assertion(token)) => assertion(grant, token, headers),
            (Target::Kubernetes(_) | Target::Http(_), _) => {}
        }
    };
    allow(headers, |metadata| {
        metadata.grant(grant);
        // With a token the identity is in the token alone: metadata stands in access logs, and names there would fill the slots of
        // impersonation headers.
        if let Target::Kubernetes(KubernetesTarget { method: Method::Impersonate(_), .. }) = &grant.route().target {
            metadata.identity(grant.identity());
        }
    })
}

/// What [`grant`] adds to the headers.
pub fn added(grant: &Grant, minted: &Minted, request_id: &str) -> HeaderSize {
    let mut size = HeaderSize::default();
    size.add(names::AUDIT_ID, request_id.as_bytes());
    size.add(names::STREAM_DURATION, &[0; STREAM_DURATION_BYTES]);
    match minted {
        Minted::Nothing => {}
        Minted::Upstream(token) => {
            size.add(names::UPSTREAM_AUTHORIZATION, token.expose().as_bytes());
            size.bytes += BEARER.len();
        }
        Minted::Assertion(token) => size.add(names::UPSTREAM_ASSERTION, token.expose().as_bytes()),
    }
    if let Some(cookies) = grant.cookies() {
        size.add(names::UPSTREAM_COOKIE, cookies.as_str().as_bytes());
    }
    size
}

/// For the upstream of a plain HTTP route: a token that says who it is, and the upstream's own cookies.
fn assertion(grant: &Grant, token: &AssertionToken, headers: &mut Headers<'_>) {
    headers.overwrite(names::UPSTREAM_ASSERTION, token.expose());
    if let Some(cookies) = grant.cookies() {
        headers.overwrite(names::UPSTREAM_COOKIE, cookies.as_str());
    }
}

/// Refuses, in the form that the answer names.
pub fn refuse(answer: &Answer, request: &AccessRequest<'_>, public_url: &str) -> Vec<u8> {
    let refusal = Refusal::of(answer, request, public_url);
    let headers = |headers: &mut Headers<'_>| {
        headers.overwrite("content-type", refusal.content_type);
        headers.overwrite("cache-control", "no-store");
        headers.overwrite("x-content-type-options", "nosniff");
        headers.overwrite(names::AUDIT_ID, request.request_id);
        if refusal.code == 401 {
            headers.overwrite("www-authenticate", "Bearer realm=\"kubepass\"");
        }
        if matches!(answer.form, Form::ApiServerPage | Form::Page) {
            headers.overwrite("content-security-policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'");
        }
        if matches!(refusal.code, 429 | 503) {
            headers.overwrite("retry-after", "1");
        }
        if let Some(location) = &refusal.location {
            headers.overwrite("location", location);
        }
    };
    deny(answer.word, &refusal, headers)
}

/// `CheckResponse` with status OK and `OkHttpResponse` (2 headers).
fn allow(headers: impl FnOnce(&mut Headers<'_>), metadata: impl FnOnce(&mut Metadata<'_>)) -> Vec<u8> {
    let mut response = Message::with_capacity(USUAL_BYTES);
    response.message(field::STATUS, |_| {});
    response.message(field::DYNAMIC_METADATA, |fields| metadata(&mut Metadata(fields)));
    response.message(field::OK_RESPONSE, |ok| headers(&mut Headers(ok)));
    response.into_bytes()
}

/// `CheckResponse` with a status that is not OK and `DeniedHttpResponse` (1 status, 2 headers, 3 body).
fn deny(word: &str, refusal: &Refusal, headers: impl FnOnce(&mut Headers<'_>)) -> Vec<u8> {
    let mut response = Message::with_capacity(USUAL_BYTES + refusal.body.len());
    response.message(field::STATUS, |status| {
        status.number(1, GRPC_PERMISSION_DENIED);
        status.text(2, word);
    });
    response.message(field::DYNAMIC_METADATA, |fields| Metadata(fields).text(names::REASON_KEY, word));
    response.message(field::DENIED_RESPONSE, |denied| {
        denied.message(1, |status| status.number(1, u32::from(refusal.code)));
        headers(&mut Headers(denied));
        denied.text(3, &refusal.body);
    });
    response.into_bytes()
}

/// Fields of `CheckResponse`.
mod field {
    pub(super) const STATUS: u32 = 1;
    pub(super) const DENIED_RESPONSE: u32 = 2;
    pub(super) const OK_RESPONSE: u32 = 3;
    pub(super) const DYNAMIC_METADATA: u32 = 4;
}

/// The headers of a response of either kind.
struct Headers<'a>(&'a mut Message);

impl Headers<'_> {
    /// `HeaderValueOption` (1 header, 2 append, 3 append_action) with a `HeaderValue` (1 key, 2 value). Both fields are set: versions of Envoy
    /// that honour only `append`, only `append_action`, or either, all overwrite.
    fn overwrite(&mut self, name: &str, value: impl Display) {
        self.0.message(2, |option| {
            option.message(1, |header| {
                header.text(1, name);
                header.text(2, value);
            });
            // A `BoolValue` that is false.
            option.message(2, |_| {});
            option.number(3, OVERWRITE_IF_EXISTS_OR_ADD);
        });
    }
}

/// The dynamic metadata: a `Struct` of texts.
struct Metadata<'a>(&'a mut Message);

impl Metadata<'_> {
    /// An entry of `Struct.fields` (1 key, 2 value) with a `Value` (3 string_value).
    fn text(&mut self, key: impl Display, text: impl Display) {
        self.0.message(1, |entry| {
            entry.text(1, key);
            entry.message(2, |value| value.text(3, text));
        });
    }

    fn grant(&mut self, grant: &Grant) {
        let id = grant.route().id();
        match grant.route().target {
            Target::Kubernetes(_) => self.text(names::GRANT_KEY, names::kubernetes_target(id)),
            Target::Http(_) => self.text(names::GRANT_KEY, names::http_target(id)),
        }
    }

    fn identity(&mut self, identity: &UpstreamIdentity) {
        self.text(names::USER_KEY, identity.user());
        if let Some(uid) = identity.uid() {
            self.text(names::UID_KEY, uid);
        }
        for (index, group) in identity.groups().iter().enumerate() {
            self.text(names::group_key(index), group);
        }
        for (key, values) in identity.extra() {
            for (index, value) in values.iter().enumerate() {
                self.text(names::extra_key(key, index), value);
            }
        }
    }
}
