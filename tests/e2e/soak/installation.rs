//! `kubepass-server serve` beside an Envoy of its own, whose link to the control plane can be cut; and what the configuration says now.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::super::objects;
use super::super::serve::{start_envoy, state, until_served};
use super::super::support::leash::Process;
use super::super::support::link::Link;
use super::super::support::mount::Mount;
use super::super::support::person::Person;
use super::super::support::pki::{Authority, Pair};
use super::super::support::run::Run;
use super::super::support::tools::Tools;
use super::super::support::wait::eventually;
use super::super::support::world::{Method, POLICY, PROD_HOST, PUBLIC_HOST, STAGING_HOST, World, WorldOptions};

pub(super) const EXTRA_HOST: &str = "extra.k8s.localhost";
/// Of the route that is an object in `staging`.
pub(super) const OBJECT_HOST: &str = "object.obj.localhost";
/// Where the objects stand.
const SOURCE: &str =
    "cluster_source: {namespace: kubepass, namespaces: [shop, bank], kubeconfig: source.kubeconfig, lease: {duration: 3s}}";

/// By when a change must be in force, on a machine that does other things at the same time.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Installation {
    // It ends before its control plane, so that it does not complain of that.
    pub(super) envoy: Process,
    pub(super) foo: Person,
    pub(super) world: World,
    /// From Envoy to the control plane: xDS alone.
    pub(super) link: Link,
    /// Two ways to the API server of `prod`, each at a port of its own.
    doors: [u16; 2],
    pub(super) mount: Mount,
    pub(super) wanted: Wanted,
    pub(super) object: Object,
}

/// The route that is an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Absent,
    Allowing,
    /// By a rule with the number of this change.
    Denying(usize),
}

/// What the configuration says, besides what it always does.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// The change whose number stands in the message of a rule against services.
    pub(super) denied: Option<usize>,
    pub(super) extra: bool,
    /// By which of the doors the API server of `prod` is reached.
    pub(super) door: usize,
    /// Hours by which the longest stream on `prod` is shorter than a session.
    pub(super) shorter: usize,
    /// Which of two secrets is the first.
    pub(super) next_secret: bool,
}

/// Of a type of resources: the version that Envoy should have, once it has acknowledged it.
pub(super) type Versions = BTreeMap<String, String>;

impl Installation {
    pub(super) fn start() -> Self {
        // An API server ends watches by itself, unless told to wait.
        let flags = vec!["--min-request-timeout=86400".to_owned()];
        let options =
            WorldOptions { staging: Method::Jwt, api_server_flags: flags, top_level: SOURCE.to_owned(), ..WorldOptions::default() };
        let mut world = World::prepare(Tools::ensure(), Run::new("soak"), options);
        world.permit("prod", &world.prod);
        for cluster in [&world.prod, &world.staging] {
            let who = ["--user=foo@example.com", "--user=bar@example.com"];
            cluster.kubectl_admin(&["create", "clusterrolebinding", "all", "--clusterrole=cluster-admin", who[0], who[1]]).ok();
        }
        for host in [EXTRA_HOST, OBJECT_HOST] {
            world.proxy.map(&format!("{host}:443"), world.port);
        }
        objects::install(&world, &world.staging);
        world.secret("secret-2", "the next secret for tests only, as long as the one before it");
        let doors = [0, 1].map(|_| Link::of_ports(world.prod.port()).1);
        let (mount, wanted) = (first_files(&world), Wanted::default());
        world.write_config(&wanted.text(&world, doors));
        world.start_server(&["serve"]);

        let (socket, direct) = (world.run.file("xds-link.sock"), world.run.file("kubepass/run/xds.sock"));
        let link = Link::of_unix_sockets(&socket, &direct);
        let mut envoy = start_envoy(&world, "soak", |bootstrap| {
            let linked = bootstrap.replace(direct.to_str().unwrap(), socket.to_str().unwrap());
            assert_ne!(linked, bootstrap, "the bootstrap names the control plane's socket");
            linked
        });
        until_served(&world, &mut envoy);
        world.trust("staging", &world.staging);
        let foo = world.person("foo");
        for host in [STAGING_HOST, PROD_HOST] {
            foo.set_up(&world.url(host)).ok();
        }
        Self { envoy, foo, world, link, doors, mount, wanted, object: Object::Absent }
    }

    pub(super) fn end(mut self) {
        self.envoy.stop();
        self.world.stop_kubepass(false);
    }

    /// Hosts whose routes are there.
    pub(super) fn hosts(&self) -> Vec<&'static str> {
        let further = [(EXTRA_HOST, self.wanted.extra), (OBJECT_HOST, self.object != Object::Absent)];
        [PROD_HOST, STAGING_HOST].into_iter().chain(further.into_iter().filter(|(_, there)| *there).map(|(host, _)| host)).collect()
    }

    /// Applies the route that is an object, or deletes it.
    pub(super) fn apply_object(&self) {
        let deny = match self.object {
            Object::Absent => {
                self.world.staging.kubectl_admin(&["delete", "routes.kubepass.dev", "-n", "shop", "object"]).ok();
                return;
            }
            Object::Allowing => ("false", "nothing".to_owned()),
            Object::Denying(change) => ("k8s.resource == \"services\"", format!("change {change}")),
        };
        let mut spec = objects::route_spec(&self.world.prod, OBJECT_HOST, "shop", deny.0);
        spec["policy"][1]["message"] = deny.1.into();
        self.world.staging.apply(&objects::object("Route", "shop", "object", &spec).to_string());
    }

    /// Writes the configuration that is wanted.
    pub(super) fn write(&self) {
        self.world.write_config(&self.wanted.text(&self.world, self.doors));
    }

    /// Makes a change of the configuration and waits until kubepass has it in force.
    pub(super) fn configure(&mut self, what: &str, change: impl FnOnce(&mut Self)) {
        let version = || self.world.metric(&["kubepass_config_info{"]);
        let before = version();
        change(self);
        let version = || self.world.metric(&["kubepass_config_info{"]);
        eventually(&format!("{what}: kubepass has it"), PATIENCE, || (version() != before).then_some(()));
    }

    /// As [`Installation::configure`], and Envoy has what this changed: of a type of resources at least.
    pub(super) fn program(&mut self, what: &str, kind: &str, change: impl FnOnce(&mut Self)) {
        let before = self.settled(what);
        self.configure(what, change);
        eventually(&format!("{what}: Envoy has it"), PATIENCE, || self.versions().filter(|now| now.get(kind) != before.get(kind)));
    }

    /// Waits until Envoy has all that it should.
    pub(super) fn settled(&self, what: &str) -> Versions {
        eventually(&format!("{what}: Envoy has everything"), PATIENCE, || self.versions())
    }

    /// None while Envoy is not connected, or lacks something.
    fn versions(&self) -> Option<Versions> {
        let state = state(&self.world);
        let streams = state["xds"]["streams"].as_array().unwrap();
        assert!(streams.len() <= 1, "one Envoy has one stream: {streams:?}");
        let types = streams.first()?["types"].as_object()?;
        let asked = types.iter().filter(|(_, of)| of["requested"] == true);
        let settled = asked.map(|(kind, of)| Some((kind.clone(), of["acknowledged"].as_str().filter(|_| is_settled(of))?.to_owned())));
        settled.collect::<Option<Versions>>().filter(|versions| versions.len() >= 5)
    }

    /// Until the process is ready; Envoy comes back to it by itself.
    pub(super) fn restart(&mut self, kill: bool) {
        self.world.stop_kubepass(kill);
        self.world.start_server(&["serve"]);
    }
}

fn is_settled(of: &Value) -> bool {
    of["wanted"] == of["acknowledged"] && of["refusal"].is_null()
}

impl Wanted {
    fn text(&self, world: &World, doors: [u16; 2]) -> String {
        let rule = |change| format!("  - {{name: no-services, deny: 'k8s.resource == \"services\"', message: \"change {change}\"}}\n");
        let policy = format!("{POLICY}{}", self.denied.map(rule).unwrap_or_default());
        let mut text = world.config(&policy);
        let mut replace = |from: &str, to: &str| {
            assert!(text.contains(from), "{from:?} is not in\n{text}");
            text = text.replace(from, to);
        };
        for name in ["tls.crt", "tls.key", "prod-ca.crt", "prod-token"] {
            replace(&format!("{{file: {name}}}"), &format!("{{file: mount/{name}}}"));
        }
        replace(&world.prod.url(), &format!("https://127.0.0.1:{}", doors[self.door]));
        let host = format!("  host: {PROD_HOST}\n");
        replace(&host, &format!("{host}  max_stream: {}h\n", 11 - self.shorter));
        // Both always count; what one of them signed outlives the change.
        let secrets = if self.next_secret { "{file: secret-2}, {file: secret}" } else { "{file: secret}, {file: secret-2}" };
        replace("secrets: [{file: secret}]", &format!("secrets: [{secrets}]"));
        if self.extra {
            let route = format!(
                "- name: extra\n  host: {EXTRA_HOST}\n  kubernetes:\n    server: {}\n    ca: {{file: mount/prod-ca.crt}}\n    \
                 impersonate: {{token: {{file: mount/prod-token}}}}\n  policy:{POLICY}",
                world.prod.url()
            );
            replace("\naudit:", &format!("\n{route}\naudit:"));
        }
        text
    }
}

fn first_files(world: &World) -> Mount {
    let mut mount = Mount::at(&world.run.dir("kubepass/mount"));
    let read = |name: &str| std::fs::read_to_string(world.run.file(&format!("kubepass/{name}"))).unwrap();
    let Pair { cert, key } = serving(&world.authority);
    mount.put(&[("tls.crt", &cert), ("tls.key", &key), ("prod-ca.crt", &read("prod-ca.crt")), ("prod-token", &read("prod-token"))]);
    mount
}

pub(super) fn serving(authority: &Authority) -> Pair {
    authority.server(&[PUBLIC_HOST, PROD_HOST, STAGING_HOST, EXTRA_HOST, OBJECT_HOST])
}
