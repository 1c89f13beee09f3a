//! Reaching by another spelling of the path what policy forbids under its own: foo may not read secrets, and has every right by RBAC.

use super::super::attack::{Attack, Verdict};
use super::super::judge::{Arrival, Must};
use super::super::scene::{CLUSTERS, Scene};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// Whether an API server took it for secrets, whatever the path was.
fn is_for_secrets(arrival: &Arrival) -> bool {
    arrival.event["objectRef"]["resource"] == "secrets"
}

/// Each path by GET, plain and over HTTP/2. Paths that begin with `=` are sent as they are behind it.
fn spellings(scene: &Scene, name: &'static str, must: Must, paths: &[&str]) -> Verdict {
    let mut trial = scene.trial(name).on(&CLUSTERS).never("secrets were asked for", is_for_secrets);
    trial.raw(&request("/api/v1/namespaces/default/configmaps"), Must::AsSelf);
    trial.raw(&request(SECRETS), Must::Stop);
    for path in paths {
        trial.raw(&request(path), must);
        let mut fields = super::super::trial::usual_fields().to_vec();
        fields[3].1 = path;
        trial.http2(&fields, must);
    }
    trial.verdict()
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {{host}}\r\nuser-agent: security/{{mark}}.\r\nauthorization: Bearer {{token}}\r\n\r\n")
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("dot-segments", "Envoy CVE-2019-9901", "/./ and /../ on the way to secrets", |scene| {
        spellings(
            scene,
            "dot-segments",
            Must::Either,
            &[
                "/api/v1/namespaces/default/configmaps/../secrets",
                "/api/v1/./namespaces/default/secrets",
                "/version/../api/v1/namespaces/default/secrets",
                "/../../api/v1/namespaces/default/secrets",
                "/.kubepass/../api/v1/namespaces/default/secrets",
                "/api/v1/namespaces/default/secrets/.",
                "/api/v1/namespaces/default/secrets/x/..",
            ],
        )
    }),
    Attack::new("encoded-dot-segments", "Envoy CVE-2019-9901", "%2e, %2E and mixed dots", |scene| {
        spellings(
            scene,
            "encoded-dot-segments",
            Must::Either,
            &[
                "/api/v1/namespaces/default/configmaps/%2e%2e/secrets",
                "/api/v1/namespaces/default/configmaps/.%2E/secrets",
                "/api/v1/%2e/namespaces/default/secrets",
                "/api/v1/namespaces/default/%73ecrets",
                "/%61pi/v1/namespaces/default/secrets",
                "/api/v1/namespaces/default/sec%72ets/",
            ],
        )
    }),
    Attack::new("encoded-slashes", "Envoy CVE-2021-29492", "%2f, %2F, %5c", |scene| {
        spellings(
            scene,
            "encoded-slashes",
            Must::Stop,
            &[
                "/api/v1/namespaces/default%2fsecrets",
                "/api/v1/namespaces/default%2Fsecrets",
                "/api/v1/namespaces/default/configmaps%2f..%2fsecrets",
                "/api/v1/namespaces/default%5csecrets",
                "/api%2fv1/namespaces/default/secrets",
                "/api/v1/namespaces/default/services/web/proxy/..%2f..%2f..%2fsecrets",
            ],
        )
    }),
    Attack::new("empty-segments", "opa-envoy CVE-2026-26205", "//, ///, and // at the beginning", |scene| {
        spellings(
            scene,
            "empty-segments",
            Must::Either,
            &[
                "//api/v1/namespaces/default/secrets",
                "/api//v1///namespaces/default/secrets",
                "//{other}/api/v1/namespaces/default/secrets",
                "/api/v1/namespaces//secrets",
                "/api/v1/namespaces/default//secrets",
                "///",
            ],
        )
    }),
    Attack::new("backslashes", "Envoy path normalisation", "\\ for /, as some servers read it", |scene| {
        spellings(
            scene,
            "backslashes",
            Must::Either,
            &[
                "/api/v1/namespaces/default\\secrets",
                "\\api\\v1\\namespaces\\default\\secrets",
                "/api/v1/namespaces/default/configmaps\\..\\secrets",
            ],
        )
    }),
    Attack::new("control-characters-in-paths", "Envoy CVE-2019-9900", "%00, %0a, %0d%0a, tab, 0x7f", |scene| {
        spellings(
            scene,
            "control-characters-in-paths",
            Must::Stop,
            &[
                "/api/v1/namespaces/default/secrets%00",
                "/api/v1/namespaces/default/configmaps%00/../secrets",
                "/api/v1/namespaces/default/secrets%0a",
                "/api/v1/namespaces/default/secrets%0d%0aimpersonate-user:%20system:admin",
                "/api/v1/namespaces/default/secrets%7f",
                "/api/v1/namespaces/default/secrets\t",
                "/api/v1/namespaces/default/secrets\u{0}",
            ],
        )
    }),
    Attack::new("encoded-twice", "double decoding", "%25 where a later hop decodes again", |scene| {
        spellings(
            scene,
            "encoded-twice",
            Must::Stop,
            &[
                "/api/v1/namespaces/default/%2573ecrets",
                "/api/v1/namespaces/default/configmaps/%252e%252e/secrets",
                "/api/v1/namespaces/default%252fsecrets",
                "/api/v1/namespaces/default/secrets%",
                "/api/v1/namespaces/default/secrets%zz",
                "/api/v1/namespaces/default/%u0073ecrets",
            ],
        )
    }),
    Attack::new("path-parameters", "Envoy CVE-2026-73511", ";x=y, which some servers cut off", |scene| {
        spellings(
            scene,
            "path-parameters",
            Must::Either,
            &[
                "/api/v1/namespaces/default/secrets;x=y",
                "/api/v1/namespaces/default;/secrets",
                "/api/v1/namespaces/default/configmaps/..;/secrets",
            ],
        )
    }),
    Attack::new("fragments", "Envoy CVE-2021-32779", "# in the target", |scene| {
        spellings(
            scene,
            "fragments",
            Must::Stop,
            &["/api/v1/namespaces/default/secrets#", "/version#/../api/v1/namespaces/default/secrets", "#", "/version?x#y"],
        )
    }),
    Attack::new("targets-that-are-no-path", "RFC 9112, 3.2", "absolute, authority and asterisk forms", |scene| {
        let mut trial = scene.trial("targets-that-are-no-path").on(&CLUSTERS).never("secrets were asked for", is_for_secrets);
        for target in [
            "https://{host}/api/v1/namespaces/default/secrets",
            "http://{host}/api/v1/namespaces/default/secrets",
            "https://{host}/version/../api/v1/namespaces/default/secrets",
            "*",
            "{host}",
            "{host}:443",
            "api/v1/namespaces/default/secrets",
            "?x",
        ] {
            for method in ["GET", "OPTIONS"] {
                trial.raw(&request(target).replacen("GET", method, 1), Must::Stop);
            }
        }
        trial.verdict()
    }),
    Attack::new(
        "look-alikes-in-paths",
        "overlong and look-alike letters",
        "overlong UTF-8, fullwidth and accented letters, other cases",
        |scene| {
            let mut trial = scene.trial("look-alikes-in-paths").on(&CLUSTERS).never("secrets were asked for", is_for_secrets);
            for path in [
                "/api/v1/namespaces/default/configmaps/%c0%ae%c0%ae/secrets",
                "/api/v1/namespaces/default%c0%afsecrets",
                "/api/v1/namespaces/default/\u{73}ecret\u{ff}",
                "/api/v1/namespaces/default/%ff",
            ] {
                trial.raw(&request(path), Must::Stop);
            }
            for path in [
                "/api/v1/namespaces/default/%ef%bd%93ecrets",
                "/api/v1/namespaces/default/Secrets",
                "/API/v1/namespaces/default/secrets",
                "/api/V1/namespaces/default/secrets",
                "/api/v1/namespaces/default/secret%c5%9b",
            ] {
                trial.raw(&request(path), Must::Either);
            }
            trial.verdict()
        },
    ),
    Attack::new("long-paths", "Envoy CVE-2024-32475", "paths of 1, 8, 30 and 70 KiB", |scene| {
        let mut trial = scene.trial("long-paths").on(&CLUSTERS).never("secrets were asked for", is_for_secrets);
        for kibibytes in [1, 8, 30, 70] {
            let padding = "a".repeat(kibibytes << 10);
            trial.raw(&request(&format!("/version?{padding}")), Must::Either);
            trial.raw(&request(&format!("/{padding}/../api/v1/namespaces/default/secrets")), Must::Stop);
        }
        trial.verdict()
    }),
    Attack::new(
        "queries-read-twice",
        "two readers of one query",
        "watch, selectors and semicolons that two servers read differently",
        |scene| {
            let mut trial = scene.trial("queries-read-twice").on(&CLUSTERS);
            for query in
                ["watch=1&watch=0", "watch=0;watch=1", "watch=%zz", "fieldSelector=metadata.name%3Da&fieldSelector=metadata.name%3Db"]
            {
                trial.raw(&request(&format!("/api/v1/namespaces/default/pods?{query}")), Must::Stop);
            }
            trial.verdict()
        },
    ),
    Attack::new("old-forms-of-paths", "kube-apiserver's own special paths", "/watch/ and /proxy/ before the resource", |scene| {
        spellings(
            scene,
            "old-forms-of-paths",
            Must::Either,
            &[
                "/api/v1/watch/namespaces/default/secrets?timeoutSeconds=1",
                "/api/v1/watch/secrets?timeoutSeconds=1",
                "/api/v1/proxy/namespaces/default/secrets/x",
                "/api/v1/namespaces/default/secrets?watch=1&timeoutSeconds=1",
                "/api/v1/secrets?fieldSelector=metadata.namespace%3Ddefault",
                "/api/v1/namespaces/default/secrets/",
            ],
        )
    }),
];
