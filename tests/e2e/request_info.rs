//! `RequestInfo` equals the API server's: some thousands of generated requests go through the whole stack, and what kubepass's audit line
//! says of each is compared with what the API server's own audit event says.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;

use super::shared::own_world;
use super::support::raw::{Answer, Connection};
use super::support::wait::eventually;
use super::support::world::{PROD_HOST, World, WorldOptions};

/// At least this many requests must have been read by both.
const ENOUGH: usize = 2_000;
/// Requests in flight at once.
const LANES: usize = 6;

#[test]
fn kubepass_reads_requests_as_the_api_server_does() {
    let options = WorldOptions { policy: "\n  - {name: all, allow: \"true\"}\n".to_owned(), ..WorldOptions::default() };
    let world = own_world("requests", options);
    let token = world.person("foo").session_token(&world.url(PROD_HOST));
    let requests: Vec<Request> = generate();
    let lanes: Vec<Vec<&Request>> = (0..LANES).map(|lane| requests.iter().skip(lane).step_by(LANES).collect()).collect();
    let answers: HashMap<&str, Option<Answer>> = std::thread::scope(|scope| {
        let lanes: Vec<_> = lanes.into_iter().map(|lane| scope.spawn(|| send_all(&world, &token, lane))).collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("a lane")).collect()
    });
    let ours = ours(&world);
    let theirs = theirs(&world, &ours);
    let mut tally = Tally::default();
    for request in &requests {
        let line = ours.get(&request.id);
        let status = answers.get(request.id.as_str()).and_then(Option::as_ref).map_or(0, |answer| answer.status);
        tally.judge(request, status, line, theirs.get(&request.id).map_or(&[], Vec::as_slice));
    }
    println!("{} requests sent: {tally}", requests.len());
    let shown = &tally.differences[..tally.differences.len().min(60)];
    assert!(tally.differences.is_empty(), "{} differences ({tally}):\n{}", tally.differences.len(), shown.join("\n"));
    assert!(tally.compared >= ENOUGH, "only {} of {} requests were compared", tally.compared, requests.len());
}

/// One request, known on both sides by the user agent with which it is sent.
struct Request {
    id: String,
    method: &'static str,
    path: String,
    must: Must,
}

/// What must become of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Must {
    /// Two parties could read it differently: nothing of it may reach the API server.
    BeRefused,
    /// Read alike by both.
    Pass,
    /// Either, but never anything else.
    Either,
}

#[derive(Default)]
struct Tally {
    compared: usize,
    refused_by_kubepass: usize,
    refused_by_envoy: usize,
    differences: Vec<String>,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { compared, refused_by_kubepass, refused_by_envoy, .. } = self;
        write!(formatter, "{compared} compared, {refused_by_kubepass} refused by kubepass, {refused_by_envoy} refused by Envoy")
    }
}

impl Tally {
    fn judge(&mut self, request: &Request, status: u16, line: Option<&Value>, events: &[Value]) {
        let passed = match (line.map(|line| (line, line["outcome"].as_str())), events) {
            (Some((line, Some("allow"))), [event]) => {
                self.compared += 1;
                self.differences.extend(difference(line, event).map(|what| format!("{request}: {what}")));
                true
            }
            (Some((line, Some("deny"))), []) if line["reason"] == "ambiguous_path" => {
                self.refused_by_kubepass += 1;
                false
            }
            (None, []) if status == 400 => {
                self.refused_by_envoy += 1;
                false
            }
            (line, events) => {
                let line = line.map(|(line, outcome)| format!("{outcome:?} {}", line["reason"]));
                return self.differences.push(format!("{request}: status {status}, kubepass {line:?}, {} events", events.len()));
            }
        };
        if request.must == Must::Pass && !passed || request.must == Must::BeRefused && passed {
            self.differences
                .push(format!("{request}: {}", if passed { "must be refused, but passed" } else { "must pass, but was refused" }));
        }
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.method, self.path)
    }
}

/// One after the other on one connection, for as long as it lasts.
fn send_all<'r>(world: &World, token: &str, requests: Vec<&'r Request>) -> Vec<(&'r str, Option<Answer>)> {
    let open = || Connection::open(world.port, PROD_HOST, world.authority.pem());
    let mut connection = open();
    let mut send = |request: &Request| {
        let authorization = format!("Bearer {token}");
        let mut headers = vec![("host", PROD_HOST), ("authorization", &authorization), ("user-agent", &request.id)];
        let body = if matches!(request.method, "POST" | "PUT" | "PATCH") { "{}" } else { "" };
        if !body.is_empty() {
            headers.extend([("content-type", "application/json"), ("content-length", "2")]);
        }
        connection.request(request.method, &request.path, &headers).send(body.as_bytes());
        let answer = if request.method == "HEAD" { connection.answer_to_head() } else { connection.answer() };
        if answer.as_ref().is_none_or(|answer| answer.header("connection") == Some("close")) {
            connection = open();
        }
        answer
    };
    requests.into_iter().map(|request| (request.id.as_str(), send(request))).collect()
}

/// kubepass's decisions by the id in the user agent.
fn ours(world: &World) -> HashMap<String, Value> {
    let decisions = world.audit_lines().into_iter().filter(|line| line["event"] == "decision");
    decisions.filter_map(|line| Some((id(&line["user_agent"])?, line))).collect()
}

/// The API server's events, without the first of two of one request. It writes a moment after it has answered.
fn theirs(world: &World, ours: &HashMap<String, Value>) -> HashMap<String, Vec<Value>> {
    let read = || {
        let mut events: HashMap<String, Vec<Value>> = HashMap::new();
        for event in world.prod.audit_events().into_iter().filter(|event| event["stage"] != "ResponseStarted") {
            if let Some(id) = id(&event["userAgent"]) {
                events.entry(id).or_default().push(event);
            }
        }
        events
    };
    let allowed = ours.values().filter(|line| line["outcome"] == "allow").count();
    let deadline = std::time::Instant::now() + Duration::from_secs(3);
    eventually("the API server's events", Duration::from_secs(10), || {
        let events = read();
        (events.len() >= allowed || std::time::Instant::now() > deadline).then_some(events)
    })
}

fn id(user_agent: &Value) -> Option<String> {
    user_agent.as_str().filter(|text| text.starts_with("request-")).map(str::to_owned)
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
        ("path", (text(&line["path"]), text(&event["requestURI"]))),
        ("user", (text(&line["upstream_user"]), text(&event["impersonatedUser"]["username"]))),
    ]
    .into();
    let different: Vec<String> = pairs
        .into_iter()
        .filter(|(_, (ours, theirs))| ours != theirs)
        .map(|(field, (ours, theirs))| format!("{field} {ours:?}, API server {theirs:?}"))
        .collect();
    (!different.is_empty()).then(|| different.join("; "))
}

/// Every combination of what a path is made of, odd ones beside them, and some put together by chance (the same in every run).
fn generate() -> Vec<Request> {
    const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let mut list: Vec<(&'static str, String, Must)> = Vec::new();
    for path in regular_paths() {
        list.extend(METHODS.map(|method| (method, path.clone(), Must::Either)));
    }
    for path in ODD {
        list.extend(METHODS.map(|method| (method, (*path).to_owned(), Must::Either)));
    }
    for path in PLAIN {
        list.extend(["GET", "POST", "TRACE", "PROPFIND", "get"].map(|method| (method, (*path).to_owned(), Must::Either)));
        list.push(("GET", (*path).to_owned(), Must::Pass));
    }
    for path in QUERIES {
        list.extend(["GET", "DELETE", "POST"].map(|method| (method, (*path).to_owned(), Must::Either)));
    }
    for path in AMBIGUOUS {
        list.push(("GET", (*path).to_owned(), Must::BeRefused));
        // Of a DELETE's selectors the API server takes no name.
        list.push(("DELETE", (*path).to_owned(), if path.contains("fieldSelector") { Must::Either } else { Must::BeRefused }));
    }
    list.extend(by_chance(600));
    let number = |(index, (method, path, must))| Request { id: format!("request-{index}"), method, path, must };
    list.into_iter().enumerate().map(number).collect()
}

fn regular_paths() -> Vec<String> {
    let mut paths = Vec::new();
    for prefix in ["/api/v1", "/apis/apps/v1", "/apis/rbac.authorization.k8s.io/v1", "/apis/example.com/v1alpha1", "/api/v2"] {
        for scope in ["", "/namespaces/default", "/namespaces/no-such"] {
            paths.extend(RESTS.iter().map(|rest| format!("{prefix}{scope}/{rest}")));
        }
        paths.extend(SCOPES.iter().map(|rest| format!("{prefix}{rest}")));
    }
    paths
}

/// Paths out of the pieces that have caused trouble somewhere, chosen by a generator that gives the same in every run.
fn by_chance(count: usize) -> impl Iterator<Item = (&'static str, String, Must)> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = move |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % u64::try_from(limit).unwrap()).unwrap()
    };
    (0..count).map(move |_| {
        let mut path = ["/api/v1", "/apis/apps/v1", "/api/v1/namespaces/default", "/api", ""][below(5)].to_owned();
        for _ in 0..=below(5) {
            path.push('/');
            path.push_str(PIECES[below(PIECES.len())]);
        }
        if below(4) == 0 {
            path.push_str(["?watch=1&timeoutSeconds=1", "?watch=0", "?fieldSelector=metadata.name%3Dx", "?", "?;"][below(5)]);
        }
        (["GET", "POST", "DELETE", "HEAD"][below(4)], path, Must::Either)
    })
}

const PIECES: &[&str] = &[
    "pods",
    "nodes",
    "namespaces",
    "default",
    "web",
    "proxy",
    "watch",
    "status",
    "finalize",
    "exec",
    "services",
    "log",
    "a.b",
    "..",
    ".",
    "",
    "%2e%2e",
    "%2E",
    "...",
    "%2F",
    "%5c",
    "a;b",
    ";",
    "%3B",
    "%00",
    "%0a",
    "%25",
    "%2525",
    "%",
    "%4",
    "%zz",
    "%C3%A9",
    "%ff",
    "a b",
    "a%20b",
    "a+b",
    "\\",
    "~",
    "*",
    "a:b",
    "api",
    "apis",
    "v1",
    "@",
    "a=b",
    "a,b",
    "#x",
    "a?b",
];

/// Behind `/api/v1` and the like.
const SCOPES: &[&str] = &[
    "",
    "/",
    "/watch",
    "/watch/",
    "/watch/pods",
    "/watch/namespaces/default/pods",
    "/watch/namespaces/default/pods/web",
    "/watch/namespaces",
    "/watch/namespaces/default",
    "/proxy",
    "/proxy/pods/web",
    "/proxy/namespaces/default/pods/web",
    "/proxy/namespaces/default/pods/web/a/b",
    "/namespaces",
    "/namespaces/",
    "/namespaces/default",
    "/namespaces/default/",
    "/namespaces/default/finalize",
    "/namespaces/default/status",
    "/namespaces/default/other",
    "/nodes",
    "/nodes/node-1",
    "/nodes/node-1/status",
];

/// Read alike by everyone.
const PLAIN: &[&str] = &[
    "/",
    "/api",
    "/version",
    "/api/v1/pods",
    "/api/v1/namespaces/default/pods/web",
    "/api/v1/namespaces/default/pods/web/log?tailLines=1",
    "/apis/apps/v1/namespaces/default/deployments/d/scale",
    "/api/v1/pods?watch=true&timeoutSeconds=1",
    "/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dweb&limit=500",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
    "/api/v1/namespaces/default/pods/../pods/web",
    "/api/v1//namespaces///default/pods",
    "/api/v1/namespaces/default/services/https:web:443/proxy/a/b",
];

/// Each could be read in two ways by two parties, or not at all.
const AMBIGUOUS: &[&str] = &[
    "/api/v1/namespaces/default/pods/a%2Fb",
    "/api/v1/namespaces/default/pods/a%2fb",
    "/api/v1/namespaces/default/pods/a%5Cb",
    "/api/v1/namespaces/default/pods/a%25b",
    "/api/v1/namespaces/default/pods/a%252Fb",
    "/api/v1/namespaces/default/pods/%00",
    "/api/v1/namespaces/default/pods/a%0Ab",
    "/api/v1/namespaces/default/pods/a%7Fb",
    "/api/v1/namespaces/default/pods/%ff",
    "/api/v1/namespaces/default/pods/%C3",
    "/api/v1/namespaces/default/pods/%zz",
    "/api/v1/namespaces/default/pods/%4",
    "/api/v1/namespaces/default/pods/\u{e9}",
    "/api/v1/namespaces/default/services/web/proxy/..%2f..%2fsecrets",
    "/api/v1/namespaces/default/services/web/proxy/%2e%2e%2f%2e%2e",
    "/api/v1/pods?watch=1&watch=0&timeoutSeconds=1",
    "/api/v1/pods?watch=0;watch=1",
    "/api/v1/pods?watch=%zz",
    "/api/v1/pods?%zz=1",
    "/api/v1/pods?fieldSelector=metadata.name%3Da&fieldSelector=metadata.name%3Db",
    "/api/v1/pods?fieldSelector=metadata.name%3Da,metadata.name%3Db",
    "/api/v1/watch",
    "/api/v1/proxy",
];

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
