//! The installation that the attacks share: two real API servers, one for each method, two recording upstreams in the place of further ones,
//! people who may do anything there by RBAC, so that only kubepass stands in their way, and an identity provider.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::judge::Judge;
use super::recorder::Recorder;
use super::support::cluster::Cluster;
use super::support::false_check::FalseCheck;
use super::support::odd_names::{ODD, ODD_NAME, REFUSED};
use super::support::person::Person;
use super::support::ports::free_port;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::world::{Method, NAMESPACE, PROD_HOST, PUBLIC_HOST, SERVICE_ACCOUNT, STAGING_HOST, World, WorldOptions};
use super::trial::Trial;

pub(super) const RECORDER_HOST: &str = "recorder.k8s.localhost";
pub(super) const LEDGER_HOST: &str = "ledger.k8s.localhost";
/// Of web pages, which the attacks that need them add to the configuration.
pub(super) const WIKI_HOST: &str = "wiki.k8s.localhost";
pub(super) const DOCS_HOST: &str = "docs.k8s.localhost";
/// No Envoy of the suite serves it.
const VAULT_HOST: &str = "vault.k8s.localhost";
/// The service account's token of the route `recorder`.
pub(super) const RECORDER_TOKEN: &str = "the-token-of-the-service-account-that-no-client-may-see";

/// The policy of all routes.
const POLICY: &str = r#"
  - {name: staff, allow: user.email.endsWith("@example.com")}
  - {name: no-secrets, deny: 'k8s.resource == "secrets" && !("sre" in user.groups)', message: "ask the SRE on call"}
  - {name: readers-read, deny: '"readers" in user.groups && !k8s.read_only', message: "you may look"}
"#;

/// Who takes part, by the name at the identity provider: e-mail and groups.
pub(super) const PEOPLE: [(&str, &str, &[&str]); 9] = [
    ("foo", "foo@example.com", &["group1", "group2"]),
    ("bar", "bar@example.com", &["sre"]),
    // May do anything by RBAC, and by policy only look.
    ("rea", "rea@example.com", &["readers"]),
    // Whose sessions end while they are used.
    ("gone", "gone@example.com", &[]),
    ("left", "left@example.com", &[]),
    // Whom no rule lets in.
    ("eve", "eve@evil.example", &[]),
    ("mallory", "mallory@example.com", &["dev"]),
    ("trent", "trent@example.com", &["dev"]),
    ("odd", ODD_NAME, &ODD),
];

/// Envoys elsewhere, each with a certificate in this name. The second alone serves the route `vault`.
pub(super) const NODES: [(&str, &str); 2] =
    [("edge-1", "spiffe://example.com/kubepass/edge-1"), ("edge-2", "spiffe://example.com/kubepass/edge-2")];
/// The services of the control plane, as [`Scene::services`] has their ports.
const SERVICES: [&str; 4] = ["xds", "ext_authz", "access_log", "web"];

/// A route of the installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) route: &'static str,
    pub(super) host: &'static str,
    pub(super) method: Method,
}

pub(super) const PROD: Target = Target { route: "prod", host: PROD_HOST, method: Method::Impersonate };
pub(super) const STAGING: Target = Target { route: "staging", host: STAGING_HOST, method: Method::Jwt };
pub(super) const RECORDER: Target = Target { route: "recorder", host: RECORDER_HOST, method: Method::Impersonate };
pub(super) const LEDGER: Target = Target { route: "ledger", host: LEDGER_HOST, method: Method::Jwt };
/// Real API servers.
pub(super) const CLUSTERS: [Target; 2] = [PROD, STAGING];
/// Upstreams that keep every byte.
pub(super) const RECORDERS: [Target; 2] = [RECORDER, LEDGER];
pub(super) const ALL: [Target; 4] = [PROD, STAGING, RECORDER, LEDGER];

impl Target {
    /// The route of the same kind with the other method.
    pub(super) fn other(self) -> Self {
        match self.route {
            "prod" => STAGING,
            "staging" => PROD,
            "recorder" => LEDGER,
            _ => RECORDER,
        }
    }

    pub(super) fn is_recorder(self) -> bool {
        RECORDERS.contains(&self)
    }
}

/// How a scene differs from the usual one.
#[derive(Clone, Default)]
pub(super) struct Options {
    /// kubepass's environment besides.
    pub(super) server_env: Vec<(String, String)>,
}

pub(super) struct Scene {
    pub(super) world: World,
    pub(super) recorder: Recorder,
    pub(super) ledger: Recorder,
    pub(super) judge: Judge,
    /// Ports of xds, ext_authz, access_log and web, over mutual TLS.
    pub(super) services: [u16; 4],
    /// kubepass's process.
    pub(super) server: u32,
    false_check: Mutex<Option<FalseCheck>>,
    people: Mutex<HashMap<String, Arc<Person>>>,
    tokens: Mutex<HashMap<(String, &'static str), String>>,
    count: AtomicUsize,
}

impl Scene {
    pub(super) fn start(options: Options) -> Self {
        let options = WorldOptions {
            staging: Method::Jwt,
            users: users(),
            policy: POLICY.to_owned(),
            server_env: options.server_env,
            ..WorldOptions::default()
        };
        let mut world = World::prepare(Tools::ensure(), Run::new("security"), options);
        let near = world.authority.server(&["127.0.0.1"]);
        let (recorder, ledger) = (Recorder::start(&near), Recorder::start(&near));
        let pair =
            world.authority.server(&[PUBLIC_HOST, PROD_HOST, STAGING_HOST, RECORDER_HOST, LEDGER_HOST, VAULT_HOST, WIKI_HOST, DOCS_HOST]);
        world.run.write("kubepass/tls.crt", &pair.cert);
        world.secret("tls.key", &pair.key);
        world.secret("recorder-token", RECORDER_TOKEN);
        for host in [RECORDER_HOST, LEDGER_HOST, WIKI_HOST, DOCS_HOST] {
            world.proxy.map(&format!("{host}:443"), world.port);
        }
        let services = [(); 4].map(|()| free_port());
        let near = world.authority.server(&["127.0.0.1"]);
        world.run.write("kubepass/control-plane.crt", &near.cert);
        world.secret("control-plane.key", &near.key);
        world.secret("vault-token", "not-made-yet");
        world.write_config(&config(&world, &recorder, &ledger, services));
        world.permit("prod", &world.prod);
        world.secret("vault-token", &world.prod.create_token(NAMESPACE, SERVICE_ACCOUNT));
        world.start_kubepass();
        world.trust("staging", &world.staging);
        for cluster in [&world.prod, &world.staging] {
            let staff = PEOPLE.iter().filter(|(login, email, _)| email.ends_with("@example.com") && *login != "odd");
            let users: Vec<String> = staff.map(|(_, email, _)| format!("--user={email}")).collect();
            let arguments = ["create", "clusterrolebinding", "everybody", "--clusterrole=cluster-admin"];
            let arguments: Vec<&str> = arguments.into_iter().chain(users.iter().map(String::as_str)).collect();
            cluster.kubectl_admin(&arguments).ok();
        }
        let judge = Judge::new(&world.prod.audit_log(), &world.staging.audit_log(), &recorder, &ledger);
        let server = world.server().id();
        Self {
            world,
            recorder,
            ledger,
            judge,
            services,
            server,
            false_check: Mutex::default(),
            people: Mutex::default(),
            tokens: Mutex::default(),
            count: AtomicUsize::new(0),
        }
    }

    /// A trial of `foo` on all routes.
    pub(super) fn trial(&self, name: &'static str) -> Trial<'_> {
        self.real_check();
        Trial::new(self, name)
    }

    /// A trial with a check in the place of kubepass's, which stays until the next trial without.
    pub(super) fn trial_with_false_check(&self, name: &'static str) -> (Trial<'_>, MutexGuard<'_, Option<FalseCheck>>) {
        // A token is kubepass's own to give.
        for target in ALL {
            self.token("foo", target);
        }
        let mut check = locked(&self.false_check);
        if check.is_none() {
            *check = Some(FalseCheck::instead_of_kubepass(&self.world));
        }
        (Trial::new(self, name), check)
    }

    /// Starts kubepass and its Envoy anew; clusters, sessions and tokens stay.
    pub(super) fn restart_kubepass(&mut self, server_env: Vec<(String, String)>) {
        self.real_check();
        self.world.stop_kubepass(true);
        self.world.set_server_env(server_env);
        self.world.start_kubepass();
        self.server = self.world.server().id();
    }

    fn real_check(&self) {
        if let Some(check) = locked(&self.false_check).take() {
            check.end(&self.world);
        }
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> String {
        config(&self.world, &self.recorder, &self.ledger, self.services)
    }

    pub(super) fn person(&self, login: &str) -> Arc<Person> {
        let mut people = locked(&self.people);
        Arc::clone(people.entry(login.to_owned()).or_insert_with(|| Arc::new(self.world.person(login))))
    }

    /// The person's session token for a route; logs in for the first.
    pub(super) fn token(&self, login: &str, target: Target) -> String {
        let person = self.person(login);
        let mut tokens = locked(&self.tokens);
        let token = tokens.entry((login.to_owned(), target.host)).or_insert_with(|| {
            let token = person.session_token(&self.world.url(target.host));
            self.judge.keep_secret(&token);
            token
        });
        token.clone()
    }

    /// Forgets a person's tokens, so that the next one is asked for.
    pub(super) fn forget(&self, login: &str) {
        locked(&self.tokens).retain(|(of, _), _| of != login);
    }

    pub(super) fn cluster(&self, target: Target) -> &Cluster {
        if target == PROD { &self.world.prod } else { &self.world.staging }
    }

    /// The upstream that keeps what comes over a route.
    pub(super) fn kept(&self, target: Target) -> &Recorder {
        if target == RECORDER { &self.recorder } else { &self.ledger }
    }

    /// A number that no other request of this run has.
    pub(super) fn next(&self) -> usize {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    /// Requests so far.
    pub(super) fn sent(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // An attack that could not be made leaves the scene to the next one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whom the identity provider knows, and what it says of each.
fn users() -> Value {
    let claims = |login: &str, email: &str, groups: &[&str]| {
        (login.to_owned(), json!({"email": email, "email_verified": true, "name": login, "groups": groups}))
    };
    let many = |login: &str, count: usize| {
        let groups: Vec<String> = (0..count).map(|index| format!("team-{index}")).collect();
        claims(login, &format!("{login}@example.com"), &groups.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let named = PEOPLE.iter().chain(REFUSED).map(|(login, email, groups)| claims(login, email, groups));
    Value::Object(named.chain([many("sixty-five", 65), many("three-hundred", 300)]).collect())
}

/// The usual configuration with three routes more, and Envoys elsewhere.
fn config(world: &World, recorder: &Recorder, ledger: &Recorder, services: [u16; 4]) -> String {
    let route = |name: &str, host: &str, server: &str, ca: &str, more: &str| {
        format!(
            "- name: {name}\n  host: {host}\n  kubernetes:\n    server: {server}\n    ca: {{file: {ca}}}\n    {more}\n  policy:{POLICY}"
        )
    };
    let routes = route("recorder", RECORDER_HOST, &recorder.url(), "ca.pem", "impersonate: {token: {file: recorder-token}}")
        + &route("ledger", LEDGER_HOST, &ledger.url(), "ca.pem", "jwt: {audience: ledger-cluster}")
        + &route("vault", VAULT_HOST, &world.prod.url(), "prod-ca.crt", "impersonate: {token: {file: vault-token}}\n  nodes: [edge-2]");
    let addresses: String = SERVICES.iter().zip(services).map(|(name, port)| format!("{name}: {{address: 127.0.0.1:{port}}}, ")).collect();
    let nodes: String = NODES.iter().map(|(name, uri)| format!("- {{name: {name}, identity: {{uri: \"{uri}\"}}}}\n")).collect();
    let control_plane = format!(
        "control_plane: {{{addresses}tls: {{host: 127.0.0.1, certificate: {{chain: {{file: control-plane.crt}}, \
         key: {{file: control-plane.key}}}}, client_ca: {{file: ca.pem}}}}, "
    );
    let text = world.config(POLICY).replace("\naudit:", &format!("\n{routes}audit:"));
    text.replace("control_plane: {", &control_plane).replace("\nidentity_providers:", &format!("\nnodes:\n{nodes}identity_providers:"))
}
