//! Requests put together by chance out of what has broken servers before, the same ones in every run: whatever a request is taken for, it arrives as the
//! person who sent it or not at all, and never as two.

use std::time::Duration;

use super::super::attack::{Attack, Verdict};
use super::super::judge::Must;
use super::super::scene::Scene;

/// Requests on each route. Over HTTP/2 many end only when Envoy has waited a second.
const ROUNDS: usize = 1500;
const ROUNDS_OF_HTTP2: usize = 300;
/// Many wait for bytes that never come.
const PATIENCE: Duration = Duration::from_millis(700);

const METHODS: [&str; 8] = ["GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "TRACE"];
/// None of these reaches an upstream as the client wrote it.
const TAKEN_OFF: [&str; 10] = [
    "impersonate-user",
    "Impersonate-Group",
    "impersonate_user",
    "IMPERSONATE-EXTRA-a",
    "x-remote-user",
    "X-Forwarded-For",
    "x-envoy-original-path",
    "x-kubepass-scope",
    "audit-id",
    "cookie",
];
const NAMES: [&str; 18] = [
    "connection",
    "Connection",
    "proxy-connection",
    "keep-alive",
    "transfer-encoding",
    "Transfer-Encoding",
    "content-length",
    "Content-Length",
    "content-type",
    "host",
    "authorization",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "sec-websocket-protocol",
    "x-a",
    "x-http-method-override",
];
const SEPARATORS: [&str; 10] = [": ", ": ", ": ", ":", " : ", ":\t", ":\r\n ", ": \u{b}", "\u{0}: ", ""];
const VALUES: [&str; 28] = [
    "system:admin",
    "chunked",
    "chunked, identity",
    "identity",
    "0",
    "2",
    "5",
    "+2",
    "2, 2",
    "999999999999999999999",
    "close",
    "close, impersonate-user",
    "Upgrade",
    "upgrade, authorization",
    "websocket",
    "h2c",
    "{host}",
    "{other}",
    "Bearer smuggled",
    "Basic YTpi",
    "a\rimpersonate-user: system:admin",
    "a\nimpersonate-user: system:admin",
    "a\u{0}b",
    "\u{ff}\u{fe}",
    "",
    " ",
    "trailers",
    "100-continue",
];
/// Not CR alone: Envoy leaves it out, and what was meant for two lines is the value of one.
const ENDS: [&str; 7] = ["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r\r\n"];
const BODIES: [&str; 9] = [
    "",
    "",
    "{}",
    "0\r\n\r\n",
    "2\r\n{}\r\n0\r\n\r\n",
    "2;a=b\n{}\r\n0\r\nimpersonate-user: forged\r\n\r\n",
    "5\r\nGET /\r\n0\r\n\r\n",
    "ffffffffffffffff\r\n{}",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];
/// Judged by itself it is refused.
const NEXT: &str = "GET /api?smuggled HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer smuggled\r\n\r\n";

/// xorshift64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn header(&mut self) -> (&'static str, &'static str) {
        if self.below(3) == 0 { (self.one(&TAKEN_OFF), "forged") } else { (self.one(&NAMES), self.one(&VALUES)) }
    }

    fn http1(&mut self) -> String {
        let mut request = format!("{} {{at}} HTTP/1.1\r\nhost: {{host}}\r\nuser-agent: security/{{mark}}.\r\n", self.one(&METHODS));
        // In its own line: what a client writes into the value of another header is its own affair.
        request.push_str("authorization: Bearer {token}\r\n");
        for _ in 0..=self.below(4) {
            let (name, value) = self.header();
            request.extend([name, self.one(&SEPARATORS), value, self.one(&ENDS)]);
        }
        request.push_str("\r\n");
        request.push_str(self.one(&BODIES));
        if self.below(2) == 0 {
            request.push_str(NEXT);
        }
        request
    }

    fn http2(&mut self) -> Vec<(&'static str, &'static str)> {
        const PSEUDO: [(&str, &str); 8] = [
            (":path", "/api?smuggled"),
            (":authority", "{other}"),
            (":method", "POST"),
            (":scheme", "http"),
            (":status", "200"),
            (":protocol", "websocket"),
            ("", "forged"),
            (":impersonate-user", "forged"),
        ];
        let mut fields = super::super::trial::usual_fields().to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(fields.len() + 1);
            let field = if self.below(6) == 0 { PSEUDO[self.below(PSEUDO.len())] } else { self.header() };
            fields.insert(at, field);
        }
        if self.below(4) == 0 {
            let at = self.below(fields.len());
            fields[at].1 = self.one(&VALUES);
        }
        fields
    }
}

const fn long(name: &'static str, sent: &'static str, run: fn(&Scene) -> Verdict) -> Attack {
    Attack { name, source: "what nobody has thought of", sent, run, long: true }
}

pub(super) const ATTACKS: &[Attack] = &[
    long("random-http1", "heads and bodies put together by chance, over HTTP/1.1", |scene| {
        let (mut trial, mut chance) = (scene.trial("random-http1").patient_for(PATIENCE), Chance(0x2545_f491_4f6c_dd1d));
        for _ in 0..ROUNDS {
            let request = chance.http1();
            trial.raw(&request, Must::Either);
        }
        trial.verdict()
    }),
    long("random-http2", "fields put together by chance, over HTTP/2", |scene| {
        let (mut trial, mut chance) = (scene.trial("random-http2").patient_for(PATIENCE), Chance(0x9e37_79b9_7f4a_7c15));
        for _ in 0..ROUNDS_OF_HTTP2 {
            let fields = chance.http2();
            trial.http2(&fields, Must::Either);
        }
        trial.verdict()
    }),
];
