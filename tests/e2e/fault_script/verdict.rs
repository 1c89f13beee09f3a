//! The API servers' own audit logs against kubepass's trail, and against what people were answered.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;

use super::super::rows::{ROWS, Row};
use super::super::support::wait::eventually_ok;
use super::load::Exchange;
use super::scene::Scene;

/// Every request that an API server got from kubepass has its line in the trail, written before, with the same person. Returns how many.
pub(super) fn assert_closed(scene: &Scene, what: &str) -> usize {
    let counts = |event: &Value| is_by_kubepass(event) && !is_refused_identity(event);
    let of_row = |row: Row| row.cluster(&scene.world).audit_events().into_iter().filter(counts).collect::<Vec<_>>();
    // The lines after the events: more come all the time.
    let events = ROWS.map(|row| (row, of_row(row)));
    let lines = decisions(scene);
    let mut joined = 0;
    for (row, events) in events {
        for event in events {
            let served = row.served(&event).unwrap_or_else(|why| panic!("{what}: a request without an identity: {why}"));
            let id = event["auditID"].as_str().unwrap();
            let line = lines.get(id).unwrap_or_else(|| panic!("{what}: no audit line for {event}"));
            assert_eq!(
                (&line["outcome"], &line["route"], &line["upstream_user"]),
                (&"allow".into(), &row.route.into(), &served["username"]),
                "{what}: {event}\n{line}"
            );
            joined += 1;
        }
    }
    joined
}

/// By its service account, whomever it impersonates, or by a token of its own.
fn is_by_kubepass(event: &Value) -> bool {
    event["user"]["username"] == "system:serviceaccount:kubepass:kubepass" || event["user"]["extra"]["kubepass.dev/session"].is_array()
}

/// An API server that has just started does not know yet what kubepass may do, and refuses the identity that came with a request.
fn is_refused_identity(event: &Value) -> bool {
    let status = &event["responseStatus"];
    status["code"] == 403 && status["message"].as_str().is_some_and(|message| message.contains("cannot impersonate"))
}

/// By request id. A line that a kill cut off is no line.
fn decisions(scene: &Scene) -> HashMap<String, Value> {
    let text = std::fs::read(scene.world.audit_path()).unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    lines.filter(|line| line["event"] == "decision").map(|line| (line["request_id"].as_str().unwrap().to_owned(), line)).collect()
}

/// Who was served was served by the API server, once and as themselves; who was refused never came there.
pub(super) fn assert_answers(scene: &Scene, exchanges: &[Exchange]) {
    eventually_ok("the API servers' logs tell what was answered", Duration::from_secs(10), || {
        let mut served: BTreeMap<(&str, String), Vec<Value>> = BTreeMap::new();
        for row in ROWS {
            for event in row.cluster(&scene.world).audit_events().into_iter().filter(|event| event["stage"] == "ResponseComplete") {
                let path = event["requestURI"].as_str().unwrap_or_default().to_owned();
                // Refused by the API server itself, before it knew for whom.
                let Ok(user) = row.served(&event) else { continue };
                served.entry((row.host, path)).or_default().push(user["username"].clone());
            }
        }
        let mut wrong = Vec::new();
        for exchange in exchanges {
            let users = served.get(&(exchange.host, exchange.path.clone())).cloned().unwrap_or_default();
            let own: Value = format!("{}@example.com", exchange.login).into();
            let right = match exchange.status {
                200 => users == [own],
                // Where an answer was lost, the request may have been served; an API server that starts refuses what it will allow.
                0 | 403 | 500.. => users.is_empty() || users == [own],
                _ => users.is_empty(),
            };
            if !right {
                wrong.push(format!("{exchange:?}: {users:?}"));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("{} of {}: {}", wrong.len(), exchanges.len(), wrong.join("\n"))) }
    });
}
