//! Being somebody else by the API server's own impersonation headers, which kubepass writes.

use super::super::attack::{Attack, Verdict};
use super::super::judge::Must;
use super::super::scene::Scene;

/// Header lines, each its own request.
fn refused(scene: &Scene, name: &'static str, listed: &[&str], lines: &[&str]) -> Verdict {
    let mut trial = scene.trial(name);
    if !listed.is_empty() {
        trial.listed(listed);
    }
    for lines in lines {
        trial.lines(lines, Must::Stop);
    }
    trial.verdict()
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("impersonate-user", "Rancher CVE-2021-36776", "impersonate-user in every case, empty, blank, twice, one's own", |scene| {
        let lines =
            ["impersonate-user: system:serviceaccount:kube-system:default", "impersonate-user: \u{e9}", "impersonate-user:\tsystem:admin"];
        refused(scene, "impersonate-user", &["as-user", "as-oneself", "as-nobody", "as-two-users"], &lines)
    }),
    Attack::new("impersonate-group", "bored-agent GHSA-r5c2-7hp9-v678", "impersonate-group alone, many, as a list", |scene| {
        let lines = ["impersonate-group: system:nodes\r\nimpersonate-user: system:node:node-1", "IMPERSONATE-GROUP: group1"];
        refused(scene, "impersonate-group", &["as-group"], &lines)
    }),
    Attack::new(
        "groups-added-to-ones-own",
        "RHACM CVE-2026-17107",
        "impersonate-group beside the identity that kubepass writes",
        |scene| {
            let lines = ["impersonate-group: group1\r\nimpersonate-group: group2\r\nimpersonate-group: system:masters"];
            refused(scene, "groups-added-to-ones-own", &["as-all"], &lines)
        },
    ),
    Attack::new("impersonate-uid", "lists of headers that lack it", "impersonate-uid in every case", |scene| {
        refused(scene, "impersonate-uid", &["as-uid"], &["IMPERSONATE-UID: 0"])
    }),
    Attack::new("impersonate-extra", "Rancher CVE-2025-54468", "impersonate-extra-*, keys encoded, kubepass's own keys", |scene| {
        let lines = [
            "impersonate-extra-kubepass.dev%2fsession: x",
            "Impersonate-Extra-: x",
            "impersonate-extra-scopes: a\r\nimpersonate-extra-scopes: b",
        ];
        refused(scene, "impersonate-extra", &["as-extra"], &lines)
    }),
    Attack::new("impersonate-anything", "lists of headers go stale", "names that only begin with impersonate-", |scene| {
        refused(scene, "impersonate-anything", &["as-unknown", "as-prefix"], &["impersonate-serviceaccount: kube-system/default"])
    }),
    Attack::new("impersonate-underscore", "oauth2-proxy CVE-2025-64484", "impersonate_user and other names with underscores", |scene| {
        let lines = ["impersonate_extra_a: b", "_impersonate-user: system:admin", "impersonate-user_: system:admin", "x_: y"];
        refused(scene, "impersonate-underscore", &["underscore-"], &lines)
    }),
    Attack::new(
        "impersonate-last-of-many",
        "Envoy CVE-2021-32777",
        "two hundred harmless lines before and after the one that counts",
        |scene| {
            let many = |name: &str| (0..100).map(|index| format!("{name}-{index}: y")).collect::<Vec<_>>().join("\r\n");
            let around = format!("{}\r\nimpersonate-user: system:admin\r\n{}", many("x-a"), many("x-b"));
            let groups = (0..200).map(|index| format!("impersonate-group: g{index}")).collect::<Vec<_>>().join("\r\n");
            refused(scene, "impersonate-last-of-many", &[], &[&around, &groups])
        },
    ),
    Attack::new(
        "impersonate-look-alike",
        "names that some servers fold",
        "names that are not quite impersonate-user: no one's identity",
        |scene| {
            let mut trial = scene.trial("impersonate-look-alike");
            for lines in
                ["ximpersonate-user: system:admin", "impersonateuser: system:admin", "x-impersonate-user: system:admin", "impersonat: x"]
            {
                trial.lines(lines, Must::Either);
            }
            for name in
                ["\u{ef}mpersonate-user", "impersonate-user\u{a0}", "impersonate user", "impersonate-user\u{b}", "\"impersonate-user\""]
            {
                trial.plain(&format!("{name}: system:admin"), Must::Stop);
                trial.http2_lines(&format!("{name}: system:admin"), Must::Stop);
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "impersonate-on-upgrades",
        "Warpgate CVE-2026-63329",
        "the same headers where the request asks for WebSocket or SPDY",
        |scene| {
            let mut trial = scene.trial("impersonate-on-upgrades");
            for lines in
                ["impersonate-user: system:admin", "Impersonate-Group: system:masters", "impersonate-uid: 0", "impersonate-extra-a: b"]
            {
                trial.upgrades(lines, Must::Stop);
                // A body that is announced, and one in chunks.
                trial.upgrades(&format!("{lines}\r\ncontent-length: 0"), Must::Stop);
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "impersonate-in-trailers",
        "RFC 9110, 6.5.1: trailers read as headers",
        "identity behind the body, in HTTP/1.1 chunks and in HTTP/2 fields",
        |scene| {
            let mut trial = scene.trial("impersonate-in-trailers");
            trial.listed(&["trailers"]);
            for name in ["impersonate-user", "authorization", "x-remote-user", "impersonate_user"] {
                let request = "POST {at} HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\nauthorization: Bearer {token}\r\n\
                           transfer-encoding: chunked\r\nte: trailers\r\n\r\n2\r\n{}\r\n0\r\n";
                trial.raw(&format!("{request}{name}: forged\r\n\r\n"), Must::Either);
                for target in trial.targets() {
                    let fields = with_method("POST");
                    trial.frames(target, &fields, Must::Either, move |connection, fields| {
                        let stream = connection.request(fields, false);
                        connection.data(stream, b"{}", false).headers(stream, &[(name.into(), b"forged".to_vec())], true);
                        stream
                    });
                }
            }
            let verdict = trial.verdict();
            in_no_body(scene, verdict, "forged")
        },
    ),
    Attack::new(
        "impersonate-by-query",
        "kubectl --as by other ways",
        "impersonation as query parameters and cookies: arrives as oneself",
        |scene| {
            let mut trial = scene.trial("impersonate-by-query");
            for query in ["impersonate-user=system:admin", "as=system:admin&as-group=system:masters", "Impersonate-User=system%3Aadmin"] {
                let request = format!(
                    "GET {{at}}&{query} HTTP/1.1\r\nhost: {{host}}\r\nuser-agent: security/{{mark}}.\r\nauthorization: Bearer {{token}}\r\n"
                );
                trial.raw(&format!("{request}cookie: impersonate-user=system:admin\r\n\r\n"), Must::AsSelf);
            }
            trial.verdict()
        },
    ),
];

fn with_method(method: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut fields = super::super::trial::usual_fields().to_vec();
    fields[0].1 = method;
    fields
}

/// Nor in what a recorder kept of bodies and trailers.
fn in_no_body(scene: &Scene, verdict: Verdict, word: &str) -> Verdict {
    let kept = scene.recorder.arrived(0).into_iter().chain(scene.ledger.arrived(0));
    let found = kept
        .filter(|arrived| arrived.target.contains("impersonate-in-trailers"))
        .find(|arrived| String::from_utf8_lossy(&arrived.body).contains(word));
    match found {
        Some(arrived) => Verdict::GotThrough(format!("a recorder was sent {:?}", String::from_utf8_lossy(&arrived.body))),
        None => verdict,
    }
}
