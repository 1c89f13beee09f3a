//! Two kubepass over the same objects: both serve Envoys, one writes statuses, and the other takes over.

use serde_json::Value;

use super::super::support::kubectl::Kubectl;
use super::super::support::leash::{self, Process};
use super::super::support::ports::free_port;
use super::super::support::wait::eventually;
use super::super::support::world::{POLICY, server_binary};
use super::{OTHER, PATIENCE, Stage, WEB};

#[test]
fn of_two_one_writes_and_the_other_takes_over() {
    let mut stage = Stage::prepare("replicas");
    stage.world.start_kubepass();
    let first = eventually("the first holds the Lease", PATIENCE, || holder(&stage));
    let second = Second::start(&stage);
    stage.route("shop", "web", WEB, "false");
    stage.until_answers("the first one's Envoy serves it", WEB, None, "/api", 401);
    stage.world.proxy.map(&format!("{WEB}:443"), second.port);
    stage.until_answers("and the second one's", WEB, None, "/api", 401);
    stage.until_says("route", "shop/web", "Programmed=True Programmed");
    assert_eq!(holder(&stage), Some(first.clone()), "the first goes on");
    assert_eq!(second.state()["writes_statuses"], false);
    let managers = || {
        let text = stage.cluster().kubectl_admin(&["get", "route", "-n", "shop", "web", "-o", "json", "--show-managed-fields"]).ok();
        let object: Value = serde_json::from_str(&text).unwrap();
        object["metadata"]["resourceVersion"].clone()
    };
    let version = managers();
    stage.route("shop", "other", OTHER, "false");
    stage.until_says("route", "shop/other", "Accepted=True Accepted");
    assert_eq!(managers(), version, "a status that says the same is not written again");

    stage.world.stop_kubepass(true);
    stage.route("shop", "web", WEB, "nonsense(");
    let message = stage.until_says("route", "shop/web", "Accepted=False Invalid");
    assert!(message.starts_with("Route shop/web: spec.policy[1].deny"), "{message}");
    assert!(holder(&stage).is_some_and(|now| now != first), "another holds the Lease");
    assert_eq!(second.state()["writes_statuses"], true);
    assert_eq!(stage.get(WEB, None, "/api").0, 401, "the last good version");
}

fn holder(stage: &Stage) -> Option<String> {
    let lease = stage.cluster().kubectl_admin(&["get", "lease", "-n", "kubepass", "kubepass", "-o", "jsonpath={.spec.holderIdentity}"]);
    Some(lease.stdout).filter(|holder| lease.code == Some(0) && !holder.is_empty())
}

/// The second kubepass (`serve`) with an Envoy of its own.
struct Second {
    config: String,
    port: u16,
    operator: Kubectl,
    _envoy: Process,
    _server: Process,
}

impl Second {
    fn start(stage: &Stage) -> Self {
        let world = &stage.world;
        let (port, admin_port) = (free_port(), free_port());
        let dir = world.run.file("kubepass/run").display().to_string();
        let text = world.config(POLICY);
        let text = text
            .replace(&dir, &world.run.file("kubepass/run2").display().to_string())
            .replace(&format!("127.0.0.1:{}", world.port), &format!("127.0.0.1:{port}"))
            .replace(&format!("127.0.0.1:{}", world.admin_port), &format!("127.0.0.1:{admin_port}"))
            .replace("kubepass.db", "second.db")
            .replace("audit.jsonl", "second.jsonl");
        let config = world.run.write("kubepass/second.yaml", text).display().to_string();
        let operator = Kubectl::command(&server_binary(), &world.run.dir("operator")).env("KUBEPASS_CONFIG", &config);
        let mut command = leash::command(server_binary());
        command.arg("serve").arg("--config").arg(&config).current_dir(world.run.dir("kubepass"));
        let mut server = world.run.start("kubepass-second", command);
        server.until_log("kubepass runs", PATIENCE);
        let printed = operator.run(&["bootstrap", "--node", "edge-2"]).ok();
        let said = printed.lines().find_map(|line| line.strip_prefix("#   envoy --config-path FILE ")).expect("how to start it");
        let mut command = leash::command(world.tools().envoy());
        command.arg("--config-path").arg(world.run.write("edge-2.yaml", &printed)).args(said.split(' ')).args(["--concurrency", "1"]);
        command.args(["--base-id", "7"]);
        let mut envoy = world.run.start("edge-2", command);
        envoy.until("the second Envoy accepts", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { config, port, operator, _envoy: envoy, _server: server }
    }

    fn state(&self) -> Value {
        let state: Value =
            serde_json::from_str(&self.operator.run(&["state"]).ok()).unwrap_or_else(|error| panic!("{}: {error}", self.config));
        state["cluster_source"].clone()
    }
}
