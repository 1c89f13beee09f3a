//! Who someone is, said twice, in the wrong place, with a token for something else or none that kubepass made.

use serde_json::json;

use super::super::attack::{Attack, Verdict};
use super::super::judge::Must;
use super::super::scene::{CLUSTERS, LEDGER, Scene, Target};
use super::super::support::http;
use super::super::support::jwt;
use super::super::trial::Trial;

const HEAD: &str = "HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\n";

/// Whole `authorization` lines in the place of the good one, each refused on every route, plain, on upgrades and over HTTP/2.
fn instead(trial: &mut Trial<'_>, lines: &[String]) {
    for line in lines {
        trial.raw(&format!("GET {{at}} {HEAD}{line}\r\n\r\n"), Must::Stop);
        trial.raw(
            &format!(
                "GET {{exec}} {HEAD}{line}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n\r\n"
            ),
            Must::Stop,
        );
        let fields: Vec<(&str, &str)> = line.split("\r\n").filter_map(|line| line.split_once(": ")).collect();
        let usual = super::super::trial::usual_fields();
        let lower: Vec<(String, &str)> = fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value)).collect();
        let fields: Vec<(&str, &str)> = lower.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        trial.http2(&[&usual[..5], &fields].concat(), Must::Stop);
    }
}

/// Bearer tokens that must open nothing.
fn tokens(scene: &Scene, name: &'static str, tokens: &[String]) -> Verdict {
    let mut trial = scene.trial(name);
    let lines: Vec<String> = tokens.iter().map(|token| format!("authorization: Bearer {token}")).collect();
    instead(&mut trial, &lines);
    trial.verdict()
}

fn lines(scene: &Scene, name: &'static str, listed: &[&str], lines: &[&str]) -> Verdict {
    let mut trial = scene.trial(name);
    if !listed.is_empty() {
        trial.listed(listed);
    }
    instead(&mut trial, &lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
    trial.verdict()
}

/// A route's token with another header, claims or signature.
fn altered(scene: &Scene, target: Target) -> Vec<String> {
    let good = scene.token("foo", target);
    let (header, claims) = (jwt::header(&good), jwt::claims(&good));
    let parts: Vec<&str> = good.split('.').collect();
    let with_algorithm = |algorithm: &str| {
        let mut header = header.clone();
        header["alg"] = json!(algorithm);
        jwt::unsigned(&header, &claims)
    };
    let mut tokens = vec![
        jwt::with_claims(&good, |claims| claims["sub"] = json!("corp:bar")),
        jwt::with_claims(&good, |claims| claims["exp"] = json!(4_102_444_800_u64)),
        format!("{}.", with_algorithm("none")),
        format!("{}.", with_algorithm("None")),
        format!("{}.{}", with_algorithm("none"), parts[2]),
        jwt::with_hmac(b"", &header, &claims),
        jwt::with_hmac(b"kubepass", &header, &claims),
        jwt::with_hmac(scene.world.signer().public_key_pem().as_bytes(), &header, &claims),
        scene.world.signer().sign(&header, &claims),
        format!("{}.{}.{}", parts[0], parts[1], &parts[2][..parts[2].len() - 1]),
        format!("{good}A"),
        format!("{good}."),
        format!("{}.{}", parts[0], parts[1]),
        good.to_ascii_uppercase(),
    ];
    tokens.extend(["..", "a.b.c", "-", "="].map(str::to_owned));
    tokens
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("no-credential", "capsule-proxy CVE-2023-48312", "no authorization, an empty one, an empty token", |scene| {
        lines(
            scene,
            "no-credential",
            &["no-credential", "token-no-scheme"],
            &["authorization: ", "authorization: Bearer", "authorization: Bearer ", "x-a: b"],
        )
    }),
    Attack::new("authorization-twice", "Envoy CVE-2020-25017", "two authorization lines, the good one first or last", |scene| {
        let lines =
            ["authorization: Bearer x\r\nAuthorization: Bearer {token}", "authorization: Bearer {token}\r\nauthorization: Basic YTpi"];
        self::lines(
            scene,
            "authorization-twice",
            &["authorization-again", "authorization-other", "authorization-basic", "token-first-bad"],
            &lines,
        )
    }),
    Attack::new("authorization-list", "Envoy CVE-2026-26308", "Bearer a, Bearer b in one line", |scene| {
        let lines =
            ["authorization: Bearer {token},{token}", "authorization: Bearer {token};x=y", "authorization: Basic YTpi, Bearer {token}"];
        self::lines(scene, "authorization-list", &["token-list"], &lines)
    }),
    Attack::new("authorization-of-other-forms", "RFC 6750, 2.1", "other schemes, blanks, quotes around a good token", |scene| {
        let lines = [
            "authorization: Token {token}",
            "authorization: Basic {token}",
            "authorization: Bearer \"{token}\"",
            "authorization: Bearer {token} x",
            "authorization: Bearer\u{a0}{token}",
            "authorization: Bearer=\"{token}\"",
            "authorization: Negotiate {token}",
        ];
        self::lines(scene, "authorization-of-other-forms", &["token-blanks"], &lines)
    }),
    Attack::new("token-in-query", "RFC 6750, 5.3", "a good token as access_token, token, pomerium_session in the query", |scene| {
        let mut trial = scene.trial("token-in-query");
        trial.listed(&["query-token"]);
        for query in ["access_token={token}", "token={token}", "pomerium_session={token}", "authorization=Bearer%20{token}"] {
            trial.raw(&format!("GET {{at}}&{query} {HEAD}\r\n"), Must::Stop);
        }
        trial.verdict()
    }),
    Attack::new("token-in-cookie", "sessions of browsers on a cluster", "a good token in cookies and other headers", |scene| {
        let lines = [
            "cookie: __Host-kubepass={token}",
            "cookie: __Host-kubepass-session={token}; authorization={token}",
            "x-kubepass-authorization: Bearer {token}",
            "x-authorization: Bearer {token}",
            "x-api-key: {token}",
        ];
        self::lines(scene, "token-in-cookie", &["cookie-token", "proxy-token", "pomerium-header"], &lines)
    }),
    Attack::new(
        "token-in-websocket-protocol",
        "kube-apiserver websocket bearer",
        "base64url.bearer.authorization.k8s.io.* beside and instead",
        |scene| {
            let mut trial = scene.trial("token-in-websocket-protocol");
            trial.listed(&["websocket-bearer"]);
            for target in trial.targets() {
                use base64::Engine as _;
                let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(scene.token("foo", target));
                for protocol in [
                    format!("base64url.bearer.authorization.k8s.io.{token}, v5.channel.k8s.io"),
                    format!("v5.channel.k8s.io,BASE64URL.bearer.authorization.k8s.io.{token}"),
                    format!("\tbase64url.bearer.authorization.k8s.io.{token}"),
                ] {
                    for authorization in ["", "authorization: Bearer {token}\r\n"] {
                        let request = format!(
                            "GET {{exec}} {HEAD}{authorization}connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                         sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-protocol: {protocol}\r\n\r\n"
                        );
                        trial.raw_to(target, Some(target.host), &request, Must::Stop);
                    }
                }
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "token-altered",
        "JWT alg confusion, RFC 8725",
        "alg none, HMAC with public keys, changed claims, cut signatures",
        |scene| {
            let mut trial = scene.trial("token-altered").on(&CLUSTERS);
            for target in CLUSTERS {
                for token in altered(scene, target) {
                    let request = format!("GET {{at}} {HEAD}authorization: Bearer {token}\r\n\r\n");
                    trial.raw_to(target, Some(target.host), &request, Must::Stop);
                }
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "token-of-another-route",
        "Teleport 11.3.10; Rancher CVE-2026-44945",
        "a good token of cluster A used on cluster B",
        |scene| {
            let mut trial = scene.trial("token-of-another-route");
            trial.listed(&["token-of-staging"]);
            instead(&mut trial, &["authorization: Bearer {other token}".to_owned()]);
            trial.verdict()
        },
    ),
    Attack::new(
        "login-token-on-a-route",
        "one kind of token for another",
        "the CLI's login token in the place of a session token",
        |scene| {
            scene.token("foo", CLUSTERS[0]);
            tokens(scene, "login-token-on-a-route", &[scene.person("foo").cached_token("kubepass-login+jwt")])
        },
    ),
    Attack::new(
        "upstream-token-on-a-route",
        "one kind of token for another",
        "the token that kubepass sends to an API server, and one like it",
        |scene| {
            let signer = scene.world.signer();
            let header = json!({"alg": "ES256", "typ": "kubepass-upstream+jwt", "kid": signer.kid()});
            let session_header = json!({"alg": "ES256", "typ": "kubepass-session+jwt", "kid": signer.kid()});
            let mut claims = scene.world.upstream_claims("foo@example.com");
            let like_it = signer.sign(&header, &claims);
            claims["token_use"] = json!("session");
            let mut all = vec![like_it, signer.sign(&session_header, &claims)];
            for host in CLUSTERS.map(|target| target.host) {
                claims["aud"] = json!(host);
                claims["iss"] = json!("kubepass");
                all.push(signer.sign(&session_header, &claims));
            }
            all.push(sent_to_ledger(scene));
            tokens(scene, "upstream-token-on-a-route", &all)
        },
    ),
    Attack::new(
        "token-of-the-identity-provider",
        "one kind of token for another",
        "tokens that the identity provider signed, and a stranger's",
        |scene| {
            let stranger = jwt::Signer::from_pem(&super::super::support::pki::key_pair().0);
            let claims = json!({"iss": scene.world.idp.issuer(), "aud": "kubepass", "sub": "foo", "email": "foo@example.com", "exp": 4_102_444_800_u64});
            let header = json!({"alg": "ES256", "typ": "JWT", "kid": stranger.kid()});
            tokens(scene, "token-of-the-identity-provider", &[stranger.sign(&header, &claims)])
        },
    ),
    Attack::new(
        "pomerium-token",
        "a client that the route does not allow",
        "Bearer Pomerium-TOKEN where the route has no pomerium_cli",
        |scene| {
            lines(
                scene,
                "pomerium-token",
                &["pomerium-bearer"],
                &["authorization: Bearer Pomerium-{token}", "authorization: Pomerium {token}"],
            )
        },
    ),
    Attack::new(
        "session-token-to-the-api-server",
        "the proxy gone around",
        "session, login and upstream tokens of others, straight to the API servers",
        straight,
    ),
];

/// The token that a recorder was sent for foo.
fn sent_to_ledger(scene: &Scene) -> String {
    let mut trial = scene.trial("a-look").on(&[LEDGER]);
    let request = format!("GET {{at}} {HEAD}authorization: Bearer {{token}}\r\n\r\n");
    let mark = trial.raw_to(LEDGER, Some(LEDGER.host), &request, Must::AsSelf).mark;
    let arrived = scene.judge.of(&mark).pop().and_then(|arrival| arrival.kept).expect("the recorder was asked");
    let (_, value) = arrived.headers.iter().find(|(name, _)| name == "authorization").expect("a token");
    String::from_utf8_lossy(value).trim_start_matches("Bearer ").to_owned()
}

/// Whoever stole a token that is not the cluster's brings it to the API server itself, which must know nobody by it.
fn straight(scene: &Scene) -> Verdict {
    let mut findings = Vec::new();
    let login = scene.person("foo").cached_token("kubepass-login+jwt");
    let upstream = sent_to_ledger(scene);
    let mut count = 0;
    for target in CLUSTERS {
        let cluster = scene.cluster(target);
        let client = http::client(&[cluster.ca_pem()]);
        for (name, token) in [
            ("session", scene.token("foo", target)),
            ("other-session", scene.token("foo", target.other())),
            ("login", login.clone()),
            ("of-the-ledger", upstream.clone()),
        ] {
            count += 1;
            scene.next();
            let path = format!("/api/v1/namespaces/straight-{}-{name}/configmaps", target.route);
            let status = client.get(format!("{}{path}", cluster.url())).bearer_auth(&token).send().expect("an answer").status();
            let event = cluster.audit_find(name, |event| event["requestURI"] == path.as_str());
            if !event["user"]["username"].is_null() || status != 401 {
                findings.push(format!("{} took the {name} token: {status} {}", target.route, event["user"]));
            }
        }
    }
    Verdict::of(&findings, format!("401 x{count}"))
}
