//! kubepass's own doors: the control plane that Envoys connect to, the sockets of this machine, the admin interfaces.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use envoy_types::pb::envoy::config::core::v3::HeaderMap;
use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request, TlsSession};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};

use super::super::attack::{Attack, Verdict};
use super::super::judge::Must;
use super::super::rogue_node::{Question, RogueNode};
use super::super::scene::{CLUSTERS, NODES, PROD, Scene};
use super::super::support::logs::{self, Export};
use super::super::support::pki::{Authority, Pair};
use super::super::support::world::PUBLIC_HOST;

/// The vault's token, which the second node alone may have.
fn vault_token(scene: &Scene) -> String {
    std::fs::read_to_string(scene.world.run.file("kubepass/vault-token")).expect("the token").trim().to_owned()
}

fn certificate(scene: &Scene, node: usize) -> Option<Pair> {
    Some(scene.world.authority.node(&[NODES[node].1]))
}

/// Ends of attempts to get the vault's token; it is got by its own node, so that an attempt that fails is not one that was made wrongly.
fn attempts(scene: &Scene, attempts: Vec<(String, RogueNode<'_>, String)>) -> Verdict {
    let vault = vault_token(scene);
    let holds = |told: &[u8]| told.windows(vault.len()).any(|window| window == vault.as_bytes());
    let own = RogueNode::new(scene, certificate(scene, 1));
    let name = token_name(scene, &own);
    for delta in [true, false] {
        let told = own.secrets(&Question { node: "edge-2", delta, names: &[&name] }).expect("the second node's own secrets");
        assert!(holds(&told), "the second node did not get the token of its own route");
    }
    let (mut findings, mut ends) = (Vec::new(), std::collections::BTreeMap::<String, usize>::new());
    let asked = [&[][..], &["*"], &[name.as_str()]];
    // All at once, for each waits for what may not come.
    let told: Vec<(&str, Result<Vec<u8>, String>)> = std::thread::scope(|scope| {
        let asked = &asked;
        let asking: Vec<_> = attempts.iter().map(|attempt| scope.spawn(move || told(attempt, asked))).collect();
        asking.into_iter().flat_map(|one| one.join().expect("an attempt is made")).collect()
    });
    for (what, told) in told {
        let end = match told {
            Ok(told) if holds(&told) => {
                findings.push(format!("{what} got the token of another node's route"));
                "got it".to_owned()
            }
            Ok(_) => "told of its own".to_owned(),
            Err(end) => end.chars().take(40).collect(),
        };
        *ends.entry(end).or_default() += 1;
    }
    let ends: Vec<String> = ends.into_iter().map(|(end, count)| format!("{end} x{count}")).collect();
    Verdict::of(&findings, ends.join(", "))
}

/// What a node is told, whichever way it asks.
fn told<'a>((what, node, id): &'a (String, RogueNode<'_>, String), asked: &[&[&str]]) -> Vec<(&'a str, Result<Vec<u8>, String>)> {
    let questions = [true, false].into_iter().flat_map(|delta| asked.iter().map(move |names| Question { node: id, delta, names }));
    questions.map(|question| (what.as_str(), node.secrets(&question))).collect()
}

/// What the secret is called, by what its own node is told.
fn token_name(scene: &Scene, own: &RogueNode<'_>) -> String {
    let told = own.secrets(&Question { node: "edge-2", delta: true, names: &["*"] }).expect("the second node's secrets");
    let text = String::from_utf8_lossy(&told).into_owned();
    let port = scene.world.prod.port();
    let start = text.find("token:vault@").expect("the name of the vault's token");
    let rest: String = text[start..].chars().take_while(|c| c.is_ascii_graphic()).collect();
    // Its id ends with the server's name.
    let end = rest.find(&format!(":{port}/127.0.0.1")).map(|at| at + format!(":{port}/127.0.0.1").len());
    rest[..end.expect("the id of the vault's route")].to_owned()
}

fn http(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the admin port");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(3))).expect("a timeout");
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new(
        "secrets-of-another-node",
        "a rogue Envoy, node.id is a claim",
        "a node asks for the token of a route that it does not serve",
        |scene| {
            let own_name =
                ["edge-1", "edge-1/replica"].map(|id| ("edge-1".to_owned(), RogueNode::new(scene, certificate(scene, 0)), id.to_owned()));
            attempts(scene, own_name.into())
        },
    ),
    Attack::new(
        "node-that-says-it-is-another",
        "a rogue Envoy, node.id is a claim",
        "a node with its own certificate says that it is the other",
        |scene| {
            let ids = ["edge-2", "edge-2/x", "", "EDGE-2", " edge-2", "edge-1/../edge-2", "*", "edge-1,edge-2"];
            let attempts = ids.map(|id| (format!("edge-1 as {id:?}"), RogueNode::new(scene, certificate(scene, 0)), id.to_owned()));
            self::attempts(scene, attempts.into())
        },
    ),
    Attack::new(
        "certificates-of-others",
        "Envoy CVE-2022-21656, CVE-2025-66220",
        "no certificate, another authority's, a server's, one that is over, look-alikes",
        |scene| {
            let authority = &scene.world.authority;
            let uri = NODES[1].1;
            let stranger = Authority::new("another authority");
            let identities = [
                ("nobody", None),
                ("another authority's", Some(stranger.node(&[uri]))),
                ("a server's", Some(authority.server(&["127.0.0.1"]))),
                ("one that is over", Some(authority.expired_node(&[uri]))),
                ("a user's", Some(authority.client("edge-2", &["system:masters"]))),
                ("a DNS name", Some(authority.node(&["edge-2"]))),
                ("a longer name", Some(authority.node(&[&format!("{uri}/x")]))),
                ("a shorter name", Some(authority.node(&[&uri[..uri.len() - 1]]))),
                ("capitals", Some(authority.node(&[&uri.replace("edge", "EDGE")]))),
                ("an encoded name", Some(authority.node(&[&uri.replace('-', "%2d")]))),
                ("two names", Some(authority.node(&[NODES[0].1, uri]))),
            ];
            let mut attempts: Vec<_> =
                identities.into_iter().map(|(what, pair)| (what.to_owned(), RogueNode::new(scene, pair), "edge-2".to_owned())).collect();
            let mut plain = RogueNode::new(scene, None);
            plain.plain = true;
            attempts.push(("plain bytes".to_owned(), plain, "edge-2".to_owned()));
            self::attempts(scene, attempts)
        },
    ),
    Attack::new(
        "check-asked-by-others",
        "a direct call to ext_authz",
        "checks by strangers, and by a node for a route that it does not serve",
        |scene| {
            let mut trial = scene.trial("check-asked-by-others");
            let token = scene.token("foo", PROD);
            let name = token_name(scene, &RogueNode::new(scene, certificate(scene, 1)));
            let of_vault = name.replacen("token:", "kubernetes:", 1);
            let stranger = Authority::new("another authority");
            for (what, identity, target) in [
                ("a node, for another's route", certificate(scene, 0), of_vault.clone()),
                ("nobody", None, of_vault.replace("vault", "prod")),
                ("a stranger", Some(stranger.node(&[NODES[0].1])), of_vault.replace("vault", "prod")),
            ] {
                let node = RogueNode::new(scene, identity);
                if let Ok(answer) = node.check(question(&target, &token))
                    && answer.status.as_ref().is_none_or(|status| status.code == 0)
                {
                    trial.finding(format!("{what} was answered that it may: {answer:?}"));
                }
            }
            // What is no mistake of the question: a node for a route that it serves.
            let own = RogueNode::new(scene, certificate(scene, 0))
                .check(question(&of_vault.replace("vault", "prod"), &token))
                .expect("an answer");
            assert_eq!(own.status.as_ref().map(|status| status.code), Some(0), "the control: {own:?}");
            trial.verdict()
        },
    ),
    Attack::new(
        "forged-access-log",
        "a direct call to the access log",
        "entries by strangers, and by a node for a route that it does not serve",
        |scene| {
            let stranger = Authority::new("another authority");
            let own_id = format!("planted-own-{}", scene.next());
            let mut planted = Vec::new();
            for (number, (identity, route)) in [
                (certificate(scene, 0), "kubernetes:vault@x"),
                (None, "kubernetes:prod@x"),
                (Some(stranger.node(&[NODES[0].1])), "kubernetes:prod@x"),
                (Some(scene.world.authority.server(&["127.0.0.1"])), "kubernetes:prod@x"),
            ]
            .into_iter()
            .enumerate()
            {
                let id = format!("planted-{number}-{}", scene.next());
                let _ = RogueNode::new(scene, identity).log(entry(&id, route));
                planted.push(id);
            }
            // A node may tell of its own routes, under its name.
            RogueNode::new(scene, certificate(scene, 0)).log(entry(&own_id, "kubernetes:prod@x")).expect("the control");
            let line = scene.world.audit_line("the control", |line| line["request_id"] == own_id.as_str());
            assert_eq!(line["node"], "edge-1", "{line}");
            let lines = scene.world.audit_lines();
            let found: Vec<String> = planted
                .iter()
                .filter(|id| lines.iter().any(|line| line["request_id"] == id.as_str()))
                .map(|id| format!("the trail has a line of {id}"))
                .collect();
            Verdict::of(&found, format!("none of {} lines", planted.len()))
        },
    ),
    Attack::new(
        "sockets-of-this-machine",
        "other users of the machine",
        "kubepass's sockets, opened as another user, and their modes",
        |scene| {
            let folder = scene.world.run.file("kubepass/run");
            let mut findings = Vec::new();
            let modes = std::fs::metadata(&folder).expect("the folder");
            if modes.permissions().mode() & 0o077 != 0 {
                findings.push(format!("the folder of sockets is open to others: {:o}", modes.permissions().mode()));
            }
            let mut count = 0;
            for entry in std::fs::read_dir(&folder).expect("the folder").flatten() {
                count += 1;
                scene.next();
                let path = entry.path();
                if entry.metadata().expect("an entry").uid() != modes.uid() {
                    findings.push(format!("{} has another owner", path.display()));
                }
                if as_another_user(&path) == Some(true) {
                    findings.push(format!("another user could connect to {}", path.display()));
                }
            }
            assert!(count >= 4, "{count} sockets");
            Verdict::of(&findings, format!("{count} sockets are closed to others"))
        },
    ),
    Attack::new("admin-by-rebinding", "DNS rebinding", "metrics and readiness asked for under a foreign name", |scene| {
        let port = scene.world.admin_port;
        let good = http(port, &format!("GET /metrics HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n"));
        assert!(good.contains("kubepass_store_healthy"), "the control: {good}");
        let mut findings = Vec::new();
        for host in [
            "host: evil.example",
            &format!("host: evil.example:{port}"),
            "host: 127.0.0.1.evil.example",
            "host: localhost.evil.example",
            &format!("host: 127.0.0.1:{port}@evil.example"),
            &format!("host: 127.0.0.1:{port}\r\nhost: evil.example"),
            &format!("host: evil.example\r\nhost: 127.0.0.1:{port}"),
            "host:",
            "x-a: b",
            "host: [::1].evil.example",
        ] {
            for path in ["/metrics", "/readyz", "/livez"] {
                scene.next();
                let answer = http(port, &format!("GET {path} HTTP/1.1\r\n{host}\r\nconnection: close\r\n\r\n"));
                if answer.starts_with("HTTP/1.1 200") {
                    findings.push(format!("{path} was answered to {host:?}"));
                }
            }
        }
        Verdict::of(&findings, "421 or 400, nothing told")
    }),
    Attack::new(
        "admin-through-the-edge",
        "Envoy's admin; metrics",
        "admin paths, metrics and gRPC services asked for at every public host",
        |scene| {
            let mut trial = scene.trial("admin-through-the-edge");
            let words = ["kubepass_decisions_total", "\"dynamic_listeners\"", "listener_manager.", "\"configs\"", "grpc-status"];
            for path in [
                "/config_dump?include_eds",
                "/stats/prometheus",
                "/server_info",
                "/quitquitquit",
                "/metrics",
                "/envoy.service.auth.v3.Authorization/Check",
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
                logs::EXPORT,
            ] {
                for method in ["GET", "POST"] {
                    let request = format!(
                        "{method} {path} HTTP/1.1\r\nhost: {PUBLIC_HOST}\r\nuser-agent: security/{{mark}}.\r\ncontent-type: application/grpc\r\n\
                     content-length: 0\r\nte: trailers\r\n\r\n"
                    );
                    let sent = trial.raw_to(PROD, Some(PUBLIC_HOST), &request, Must::Stop);
                    let text = format!("{:?} {}", sent.answer.as_ref().map(|answer| &answer.headers), sent.text());
                    if let Some(word) = words.iter().find(|word| text.contains(**word)) {
                        trial.finding(format!("{path} was answered at the public host: {word}"));
                    }
                }
                // A route's host has no such path of kubepass's own: without a token it is refused.
                for target in CLUSTERS {
                    let request = format!("GET {path} HTTP/1.1\r\nhost: {{host}}\r\nuser-agent: security/{{mark}}.\r\n\r\n");
                    trial.raw_to(target, Some(target.host), &request, Must::Stop);
                }
            }
            trial.verdict()
        },
    ),
];

/// As Envoy asks: a good request of somebody who may.
fn question(target: &str, token: &str) -> CheckRequest {
    let header =
        |key: &str, value: &str| HeaderValue { key: key.to_owned(), raw_value: value.as_bytes().to_vec(), ..HeaderValue::default() };
    let host = if target.contains(":vault@") { "vault.k8s.localhost" } else { PROD.host };
    let headers = vec![
        header(":authority", host),
        header("authorization", &format!("Bearer {token}")),
        header("x-request-id", "5b1f3c9e-6a51-4c0e-9c39-2d3f5f1f7a10"),
    ];
    let http = HttpRequest {
        id: "asked-directly".to_owned(),
        method: "GET".to_owned(),
        path: "/version".to_owned(),
        host: host.to_owned(),
        header_map: Some(HeaderMap { headers }),
        ..HttpRequest::default()
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            request: Some(Request { http: Some(http), ..Request::default() }),
            context_extensions: [("target".to_owned(), target.to_owned())].into(),
            tls_session: Some(TlsSession { sni: host.to_owned() }),
            ..AttributeContext::default()
        }),
    }
}

fn entry(id: &str, route: &str) -> Export {
    logs::export(&[&[("kind", "DownstreamEnd"), ("id", id), ("route", route), ("grant", route), ("status", "200"), ("path", "/planted")]])
}

/// Whether another user of this machine can connect; none where this process may not become one, and only the modes can tell.
fn as_another_user(socket: &std::path::Path) -> Option<bool> {
    use std::os::unix::process::CommandExt as _;
    const NOBODY: u32 = 65_534;
    let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.settimeout(2)\ns.connect(sys.argv[1])\n";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", script]).arg(socket).uid(NOBODY).gid(NOBODY).current_dir("/").stderr(std::process::Stdio::null());
    Some(command.status().ok()?.success())
}
