//! An Envoy that somebody wrote by hand (`envoy/own.yaml`) beside `kubepass-server serve`, and what `check-envoy` says of it, of what kubepass
//! itself configures, and of mistakes; a table shows on the real API server what some mistakes are worth.

use std::time::Duration;

use serde_json::Value;

use super::shared;
use super::support::kubectl::{Output, Running};
use super::support::leash::{self, Process};
use super::support::ports::free_port;
use super::support::raw::{Answer, Connection};
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::wait::eventually;
use super::support::world::{PROD_HOST, PUBLIC_HOST, World, WorldOptions};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn what_kubepass_configures_has_no_findings() {
    let world = shared::world();
    let socket = world.run.file("kubepass/run/envoy-admin.sock");
    let said = check(&world, &format!("unix:{}", socket.display()));
    assert_eq!(said.code, Some(0), "{}", said.stdout);
    // One cluster for each method, and the web pages.
    for name in ["kubernetes:prod@", "kubernetes:staging@", "kubepass-web"] {
        assert!(said.stdout.contains(name), "{}", said.stdout);
    }
}

#[test]
fn a_hand_written_envoy_carries_the_requests() {
    let mut world = World::prepare(Tools::ensure(), Run::new("own-envoy"), WorldOptions::default());
    world.permit("prod", &world.prod);
    world.permit("staging", &world.staging);
    world.start_server(&["serve"]);
    let own = own_yaml(&world);
    let file = world.run.write("own/own.yaml", &own);
    let said = check(&world, file.to_str().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.stdout);
    let envoy = start(&world, "own", &own, world.port);

    let foo = world.person("foo");
    foo.set_up(&world.url(PROD_HOST)).ok();
    let who: Value = serde_json::from_str(&foo.kubectl(&["auth", "whoami", "-o", "json"]).ok()).unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], "foo@example.com");
    let event = world.prod.audit_find("foo's whoami", |event| event["objectRef"]["resource"] == "selfsubjectreviews");
    assert_eq!(event["impersonatedUser"]["username"], "foo@example.com");
    assert_eq!(event["impersonatedUser"]["groups"], serde_json::json!(["group1", "group2", "system:authenticated"]));
    exec(&world, &foo.kubectl_command());
    // Its access log reaches kubepass: how a request went on stands beside the decision.
    world.audit_line("the end of the exec", |line| line["event"] == "completion" && line["phase"] == "end" && line["status"] == 101);
    for open in [&["get", "pods", "-w"][..], &["exec", "-i", "web", "--", "cat"]] {
        is_told_of_again(&world, foo.kubectl_command().start(open));
    }

    let admin = world.run.file("own/run/own.sock");
    let said = check(&world, &format!("unix:{}", admin.display()));
    assert_eq!(said.code, Some(0), "the running one: {}", said.stdout);

    let token = foo.session_token(&world.url(PROD_HOST));
    for mistake in MISTAKES {
        mistake.is_worth(&world, &own, &token);
    }
    drop(envoy);
    world.stop_kubepass(false);
}

/// `exec` through WebSocket and SPDY.
fn exec(world: &World, kubectl: &super::support::kubectl::Kubectl) {
    let admin = world.prod.admin();
    admin.run(&["create", "rolebinding", "foo", "--clusterrole=cluster-admin", "--user=foo@example.com", "-n", "default"]).ok();
    world.prod.run_pod("default", "web");
    for switch in ["true", "false"] {
        let kubectl = kubectl.clone().env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", switch);
        let output = kubectl.run(&["exec", "web", "--", "echo", "hello"]);
        assert_eq!((output.code, output.stdout.as_str()), (Some(0), "hello\n"), "{}", output.stderr);
    }
}

/// What goes on is told of again and again: by that kubepass knows that it still counts.
fn is_told_of_again(world: &World, mut open: Running) {
    let told = || {
        let lines = world.metric(&["kubepass_access_log_entries_total", "still_there"]);
        lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    let before = told();
    eventually("news of what goes on, twice", PATIENCE, || (told() >= before + 2).then_some(()));
    assert!(open.is_running());
    open.stop();
}

/// A mistake, what `check-envoy` calls it, and what somebody gets by it.
struct Mistake {
    what: &'static str,
    code: &'static str,
    plant: fn(&World, &str) -> String,
    /// A request of somebody without a session (`false`) or with one, its headers, and what shows the harm.
    with_session: bool,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    harm: fn(&World, &str, &Answer) -> bool,
}

const GUARD: &str = "        - name: envoy.filters.http.rbac\n";

const MISTAKES: &[Mistake] = &[
    Mistake {
        what: "a second virtual host without a check, to a cluster whose guard is gone: a stranger is kubepass's service account",
        code: "credential-without-guard",
        plant: |_, own| {
            let unchecked = "ExtAuthzPerRoute\n                  disabled: true";
            let own = own.replacen(
                "ExtAuthzPerRoute\n                  check_settings: {context_extensions: {target: \"kubernetes",
                &format!("{unchecked} #"),
                1,
            );
            without(&own, GUARD, "        # 4.")
        },
        with_session: false,
        path: "/api/v1/namespaces/worth-1/pods",
        headers: &[],
        harm: |world, path, _| audited(world, path)["user"]["username"] == "system:serviceaccount:kubepass:kubepass",
    },
    Mistake {
        what: "the same with the guard: it stops the stranger",
        code: "ext-authz-disabled",
        plant: |_, own| {
            let unchecked = "ExtAuthzPerRoute\n                  disabled: true";
            own.replacen(
                "ExtAuthzPerRoute\n                  check_settings: {context_extensions: {target: \"kubernetes",
                &format!("{unchecked} #"),
                1,
            )
        },
        with_session: false,
        path: "/api/v1/namespaces/worth-2/pods",
        headers: &[],
        harm: |world, path, answer| answer.status == 403 && not_audited(world, path),
    },
    Mistake {
        what: "a header of kubepass's own not removed: the audit trail says that the request came from elsewhere",
        code: "early-strip",
        plant: |_, own| own.replace("              - remove_on_match: {key_matcher: {prefix: x-kubepass-, ignore_case: true}}\n", ""),
        with_session: true,
        path: "/api/v1/namespaces/worth-3/pods",
        headers: &[("x-kubepass-source", "198.51.100.7")],
        harm: |world, path, _| {
            world.audit_line(path, |line| line["event"] == "decision" && line["path"] == path)["source_ip"] == "198.51.100.7"
        },
    },
    Mistake {
        what: "cookies kept: those of kubepass's pages reach the API server, and pods behind its proxies",
        code: "credentials-upstream",
        plant: |world, own| {
            let own = own.replace("[{remove: cookie}, ", "[");
            // What reaches the upstream stands in the log of this Envoy.
            let log = world.run.file("own/cookies.log");
            own.replacen(
                "          access_log:\n",
                &format!(
                    "          access_log:\n          - name: file\n            typed_config:\n              \"@type\": \
                     type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog\n              path: {}\n              \
                     log_format: {{text_format_source: {{inline_string: \"%REQ(:PATH)% %REQ(COOKIE)%\\n\"}}}}\n",
                    log.display()
                ),
                1,
            )
        },
        with_session: true,
        path: "/api/v1/namespaces/worth-4/pods",
        headers: &[("cookie", "theirs=secret")],
        harm: |world, path, _| {
            let log = world.run.file("own/cookies.log");
            let wanted = format!("{path} theirs=secret");
            eventually("the cookie is in the log", PATIENCE, || {
                std::fs::read_to_string(&log).unwrap_or_default().contains(&wanted).then_some(())
            });
            true
        },
    },
    Mistake {
        what: "a response header for debugging: whoever is let in gets the service account's token",
        code: "credential-in-answer",
        plant: |_, own| {
            let route = "              - match: {prefix: /}\n                route:\n                  cluster: prod\n";
            let header = "response_headers_to_add: [{header: {key: x-debug, value: \"%REQ(authorization)%\"}}]";
            own.replacen(route, &route.replacen("route:", &format!("{header}\n                route:"), 1), 1)
        },
        with_session: true,
        path: "/api/v1/namespaces/worth-5/pods",
        headers: &[],
        harm: |world, _, answer| {
            let token = std::fs::read_to_string(world.run.file("kubepass/prod-token")).unwrap();
            answer.header("x-debug") == Some(&format!("Bearer {}", token.trim()))
        },
    },
    Mistake {
        what: "trusted proxies without the length of their network, which are everybody: a client says from where it comes",
        code: "trusted-hops",
        plant: |_, own| {
            let chain = "    - transport_socket_connect_timeout: 10s\n";
            let matched = "      filter_chain_match: {source_prefix_ranges: [{address_prefix: 10.1.0.0}]}\n";
            let xff = "original_ip_detection_extensions: [{name: xff, typed_config: {\"@type\": \
                       type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig, \
                       xff_trusted_cidrs: {cidrs: [{address_prefix: 10.1.0.0}]}, skip_xff_append: true}}]";
            let source = "          - name: kubepass.source\n            typed_config:\n              \"@type\": \
                          type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation\n              mutations: \
                          {request_mutations: [{append: {header: {key: x-kubepass-source, value: \
                          \"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]}\n";
            own.replacen(chain, &format!("{chain}{matched}"), 1)
                .replacen("use_remote_address: true", &format!("use_remote_address: false\n          {xff}"), 1)
                .replacen("{prefix: x-forwarded-, ignore_case: true}", "{safe_regex: {regex: x-forwarded-(host|proto|port)}}", 1)
                .replacen("          # 1. kubepass decides.", &format!("{source}          # 1. kubepass decides."), 1)
        },
        with_session: true,
        path: "/api/v1/namespaces/worth-6/pods",
        headers: &[("x-forwarded-for", "198.51.100.7")],
        harm: |world, path, _| {
            world.audit_line(path, |line| line["event"] == "decision" && line["path"] == path)["source_ip"] == "198.51.100.7"
        },
    },
];

impl Mistake {
    fn is_worth(&self, world: &World, own: &str, token: &str) {
        let planted = (self.plant)(world, own);
        assert_ne!(planted, own, "{}: nothing planted", self.what);
        let port = free_port();
        let planted =
            planted.replace(&format!("port_value: {}}}", world.port), &format!("port_value: {port}}}")).replace("/own.sock", "/other.sock");
        let file = world.run.write("own/planted.yaml", &planted);
        let said = check(world, file.to_str().unwrap());
        assert!(
            said.code == Some(1) && said.stdout.contains(&format!(" {} at ", self.code)),
            "{}: {}{}",
            self.what,
            said.stdout,
            said.stderr
        );
        let _envoy = start(world, "planted", &planted, port);
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("host", PROD_HOST)];
        headers.extend(self.headers);
        if self.with_session {
            headers.push(("authorization", &bearer));
        }
        let answer =
            Connection::open(port, PROD_HOST, world.authority.pem()).request("GET", self.path, &headers).answer().expect("an answer");
        assert!((self.harm)(world, self.path, &answer), "{}: {answer:?}", self.what);
    }
}

fn audited(world: &World, path: &str) -> Value {
    world.prod.audit_find(path, |event| event["requestURI"] == path)
}

fn not_audited(world: &World, path: &str) -> bool {
    !world.prod.audit_events().iter().any(|event| event["requestURI"] == path)
}

/// The text without what stands between two marks.
fn without(text: &str, from: &str, to: &str) -> String {
    let start = text.find(from).expect("the beginning of what goes");
    let end = start + text[start..].find(to).expect("its end");
    format!("{}{}", &text[..start], &text[end..])
}

/// The example, with the names and places of this installation.
fn own_yaml(world: &World) -> String {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/envoy/own.yaml")).unwrap();
    let token = std::fs::read_to_string(world.run.file("kubepass/prod-token")).unwrap();
    let pair = world.authority.server(&[PUBLIC_HOST, PROD_HOST]);
    let secret = format!(
        "resources:\n- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n  name: prod-token\n  \
         generic_secret: {{secret: {{inline_string: \"{}\"}}}}\n",
        token.trim()
    );
    for (name, content) in
        [("tls.crt", pair.cert.as_str()), ("tls.key", &pair.key), ("prod-ca.crt", world.prod.ca_pem()), ("prod-token.yaml", &secret)]
    {
        world.run.write(&format!("own/{name}"), content);
    }
    let (files, sockets) = (world.run.dir("own"), world.run.file("kubepass/run"));
    let admin = world.run.dir("own/run").join("own.sock");
    text.replace("/run/kubepass/envoy-own-admin.sock", admin.to_str().unwrap())
        .replace("/run/kubepass", sockets.to_str().unwrap())
        .replace("/etc/envoy", files.to_str().unwrap())
        .replace("pass.example.com", PUBLIC_HOST)
        .replace("prod.k8s.example.com", PROD_HOST)
        .replace("address: 0.0.0.0, port_value: 443}", &format!("address: 127.0.0.1, port_value: {}}}", world.port))
        .replace("10.0.0.1:6443/10.0.0.1", &format!("127.0.0.1:{}/127.0.0.1", world.prod.port()))
        .replace("address: 10.0.0.1, port_value: 6443", &format!("address: 127.0.0.1, port_value: {}", world.prod.port()))
        .replace("exact: 10.0.0.1}", "exact: 127.0.0.1}")
        .replace("access_log_flush_interval: 300s", "access_log_flush_interval: 1s")
}

fn start(world: &World, name: &str, config: &str, port: u16) -> Process {
    let file = world.run.write(&format!("own/{name}-started.yaml"), config);
    let mut command = leash::command(world.tools().envoy());
    command.arg("--config-path").arg(file).args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "info"]);
    let mut envoy = world.run.start(name, command);
    envoy.until("Envoy accepts", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    envoy
}

fn check(world: &World, source: &str) -> Output {
    world.operator(&["check-envoy", source])
}
