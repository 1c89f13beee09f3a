//! The words in which Envoy's configuration and our answers to its checks speak of the same thing: written once, for `xds` configures Envoy to
//! look for what `ext_authz` answers, and `access_log` reads what became of it. Knows no message of Envoy and no meaning behind the names.

use std::fmt::{self, Display};

/// Key of the one entry in ext_authz's `context_extensions`: what a request is for.
pub const TARGET_KEY: &str = "target";
/// Its value on routes to the web pages, and the grant of those.
pub const WEB_TARGET: &str = "web";
/// Begins its value on a Kubernetes route, and the grant for it; the route's id follows.
const KUBERNETES_TARGET: &str = "kubernetes:";
/// The same on a plain HTTP route.
const HTTP_TARGET: &str = "http:";

/// Namespace of the dynamic metadata that an ext_authz answer brings.
pub const EXT_AUTHZ_NAMESPACE: &str = "envoy.filters.http.ext_authz";
/// Metadata keys in that namespace: the target that a request may reach, and who it is there.
pub const GRANT_KEY: &str = "grant";
pub const USER_KEY: &str = "user";
pub const UID_KEY: &str = "uid";
/// Why a request was refused, in one word.
pub const REASON_KEY: &str = "reason";

/// The request's id, in our audit log and in the API server's.
pub const AUDIT_ID: &str = "audit-id";
/// Ends a stream at that age, in milliseconds; Envoy does not forward it.
pub const STREAM_DURATION: &str = "x-envoy-upstream-stream-duration-ms";
/// The value that `authorization` gets on its way to an API server that takes our tokens. A header and no metadata, for access logs carry metadata;
/// it never leaves Envoy under this name.
pub const UPSTREAM_AUTHORIZATION: &str = "x-kubepass-authorization";

/// The values that the identity header and `cookie` get on their way to the upstream of a plain HTTP route; as above.
pub const UPSTREAM_ASSERTION: &str = "x-kubepass-assertion";
pub const UPSTREAM_COOKIE: &str = "x-kubepass-cookie";

/// All that an answer may set as headers; the rest of an identity travels as metadata.
pub const SETTABLE: [&str; 5] = [AUDIT_ID, STREAM_DURATION, UPSTREAM_AUTHORIZATION, UPSTREAM_ASSERTION, UPSTREAM_COOKIE];

/// Headers that no client may send, by the beginning of their names and by name: whoever comes after Envoy would believe these.
pub const CLIENT_HEADER_PREFIXES: [&str; 6] = ["x-forwarded-", "x-remote-", "x-envoy-", "x-kubepass-", "x-original-", "x-real-"];
pub const CLIENT_HEADERS: [&str; 7] = [AUDIT_ID, "forwarded", "x-request-id", "via", "traceparent", "tracestate", "baggage"];

/// Credentials and cookies that mean something to kubepass only.
pub const NOT_FOR_UPSTREAM: [&str; 3] = ["cookie", "x-pomerium-authorization", "proxy-authorization"];

/// By these a client asks some web frameworks for another path or method than the one that was judged (`x-original-*` goes earlier).
pub const OTHER_REQUEST: [&str; 4] = ["x-rewrite-url", "x-http-method", "x-http-method-override", "x-method-override"];

/// Groups that the connection manager's own mutation writes; a route with a higher limit adds the rest.
pub const GROUP_SLOTS: usize = 64;

/// Room for the headers of a request: what a client sends, and what is added on its way.
pub const MAX_HEADERS: u32 = 300;
pub const MAX_HEADER_BYTES: u32 = 60 * 1024;

/// The most that an Envoy may gather of its access log before it sends it, and the entry that comes on top has all headers at most. A longer message is
/// refused.
pub const MAX_GATHERED_BYTES: u32 = 60 * 1024;

/// Words by which an entry of Envoy's access log tells what it has to tell.
pub const ENTRY_KIND: &str = "kind";
pub const ENTRY_ID: &str = "id";
pub const ENTRY_GRANT: &str = "grant";
pub const ENTRY_ROUTE: &str = "route";
pub const ENTRY_REASON: &str = "reason";
pub const ENTRY_STATUS: &str = "status";
pub const ENTRY_DETAILS: &str = "details";
pub const ENTRY_CONNECTION: &str = "connection";
pub const ENTRY_FLAGS: &str = "flags";
pub const ENTRY_RECEIVED: &str = "received";
pub const ENTRY_SENT: &str = "sent";
pub const ENTRY_DURATION: &str = "ms";
pub const ENTRY_METHOD: &str = "method";
pub const ENTRY_PATH: &str = "path";

/// And what Envoy writes there. Of these method and path are the client's words, and so is the id where Envoy refuses a request before it removes a
/// client's headers. They are cut off where more is of no use: an id behind what one may have, so that none is taken for another's beginning, and a
/// path behind what tells whether its answer may last. One format has one place: nobody's value can end where another's begins.
pub const ENTRY: [(&str, &str); 14] = [
    (ENTRY_KIND, "%ACCESS_LOG_TYPE%"),
    (ENTRY_ID, "%REQ(AUDIT-ID?X-REQUEST-ID):129%"),
    (ENTRY_GRANT, "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:grant)%"),
    (ENTRY_ROUTE, "%ROUTE_NAME%"),
    (ENTRY_REASON, "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:reason)%"),
    (ENTRY_STATUS, "%RESPONSE_CODE%"),
    (ENTRY_DETAILS, "%RESPONSE_CODE_DETAILS%"),
    (ENTRY_CONNECTION, "%CONNECTION_TERMINATION_DETAILS%"),
    (ENTRY_FLAGS, "%RESPONSE_FLAGS%"),
    (ENTRY_RECEIVED, "%DOWNSTREAM_WIRE_BYTES_RECEIVED%"),
    (ENTRY_SENT, "%DOWNSTREAM_WIRE_BYTES_SENT%"),
    (ENTRY_DURATION, "%DURATION%"),
    (ENTRY_METHOD, "%REQ(:METHOD):32%"),
    (ENTRY_PATH, "%REQ(:PATH):8192%"),
];

/// How often Envoy's access log tells of a request that goes on that it does.
pub const STILL_THERE_SECONDS: u64 = 300;

/// In a check, where the request came from, when a proxy said it whom the listener trusts: Envoy's own word for that names the proxy. Nobody else's
/// header of this name comes so far, and it never leaves Envoy.
pub const SOURCE: &str = "x-kubepass-source";

/// `id`: `config::Route::id`.
pub fn kubernetes_target(id: &str) -> impl Display {
    fmt::from_fn(move |text| write!(text, "{KUBERNETES_TARGET}{id}"))
}

/// The id in a target or grant of a Kubernetes route.
pub fn kubernetes_id(target: &str) -> Option<&str> {
    target.strip_prefix(KUBERNETES_TARGET).filter(|id| !id.is_empty())
}

pub fn http_target(id: &str) -> impl Display {
    fmt::from_fn(move |text| write!(text, "{HTTP_TARGET}{id}"))
}

/// The id in a target or grant of a plain HTTP route.
pub fn http_id(target: &str) -> Option<&str> {
    target.strip_prefix(HTTP_TARGET).filter(|id| !id.is_empty())
}

/// The id in a target or grant of any route.
pub fn route_id(target: &str) -> Option<&str> {
    kubernetes_id(target).or_else(|| http_id(target))
}

/// The route's name in its id.
pub fn route_name(id: &str) -> &str {
    id.split('@').next().unwrap_or(id)
}

/// Metadata key of group `index`.
pub fn group_key(index: usize) -> impl Display {
    fmt::from_fn(move |text| write!(text, "g{index}"))
}

/// Metadata key of value `index` of an extra key.
pub fn extra_key(key: &str, index: usize) -> impl Display {
    fmt::from_fn(move |text| write!(text, "e.{key}.{index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_tells_what_the_names_say() {
        for (word, names) in [
            (ENTRY_ID, AUDIT_ID.to_uppercase()),
            (ENTRY_GRANT, format!("{EXT_AUTHZ_NAMESPACE}:{GRANT_KEY}")),
            (ENTRY_REASON, format!("{EXT_AUTHZ_NAMESPACE}:{REASON_KEY}")),
        ] {
            assert!(ENTRY.iter().any(|(told, format)| *told == word && format.contains(&names)), "{word}: {names}");
        }
    }

    #[test]
    fn a_target_leads_back_to_its_route() {
        let target = kubernetes_target("prod@10.0.0.1:6443/kubernetes").to_string();
        assert_eq!(kubernetes_id(&target).map(route_name), Some("prod"));
        for other in ["", "web", "kubernetes:", "kubernetes", "http:prod"] {
            assert_eq!(kubernetes_id(other), None, "{other:?}");
        }
        let target = http_target("wiki@10.0.0.9:8080/http:10.0.0.9").to_string();
        assert_eq!((http_id(&target).map(route_name), kubernetes_id(&target)), (Some("wiki"), None));
        for other in ["", "web", "http:", "http", "https:x", "kubernetes:prod"] {
            assert_eq!(http_id(other), None, "{other:?}");
        }
        assert_eq!(["http:a@b", "kubernetes:a@b", "web", ""].map(route_id), [Some("a@b"), Some("a@b"), None, None]);
    }
}
