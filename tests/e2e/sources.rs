//! Where a request came from, with load balancers and proxies before Envoy: true in both audit trails, and nothing that a client can say. Clients,
//! balancers and proxies are addresses of loopback; the balancers and proxies of the second part are real ones.

mod forgeries;
mod hops;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::forgeries::{FORGERIES, Forgery, Listener};
use self::hops::Hops;
use super::live::envoy_stats;
use super::support::person::Person;
use super::support::ports::free_port;
use super::support::raw::{Answer, Connection};
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::wait::eventually;
use super::support::world::{POLICY, PROD_HOST, World, WorldOptions};

/// A client; the load balancer of `Balanced` and `Both`; the proxies of `Proxied` and `Both`.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OTHER_PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

/// The installation with one listener of each kind.
struct Scene {
    world: World,
    /// Of `Balanced`, `Proxied` and `Both`.
    ports: [u16; 3],
    foo: Person,
    token: String,
}

#[test]
fn the_source_of_a_request_is_true_and_cannot_be_forged() {
    let mut scene = Scene::start();
    scene.has_no_findings();
    scene.forgeries();
    scene.real_hops();
    scene.logins();
    scene.changes_are_announced();
    scene.world.stop_kubepass(false);
}

impl Scene {
    fn start() -> Self {
        let mut world = World::prepare(Tools::ensure(), Run::new("sources"), WorldOptions::default());
        let ports = [free_port(), free_port(), free_port()];
        world.write_config(&config(&world, ports, ""));
        world.permit("prod", &world.prod);
        world.permit("staging", &world.staging);
        let admin = ["create", "clusterrolebinding", "foo", "--clusterrole=cluster-admin", "--user=foo@example.com"];
        world.prod.kubectl_admin(&admin).ok();
        world.start_kubepass();
        let foo = world.person("foo");
        foo.set_up(&world.url(PROD_HOST)).ok();
        let token = foo.session_token(&world.url(PROD_HOST));
        Self { world, ports, foo, token }
    }

    /// Of `check-envoy`: who is believed is told by who connects.
    fn has_no_findings(&self) {
        let socket = self.world.run.file("kubepass/run/envoy-admin.sock");
        let said = self.world.operator(&["check-envoy", &format!("unix:{}", socket.display())]);
        assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    }

    fn port(&self, listener: Listener) -> u16 {
        match listener {
            Listener::Plain => self.world.port,
            Listener::Balanced => self.ports[0],
            Listener::Proxied => self.ports[1],
            Listener::Both => self.ports[2],
        }
    }

    /// Sends a request that no other is like.
    fn ask(&self, name: &str, from: Ipv4Addr, before_tls: &[u8], port: u16, lines: &[&str]) -> Option<Answer> {
        let mut connection = Connection::open_from(from, before_tls, port, PROD_HOST, self.world.authority.pem());
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!("GET {} HTTP/1.1\r\nhost: {PROD_HOST}\r\nauthorization: Bearer {}\r\n{lines}\r\n", path(name), self.token);
        connection.send(request.as_bytes()).answer()
    }

    fn forgeries(&self) {
        let mut asked = Vec::new();
        for Forgery { name, listener, from, before_tls, lines, source } in FORGERIES {
            let answer = self.ask(name, *from, &before_tls.bytes(), self.port(*listener), lines);
            asked.push((*name, *source, answer));
        }
        let findings: Vec<String> = asked.into_iter().filter_map(|(name, source, answer)| self.judge(name, source, answer).err()).collect();
        assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
    }

    /// What both trails say of a request that should have come from `source`, or should not have come at all.
    fn judge(&self, name: &str, source: Option<&str>, answer: Option<Answer>) -> Result<(), String> {
        let status = answer.as_ref().map(|answer| answer.status);
        let lines = || self.world.audit_lines().into_iter().filter(|line| line["event"] == "decision" && line["path"] == path(name));
        let events = || {
            let events = self.world.prod.audit_events().into_iter();
            events.filter(|event| event["requestURI"] == path(name) && event["stage"] == "ResponseComplete")
        };
        let (told, logged): (Vec<Value>, Vec<Value>) = match source {
            None => (Vec::new(), Vec::new()),
            Some("127.0.0.1") => (vec![json!("127.0.0.1")], vec![json!(["127.0.0.1"])]),
            // The API server adds Envoy's own address.
            Some(source) => (vec![json!(source)], vec![json!([source, "127.0.0.1"])]),
        };
        let deadline = Instant::now() + Duration::from_secs(3);
        let found = eventually(name, Duration::from_secs(10), || {
            let found: (Vec<Value>, Vec<Value>) =
                (lines().map(|line| line["source_ip"].clone()).collect(), events().map(|event| event["sourceIPs"].clone()).collect());
            (found == (told.clone(), logged.clone()) || Instant::now() > deadline).then_some(found)
        });
        let right = match source {
            Some(_) => status == Some(200),
            None => matches!(status, None | Some(400)),
        };
        if right && found == (told, logged) {
            Ok(())
        } else {
            Err(format!("{name}: status {status:?}, expected {source:?}, found {found:?}"))
        }
    }

    /// A load balancer that speaks the PROXY protocol, and a proxy that appends to `x-forwarded-for`, neither written for this test.
    fn real_hops(&self) {
        let hops = Hops::start(&self.world, self.port(Listener::Balanced), self.port(Listener::Proxied));
        let client = CLIENT.to_string();
        for (name, port) in [("real-v1", hops.v1), ("real-v2", hops.v2), ("real-proxy", hops.proxy)] {
            for (what, lines) in [("plain", &[][..]), ("forged", &["x-forwarded-for: 203.0.113.66", "x-real-ip: 203.0.113.66"])] {
                let name = format!("{name}-{what}");
                let answer = self.ask(&name, CLIENT, b"", port, lines);
                self.judge(&name, Some(&client), answer).unwrap_or_else(|finding| panic!("{finding}"));
            }
            // kubectl and its streams, the same way.
            self.world.proxy.map(&format!("{PROD_HOST}:443"), port);
            let said = self.foo.kubectl(&["exec", "web", "--", "echo", name]).ok();
            assert_eq!(said, format!("{name}\n"));
            let line = self.world.audit_line(name, |line| {
                line["event"] == "decision" && line["path"].as_str().is_some_and(|path| path.contains(name) && path.contains("/exec"))
            });
            assert_eq!(line["source_ip"], "127.0.0.1", "{name}");
        }
        self.world.proxy.map(&format!("{PROD_HOST}:443"), self.world.port);
    }

    /// The web part's own lines; the person's browser and CLI are on loopback, and it is not Envoy's address that is shown.
    fn logins(&self) {
        let lines = self.world.audit_lines();
        let of = |event: &str| lines.iter().filter(|line| line["event"] == event).map(|line| line["source_ip"].clone()).collect::<Vec<_>>();
        for event in ["login", "token_issued"] {
            let sources = of(event);
            assert!(!sources.is_empty() && sources.iter().all(|source| source == "127.0.0.1"), "{event}: {sources:?}");
        }
    }

    /// Who is believed is part of a filter chain: a chain more drains none, another list drains that chain, and the log says so before. Streams
    /// go on either way.
    fn changes_are_announced(&mut self) {
        let mut streams: Vec<_> = [self.world.port, self.port(Listener::Proxied)]
            .into_iter()
            .map(|port| {
                self.world.proxy.map(&format!("{PROD_HOST}:443"), port);
                let echo = ["exec", "-i", "web", "--", "sh", "-c", "while read -r word; do echo got $word; done"];
                let mut exec = self.foo.kubectl_command().start(&echo);
                exec.write(b"first\n");
                exec.wait_text("got first");
                exec
            })
            .collect();
        let announced = |scene: &mut Self| scene.world.server().log().matches("open connections of this listener drain").count();
        let in_place = |scene: &Self| envoy_stats(&scene.world)["listener_manager.listener_in_place_updated"];
        assert_eq!((announced(self), in_place(self)), (0, 0));
        // The plain listener trusts a proxy as well: one more chain.
        self.change("127.0.0.5/32", "Every connected Envoy is told this; no open connection drains.", 1);
        assert_eq!(announced(self), 0);
        self.change("127.0.0.6/32", "Open connections DRAIN on: listener-0 (filter chain https-by-proxies)", 2);
        assert_eq!(announced(self), 1, "{}", self.world.server().tail(20));
        assert!(self.world.server().log().contains("https-by-proxies"));
        for exec in &mut streams {
            exec.write(b"after\n");
            exec.wait_text("got after");
            assert!(exec.is_running());
        }
        self.world.proxy.map(&format!("{PROD_HOST}:443"), self.world.port);
    }

    /// Puts another list of the plain listener's proxies in force, of which `xds diff` says `expected`.
    fn change(&mut self, trusted: &str, expected: &str, in_place: u64) {
        let text = config(&self.world, self.ports, &format!(", trusted_proxies: [{trusted}]"));
        let changed = self.world.run.write("kubepass/changed.yaml", &text);
        let diff = self.world.operator(&["xds", "diff", changed.to_str().unwrap()]).ok();
        assert!(diff.contains(expected), "{diff}");
        self.world.write_config(&text);
        eventually("Envoy has changed its listener", Duration::from_secs(20), || {
            (envoy_stats(&self.world)["listener_manager.listener_in_place_updated"] == in_place).then_some(())
        });
        assert_eq!(envoy_stats(&self.world)["listener_manager.listener_modified"], in_place);
        // It does what it says: this proxy is believed from now on.
        let proxy: Ipv4Addr = trusted.split('/').next().unwrap().parse().unwrap();
        let name = format!("after-change-{in_place}");
        let answer = self.ask(&name, proxy, b"", self.world.port, &["x-forwarded-for: 203.0.113.66, 198.51.100.7"]);
        self.judge(&name, Some("198.51.100.7"), answer).unwrap_or_else(|finding| panic!("{finding}"));
    }
}

/// `plain`: further keys of the first listener.
fn config(world: &World, [balanced, proxied, both]: [u16; 3], plain: &str) -> String {
    let certificates = "certificates: [{chain: {file: tls.crt}, key: {file: tls.key}}]";
    let first = format!("- {{address: 127.0.0.1:{}, {certificates}}}\n", world.port);
    let balancers = format!("proxy_protocol: {{from: [{BALANCER}/32]}}");
    let proxies = format!("trusted_proxies: [{PROXY}/32, {OTHER_PROXY}/32]");
    let listeners = format!(
        "- {{address: 127.0.0.1:{}, {certificates}{plain}}}\n- {{address: 127.0.0.1:{balanced}, {certificates}, {balancers}}}\n\
         - {{address: 127.0.0.1:{proxied}, {certificates}, {proxies}}}\n- {{address: '[::]:{both}', {certificates}, {balancers}, {proxies}}}\n",
        world.port
    );
    let text = world.config(POLICY);
    assert!(text.contains(&first), "{text}");
    text.replace(&first, &listeners)
}

fn path(name: &str) -> String {
    format!("/version?source={name}.")
}
