//! Clients that waste what they are given: connections, headers, streams, windows, frames. Others are served meanwhile, and memory stays bounded. How
//! long they waited is told, not judged, also where a check took longer than Envoy waits for one: that is a matter of the machine and of what
//! else it does. Each flood lasts 2 seconds, or as many as `KUBEPASS_TEST_FLOODS` says.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::shared::own_world;
use super::support::http;
use super::support::processes::{envoys, resident_kib};
use super::support::raw::Connection;
use super::support::raw_http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Field, HEADERS, Http2, PING, RST_STREAM, SETTINGS, block,
};
use super::support::wait::eventually;
use super::support::world::{Method, PROD_HOST, STAGING_HOST, World, WorldOptions};

const HOSTS: [&str; 2] = [PROD_HOST, STAGING_HOST];
const SECONDS: u64 = 2;
/// Bounds of memory, of builds that are not optimised.
const KUBEPASS_KIB: u64 = 300 << 10;
const ENVOY_KIB: u64 = 700 << 10;
/// Between two requests of somebody who has nothing to do with it.
const PAUSE: Duration = Duration::from_millis(20);
/// What Envoy waits for a check: a refusal after that is one for lack of time.
const CHECK: Duration = Duration::from_secs(1);
/// For a flood's next wave: it is to waste what one client may take, not this machine's processors.
const BREATH: Duration = Duration::from_millis(5);

struct Flood {
    name: &'static str,
    /// Where it was heard of.
    source: &'static str,
    flow: fn(&Ground),
}

/// What a flooder knows: how to get here, and a token of somebody's own.
struct Ground {
    port: u16,
    authority: String,
    tokens: [String; 2],
    checks: PathBuf,
    until: Instant,
}

const FLOODS: &[Flood] = &[
    Flood { name: "headers that do not end", source: "slowloris", flow: slow_headers },
    Flood { name: "bodies that do not end", source: "R-U-Dead-Yet", flow: slow_bodies },
    Flood { name: "streams opened and reset", source: "CVE-2023-44487", flow: rapid_reset },
    Flood { name: "CONTINUATION without an end", source: "CVE-2024-30255, CVE-2024-27919", flow: continuation },
    Flood { name: "windows that stay shut", source: "CVE-2019-9511, CVE-2019-9517", flow: window_stall },
    Flood { name: "pings and settings that nobody reads", source: "CVE-2019-9512, CVE-2019-9515", flow: control_frames },
    Flood { name: "empty frames", source: "CVE-2019-9518", flow: empty_frames },
    Flood {
        name: "cookies in crumbs, and a table that is named again and again",
        source: "CVE-2016-6581, CVE-2026-47774",
        flow: cookie_bomb,
    },
    Flood { name: "checks from a socket that is open to us", source: "a process of kubepass's own user", flow: grpc_flood },
];

#[test]
fn floods_fail_no_request_of_others_and_leave_memory_bounded() {
    let seconds = std::env::var("KUBEPASS_TEST_FLOODS").map_or(SECONDS, |seconds| seconds.parse().expect("a number of seconds"));
    let mut world = own_world("floods", WorldOptions { staging: Method::Jwt, ..WorldOptions::default() });
    for cluster in [&world.prod, &world.staging] {
        let who = ["--user=foo@example.com", "--user=bar@example.com"];
        cluster.kubectl_admin(&["create", "clusterrolebinding", "all", "--clusterrole=cluster-admin", who[0], who[1]]).ok();
    }
    let (foo, bar) = (world.person("foo"), world.person("bar"));
    let tokens = |person: &super::support::person::Person| HOSTS.map(|host| person.session_token(&world.url(host)));
    let (flooder, other) = (tokens(&foo), tokens(&bar));
    let quiet = beside(&world, &other, || std::thread::sleep(Duration::from_secs(seconds)));
    eprintln!("{:<76} {:>6} {:>6} {:>10} {:>10} {:>12} {:>12}", "flood", "served", "late", "p50", "p99", "kubepass MiB", "Envoy MiB");
    tell("(none)", &quiet, &mut world);
    for Flood { name, source, flow } in FLOODS {
        let ground = Ground {
            port: world.port,
            authority: world.authority.pem().to_owned(),
            tokens: flooder.clone(),
            checks: world.run.file("kubepass/run/ext_authz.sock"),
            until: Instant::now() + Duration::from_secs(seconds),
        };
        let times = beside(&world, &other, || flow(&ground));
        let (kubepass, envoy) = tell(&format!("{name} ({source})"), &times, &mut world);
        assert!(kubepass < KUBEPASS_KIB, "{name}: kubepass has {kubepass} KiB");
        assert!(envoy < ENVOY_KIB, "{name}: Envoy has {envoy} KiB");
    }
    assert_eq!(world.metric(&["kubepass_envoy_restarts_total"]).last().unwrap(), "kubepass_envoy_restarts_total 0");
    super::faults::assert_ready(&world);
}

/// Requests of somebody else.
struct Beside {
    /// How long each that was served took, in order.
    times: Vec<Duration>,
    /// How many were refused because their check took too long.
    late: usize,
}

/// What becomes of requests of somebody else while `flood` goes on. None may be refused but for lack of time, and those must be few.
fn beside(world: &World, tokens: &[String; 2], flood: impl FnOnce()) -> Beside {
    let (over, times, failed) = (AtomicBool::new(false), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let late = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (host, token) in HOSTS.iter().zip(tokens) {
            let (over, times, failed, late) = (&over, &times, &failed, &late);
            scope.spawn(move || {
                let client = || {
                    let proxy = reqwest::Proxy::https(world.proxy.url()).expect("the proxy's URL");
                    http::builder(&[world.authority.pem()]).proxy(proxy).build().expect("a client")
                };
                let mut kept = client();
                for number in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    if number % 5 == 0 {
                        kept = client();
                    }
                    let began = Instant::now();
                    let answer = kept.get(format!("https://{host}/api/v1/namespaces/default/pods")).bearer_auth(token).send();
                    match answer.and_then(|answer| Ok((answer.status().as_u16(), answer.text()?))) {
                        Ok((200, _)) => times.lock().unwrap().push(began.elapsed()),
                        Ok((503, text)) if began.elapsed() >= CHECK && text.contains("did not answer the authorization check") => {
                            late.fetch_add(1, Ordering::Relaxed);
                        }
                        other => failed.lock().unwrap().push(format!("{host} after {:?}: {other:?}", began.elapsed())),
                    }
                    std::thread::sleep(PAUSE);
                }
            });
        }
        flood();
        over.store(true, Ordering::Relaxed);
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed.join("\n"));
    let mut times = times.into_inner().unwrap();
    times.sort_unstable();
    let late = late.into_inner();
    assert!(late * 5 < times.len(), "{late} were refused for lack of time, and only {} served", times.len());
    Beside { times, late }
}

fn tell(what: &str, Beside { times, late }: &Beside, world: &mut World) -> (u64, u64) {
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default().as_secs_f64() * 1000.0;
    let kubepass = resident_kib(world.server().id());
    let envoy = envoys(world).into_iter().map(resident_kib).sum::<u64>();
    eprintln!("{what:<76} {:>6} {late:>6} {:>7.1} ms {:>7.1} ms {:>12} {:>12}", times.len(), at(50), at(99), kubepass >> 10, envoy >> 10);
    (kubepass, envoy)
}

impl Ground {
    fn goes_on(&self) -> bool {
        std::thread::sleep(BREATH);
        Instant::now() < self.until
    }

    fn http1(&self) -> Connection {
        Connection::open(self.port, PROD_HOST, &self.authority)
    }

    fn http2(&self) -> Http2 {
        Http2::open(self.port, PROD_HOST, &self.authority)
    }

    fn fields(&self, method: &str, more: &[(&str, &str)]) -> Vec<Field> {
        let authorization = format!("Bearer {}", self.tokens[0]);
        let own = [
            (":method", method),
            (":scheme", "https"),
            (":authority", PROD_HOST),
            (":path", "/api/v1/pods"),
            ("authorization", authorization.as_str()),
        ];
        own.iter().chain(more).map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }
}

fn slow_headers(ground: &Ground) {
    let mut all: Vec<Connection> = (0..300)
        .map(|_| {
            let mut connection = ground.http1();
            connection.send(format!("GET /version HTTP/1.1\r\nhost: {PROD_HOST}\r\n").as_bytes());
            connection
        })
        .collect();
    for number in 0.. {
        for connection in all.iter_mut().skip(number % 10).step_by(10) {
            connection.send(format!("x-{number}: y\r\n").as_bytes());
        }
        if !ground.goes_on() {
            break;
        }
    }
}

fn slow_bodies(ground: &Ground) {
    let head = format!(
        "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: {PROD_HOST}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n{{",
        ground.tokens[0]
    );
    let mut all: Vec<Connection> = (0..60)
        .map(|_| {
            let mut connection = ground.http1();
            connection.send(head.as_bytes());
            connection
        })
        .collect();
    while ground.goes_on() {
        all.iter_mut().for_each(|connection| _ = connection.send(b" "));
    }
}

fn rapid_reset(ground: &Ground) {
    let header = block(&ground.fields("GET", &[]));
    while ground.goes_on() {
        let mut connection = ground.http2();
        // Each is a check for kubepass, whose time is everybody's.
        std::thread::sleep(8 * BREATH);
        for _ in 0..40 {
            let stream = connection.next_stream();
            connection.frame(HEADERS, END_HEADERS | END_STREAM, stream, &header);
            connection.frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        }
    }
}

fn continuation(ground: &Ground) {
    let begin = block(&ground.fields("GET", &[]));
    while ground.goes_on() {
        let mut connection = ground.http2();
        let stream = connection.next_stream();
        connection.frame(HEADERS, 0, stream, &begin);
        for number in 0..400 {
            let field = (format!("x-{number}").into_bytes(), vec![b'y'; 1_000]);
            connection.frame(CONTINUATION, 0, stream, &block(&[field]));
        }
        connection.frame(CONTINUATION, 0, stream, &[]);
    }
}

fn window_stall(ground: &Ground) {
    let header = block(&ground.fields("GET", &[]));
    let mut all = Vec::new();
    while ground.goes_on() {
        if all.len() < 30 {
            let mut connection = ground.http2();
            // Each is a check for kubepass, as above.
            std::thread::sleep(8 * BREATH);
            // The initial window of every stream is 0.
            connection.frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
            for _ in 0..20 {
                let stream = connection.next_stream();
                connection.frame(HEADERS, END_HEADERS | END_STREAM, stream, &header);
            }
            all.push(connection);
        }
    }
}

fn control_frames(ground: &Ground) {
    while ground.goes_on() {
        let mut connection = ground.http2();
        for _ in 0..2_000 {
            connection.frame(PING, 0, 0, &[0; 8]);
            connection.frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
        }
        connection.frame(SETTINGS, ACK, 0, &[]);
    }
}

fn empty_frames(ground: &Ground) {
    let header = block(&ground.fields("POST", &[("content-type", "application/json")]));
    while ground.goes_on() {
        let mut connection = ground.http2();
        let stream = connection.next_stream();
        connection.frame(HEADERS, END_HEADERS, stream, &header);
        for _ in 0..2_000 {
            connection.frame(DATA, 0, stream, &[]);
        }
    }
}

fn cookie_bomb(ground: &Ground) {
    let crumbs: Vec<(&str, &str)> = vec![("cookie", "a=b"); 20_000];
    let many = block(&ground.fields("GET", &crumbs));
    // One entry of 3,900 bytes in the table, and then its number (62) again and again.
    let mut named = block(&ground.fields("GET", &[]));
    named.extend_from_slice(&[0x40, 6]);
    named.extend_from_slice(b"cookie");
    named.extend_from_slice(&[127, 0xbd, 0x1d]);
    named.extend_from_slice(&vec![b'z'; 3_900]);
    named.extend_from_slice(&vec![0x80 | 62; 4_000]);
    let one_line = format!("cookie: {}", "a=b; ".repeat(9_000));
    while ground.goes_on() {
        for header in [&many, &named] {
            let mut connection = ground.http2();
            let stream = connection.next_stream();
            let mut parts = header.chunks(16_000).peekable();
            let first = parts.next().unwrap_or_default();
            let end = |last: bool| if last { END_HEADERS } else { 0 };
            connection.frame(HEADERS, END_STREAM | end(parts.peek().is_none()), stream, first);
            while let Some(part) = parts.next() {
                connection.frame(CONTINUATION, end(parts.peek().is_none()), stream, part);
            }
            assert_ne!(connection.answer(stream).map(|answer| answer.status), Some(200), "more than 60 KiB of headers");
        }
        let request =
            format!("GET /api/v1/pods HTTP/1.1\r\nhost: {PROD_HOST}\r\nauthorization: Bearer {}\r\n{one_line}\r\n\r\n", ground.tokens[0]);
        // 45 KiB fit, and are borne.
        assert_eq!(ground.http1().send(request.as_bytes()).answer().map(|answer| answer.status), Some(200));
    }
}

/// Connections that say nothing, some that speak no HTTP/2, and frames without an end.
fn grpc_flood(ground: &Ground) {
    let open = || UnixStream::connect(&ground.checks);
    let idle: Vec<_> = (0..500).filter_map(|_| open().ok()).collect();
    assert!(idle.len() > 100);
    let path = "/envoy.service.auth.v3.Authorization/Check";
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "x"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let fields: Vec<Field> = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    while ground.goes_on() {
        let Ok(mut socket) = open() else { continue };
        socket.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[]));
        for number in 0..100_u32 {
            let stream = number * 2 + 1;
            bytes.extend(frame(HEADERS, END_HEADERS, stream, &block(&fields)));
            // A message that says that it has 200 KiB, and garbage for the beginning of it.
            let mut message = vec![0, 0, 3, 32, 0];
            message.extend_from_slice(&[0xff; 1_000]);
            bytes.extend(frame(DATA, if number % 2 == 0 { END_STREAM } else { 0 }, stream, &message));
        }
        let _ = socket.write_all(&bytes);
        let _ = open().and_then(|mut junk| junk.write_all(&[0x16; 10_000]));
    }
    drop(idle);
    eventually("a connection is taken again", Duration::from_secs(5), || open().ok().map(drop));
    let _ = TcpStream::connect(("127.0.0.1", ground.port));
}
