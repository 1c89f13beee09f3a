//! Envoys elsewhere: they reach kubepass over mutual TLS alone, and each has its own part of the configuration.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::support::leash::{self, Process};
use super::support::ports::free_port;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::wait::eventually;
use super::support::world::{Method, POLICY, PROD_HOST, STAGING_HOST, World, WorldOptions};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn gateways_carry_requests_over_mutual_tls_and_have_only_their_own() {
    let options = WorldOptions { staging: Method::Jwt, ..WorldOptions::default() };
    let mut world = World::prepare(Tools::ensure(), Run::new("gateways"), options);
    let other_port = free_port();
    world.write_config(&gateways(&world, other_port));
    world.permit("prod", &world.prod);
    world.start_server(&["serve"]);
    let mut edge = start(&world, "edge-1", "spiffe://example.com/kubepass/edge-1");
    let mut other = start(&world, "edge-2", "edge-2.example.com");
    for (envoy, port) in [(&mut edge, world.port), (&mut other, other_port)] {
        envoy.until("Envoy accepts", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    }
    world.trust("staging", &world.staging);

    // Both methods, the login included, through the first.
    let foo = world.person("foo");
    for host in [PROD_HOST, STAGING_HOST] {
        foo.set_up(&world.url(host)).ok();
        let who: Value = serde_json::from_str(&foo.kubectl(&["--context", host, "auth", "whoami", "-o", "json"]).ok()).unwrap();
        assert_eq!(who["status"]["userInfo"]["username"], "foo@example.com", "{host}");
    }
    let event = world.prod.audit_find("foo's whoami", |event| event["objectRef"]["resource"] == "selfsubjectreviews");
    assert_eq!(event["impersonatedUser"]["username"], "foo@example.com");
    let of = |event: &'static str, node: &'static str| move |line: &Value| line["event"] == event && line["node"] == node;
    world.audit_line("the decision", |line| of("decision", "edge-1")(line) && line["route"] == "prod" && line["outcome"] == "allow");
    world.audit_line("its end", |line| of("completion", "edge-1")(line) && line["route"] == "prod");

    // The second serves its own route, and has nothing of the other's: no host, no cluster, no token.
    world.proxy.map(&format!("{STAGING_HOST}:443"), other_port);
    world.proxy.map(&format!("{PROD_HOST}:443"), other_port);
    eventually("the second serves its route", PATIENCE, || {
        foo.kubectl(&["--context", STAGING_HOST, "auth", "whoami"]).stdout.contains("foo@example.com").then_some(())
    });
    world.audit_line("a decision for the second", |line| of("decision", "edge-2")(line) && line["outcome"] == "allow");
    let before = world.prod.audit_events().len();
    let refused = foo.kubectl(&["--context", PROD_HOST, "auth", "whoami"]);
    assert!(!refused.stdout.contains("foo@example.com"), "{refused:?}");
    let asked = |event: &Value| event["impersonatedUser"]["username"] == "foo@example.com";
    assert!(!world.prod.audit_events()[before..].iter().any(asked), "something reached the API server");
    let has = dump(&world, "edge-1");
    assert!(has.contains("kubernetes:prod@") && has.contains("token:prod@") && has.contains(PROD_HOST));
    let has = dump(&world, "edge-2");
    assert!(has.contains("kubernetes:staging@") && has.contains(STAGING_HOST));
    assert!(!has.contains("kubernetes:prod@") && !has.contains("token:prod@") && !has.contains(PROD_HOST));

    // Taken out of the configuration, it gets nothing any more; the first notices nothing.
    world.write_config(&gateways(&world, other_port).replace("dns: edge-2.example.com", "dns: edge-2-new.example.com"));
    eventually("the second is refused", PATIENCE, || {
        let answer = foo.kubectl(&["--context", STAGING_HOST, "auth", "whoami"]);
        (!answer.stdout.contains("foo@example.com")).then_some(())
    });
    world.proxy.map(&format!("{PROD_HOST}:443"), world.port);
    let who = foo.kubectl(&["--context", PROD_HOST, "auth", "whoami"]).ok();
    assert!(who.contains("foo@example.com") && edge.ended().is_none() && other.ended().is_none());
    world.stop_kubepass(false);
}

/// The installation's configuration with two gateways instead of listeners, and every service on TCP as well.
fn gateways(world: &World, other_port: u16) -> String {
    let server = world.authority.server(&["127.0.0.1"]);
    if !world.run.file("kubepass/control-plane.key").exists() {
        world.secret("control-plane.key", &server.key);
        world.run.write("kubepass/control-plane.crt", &server.cert);
        let ports = [free_port(), free_port(), free_port(), free_port()].map(|port| port.to_string()).join(" ");
        world.run.write("kubepass/ports", ports);
    }
    let ports = std::fs::read_to_string(world.run.file("kubepass/ports")).unwrap();
    let ports: Vec<&str> = ports.split(' ').collect();
    let text = world.config(POLICY);
    let (head, rest) = text.split_once("listeners:\n").unwrap();
    let (listener, rest) = rest.split_once("control_plane: {").unwrap();
    let (sockets, rest) = rest.split_once("}\n").unwrap();
    let indented = listener.replace("- {", "  - {");
    let other = indented.replace(&format!("127.0.0.1:{}", world.port), &format!("127.0.0.1:{other_port}"));
    let services: String = ["xds", "ext_authz", "access_log", "web"]
        .iter()
        .zip(ports)
        .map(|(service, port)| format!("{service}: {{address: 127.0.0.1:{port}}}, "))
        .collect();
    let rest = rest.replace("- name: prod\n", "- name: prod\n  nodes: [edge-1]\n");
    format!(
        "{head}control_plane: {{{sockets}, {services}tls: {{host: 127.0.0.1, certificate: {{chain: {{file: control-plane.crt}}, \
         key: {{file: control-plane.key}}}}, client_ca: {{file: ca.pem}}}}}}\n\
         nodes:\n- {{name: edge-1, identity: {{uri: \"spiffe://example.com/kubepass/edge-1\"}}}}\n\
         - {{name: edge-2, identity: {{dns: edge-2.example.com}}}}\n\
         gateways:\n- name: public\n  selector: {{nodes: [edge-1]}}\n  listeners:\n{indented}\
         - name: other\n  selector: {{nodes: [edge-2]}}\n  login_pages: false\n  listeners:\n{other}{rest}"
    )
}

/// As the operator does on the machine of the Envoy: its files, and what the verb prints.
fn start(world: &World, node: &str, name: &str) -> Process {
    let pair = world.authority.node(&[name]);
    let (tls, run) = (world.run.dir(&format!("{node}-tls")), world.run.dir(&format!("{node}-run")));
    for (file, text) in [("tls.crt", pair.cert.as_str()), ("tls.key", &pair.key), ("ca.crt", world.authority.pem())] {
        std::fs::write(tls.join(file), text).unwrap();
    }
    let args = ["bootstrap", "--node", node, "--tls-dir", tls.to_str().unwrap(), "--run-dir", run.to_str().unwrap()];
    let printed = world.operator(&args).ok();
    assert!(!printed.contains("kubepass/run"), "it knows nothing of kubepass's sockets:\n{printed}");
    let said = printed.lines().find_map(|line| line.strip_prefix("#   envoy --config-path FILE ")).expect("how to start it");
    let file = world.run.write(&format!("{node}.yaml"), &printed);
    let mut command = leash::command(world.tools().envoy());
    command.arg("--config-path").arg(file).args(said.split(' ')).args(["--concurrency", "1", "--log-level", "info"]);
    world.run.start(node, command)
}

/// All that an Envoy has of the configuration.
fn dump(world: &World, node: &str) -> String {
    let socket = world.run.file(&format!("{node}-run/admin.sock"));
    let mut stream = UnixStream::connect(Path::new(&socket)).unwrap();
    stream.write_all(b"GET /config_dump?include_eds HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    text
}
