//! The signed-JWT method under attack and through its changes: an API server takes kubepass's tokens for its own cluster and nothing else, and
//! nobody gets anything past kubepass beside its token. Each verdict is the API server's own: its answer, and what its audit log says.

mod authz;
mod checks;
mod direct;
mod keys;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::{Value, json};

use super::support::cluster::Cluster;
use super::support::http;
use super::support::https::Server;
use super::support::jwt::Signer;
use super::support::raw::Connection;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::world::{Method, POLICY, PROD_HOST, PUBLIC_HOST, STAGING_AUDIENCE, STAGING_HOST, World, WorldOptions};

/// Routes whose "API server" only keeps what it is sent: one with an audience of its own, one with that of `staging`.
const OTHER_HOST: &str = "other.k8s.localhost";
const OTHER_AUDIENCE: &str = "other-cluster";
const TWIN_HOST: &str = "twin.k8s.localhost";
/// A web page, whose upstream keeps what it is sent as well.
const WIKI_HOST: &str = "wiki.localhost";

/// An installation with two clusters, and two servers in the place of further ones. On `staging`, foo may do anything, impersonation included.
struct Installation {
    world: World,
    other: Server,
    twin: Server,
    wiki: Server,
}

/// Shared by the tests that leave it as it was.
fn installation() -> MutexGuard<'static, Installation> {
    static INSTALLATION: OnceLock<Mutex<Installation>> = OnceLock::new();
    let installation = INSTALLATION.get_or_init(|| Mutex::new(Installation::start("jwt", World::trust)));
    installation.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Installation {
    fn start(name: &str, trust: fn(&World, &str, &Cluster)) -> Self {
        let options = WorldOptions { staging: Method::Jwt, ..WorldOptions::default() };
        let mut world = World::prepare(Tools::ensure(), Run::new(name), options);
        let pair = world.authority.server(&[PUBLIC_HOST, PROD_HOST, STAGING_HOST, OTHER_HOST, TWIN_HOST, WIKI_HOST]);
        world.run.write("kubepass/tls.crt", &pair.cert);
        world.secret("tls.key", &pair.key);
        for host in [OTHER_HOST, TWIN_HOST, WIKI_HOST] {
            world.proxy.map(&format!("{host}:443"), world.port);
        }
        let near = world.authority.server(&["127.0.0.1"]);
        let [other, twin, wiki] = [(); 3].map(|()| Server::that_keeps_requests(&near));
        world.write_config(&config(&world, &other, &twin, &wiki));
        world.permit("prod", &world.prod);
        world.start_kubepass();
        trust(&world, "staging", &world.staging);
        world.staging.kubectl_admin(&["create", "clusterrolebinding", "foo", "--clusterrole=cluster-admin", "--user=foo@example.com"]).ok();
        Self { world, other, twin, wiki }
    }

    /// Brings a token straight to the API server of `staging`. `name` tells the request from others in its audit log. Returns the status and
    /// the event.
    fn straight(&self, name: &str, token: &str) -> (u16, Value) {
        let (cluster, path) = (&self.world.staging, format!("/api/v1/namespaces/{name}/configmaps"));
        let answer = http::client(&[cluster.ca_pem()]).get(format!("{}{path}", cluster.url())).bearer_auth(token).send().unwrap();
        (answer.status().as_u16(), cluster.audit_find(name, |event| event["requestURI"] == path.as_str()))
    }

    /// The token that kubepass sends to one of the servers for a person.
    fn sent_to(&self, server: &Server, host: &str, session_token: &str) -> String {
        let authorization = format!("Bearer {session_token}");
        let mut connection = Connection::open(self.world.port, host, self.world.authority.pem());
        let answer =
            connection.request("GET", "/version", &[("host", host), ("authorization", &authorization)]).answer().expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let asked = server.asked().pop().expect("a request");
        match (&asked.header("authorization")[..], &asked.header("x-kubepass-jwt-assertion")[..]) {
            ([value], []) => value.strip_prefix("Bearer ").unwrap_or_else(|| panic!("{value}")).to_owned(),
            ([], [assertion]) => (*assertion).to_owned(),
            _ => panic!("{asked:?}"),
        }
    }

    /// A good token for `staging`, as the signing key's owner could write it.
    fn token_of(&self, username: &str) -> String {
        let signer = self.world.signer();
        signer.sign(&header(&signer), &self.world.upstream_claims(username))
    }

    /// Whether anything whose URI contains `name` came to the API server of `staging`.
    fn arrived(&self, name: &str) -> bool {
        self.world.staging.audit_events().iter().any(|event| event["requestURI"].as_str().is_some_and(|uri| uri.contains(name)))
    }
}

/// What stands before the claims of a good token.
fn header(signer: &Signer) -> Value {
    json!({"alg": "ES256", "typ": "kubepass-upstream+jwt", "kid": signer.kid()})
}

/// The usual configuration with three routes more.
fn config(world: &World, other: &Server, twin: &Server, wiki: &Server) -> String {
    let route = |name: &str, host: &str, server: &Server, audience: &str| {
        format!(
            "- name: {name}\n  host: {host}\n  kubernetes:\n    server: {}\n    ca: {{file: ca.pem}}\n    jwt: {audience}\n  policy:{POLICY}",
            server.url()
        )
    };
    let shared = format!("{{audience: {STAGING_AUDIENCE}, shared_audience: true}}");
    let web = format!(
        "- name: wiki\n  host: {WIKI_HOST}\n  http: {{upstream: {}, ca: {{file: ca.pem}}}}\n  policy: [{{allow: 'true'}}]\n",
        wiki.url()
    );
    let routes = route("other", OTHER_HOST, other, &format!("{{audience: {OTHER_AUDIENCE}}}")) + &route("twin", TWIN_HOST, twin, &shared);
    let text = world.config(POLICY).replace(&format!("{{audience: {STAGING_AUDIENCE}}}"), &shared);
    text.replace("\naudit:", &format!("\n{routes}{web}audit:"))
}
