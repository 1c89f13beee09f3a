//! Envoy's access log, sent to the control plane: an entry when a request ends, one when a tunnel or a request that may last begins, and one in a
//! while of what goes on still. The audit trail's decision line does not depend on it; it tells how the request went on, and how many streams people have.
//!
//! It goes by the OpenTelemetry protocol, for that one carries what is asked for and nothing else. Envoy's own holds all that is known of a request,
//! and costs both sides about twice as much.

use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, AndFilter, HeaderFilter, LogTypeFilter, OrFilter, access_log,
};
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;
use envoy_types::pb::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::HcmAccessLogOptions;
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::opentelemetry::proto::common::v1::{AnyValue, KeyValue, KeyValueList, any_value};
use envoy_types::util::pack_any;

use super::message::{grpc_service, milliseconds, number, regex, seconds};
use super::names::ACCESS_LOG_CLUSTER;
use crate::envoy_names::{ENTRY, MAX_GATHERED_BYTES, STILL_THERE_SECONDS};

/// How long an entry may wait in Envoy. It loses those that wait when it ends.
pub const ACCESS_LOG_FLUSH_MILLISECONDS: u32 = 500;
const ACCESS_LOG_GATHERED_BYTES: u32 = 16 << 10;
const _: () = assert!(ACCESS_LOG_GATHERED_BYTES <= MAX_GATHERED_BYTES);

/// Targets whose answers do not last, whatever the method: the version, and of a group its kinds, a resource or one object of it without a
/// subresource; no escape that could hide a word. Envoy matches them against the whole target (and takes no larger ones). Of everything else the
/// beginning is told, and `server::access_log` decides by the request itself whether that is worth a line.
const SHORT: [&str; 2] = [
    r"/(version|api(/[!-$&-.0->@-~]+(/namespaces/[!-$&-.0->@-~]+)?(/[!-$&-.0->@-~]+){0,2})?)(\?[!-$&-~]*)?",
    r"/apis(/[!-$&-.0->@-~]+(/[!-$&-.0->@-~]+(/namespaces/[!-$&-.0->@-~]+)?(/[!-$&-.0->@-~]+){0,2})?)?(\?[!-$&-~]*)?",
];
/// What a lasting one has that looks short: a watch, by its query or its path, and the oldest form of a proxy.
const LASTING: [&str; 2] = ["watch", "proxy"];

pub(super) fn access_log() -> AccessLog {
    let config = OpenTelemetryAccessLogConfig {
        grpc_service: grpc_service(ACCESS_LOG_CLUSTER, None),
        buffer_flush_interval: milliseconds(ACCESS_LOG_FLUSH_MILLISECONDS),
        buffer_size_bytes: number(ACCESS_LOG_GATHERED_BYTES),
        // Who tells it, its connection shows.
        disable_builtin_labels: true,
        attributes: Some(KeyValueList { values: ENTRY.iter().map(|(word, format)| attribute(word, format)).collect() }),
        ..Default::default()
    };
    let config_type = Some(access_log::ConfigType::TypedConfig(pack_any(config)));
    AccessLog { name: "envoy.access_loggers.open_telemetry".to_owned(), filter: Some(worth_an_entry()), config_type }
}

fn attribute(word: &str, format: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(format.to_owned())) });
    KeyValue { key: word.to_owned(), value, ..Default::default() }
}

/// Most requests are short, and both sides would spend as much on the entry of their beginning as on that of their end.
fn worth_an_entry() -> AccessLogFilter {
    let ends = of_type(&[
        AccessLogType::NotSet,
        AccessLogType::DownstreamEnd,
        AccessLogType::DownstreamTunnelSuccessfullyEstablished,
        AccessLogType::DownstreamPeriodic,
    ]);
    let begins = of_type(&[AccessLogType::DownstreamStart]);
    let not_short = all_of(SHORT.map(|pattern| path(MatchPattern::SafeRegex(regex(pattern)), true)).to_vec());
    let lasting = LASTING.map(|word| path(MatchPattern::Contains(word.to_owned()), false));
    let may_last = any_of(std::iter::once(not_short).chain(lasting).collect());
    any_of(vec![ends, all_of(vec![begins, may_last])])
}

fn of_type(types: &[AccessLogType]) -> AccessLogFilter {
    filter(FilterSpecifier::LogTypeFilter(LogTypeFilter { types: types.iter().map(|kind| (*kind).into()).collect(), exclude: false }))
}

fn path(pattern: MatchPattern, invert_match: bool) -> AccessLogFilter {
    let specifier = HeaderMatchSpecifier::StringMatch(StringMatcher { match_pattern: Some(pattern), ignore_case: false });
    let header = HeaderMatcher { name: ":path".to_owned(), header_match_specifier: Some(specifier), invert_match, ..Default::default() };
    filter(FilterSpecifier::HeaderFilter(HeaderFilter { header: Some(header) }))
}

fn any_of(filters: Vec<AccessLogFilter>) -> AccessLogFilter {
    filter(FilterSpecifier::OrFilter(OrFilter { filters }))
}

fn all_of(filters: Vec<AccessLogFilter>) -> AccessLogFilter {
    filter(FilterSpecifier::AndFilter(AndFilter { filters }))
}

fn filter(specifier: FilterSpecifier) -> AccessLogFilter {
    AccessLogFilter { filter_specifier: Some(specifier) }
}

pub(super) fn options() -> HcmAccessLogOptions {
    HcmAccessLogOptions {
        flush_access_log_on_new_request: true,
        flush_log_on_tunnel_successfully_established: true,
        access_log_flush_interval: seconds(STILL_THERE_SECONDS),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;
    use regex::Regex;

    use super::*;
    use crate::kubernetes::RequestInfo;

    /// As the filter has it.
    fn is_told(target: &str) -> bool {
        // Envoy matches the whole value.
        let is_short = SHORT.iter().any(|short| Regex::new(&format!("^(?:{short})$")).unwrap().is_match(target));
        !is_short || LASTING.iter().any(|word| target.contains(word))
    }

    #[test]
    fn the_beginning_of_what_may_last_is_told() {
        for target in [
            "/api/v1/pods?watch=true",
            "/api/v1/pods?watch=1&resourceVersion=5",
            "/api/v1/watch/pods",
            "/apis/apps/v1/watch/namespaces/web/deployments/x",
            "/api/v1/namespaces/web/pods/x/log?follow=true",
            "/api/v1/nodes/n/proxy/metrics",
            "/api/v1/proxy/nodes/n",
            "/apis/x.example.com/v1/namespaces/web/things/x/stream",
            "/apis/x.example.com/v1/things/x/stream",
            "/debug/pprof/profile",
            "/api/v1/pods?w%61tch=1",
        ] {
            assert!(is_told(target), "{target}");
        }
        for target in [
            "/version?timeout=32s",
            "/api",
            "/apis/apps/v1",
            "/api/v1/pods?limit=500",
            "/api/v1/namespaces/web/pods?limit=500",
            "/api/v1/namespaces/web/pods/x",
            "/api/v1/nodes/n",
            "/apis/apps/v1/namespaces/web/deployments/x",
            "/apis/apps/v1/deployments",
        ] {
            assert!(!is_told(target), "{target}");
        }
    }

    proptest! {
        /// No filter may lose what the trail wants.
        #[test]
        fn nothing_that_lasts_is_left_out(
            start in prop_oneof![Just("/api/v1"), Just("/apis/g/v1"), Just("/api"), Just("/apis/g"), Just("")],
            parts in prop::collection::vec("(namespaces|watch|proxy|pods|log|exec|a|x\\.y|nodes|stream|w%61tch|debug|pprof)?", 0..7),
            query in prop_oneof![Just(""), Just("?"), Just("?watch=true"), Just("?%77atch=1"), Just("?follow=true&a=b"), Just("?fieldSelector=metadata.name%3Dx")],
            method in prop_oneof![Just("GET"), Just("POST"), Just("HEAD"), Just("OPTIONS"), Just("DELETE")],
        ) {
            let target = format!("{start}{}{query}", parts.iter().map(|part| format!("/{part}")).collect::<String>());
            if RequestInfo::parse(method, &target).is_ok_and(|info| info.is_long_running()) {
                prop_assert!(is_told(&target), "{method} {target}");
            }
        }
    }
}
