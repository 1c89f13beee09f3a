//! What Envoy alone holds, with a check in kubepass's place that allows everything.

use super::super::headers::exchange;
use super::super::support::header_attacks::{HEADERS, Verdict};
use super::super::support::http;
use super::super::support::raw::Answer;
use super::super::support::world::STAGING_HOST;
use super::authz::AllowAll;
use super::{Installation, installation};

const FOO: &str = "foo@example.com";

/// foo may impersonate on this cluster, so nothing but Envoy stands between these headers and their effect.
#[test]
fn impersonation_headers_are_removed_also_when_nobody_refuses_them() {
    let installed = installation();
    let _logs = installed.world.run.watch();
    let token = installed.token_of(FOO);
    let cluster = &installed.world.staging;
    let direct = http::client(&[cluster.ca_pem()]).get(format!("{}/version?direct=yes", cluster.url()));
    let answer = direct.bearer_auth(&token).header("impersonate-user", "bar@example.com").send().unwrap();
    assert_eq!(answer.status(), 200);
    let event = cluster.audit_find("impersonation by foo", |event| event["requestURI"] == "/version?direct=yes");
    assert_eq!(event["impersonatedUser"]["username"], "bar@example.com", "foo may impersonate: {event}");

    let allow = AllowAll::instead_of_kubepass(&installed.world);
    allow.add(vec![("x-kubepass-authorization", format!("Bearer {token}"))]);
    let sent: Vec<&(&str, &str, Verdict)> = HEADERS.iter().filter(|(name, ..)| name.starts_with("as-")).collect();
    assert!(sent.len() > 10);
    for (name, lines, _) in &sent {
        let answer = ask(&installed, &format!("removed-{name}."), lines);
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let event = cluster.audit_find(name, |event| event["requestURI"] == format!("/version?removed-{name}.").as_str());
        assert_eq!((&event["user"]["username"], &event["impersonatedUser"]), (&FOO.into(), &serde_json::Value::Null), "{name}: {event}");
    }
    allow.end(&installed.world);
}

#[test]
fn without_a_token_from_the_check_nothing_goes_upstream() {
    let installed = installation();
    let _logs = installed.world.run.watch();
    let good = installed.token_of(FOO);
    assert_eq!(installed.straight("good-by-itself", &good).0, 200);
    let allow = AllowAll::instead_of_kubepass(&installed.world);
    let not_a_token = vec![("x-kubepass-authorization", "Bearer ".to_owned())];
    let by_itself = vec![("authorization", format!("Bearer {good}"))];
    let (stopped, invalid) = ((403, "without a complete identity"), (500, "answer to the authorization check was not valid"));
    for (what, headers, (code, message)) in
        [("none", vec![], stopped), ("empty", not_a_token, stopped), ("written-by-the-check", by_itself, invalid)]
    {
        allow.add(headers);
        for (name, lines) in [
            ("own", format!("authorization: Bearer {good}")),
            ("internal", format!("authorization: Bearer x\r\nx-kubepass-authorization: Bearer {good}")),
            ("impersonate", format!("authorization: Bearer {good}\r\nimpersonate-user: {FOO}")),
            ("nothing", "accept: */*".to_owned()),
        ] {
            let name = format!("no-token-{what}-{name}.");
            let answer = ask(&installed, &name, &lines);
            let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            assert_eq!((answer.status, &status["kind"]), (code, &"Status".into()), "{name}: {}", answer.text());
            assert!(status["message"].as_str().unwrap().contains(message), "{name}: {status}");
            assert!(!installed.arrived(&name), "{name} arrived");
        }
    }
    allow.end(&installed.world);
}

fn ask(installed: &Installation, name: &str, lines: &str) -> Answer {
    let authorization = if lines.contains("authorization") { "" } else { "authorization: Bearer anything\r\n" };
    let request = format!("GET /version?{name} HTTP/1.1\r\nhost: {STAGING_HOST}\r\n{authorization}{lines}\r\nconnection: close\r\n\r\n");
    exchange(&installed.world, Some(STAGING_HOST), &request).expect("an answer")
}
