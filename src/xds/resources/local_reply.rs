//! Envoy's own answers as a Kubernetes `Status`, which kubectl shows as an error in words. Answers of ext_authz pass as they are.

use envoy_types::pb::envoy::config::accesslog::v3::{AccessLogFilter, ExtensionFilter, access_log_filter, extension_filter};
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption, SubstitutionFormatString, substitution_format_string};
use envoy_types::pb::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{LocalReplyConfig, ResponseMapper};
use envoy_types::util::pack_any;

use super::message::inline_text;

/// When a reply is of a kind (CEL over Envoy's attributes), and what it then says. The first that fits counts.
struct Reply {
    when: &'static str,
    reason: &'static str,
    message: &'static str,
}

/// A moment, in seconds.
const RETRY_AFTER: &str = "1";

/// The text of ext_authz's own refusals is complete.
const OF_EXT_AUTHZ: &str = "response.code_details == 'ext_authz_denied'";

/// What went nowhere, and may pass a moment later: the client is told to ask again then, which kubectl does by itself, up to ten times. These come
/// before the others.
const FOR_A_MOMENT: [Reply; 3] = [
    Reply {
        when: "response.code_details == 'ext_authz_error'",
        reason: "ServiceUnavailable",
        message: "kubepass did not answer the authorization check; nothing was sent to the API server",
    },
    Reply {
        when: "response.code_details == 'overload'",
        reason: "ServiceUnavailable",
        message: "Envoy has no memory left for this request; nothing was sent to the API server",
    },
    Reply {
        when: "response.code_details.startsWith('upstream_reset_before_response_started{overflow')",
        reason: "ServiceUnavailable",
        message: "too many requests to this server are under way; nothing was sent to it",
    },
];

const REPLIES: [Reply; 15] = [
    Reply {
        when: "response.code_details.startsWith('rbac_access_denied')",
        reason: "Forbidden",
        message: "the request reached the API server's connection without a complete identity and was stopped there; this is a fault in kubepass's configuration of Envoy",
    },
    Reply {
        when: "response.code_details == 'upgrade_failed'",
        reason: "Forbidden",
        message: "this protocol upgrade is not supported; websocket and SPDY/3.1 are",
    },
    Reply {
        when: "response.code_details in ['upstream_max_stream_duration_reached', 'max_duration_timeout']",
        reason: "Timeout",
        message: "the session or the time that the route allows for one request ended",
    },
    Reply { when: "response.code == 400", reason: "BadRequest", message: "the request is malformed or its path can be read in two ways" },
    Reply { when: "response.code == 403", reason: "Forbidden", message: "Envoy refused the request" },
    Reply { when: "response.code == 404", reason: "NotFound", message: "no route of kubepass has this host and path" },
    Reply { when: "response.code == 408", reason: "Timeout", message: "the request was not complete in time" },
    Reply { when: "response.code == 413", reason: "RequestEntityTooLarge", message: "the request is too large" },
    Reply {
        when: "response.code == 431",
        reason: "BadRequest",
        message: "the request's headers are too large or too many; a smaller token or fewer headers would pass",
    },
    Reply {
        when: "response.code == 500",
        reason: "InternalError",
        message: "kubepass's answer to the authorization check was not valid; nothing was sent to the API server",
    },
    Reply {
        when: "response.code == 503 && xds.route_name.startsWith('http:')",
        reason: "ServiceUnavailable",
        message: "the server behind this address cannot be reached",
    },
    Reply {
        when: "response.code == 504 && xds.route_name.startsWith('http:')",
        reason: "Timeout",
        message: "the server behind this address did not answer in time",
    },
    Reply { when: "response.code == 503", reason: "ServiceUnavailable", message: "the API server of this route cannot be reached" },
    Reply { when: "response.code == 504", reason: "Timeout", message: "the API server of this route did not answer in time" },
    Reply { when: "true", reason: "", message: "Envoy refused the request" },
];

/// Some replies are made before Envoy has replaced the client's own id; only what has the form of ours goes into the text.
const HAS_REQUEST_ID: &str = "request.id.matches('^[0-9a-f-]+$')";

pub(super) fn local_reply() -> LocalReplyConfig {
    let untouched = mapper(OF_EXT_AUTHZ, None);
    let again = FOR_A_MOMENT.iter().flat_map(mappers).map(|mapper| ResponseMapper { headers_to_add: vec![retry_after()], ..mapper });
    let mapped = again.chain(REPLIES.iter().flat_map(mappers));
    LocalReplyConfig { mappers: std::iter::once(untouched).chain(mapped).collect(), body_format: None }
}

fn mappers(reply: &Reply) -> [ResponseMapper; 2] {
    let with_id = mapper(&format!("{} && {HAS_REQUEST_ID}", reply.when), Some(status(reply, "; request id %REQ(X-REQUEST-ID):36%")));
    [with_id, mapper(reply.when, Some(status(reply, "")))]
}

fn mapper(when: &str, body_format_override: Option<SubstitutionFormatString>) -> ResponseMapper {
    ResponseMapper { filter: Some(filter(when)), body_format_override, ..Default::default() }
}

fn retry_after() -> HeaderValueOption {
    let header = HeaderValue { key: "retry-after".to_owned(), value: RETRY_AFTER.to_owned(), ..Default::default() };
    HeaderValueOption { header: Some(header), append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(), ..Default::default() }
}

fn filter(expression: &str) -> AccessLogFilter {
    let expression = ExpressionFilter { expression: expression.to_owned(), ..Default::default() };
    let extension = ExtensionFilter {
        name: "envoy.access_loggers.extension_filters.cel".to_owned(),
        config_type: Some(extension_filter::ConfigType::TypedConfig(pack_any(expression))),
    };
    AccessLogFilter { filter_specifier: Some(access_log_filter::FilterSpecifier::ExtensionFilter(extension)) }
}

/// Nothing that a client or an API server said goes into it.
fn status(reply: &Reply, request_id: &str) -> SubstitutionFormatString {
    let Reply { reason, message, .. } = reply;
    let text = format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"{message} (Envoy: %RESPONSE_FLAGS%{request_id})","reason":"{reason}","code":%RESPONSE_CODE%}}"#
    );
    SubstitutionFormatString {
        content_type: "application/json".to_owned(),
        format: inline_text(&format!("{text}\n")).map(substitution_format_string::Format::TextFormatSource),
        ..Default::default()
    }
}
