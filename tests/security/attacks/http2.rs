//! What HTTP/2 can say that HTTP/1.1 cannot: pseudo headers, binary values, blocks in pieces.

use super::super::attack::{Attack, Verdict};
use super::super::judge::Must;
use super::super::scene::Scene;
use super::super::support::raw_http2::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, block};
use super::super::trial::usual_fields;

/// Fields in the place of the usual ones, each its own request.
fn fields(scene: &Scene, name: &'static str, variants: &[(&[(&str, &str)], Must)]) -> Verdict {
    let mut trial = scene.trial(name);
    for (fields, must) in variants {
        trial.http2(fields, *must);
    }
    trial.verdict()
}

/// The usual fields and these behind them.
fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&usual_fields()[..], more].concat()
}

fn replaced<'a>(name: &str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    usual_fields().into_iter().map(|(known, usual)| if known == name { (known, value) } else { (known, usual) }).collect()
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("http2-scheme", "Envoy CVE-2023-35944", "schemes in mixed case, others, none", |scene| {
        let mut trial = scene.trial("http2-scheme");
        for scheme in ["HTTPS", "hTtPs", "http", "HTTP", "ftp", "", "https\u{0}", "https://x", "javascript"] {
            trial.http2(&replaced(":scheme", scheme), Must::Either);
        }
        let none: Vec<_> = usual_fields().into_iter().filter(|(name, _)| *name != ":scheme").collect();
        trial.http2(&none, Must::Either);
        trial.verdict()
    }),
    Attack::new("http2-pseudo-headers-twice", "Envoy CVE-2023-27491", "a second :path, :authority, :method or :scheme", |scene| {
        let usual = usual_fields();
        let twice = |name: &'static str, value: &'static str| [&usual[..4], &[(name, value)], &usual[4..]].concat();
        fields(
            scene,
            "http2-pseudo-headers-twice",
            &[
                (&twice(":path", "/api/v1/namespaces/default/secrets?smuggled"), Must::Stop),
                (&twice(":path", "{at}"), Must::Stop),
                (&twice(":authority", "{other}"), Must::Stop),
                (&twice(":method", "DELETE"), Must::Stop),
                (&twice(":scheme", "http"), Must::Stop),
                (&twice(":status", "200"), Must::Stop),
                (&twice(":impersonate-user", "system:admin"), Must::Stop),
                (&twice(":protocol", "websocket"), Must::Stop),
            ],
        )
    }),
    Attack::new("http2-pseudo-headers-late", "RFC 9113, 8.3", "pseudo headers behind others and in trailers", |scene| {
        let mut trial = scene.trial("http2-pseudo-headers-late");
        let usual = usual_fields();
        for late in [":path", ":authority", ":method"] {
            let (moved, rest): (Vec<_>, Vec<_>) = usual.iter().copied().partition(|(name, _)| *name == late);
            trial.http2(&[rest, moved].concat(), Must::Stop);
        }
        for target in trial.targets() {
            trial.frames(target, &replaced(":method", "POST"), Must::Either, |connection, fields| {
                let stream = connection.request(fields, false);
                let trailers = [(b":path".to_vec(), b"/api?smuggled".to_vec()), (b":authority".to_vec(), b"x".to_vec())];
                connection.headers(stream, &trailers, true);
                stream
            });
        }
        trial.verdict()
    }),
    Attack::new("http2-paths", "opa-envoy CVE-2026-26205", "paths that are none: empty, without slash, absolute, with blanks", |scene| {
        let mut trial =
            scene.trial("http2-paths").never("secrets were asked for", |arrival| arrival.event["objectRef"]["resource"] == "secrets");
        for path in [
            "",
            "*",
            "version",
            "https://{other}/version",
            "//{other}/version",
            "/version HTTP/1.1\r\nimpersonate-user: system:admin\r\nx: ",
            "/version x",
            "/version\u{0}",
            "/version#smuggled",
            "/api/v1/namespaces/default/configmaps/../secrets",
            "?x",
        ] {
            trial.http2(&replaced(":path", path), Must::Either);
        }
        let none: Vec<_> = usual_fields().into_iter().filter(|(name, _)| *name != ":path").collect();
        trial.http2(&none, Must::Stop);
        trial.verdict()
    }),
    Attack::new(
        "http2-names-in-capitals",
        "RFC 9113, 8.2.1",
        "Impersonate-User, Authorization and Host as they are in HTTP/1.1",
        |scene| {
            fields(
                scene,
                "http2-names-in-capitals",
                &[
                    (&with(&[("Impersonate-User", "system:admin")]), Must::Stop),
                    (&with(&[("IMPERSONATE-GROUP", "system:masters")]), Must::Stop),
                    (&with(&[("Authorization", "Bearer x")]), Must::Stop),
                    (&with(&[("X-Remote-User", "forged")]), Must::Stop),
                    (&with(&[("Connection", "impersonate-user")]), Must::Stop),
                ],
            )
        },
    ),
    Attack::new("http2-line-ends", "downgrade to HTTP/1.1", "CR, LF and NUL in names and values", |scene| {
        let mut variants = Vec::new();
        for value in [
            "a\r\nimpersonate-user: system:admin",
            "a\nimpersonate-user: system:admin",
            "a\rimpersonate-user: system:admin",
            "a\u{0}b",
            "a\r\n\r\nGET /api?smuggled HTTP/1.1\r\nhost: x\r\n\r\n",
        ] {
            variants.push((with(&[("x-a", value)]), Must::Stop));
            variants.push((replaced("user-agent", value), Must::Stop));
            variants.push((replaced(":authority", value), Must::Stop));
            variants.push((replaced(":method", value), Must::Stop));
        }
        for name in ["x-a\r\nimpersonate-user", "x-a: b\r\nimpersonate-user", "x-a\u{0}", "x-a\n", " x-a", "x-a ", "x:a", ""] {
            variants.push((with(&[(name, "system:admin")]), Must::Stop));
        }
        let variants: Vec<(&[(&str, &str)], Must)> = variants.iter().map(|(fields, must)| (fields.as_slice(), *must)).collect();
        fields(scene, "http2-line-ends", &variants)
    }),
    Attack::new("http2-blanks-around-values", "Go trims what Envoy keeps", "identity values with blanks and tabs around them", |scene| {
        fields(
            scene,
            "http2-blanks-around-values",
            &[
                (&with(&[("impersonate-user", " ")]), Must::Stop),
                (&with(&[("impersonate-user", "\t")]), Must::Stop),
                (&with(&[("impersonate-user", " system:admin ")]), Must::Stop),
                (&replaced("authorization", " Bearer {token}"), Must::Either),
                (&replaced("authorization", "Bearer {token} "), Must::Either),
            ],
        )
    }),
    Attack::new("http2-headers-in-pieces", "CONTINUATION", "identity split over HEADERS and CONTINUATION frames", |scene| {
        let mut trial = scene.trial("http2-headers-in-pieces");
        for target in trial.targets() {
            trial.frames(target, &usual_fields(), Must::AsSelf, |connection, fields| in_pieces(connection, &block(fields), 7));
            let forged = with(&[("impersonate-user", "system:admin")]);
            trial.frames(target, &forged, Must::Stop, |connection, fields| in_pieces(connection, &block(fields), 7));
            trial.frames(target, &forged, Must::Stop, |connection, fields| {
                let bytes = block(fields);
                in_pieces(connection, &bytes, bytes.len() - 4)
            });
        }
        trial.verdict()
    }),
    Attack::new("http2-lengths-that-differ", "RFC 9113, 8.1.1", "content-length that is not the body's, two of them", |scene| {
        let mut trial = scene.trial("http2-lengths-that-differ");
        for (length, body) in [("2", "{}GET /api?smuggled HTTP/1.1\r\n\r\n"), ("50", "{}"), ("0", "{}"), ("-1", "{}"), ("2, 2", "{}")] {
            let fields = [&replaced(":method", "POST")[..], &[("content-length", length)]].concat();
            for target in trial.targets() {
                trial.frames(target, &fields, Must::Either, move |connection, fields| {
                    let stream = connection.request(fields, false);
                    connection.data(stream, body.as_bytes(), true);
                    stream
                });
            }
        }
        trial.verdict()
    }),
    Attack::new(
        "http2-frames-out-of-order",
        "RFC 9113, 5.1",
        "bodies before heads, heads twice, frames on closed and even streams",
        |scene| {
            let mut trial = scene.trial("http2-frames-out-of-order");
            for target in trial.targets() {
                trial.frames(target, &usual_fields(), Must::Stop, |connection, fields| {
                    let stream = connection.next_stream();
                    connection.frame(DATA, 0, stream, b"GET /api?smuggled HTTP/1.1\r\n\r\n");
                    connection.headers(stream, fields, true);
                    stream
                });
                trial.frames(target, &usual_fields(), Must::Stop, |connection, fields| {
                    connection.headers(2, fields, true);
                    2
                });
                trial.frames(target, &usual_fields(), Must::Stop, |connection, fields| {
                    connection.headers(0, fields, true);
                    1
                });
                trial.frames(target, &usual_fields(), Must::Stop, |connection, fields| {
                    // A block that never ends, and another request in between.
                    connection.frame(HEADERS, END_STREAM, 1, &block(fields));
                    connection.headers(3, fields, true);
                    3
                });
            }
            trial.verdict()
        },
    ),
    Attack::new(
        "http2-cookies-in-pieces",
        "RFC 9113, 8.2.3; Envoy CVE-2026-47774",
        "cookies in many fields, and tokens hidden among them",
        |scene| {
            let mut trial = scene.trial("http2-cookies-in-pieces");
            trial.http2(&with(&[("cookie", "a=forged"), ("cookie", "b=forged"), ("cookie", "__Host-kubepass=forged")]), Must::AsSelf);
            let many: Vec<(&str, &str)> = std::iter::repeat_n(("cookie", "a=forged"), 2000).collect();
            trial.http2(&with(&many), Must::Either);
            trial.verdict()
        },
    ),
];

/// A header block in one HEADERS frame of `first` bytes and CONTINUATION frames of as many.
fn in_pieces(connection: &mut super::super::support::raw_http2::Http2, block: &[u8], first: usize) -> u32 {
    let stream = connection.next_stream();
    let pieces: Vec<&[u8]> = block.chunks(first).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let last = if index + 1 == pieces.len() { END_HEADERS } else { 0 };
        match index {
            0 => connection.frame(HEADERS, END_STREAM | last, stream, piece),
            _ => connection.frame(CONTINUATION, last, stream, piece),
        };
    }
    stream
}
