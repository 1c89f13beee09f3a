//! `/.well-known/` on the host of `public_url`: the public keys by which API servers, and the upstreams of plain HTTP routes, verify what kubepass signs.
//! Public, the same for everyone, and served from what is in memory, so also while identity providers are away. No cookie counts or is set here.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::token::DiscoveryDocument;

use super::{Web, now, plain, public_origin};

pub(super) const OPENID_CONFIGURATION: &str = "/.well-known/openid-configuration";
/// The keys that API servers read. They never hold a key of assertions, nor the other way round.
pub(super) const JWKS: &str = "/.well-known/jwks.json";
pub(super) const ASSERTION_JWKS: &str = "/.well-known/kubepass/assertion-jwks.json";

/// kube-apiserver looks an unknown key up only when what it read has 30 s or less to live: with more, it would refuse a key that signs soon after it
/// was published.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=30");
const ETAG_BYTES: usize = 16;

pub(super) async fn openid_configuration(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    let issuer = public_origin(web.snapshot.load().config());
    let keys = web.signing.upstream_ring().jwks(now());
    document(&headers, &DiscoveryDocument::new(&issuer, &format!("{issuer}{JWKS}"), &keys))
}

pub(super) async fn jwks(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    document(&headers, &web.signing.upstream_ring().jwks(now()))
}

pub(super) async fn assertion_jwks(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    document(&headers, &web.signing.assertion_ring().jwks(now()))
}

fn document(headers: &HeaderMap, value: &impl Serialize) -> Response {
    let Ok(body) = serde_json::to_vec(value) else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the document cannot be written");
    };
    let tag = entity_tag(&body);
    let kept = HeaderValue::from_str(&tag).map(|tag| [(header::CACHE_CONTROL, CACHE_CONTROL), (header::ETAG, tag)]);
    let Ok(kept) = kept else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the document cannot be named");
    };
    if is_known(headers, &tag) {
        return (StatusCode::NOT_MODIFIED, kept).into_response();
    }
    (kept, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// Of the content alone, so that every kubepass with the same keys gives the same.
fn entity_tag(body: &[u8]) -> String {
    let hash = digest(&SHA256, body);
    let start = hash.as_ref().get(..ETAG_BYTES).unwrap_or_default();
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(start))
}

/// Whether the client holds this very content (RFC 9110, 13.1.2).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|held| held == "*" || held.strip_prefix("W/").unwrap_or(held) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_holds_is_compared_weakly() {
        let tag = entity_tag(b"{}");
        let check = |lines: &[&str], expected: bool| {
            let lines = lines.iter().filter_map(|line| HeaderValue::from_str(line).ok());
            let headers: HeaderMap = lines.map(|line| (header::IF_NONE_MATCH, line)).collect();
            assert_eq!(is_known(&headers, &tag), expected, "{headers:?}");
        };
        check(&[], false);
        check(&[&tag], true);
        check(&[&format!("W/{tag}")], true);
        check(&[&format!("\"other\", {tag}")], true);
        check(&["\"other\"", &tag], true);
        check(&["*"], true);
        check(&["\"other\""], false);
        check(&[tag.trim_matches('"')], false);
        assert_ne!(entity_tag(b"{}"), entity_tag(b"[]"));
    }
}
