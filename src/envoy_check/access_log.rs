//! Access logs: kubepass gets its own, and no credential stands in any, nor in an answer. `authorization` is the service account's token once a
//! request has left.

use serde_json::Value;

use super::part::Part;

const GRPC: &str = "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig";
const SECRET_HEADERS: [&str; 5] =
    ["authorization", "cookie", "proxy-authorization", "x-pomerium-authorization", "x-kubepass-authorization"];

pub(super) fn judge(manager: &Part<'_>) {
    let logs = manager.field("access_log");
    let items = logs.items();
    if !items.iter().any(|log| log.typed(GRPC).is_some()) {
        logs.breaks(
            "no-access-log",
            "kubepass's audit trail does not learn how a request went on, only that it was allowed.",
            "envoy.access_loggers.http_grpc to kubepass's access-log socket, as in envoy/own.yaml",
        );
    }
    self::logs(&logs);
    self::logs(&manager.field("tracing"));
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
