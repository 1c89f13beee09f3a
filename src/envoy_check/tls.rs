//! TLS on both sides: who this Envoy is to clients, and that the server behind it is the one that is meant.

use super::document::Document;
use super::part::Part;

const UPSTREAM: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const DOWNSTREAM: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

const COMMON: &[&str] = &[
    "tls_params",
    "tls_certificates",
    "tls_certificate_sds_secret_configs",
    "alpn_protocols",
    "validation_context",
    "validation_context_sds_secret_config",
    "combined_validation_context",
];

/// Versions that have been broken.
const OLD: &[(&str, u64)] = &[("TLSv1_0", 1), ("TLSv1_1", 2)];

pub(super) fn has_client_certificate(cluster: &Part<'_>) -> bool {
    let Some(context) = cluster.field("transport_socket").typed(UPSTREAM) else { return false };
    let common = context.field("common_tls_context");
    let fields = [
        "tls_certificates",
        "tls_certificate_sds_secret_configs",
        "tls_certificate_provider_instance",
        "custom_tls_certificate_selector",
        "tls_certificate_certificate_provider",
        "tls_certificate_certificate_provider_instance",
    ];
    fields.iter().any(|name| common.field(name).is_there())
}

/// `names`: what the certificate must be asked for, where that is known.
pub(super) fn upstream(cluster: &Part<'_>, document: &Document<'_>, names: &[String]) {
    let socket = cluster.field("transport_socket");
    if !socket.is_there() {
        socket.is_unsafe(
            "upstream-without-tls",
            "tokens and identities would go to the API server in the clear, and anybody could answer for it.",
            "envoy.transport_sockets.tls with the CA and the server's name",
        );
        return;
    }
    let Some(context) = socket.typed(UPSTREAM) else {
        return socket.unknown_extension("the transport socket");
    };
    context.only(&[
        "common_tls_context",
        "sni",
        "auto_host_sni",
        "auto_sni_san_validation",
        "allow_renegotiation",
        "max_session_keys",
        "enforce_rsa_key_usage",
    ]);
    let common = context.field("common_tls_context");
    common.only(COMMON);
    old_versions(&common);
    validation(&context, &common, document, names);
}

fn validation(context: &Part<'_>, common: &Part<'_>, document: &Document<'_>, names: &[String]) {
    let contexts = validation_contexts(common, document);
    for validation in &contexts {
        validation.only(&[
            "trusted_ca",
            "watched_directory",
            "verify_certificate_spki",
            "verify_certificate_hash",
            "match_typed_subject_alt_names",
            "require_signed_certificate_timestamp",
            "crl",
            "allow_expired_certificate",
            "trust_chain_verification",
            "only_verify_leaf_cert_crl",
            "max_verify_depth",
            "system_root_certs",
        ]);
        if validation.field("allow_expired_certificate").may_be_true() {
            validation.is_unsafe(
                "upstream-expired",
                "an expired certificate would do.",
                "allow_expired_certificate: false, or leave it out",
            );
        }
        let chain = validation.field("trust_chain_verification");
        if chain.is_there() && !chain.is_one_of(&[("VERIFY_TRUST_CHAIN", 0)]) {
            validation.is_unsafe(
                "upstream-not-verified",
                "a certificate of anybody would do.",
                "trust_chain_verification: VERIFY_TRUST_CHAIN, or leave it out",
            );
        }
    }
    let sds = ["validation_context_sds_secret_config", "combined_validation_context.validation_context_sds_secret_config"];
    let by_secret = sds.iter().any(|name| common.path(name).is_there());
    let has_ca = |part: &Part<'_>| part.field("trusted_ca").is_there() || part.field("system_root_certs").is_there();
    if !by_secret && !contexts.iter().any(has_ca) {
        context.is_unsafe(
            "upstream-not-verified",
            "without a CA Envoy takes any certificate, so anybody on the way is the API server, and gets the token.",
            "validation_context: {trusted_ca: ..., match_typed_subject_alt_names: [...]}",
        );
    }
    server_name(context, &contexts, names);
}

fn server_name(context: &Part<'_>, contexts: &[Part<'_>], names: &[String]) {
    let matchers: Vec<Part<'_>> = contexts.iter().flat_map(|part| part.field("match_typed_subject_alt_names").items()).collect();
    let pinned = ["verify_certificate_spki", "verify_certificate_hash"];
    if contexts.iter().any(|part| pinned.iter().any(|name| !part.field(name).items().is_empty())) {
        return;
    }
    let exact: Vec<Option<String>> = matchers.iter().map(|part| Some(plain_name(part.path("matcher.exact").text()?))).collect();
    if exact.is_empty() || exact.contains(&None) {
        context.is_unsafe(
            "upstream-name",
            "without an exact name any certificate of that CA would do, a node's or a client's too.",
            "match_typed_subject_alt_names: [{san_type: DNS or IP_ADDRESS, matcher: {exact: NAME}}]",
        );
        return;
    }
    if !names.is_empty() && exact.iter().flatten().any(|name| !names.contains(name)) {
        let why = format!(
            "the certificate is asked for another name than the one in the grant ({}), so the policy of one server is applied before another.",
            names.join(", ")
        );
        context.is_unsafe(
            "upstream-other-server",
            &why,
            "the name in kubepass's `server` or `server_name`, in guard and certificate alike",
        );
    }
}

/// A name as it is compared: addresses in the one form that Envoy knows.
pub(super) fn plain_name(name: &str) -> String {
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    address.map_or_else(|_| name.to_ascii_lowercase(), |address| address.to_string())
}

/// Those that count together; a secret's own where the document holds it.
fn validation_contexts<'a>(common: &Part<'a>, document: &Document<'a>) -> Vec<Part<'a>> {
    let combined = common.field("combined_validation_context");
    let plain = [common.field("validation_context"), combined.field("default_validation_context")];
    let secrets = [common.field("validation_context_sds_secret_config"), combined.field("validation_context_sds_secret_config")];
    let named =
        secrets.iter().filter_map(|secret| document.secret(secret.field("name").text()?)).map(|secret| secret.field("validation_context"));
    plain.into_iter().chain(named).filter(Part::is_there).collect()
}

/// `is_local`: only this machine reaches the listener.
pub(super) fn downstream(chain: &Part<'_>, is_local: bool) {
    let socket = chain.field("transport_socket");
    if !socket.is_there() {
        if !is_local {
            chain.is_unsafe(
                "listener-without-tls",
                "people's tokens would travel in the clear.",
                "envoy.transport_sockets.tls with a certificate for the hosts",
            );
        }
        return;
    }
    let Some(context) = socket.typed(DOWNSTREAM) else {
        return socket.unknown_extension("the transport socket");
    };
    context.only(&[
        "common_tls_context",
        "require_client_certificate",
        "session_ticket_keys",
        "session_ticket_keys_sds_secret_config",
        "disable_stateless_session_resumption",
        "disable_stateful_session_resumption",
        "session_timeout",
        "ocsp_staple_policy",
        "full_scan_certs_on_sni_mismatch",
        "require_sni",
        "prefer_client_ciphers",
    ]);
    let common = context.field("common_tls_context");
    common.only(COMMON);
    old_versions(&common);
    let protocols: Vec<_> = common.field("alpn_protocols").items().iter().filter_map(Part::text).collect();
    if !protocols.is_empty() && !protocols.contains(&"http/1.1") {
        common.breaks("no-http1", "exec, attach and port-forward need HTTP/1.1, which is not offered.", "alpn_protocols: [h2, http/1.1]");
    }
    if !context.field("require_sni").is_true() {
        context.breaks(
            "no-sni",
            "kubepass refuses a request on a connection that was opened without a host name: it could not compare.",
            "require_sni: true",
        );
    }
}

fn old_versions(common: &Part<'_>) {
    let minimum = common.path("tls_params.tls_minimum_protocol_version");
    if minimum.is_one_of(OLD) {
        minimum.is_unsafe("old-tls", "these versions of TLS have been broken.", "TLSv1_2 or TLSv1_3, or leave it out");
    }
}
