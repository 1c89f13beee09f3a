//! `RequestInfo` equals the API server's: some thousands of generated requests go through the whole stack, and what kubepass's audit line
//! says of each is compared with what the API server's own audit event says.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::shared::own_world;
use super::support::world::{PROD_HOST, WorldOptions};

/// At least this many requests must have been read by both.
const ENOUGH: usize = 2_000;
/// Requests in flight at once.
const LANES: usize = 4;

#[test]
fn kubepass_reads_requests_as_the_api_server_does() {
    let options = WorldOptions { policy: "\n  - {name: all, allow: \"true\"}\n".to_owned(), ..WorldOptions::default() };
    let world = own_world("requests", options);
    let person = world.person("foo");
    person.set_up(&world.url(PROD_HOST)).ok();
    let token = person.session_token(&world.url(PROD_HOST));
    let requests = generate();
    let client = world.client();
    let base = world.url(PROD_HOST);
    let lanes: Vec<Vec<&Request>> = (0..LANES).map(|lane| requests.iter().skip(lane).step_by(LANES).collect()).collect();
    let sent: Vec<Sent> = std::thread::scope(|scope| {
        let lanes: Vec<_> = lanes
            .into_iter()
            .map(|lane| scope.spawn(|| lane.into_iter().map(|request| send(&client, &base, &token, request)).collect::<Vec<_>>()))
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("a lane")).collect()
    });
    let ours = by_id(world.audit_lines(), "request_id", |line| line["event"] == "decision");
    let theirs = by_id(world.prod.audit_events(), "auditID", |_| true);
    let (mut compared, mut refused, mut differences) = (0, 0, Vec::new());
    for sent in &sent {
        let Some(line) = ours.get(&sent.id) else { continue };
        match (line["outcome"].as_str(), theirs.get(&sent.id)) {
            (Some("allow"), Some(event)) => {
                compared += 1;
                differences.extend(difference(line, event).map(|what| format!("{} {}: {what}", sent.method, sent.path)));
            }
            (Some("allow"), None) => differences
                .push(format!("{} {}: allowed, but the API server has no event (status {})", sent.method, sent.path, sent.status)),
            (Some("deny"), None) if line["reason"] == "ambiguous_path" => refused += 1,
            (outcome, event) => {
                differences.push(format!("{} {}: {outcome:?}, API server saw it: {}", sent.method, sent.path, event.is_some()))
            }
        }
    }
    println!("{} requests sent, {compared} compared, {refused} refused as ambiguous", sent.len());
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences[..differences.len().min(40)].join("\n"));
    assert!(compared >= ENOUGH, "only {compared} of {} requests were compared", sent.len());
    assert!(refused > 0, "nothing ambiguous was refused");
}

struct Request {
    method: &'static str,
    path: String,
}

struct Sent {
    method: &'static str,
    path: String,
    id: String,
    status: u16,
}

fn send(client: &reqwest::blocking::Client, base: &str, token: &str, request: &Request) -> Sent {
    // The URL parser of a client would tidy the path: the bytes are what is tested, so they are put in unparsed.
    let url = url::Url::parse(&format!("{base}{}", request.path)).expect("a URL");
    let method = request.method.parse().expect("a method");
    let mut builder = client.request(method, url).bearer_auth(token).timeout(std::time::Duration::from_secs(3));
    if matches!(request.method, "POST" | "PUT" | "PATCH") {
        builder = builder.header("content-type", "application/json").body("{}");
    }
    let answer = builder.send();
    let (id, status) = match &answer {
        Ok(answer) => (header(answer, "audit-id").or_else(|| header(answer, "x-request-id")).unwrap_or_default(), answer.status().as_u16()),
        Err(_) => (String::new(), 0),
    };
    Sent { method: request.method, path: request.path.clone(), id, status }
}

fn header(answer: &reqwest::blocking::Response, name: &str) -> Option<String> {
    answer.headers().get(name)?.to_str().ok().map(str::to_owned)
}

fn by_id(lines: Vec<Value>, key: &str, wanted: impl Fn(&Value) -> bool) -> HashMap<String, Value> {
    lines.into_iter().filter(|line| wanted(line)).filter_map(|line| Some((line[key].as_str()?.to_owned(), line))).collect()
}

/// What kubepass read otherwise than the API server; `None` when all is equal.
fn difference(line: &Value, event: &Value) -> Option<String> {
    let ours = &line["kubernetes"];
    let object = &event["objectRef"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pairs: BTreeMap<&str, (String, String)> = [
        ("verb", (text(&ours["verb"]), text(&event["verb"]))),
        ("group", (text(&ours["api_group"]), text(&object["apiGroup"]))),
        ("version", (if ours["resource"].is_null() { String::new() } else { text(&ours["api_version"]) }, text(&object["apiVersion"]))),
        ("resource", (text(&ours["resource"]), text(&object["resource"]))),
        ("subresource", (text(&ours["subresource"]), text(&object["subresource"]))),
        ("namespace", (text(&ours["namespace"]), text(&object["namespace"]))),
        ("name", (text(&ours["name"]), text(&object["name"]))),
    ]
    .into();
    let different: Vec<String> = pairs
        .into_iter()
        .filter(|(_, (ours, theirs))| ours != theirs)
        .map(|(field, (ours, theirs))| format!("{field} {ours:?}, API server {theirs:?}"))
        .collect();
    (!different.is_empty()).then(|| different.join("; "))
}

/// Every combination of what a path is made of, and odd ones beside them.
fn generate() -> Vec<Request> {
    const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let mut paths = Vec::new();
    for prefix in ["/api/v1", "/apis/apps/v1", "/apis/rbac.authorization.k8s.io/v1", "/apis/example.com/v1alpha1", "/api/v2"] {
        for scope in ["", "/namespaces/default", "/namespaces/no-such"] {
            for rest in RESTS {
                paths.push(format!("{prefix}{scope}/{rest}"));
            }
        }
        for rest in [
            "",
            "/",
            "/watch",
            "/watch/pods",
            "/watch/namespaces/default/pods",
            "/watch/namespaces/default/pods/web",
            "/namespaces",
            "/namespaces/default",
            "/namespaces/default/finalize",
            "/namespaces/default/status",
            "/nodes",
            "/nodes/node-1",
            "/nodes/node-1/status",
            "/proxy/namespaces/default/pods/web",
        ] {
            paths.push(format!("{prefix}{rest}"));
        }
    }
    paths.extend(ODD.iter().map(|path| (*path).to_owned()));
    let mut requests = Vec::new();
    for path in &paths {
        for method in METHODS {
            requests.push(Request { method, path: path.clone() });
        }
    }
    for path in QUERIES {
        for method in ["GET", "DELETE", "POST"] {
            requests.push(Request { method, path: (*path).to_owned() });
        }
    }
    requests
}

const RESTS: &[&str] = &[
    "pods",
    "pods/",
    "pods/web",
    "pods/web/",
    "pods/web/log",
    "pods/web/status",
    "pods/web/eviction",
    "pods/web/ephemeralcontainers",
    "pods/web/binding",
    "deployments/d/scale",
    "configmaps/a.b-c",
    "clusterroles/system:node",
    "clusterroles/system%3Anode",
    "secrets",
    "services/web",
    "serviceaccounts/x/token",
    "things/a/b/c/d",
];

const ODD: &[&str] = &[
    "/",
    "/api",
    "/api/",
    "/apis",
    "/apis/apps",
    "/apis/apps/v1",
    "/version",
    "/healthz",
    "/livez",
    "/readyz/ping",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3/apis/apps/v1",
    "/logs/x",
    "/apix/v1/pods",
    "/api/v1/namespaces/default/pods/we%62",
    "/api/v1/namespaces/default/pods/a%20b",
    "/api/v1/namespaces/default/pods/%C3%A9",
    "/api/v1/namespaces/default/pods/a%2Fb",
    "/api/v1/namespaces/default/pods/a%5Cb",
    "/api/v1/namespaces/default/pods/a%25b",
    "/api/v1/namespaces/default/pods/a;b=c",
    "/api/v1/namespaces/default/pods/a+b",
    "/api/v1/namespaces/default/pods/a@b!c$d&e'f(g)h*i,j=k~l",
    "/api/v1/namespaces/default/pods/web/exec",
    "/api/v1/namespaces/default/pods/web/attach",
    "/api/v1/namespaces/default/pods/web/portforward",
    "/api/v1/namespaces/default/services/web/proxy",
    "/api/v1/namespaces/default/services/https:web:443/proxy/a/b",
    "/api/v1/nodes/node-1/proxy/metrics",
];

const QUERIES: &[&str] = &[
    "/api/v1/pods?watch=1&timeoutSeconds=1",
    "/api/v1/pods?watch=true&timeoutSeconds=1",
    "/api/v1/pods?watch=TRUE&timeoutSeconds=1",
    "/api/v1/pods?watch=t&timeoutSeconds=1",
    "/api/v1/pods?watch&timeoutSeconds=1",
    "/api/v1/pods?watch=&timeoutSeconds=1",
    "/api/v1/pods?watch=0",
    "/api/v1/pods?watch=false",
    "/api/v1/pods?watch=False",
    "/api/v1/pods?watch=no",
    "/api/v1/pods?watch=yes&timeoutSeconds=1",
    "/api/v1/pods?Watch=1",
    "/api/v1/pods?watch=1&watch=0&timeoutSeconds=1",
    "/api/v1/pods?wat%63h=1&timeoutSeconds=1",
    "/api/v1/pods?limit=5&continue=x",
    "/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dweb",
    "/api/v1/namespaces/default/pods?fieldSelector=metadata.name=web",
    "/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3D%3Dweb",
    "/api/v1/namespaces/default/pods?fieldSelector=metadata.name!%3Dweb",
    "/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dweb,status.phase%3DRunning",
    "/api/v1/namespaces/default/pods?fieldSelector=status.phase%3DRunning",
    "/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3D",
    "/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Da%2Fb",
    "/api/v1/namespaces/default/pods?fieldSelector=broken",
    "/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dweb&watch=true&timeoutSeconds=1",
    "/api/v1/namespaces/default/pods?labelSelector=a%3Db",
    "/api/v1/namespaces/default/pods?labelSelector=a+in+(b,c)",
    "/api/v1/namespaces/default/pods?labelSelector=!a",
    "/api/v1/namespaces/default/pods?labelSelector=a=b;c=d",
    "/api/v1/namespaces/default/pods?a;b=1",
    "/api/v1/watch/pods?fieldSelector=metadata.name%3Dweb&timeoutSeconds=1",
    "/api/v1/namespaces/default/pods/web?watch=1&timeoutSeconds=1",
    "/api/v1/namespaces/default/pods/web/log?follow=false",
    "/apis/apps/v1/deployments?fieldSelector=metadata.namespace%3Ddefault",
    "/version?timeout=32s",
    "/api/v1/pods?timeoutSeconds=1&watch=1&resourceVersion=0&allowWatchBookmarks=true",
    "/api/v1/pods?%zz=1",
    "/api/v1/pods?watch=%zz",
];
