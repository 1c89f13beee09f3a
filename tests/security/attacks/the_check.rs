//! The check itself fails, or somebody else answers in its place: Envoy alone lets nothing through that has no complete identity.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{BoolValue, Struct, Value};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use rustix::process::Signal;
use serde_json::json;

use super::super::attack::{Attack, Verdict};
use super::super::judge::Must;
use super::super::scene::Scene;
use super::super::support::false_check::FalseCheck;
use super::super::support::processes;
use super::super::trial::{Trial, usual_fields};

/// Plain and over HTTP/2, with a good token and without one, as somebody else, and as an upgrade.
fn all_ways(trial: &mut Trial<'_>, must: Must) {
    trial.plain("accept: */*", must);
    trial.http2(&usual_fields(), must);
    trial.upgrades("", must);
    trial.plain("impersonate-user: system:admin", must);
    trial.raw("GET {at} HTTP/1.1\r\nhost: {host}\r\nuser-agent: security/{mark}.\r\n\r\n", must);
    trial.flush();
}

/// What kubepass would answer for foo.
fn good(scene: &Scene) -> impl Fn(&str) -> CheckResponse + Send + Sync + Clone + use<> {
    let signer = scene.world.signer();
    let mut claims = scene.world.upstream_claims("foo@example.com");
    claims["groups"] = json!(["group1", "group2"]);
    let token = signer.sign(&json!({"alg": "ES256", "typ": "kubepass-upstream+jwt", "kid": signer.kid()}), &claims);
    let count = Arc::new(AtomicUsize::new(0));
    move |target| {
        let id = format!("5b1f3c9e-6a51-4c0e-9c39-{:012}", count.fetch_add(1, Ordering::Relaxed));
        let by_token = target.contains(":staging@") || target.contains(":ledger@");
        let mut metadata = vec![("grant", target)];
        let mut headers = vec![("audit-id", id)];
        match by_token {
            true => headers.push(("x-kubepass-authorization", format!("Bearer {token}"))),
            false => metadata.extend([("user", "foo@example.com"), ("g0", "group1"), ("g1", "group2")]),
        }
        allow(&metadata, &headers)
    }
}

fn allow(metadata: &[(&str, &str)], headers: &[(&str, String)]) -> CheckResponse {
    let fields: HashMap<String, Value> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), Value { kind: Some(Kind::StringValue((*value).to_owned())) })).collect();
    let headers = headers.iter().map(|(name, value)| overwrite(name, value)).collect();
    CheckResponse {
        status: Some(RpcStatus::default()),
        dynamic_metadata: Some(Struct { fields }),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse { headers, ..OkHttpResponse::default() })),
    }
}

#[allow(deprecated, reason = "Envoy 1.40 reads `append`")]
fn overwrite(name: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() };
    HeaderValueOption { header: Some(header), append: Some(BoolValue { value: false }), ..HeaderValueOption::default() }
}

/// Each of these answers lets nothing through; the good one does, once at the end, as foo.
fn answers(scene: &Scene, name: &'static str, bad: Vec<fn(&str, CheckResponse) -> CheckResponse>) -> Verdict {
    let (mut trial, mut check) = scene.trial_with_false_check(name);
    let check = check.as_mut().expect("a false check");
    let good = good(scene);
    for change in bad {
        let good = good.clone();
        check.answer(move |target, _| Ok(change(target, good(target))));
        all_ways(&mut trial, Must::Stop);
    }
    good_at_last(trial, check, good)
}

/// The false check answers as kubepass would: that arrives.
fn good_at_last(mut trial: Trial<'_>, check: &mut FalseCheck, good: impl Fn(&str) -> CheckResponse + Send + Sync + 'static) -> Verdict {
    check.answer(move |target, _| Ok(good(target)));
    trial.plain("accept: */*", Must::AsSelf);
    trial.judged()
}

fn metadata(response: &mut CheckResponse) -> &mut HashMap<String, Value> {
    &mut response.dynamic_metadata.get_or_insert_default().fields
}

fn put(response: &mut CheckResponse, key: &str, value: &str) {
    metadata(response).insert(key.to_owned(), Value { kind: Some(Kind::StringValue(value.to_owned())) });
}

fn with_header(mut response: CheckResponse, name: &str, value: &str) -> CheckResponse {
    if let Some(HttpResponse::OkResponse(ok)) = &mut response.http_response {
        ok.headers.push(overwrite(name, value));
    }
    response
}

/// Without the token, where the route takes one.
fn without_token(mut response: CheckResponse) -> CheckResponse {
    if let Some(HttpResponse::OkResponse(ok)) = &mut response.http_response {
        ok.headers.retain(|option| option.header.as_ref().is_none_or(|header| header.key != "x-kubepass-authorization"));
    }
    response
}

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("check-that-hangs", "fail-open on timeout", "kubepass is stopped under requests: nothing goes on", |scene| {
        let mut trial = scene.trial("check-that-hangs");
        trial.plain("accept: */*", Must::AsSelf);
        trial.flush();
        processes::signal(scene.server, Signal::STOP);
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| all_ways(&mut trial, Must::Stop)));
        processes::signal(scene.server, Signal::CONT);
        stopped.expect("requests could be sent");
        trial.verdict()
    }),
    Attack::new("check-that-is-gone", "Envoy CVE-2023-27488, failure_mode_allow", "nobody listens where checks are answered", |scene| {
        let (mut trial, mut check) = scene.trial_with_false_check("check-that-is-gone");
        let check = check.as_mut().expect("a false check");
        check.gone();
        all_ways(&mut trial, Must::Stop);
        good_at_last(trial, check, good(scene))
    }),
    Attack::new(
        "check-that-talks-nonsense",
        "fail-open on errors",
        "HTTP/1.1, TLS, random bytes, silence and good-bye instead of gRPC",
        |scene| {
            let (mut trial, mut check) = scene.trial_with_false_check("check-that-talks-nonsense");
            let check = check.as_mut().expect("a false check");
            for (bytes, hangs_up) in [
                (&b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..], true),
                (b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", true),
                (b"", true),
                (b"\x16\x03\x01\x02\x00\x01", false),
                // Settings and then a response to a stream that nobody opened.
                (b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x01\x05\x00\x00\x00\x07\x88", false),
            ] {
                check.says(bytes, hangs_up);
                trial.plain("accept: */*", Must::Stop);
                trial.http2(&usual_fields(), Must::Stop);
            }
            for status in [tonic::Code::Ok, tonic::Code::Unavailable, tonic::Code::Internal, tonic::Code::Unknown] {
                check.answer(move |_, _| Err(tonic::Status::new(status, "no answer")));
                all_ways(&mut trial, Must::Stop);
            }
            good_at_last(trial, check, good(scene))
        },
    ),
    Attack::new(
        "check-that-says-nothing",
        "a default CheckResponse allows",
        "empty messages, and those with one part of an answer",
        |scene| {
            answers(
                scene,
                "check-that-says-nothing",
                vec![
                    |_, _| CheckResponse::default(),
                    |_, _| CheckResponse { status: Some(RpcStatus::default()), ..CheckResponse::default() },
                    |_, good| CheckResponse { dynamic_metadata: None, ..good },
                    |_, good| without_token(CheckResponse { http_response: None, dynamic_metadata: None, ..good }),
                    |_, _| allow(&[], &[]),
                ],
            )
        },
    ),
    Attack::new("check-that-contradicts-itself", "status OK with a denied body allows", "allowed and denied in one answer", |scene| {
        answers(
            scene,
            "check-that-contradicts-itself",
            vec![
                |_, _| CheckResponse {
                    status: Some(RpcStatus::default()),
                    http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse::default())),
                    ..CheckResponse::default()
                },
                |_, good| CheckResponse { status: Some(RpcStatus { code: 7, ..RpcStatus::default() }), ..good },
                |_, good| CheckResponse { status: Some(RpcStatus { code: 16, ..RpcStatus::default() }), http_response: None, ..good },
            ],
        )
    }),
    Attack::new(
        "grant-of-another-route",
        "Rancher CVE-2026-44945",
        "a good answer with the grant of another route, of the pages, of none",
        |scene| {
            answers(
                scene,
                "grant-of-another-route",
                vec![
                    |target, mut good| {
                        let other = if target.contains(":prod@") { target.replace(":prod@", ":recorder@") } else { format!("{target}x") };
                        put(&mut good, "grant", &other);
                        good
                    },
                    |_, mut good| {
                        put(&mut good, "grant", "web");
                        good
                    },
                    |_, mut good| {
                        put(&mut good, "grant", "");
                        good
                    },
                    |_, mut good| {
                        metadata(&mut good).remove("grant");
                        good
                    },
                    |target, mut good| {
                        put(&mut good, "grant", target.trim_end_matches(char::is_numeric));
                        good
                    },
                    |target, mut good| {
                        put(&mut good, "grant", &target.to_uppercase());
                        good
                    },
                ],
            )
        },
    ),
    Attack::new(
        "grant-without-a-user",
        "Octelium, Tailscale: forwarded without identity",
        "the right grant with no user, a blank one, none of the token",
        |scene| {
            answers(
                scene,
                "grant-without-a-user",
                vec![
                    |_, mut good| {
                        metadata(&mut good).remove("user");
                        without_token(good)
                    },
                    |_, mut good| {
                        put(&mut good, "user", "");
                        with_header(without_token(good), "x-kubepass-authorization", "")
                    },
                    |_, mut good| {
                        put(&mut good, "user", " ");
                        with_header(without_token(good), "x-kubepass-authorization", "Bearer ")
                    },
                    |_, mut good| {
                        put(&mut good, "user", "foo@example.com ");
                        with_header(without_token(good), "x-kubepass-authorization", "Bearer a b")
                    },
                ],
            )
        },
    ),
    Attack::new("check-that-writes-headers", "mutation rules", "identity and routing headers in the answer itself", |scene| {
        answers(
            scene,
            "check-that-writes-headers",
            vec![
                |_, good| with_header(good, "impersonate-user", "system:admin"),
                |_, good| with_header(good, "authorization", "Bearer forged"),
                |_, good| with_header(good, "host", "forged"),
                |_, good| with_header(good, ":path", "/api?smuggled"),
                |_, good| with_header(good, "x-remote-user", "forged"),
                |_, good| with_header(good, "audit-id", "forged\r\nimpersonate-user: system:admin"),
            ],
        )
    }),
];
