//! Access logs: kubepass gets its own, and no credential stands in any, nor in an answer. `authorization` is the service account's token once a
//! request has left.

use serde_json::Value;

use super::part::Part;
use crate::envoy_names::{ENTRY, MAX_GATHERED_BYTES};

const OPEN_TELEMETRY: &str = "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig";
/// Which kubepass was told by once, and reads no more.
const GRPC: &str = "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig";
const SECRET_HEADERS: [&str; 5] =
    ["authorization", "cookie", "proxy-authorization", "x-pomerium-authorization", "x-kubepass-authorization"];

pub(super) fn judge(manager: &Part<'_>) {
    let logs = manager.field("access_log");
    told(&logs);
    self::logs(&logs);
    self::logs(&manager.field("tracing"));
}

/// kubepass is told all that it reads, in one log.
fn told(logs: &Part<'_>) {
    let items = logs.items();
    let of_kind = |kind| items.iter().filter_map(move |log| log.typed(kind));
    // By OTLP over HTTP, or to a file, others may be told as well.
    let goes_by_grpc = |log: &Part<'_>| log.field("grpc_service").is_there() || log.path("common_config.grpc_service").is_there();
    let told = of_kind(OPEN_TELEMETRY).filter(goes_by_grpc).map(|log| (untold(&log), log)).min_by_key(|(untold, _)| untold.len());
    let instead = "envoy.access_loggers.open_telemetry to kubepass's access-log socket, as in envoy/own.yaml";
    match told {
        Some((untold, log)) if !untold.is_empty() => {
            let attributes: Vec<String> = untold.iter().map(|(word, format)| format!("{word}: \"{format}\"")).collect();
            log.field("attributes").breaks(
                "access-log-untold",
                "kubepass's audit trail does not learn this of how a request went on; without its kind and its id, not even that it ended.",
                &format!("these attributes, exactly so: {}", attributes.join(", ")),
            );
        }
        Some((_, log)) => gathered(&log),
        None => match of_kind(GRPC).next() {
            Some(old) => old.breaks(
                "no-access-log",
                "kubepass does not read Envoy's gRPC access log any more: its audit trail does not learn how a request went on, only that it was allowed.",
                instead,
            ),
            None => logs.breaks(
                "no-access-log",
                "kubepass's audit trail does not learn how a request went on, only that it was allowed.",
                instead,
            ),
        },
    }
}

/// Without a word, Envoy gathers 16 KiB.
fn gathered(log: &Part<'_>) {
    for size in [log.field("buffer_size_bytes"), log.path("common_config.buffer_size_bytes")] {
        if size.is_there() && size.number().is_none_or(|bytes| bytes > MAX_GATHERED_BYTES.into()) {
            size.breaks(
                "access-log-too-much",
                "kubepass refuses messages of more than it takes at a time: its audit trail does not learn how those requests went on.",
                &format!("leave `buffer_size_bytes` out, or {MAX_GATHERED_BYTES} at most"),
            );
        }
    }
}

/// What the log's attributes do not tell as kubepass reads it.
fn untold(log: &Part<'_>) -> Vec<(&'static str, &'static str)> {
    let values = log.path("attributes.values").items();
    let tells = |word: &str, format: &str| {
        let mut told = values.iter().filter(|value| value.field("key").text() == Some(word));
        told.next().is_some_and(|value| value.path("value.string_value").text() == Some(format)) && told.next().is_none()
    };
    ENTRY.into_iter().filter(|(word, format)| !tells(word, format)).collect()
}

/// What is written down of requests, one or several.
pub(super) fn logs(part: &Part<'_>) {
    let places = if part.value().is_some_and(Value::is_array) { part.items() } else { vec![part.clone()] };
    for place in places.iter().filter(|place| place.value().is_some_and(holds_secret)) {
        place.is_unsafe(
            "credential-in-log",
            "whoever reads the log can use people's credentials, and the service account's.",
            "no `authorization`, `cookie` or other credential in a log's format",
        );
    }
}

/// What is told to clients.
pub(super) fn answers(part: &Part<'_>) {
    if part.value().is_some_and(holds_secret) {
        part.is_unsafe(
            "credential-in-answer",
            "the answer tells the client the credential with which its request went on: the service account's token.",
            "no `authorization`, `cookie` or other credential of the request in an answer",
        );
    }
}

/// Formats write headers as `%REQ(NAME)%`, other loggers list their names.
fn holds_secret(value: &Value) -> bool {
    match value {
        Value::String(text) => {
            let text = text.to_ascii_lowercase();
            let formatted =
                text.split("%req").skip(1).filter_map(|rest| rest.split_once('(')?.1.split_once(')')).any(|(names, _)| is_secret(names));
            let computed = text.split("%cel(").skip(1).filter_map(|rest| rest.split(")%").next());
            formatted
                || is_secret(&text)
                || computed.into_iter().any(|expression| SECRET_HEADERS.iter().any(|name| expression.contains(name)))
        }
        Value::Array(items) => items.iter().any(holds_secret),
        Value::Object(map) => map.values().any(holds_secret),
        _ => false,
    }
}

/// `NAME`, or `NAME?OTHER`.
fn is_secret(names: &str) -> bool {
    names.split('?').any(|name| SECRET_HEADERS.contains(&name.split(':').next().unwrap_or(name).trim()))
}
