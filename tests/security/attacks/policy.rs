//! Doing more than looking, for somebody whom policy lets only look: rea, who has every right by RBAC. Whatever arrives must be a read.

use super::super::attack::{Attack, Verdict};
use super::super::judge::{Arrival, Must};
use super::super::scene::{CLUSTERS, Scene};
use super::super::trial::Trial;

/// By the API server's own words for it: the reads of plain data, and nothing of a stream or a proxy.
fn is_more_than_reading(arrival: &Arrival) -> bool {
    let (verb, object) = (arrival.event["verb"].as_str().unwrap_or_default(), &arrival.event["objectRef"]);
    let subresource = object["subresource"].as_str().unwrap_or_default();
    let stream = ["exec", "attach", "portforward", "proxy", "token"].contains(&subresource);
    !["get", "list", "watch", "head", "options"].contains(&verb) || stream
}

fn looking<'s>(scene: &'s Scene, name: &'static str) -> Trial<'s> {
    let mut trial = scene.trial(name).by("rea").on(&CLUSTERS).never("rea did more than look", is_more_than_reading);
    trial.raw(&request("GET", "/api/v1/namespaces/default/pods/web", "", ""), Must::AsSelf);
    trial
}

fn request(method: &str, path: &str, lines: &str, body: &str) -> String {
    let body_lines = match body {
        "" => String::new(),
        body => format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()),
    };
    format!(
        "{method} {path} HTTP/1.1\r\nhost: {{host}}\r\nuser-agent: security/{{mark}}.\r\nauthorization: Bearer {{token}}\r\n\
         {lines}{body_lines}\r\n{body}"
    )
}

/// The request over both protocols; refused.
fn refuse(trial: &mut Trial<'_>, method: &str, path: &str, body: &str) {
    trial.raw(&request(method, path, "", body), Must::Stop);
    let mut fields = super::super::trial::usual_fields().to_vec();
    (fields[0].1, fields[3].1) = (method, path);
    fields.push(("content-type", "application/json"));
    for target in trial.targets() {
        let body = body.to_owned();
        trial.frames(target, &fields, Must::Stop, move |connection, fields| {
            let stream = connection.request(fields, body.is_empty());
            if !body.is_empty() {
                connection.data(stream, body.as_bytes(), true);
            }
            stream
        });
    }
}

fn all(scene: &Scene, name: &'static str, requests: &[(&str, &str, &str)]) -> Verdict {
    let mut trial = looking(scene, name);
    for (method, path, body) in requests {
        refuse(&mut trial, method, path, body);
    }
    trial.verdict()
}

const POD: &str = "/api/v1/namespaces/default/pods/web";
const WEBSOCKET: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
                         sec-websocket-protocol: v5.channel.k8s.io\r\n";
const SPDY: &str = "connection: Upgrade\r\nupgrade: SPDY/3.1\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n";

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "exec-by-get",
        "kubernetes #78741, #133515",
        "exec, attach and port-forward as GET, by WebSocket, SPDY and plain",
        |scene| {
            let mut trial = looking(scene, "exec-by-get");
            for path in
                ["exec?command=id&stdout=true", "exec/?command=id", "attach?stdout=true", "portforward?ports=80", "%65xec?command=id"]
            {
                for upgrade in [WEBSOCKET, SPDY, ""] {
                    for method in ["GET", "POST", "HEAD"] {
                        trial.raw(&request(method, &format!("{POD}/{path}"), upgrade, ""), Must::Stop);
                    }
                }
            }
            trial.verdict()
        },
    ),
    Attack::new("proxy-by-get", "Teleport 17.7.26", "proxy of pods, services and nodes, and the kubelet's exec behind it", |scene| {
        all(
            scene,
            "proxy-by-get",
            &[
                ("GET", "/api/v1/namespaces/default/pods/web/proxy/", ""),
                ("GET", "/api/v1/namespaces/default/services/web/proxy/x", ""),
                ("GET", "/api/v1/namespaces/default/services/https:web:443/proxy", ""),
                ("GET", "/api/v1/nodes/node-1/proxy/exec/default/web/web?command=id", ""),
                ("GET", "/api/v1/nodes/node-1/proxy/run/default/web/web", ""),
                ("GET", "/api/v1/proxy/nodes/node-1/run", ""),
                ("GET", "/api/v1/nodes/node-1:10250/proxy/metrics", ""),
                ("POST", "/api/v1/nodes/node-1/proxy/exec/default/web/web?command=id", ""),
            ],
        )
    }),
    Attack::new("ephemeral-containers", "Teleport 18.10.0", "PATCH of ephemeralcontainers, which is an exec", |scene| {
        let patch = r#"{"spec":{"ephemeralContainers":[{"name":"x","image":"x"}]}}"#;
        all(
            scene,
            "ephemeral-containers",
            &[
                ("PATCH", "/api/v1/namespaces/default/pods/web/ephemeralcontainers", patch),
                ("PUT", "/api/v1/namespaces/default/pods/web/ephemeralcontainers", patch),
            ],
        )
    }),
    Attack::new("token-request", "a token of a service account", "POST of serviceaccounts/token", |scene| {
        let body = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}"#;
        all(
            scene,
            "token-request",
            &[
                ("POST", "/api/v1/namespaces/kubepass/serviceaccounts/kubepass/token", body),
                ("POST", "/api/v1/namespaces/default/serviceaccounts/default/token?dryRun=All", body),
            ],
        )
    }),
    Attack::new("approve-a-certificate", "a certificate of system:masters", "creation and approval of a signing request", |scene| {
        let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        all(
            scene,
            "approve-a-certificate",
            &[
                ("POST", path, "{}"),
                ("PUT", "/apis/certificates.k8s.io/v1/certificatesigningrequests/x/approval", "{}"),
                ("PATCH", "/apis/certificates.k8s.io/v1/certificatesigningrequests/x/status", "{}"),
            ],
        )
    }),
    Attack::new(
        "ask-about-others",
        "SubjectAccessReview as an oracle",
        "reviews of other users, and one's own with impersonation",
        |scene| {
            let mut trial = looking(scene, "ask-about-others");
            let body = r#"{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{"user":"bar@example.com","nonResourceAttributes":{"path":"/","verb":"get"}}}"#;
            for resource in ["subjectaccessreviews", "selfsubjectrulesreviews"] {
                refuse(&mut trial, "POST", &format!("/apis/authorization.k8s.io/v1/{resource}"), body);
            }
            refuse(&mut trial, "POST", "/apis/authentication.k8s.io/v1/tokenreviews", "{}");
            trial.raw(
                &request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", "impersonate-user: bar@example.com\r\n", "{}"),
                Must::Stop,
            );
            trial.verdict()
        },
    ),
    Attack::new("raise-ones-rights", "escalate, bind, impersonate", "roles and bindings made and changed", |scene| {
        let path = "/apis/rbac.authorization.k8s.io/v1";
        let mut trial = looking(scene, "raise-ones-rights");
        for kind in ["clusterroles", "clusterrolebindings", "namespaces/default/roles", "namespaces/default/rolebindings"] {
            refuse(&mut trial, "POST", &format!("{path}/{kind}"), "{}");
            refuse(&mut trial, "PATCH", &format!("{path}/{kind}/admin"), "{}");
            refuse(&mut trial, "PUT", &format!("{path}/{kind}/admin"), "{}");
        }
        trial.verdict()
    }),
    Attack::new("writes-by-subresource", "Teleport 18.10.0", "binding, eviction, scale, status, finalize, resize", |scene| {
        all(
            scene,
            "writes-by-subresource",
            &[
                ("POST", "/api/v1/namespaces/default/pods/web/binding", "{}"),
                ("POST", "/api/v1/namespaces/default/pods/web/eviction", "{}"),
                ("PATCH", "/api/v1/namespaces/default/pods/web/resize", "{}"),
                ("PUT", "/api/v1/namespaces/default/finalize", "{}"),
                ("PUT", "/api/v1/namespaces/default/status", "{}"),
                ("PATCH", "/apis/apps/v1/namespaces/default/deployments/x/scale", "{}"),
                ("DELETE", "/api/v1/namespaces/default/pods/web", ""),
                ("DELETE", "/api/v1/namespaces/default/pods", ""),
            ],
        )
    }),
    Attack::new(
        "unknown-subresources",
        "aggregated APIs that do more by GET",
        "GET of subresources that only another API server knows",
        |scene| {
            all(
                scene,
                "unknown-subresources",
                &[
                    ("GET", "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/x/console", ""),
                    ("GET", "/apis/example.com/v1/namespaces/default/things/x/tunnel", ""),
                ],
            )
        },
    ),
    Attack::new(
        "write-by-override",
        "method overrides below a read-only rule",
        "GET with overriding headers and queries arrives as GET only",
        |scene| {
            let mut trial = looking(scene, "write-by-override");
            for lines in [
                "x-http-method-override: DELETE",
                "x-method-override: PATCH\r\nx-http-method: PUT",
                "content-type: application/json-patch+json",
            ] {
                trial.raw(
                    &request("GET", "/api/v1/namespaces/default/pods/nothing?_method=DELETE", &format!("{lines}\r\n"), ""),
                    Must::AsSelf,
                );
            }
            trial.verdict()
        },
    ),
    Attack::new("denied-by-policy", "no rule matches", "somebody whom no rule lets in, in every way", |scene| {
        let mut trial = scene.trial("denied-by-policy").by("eve");
        for lines in
            ["accept: */*", "x-forwarded-user: foo@example.com", "accept: text/html", "accept: application/json;g=apidiscovery.k8s.io;v=v2"]
        {
            trial.lines(lines, Must::Stop);
        }
        trial.verdict()
    }),
];
