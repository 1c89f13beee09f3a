//! What `kubepass-server cluster rbac` grants, tried with the token itself, as a thief would use it: straight at the API server. And that
//! kubepass works with no more than that.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::cluster::Cluster;
use super::support::http;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::wait::eventually_ok;
use super::support::world::{NAMESPACE, PROD_HOST, SERVICE_ACCOUNT, STAGING_HOST, World, WorldOptions};

/// What a group of the route's people may do.
const READERS: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: readers, namespace: default}
rules: [{apiGroups: [''], resources: [pods], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: readers, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: readers}
subjects: [{kind: Group, name: group1, apiGroup: rbac.authorization.k8s.io}]
";

#[test]
fn a_stolen_token_is_worth_what_the_manifest_says() {
    let world = installation();
    narrow_lists_bind_the_token(&world);
    the_constrained_form_binds_it_further(&world);
    kubepass_works_with_both(&world);
    a_missing_group_is_named(&world);
    verbs_that_the_constrained_form_lacks_are_refused(&world);
}

/// `prod` lists its users and groups and has the usual rules; `staging` lists its groups, sends a uid and an extra value, and has the
/// constrained rules.
fn installation() -> World {
    let options = WorldOptions { policy: "\n  - {name: all, allow: \"true\"}\n".to_owned(), ..WorldOptions::default() };
    let policy = options.policy.clone();
    let mut world = World::prepare(Tools::ensure(), Run::new("rbac"), options);
    let prod = "{token: {file: prod-token}, users: [foo@example.com, bar@example.com]}\n    groups: {allow: [group1, sre]}";
    let staging =
        "{token: {file: staging-token}, uid: user.claims.sub, extra: {example.com/team: user.idp}}\n    groups: {allow: [group1, sre]}";
    let config = world.config(&policy).replace("{token: {file: prod-token}}", prod).replace("{token: {file: staging-token}}", staging);
    assert!(config.contains(prod) && config.contains(staging));
    world.write_config(&config);
    for (route, cluster, flags) in [("prod", &world.prod, &[][..]), ("staging", &world.staging, &["--constrained"])] {
        let manifest = world.operator(&[&["cluster", "rbac", route], flags].concat()).ok();
        assert!(manifest.starts_with(&format!("# Impersonation for route \"{route}\".\n# Whoever steals")), "{manifest}");
        cluster.apply(&manifest);
        cluster.apply(READERS);
        world.secret(&format!("{route}-token"), &cluster.create_token(NAMESPACE, SERVICE_ACCOUNT));
    }
    world.start_kubepass();
    world
}

/// Who has the token, straight at the API server.
struct Thief<'w> {
    cluster: &'w Cluster,
    client: reqwest::blocking::Client,
    token: String,
}

impl<'w> Thief<'w> {
    fn new(world: &World, cluster: &'w Cluster) -> Self {
        let token = std::fs::read_to_string(world.run.file(&format!("kubepass/{}-token", cluster.name()))).unwrap();
        Self { cluster, client: http::client(&[cluster.ca_pem()]), token }
    }

    /// Status and message.
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let url = format!("{}{path}", self.cluster.url());
        let request = self.client.request(method.parse().unwrap(), url).bearer_auth(&self.token);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = request.send().unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().unwrap();
        let message = serde_json::from_str::<Value>(&text).ok().and_then(|status| status["message"].as_str().map(str::to_owned));
        (status, message.unwrap_or(text))
    }

    /// What everyone with a name may do, in another's name. Rules may take a moment to be in force.
    #[track_caller]
    fn can_become(&self, headers: &[(&str, &str)]) {
        eventually_ok(&format!("{} becomes {headers:?}", self.cluster.name()), Duration::from_secs(5), || {
            let (status, message) = self.ask("GET", "/version", headers);
            if status == 200 { Ok(()) } else { Err(format!("{status} {message}")) }
        });
    }

    #[track_caller]
    fn cannot_become(&self, headers: &[(&str, &str)]) {
        let (status, message) = self.ask("GET", "/version", headers);
        assert!(status == 403 && message.contains("impersonate"), "{} as {headers:?}: {status} {message}", self.cluster.name());
    }

    /// The service account has no rights of its own.
    #[track_caller]
    fn can_do_nothing_alone(&self) {
        let paths = ["/api/v1/namespaces/default/pods", "/api/v1/secrets", "/api/v1/nodes", "/api/v1/namespaces/kubepass/serviceaccounts"];
        let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        for (method, path) in paths.map(|path| ("GET", path)).into_iter().chain([
            ("GET", roles),
            ("DELETE", roles),
            ("DELETE", "/api/v1/namespaces/default/pods/web"),
            ("POST", "/api/v1/namespaces/kubepass/serviceaccounts/kubepass/token"),
            ("GET", "/metrics"),
        ]) {
            let (status, message) = self.ask(method, path, &[]);
            assert_eq!(status, 403, "{method} {path}: {message}");
        }
    }
}

const FOO: (&str, &str) = ("Impersonate-User", "foo@example.com");
const GROUP1: (&str, &str) = ("Impersonate-Group", "group1");
const GROUP2: (&str, &str) = ("Impersonate-Group", "group2");
const MASTERS: (&str, &str) = ("Impersonate-Group", "system:masters");
const UID: (&str, &str) = ("Impersonate-Uid", "foo");
const TEAM: (&str, &str) = ("Impersonate-Extra-example.com%2fteam", "corp");

fn user(name: &str) -> (&str, &str) {
    ("Impersonate-User", name)
}

fn narrow_lists_bind_the_token(world: &World) {
    let thief = Thief::new(world, &world.prod);
    thief.can_become(&[FOO]);
    thief.can_become(&[FOO, GROUP1]);
    thief.can_become(&[user("bar@example.com"), ("Impersonate-Group", "sre"), GROUP1]);
    thief.cannot_become(&[FOO, GROUP2]);
    thief.cannot_become(&[FOO, GROUP1, GROUP2]);
    thief.cannot_become(&[FOO, MASTERS]);
    thief.cannot_become(&[FOO, UID]);
    thief.cannot_become(&[FOO, TEAM]);
    for name in ["eve@evil.example", "system:admin", "system:kube-controller-manager", "system:node:node-1", "system:anonymous"] {
        thief.cannot_become(&[user(name)]);
    }
    thief.cannot_become(&[user("system:serviceaccount:kube-system:default")]);
    thief.can_do_nothing_alone();
}

fn the_constrained_form_binds_it_further(world: &World) {
    let thief = Thief::new(world, &world.staging);
    thief.can_become(&[FOO]);
    thief.can_become(&[FOO, GROUP1, UID, TEAM]);
    // As the first lines of the manifest say: any user, but no node, no service account, no other group.
    thief.can_become(&[user("eve@evil.example")]);
    thief.can_become(&[user("system:kube-controller-manager")]);
    thief.cannot_become(&[user("system:node:node-1")]);
    thief.cannot_become(&[user("system:serviceaccount:kube-system:default")]);
    thief.cannot_become(&[FOO, GROUP2]);
    thief.cannot_become(&[FOO, MASTERS]);
    thief.cannot_become(&[FOO, GROUP1, MASTERS]);
    thief.cannot_become(&[FOO, ("Impersonate-Extra-team", "corp")]);
    thief.cannot_become(&[FOO, ("Impersonate-Extra-example.com%2fother", "corp")]);
    thief.can_do_nothing_alone();
}

fn kubepass_works_with_both(world: &World) {
    let person = world.person("foo");
    for (host, cluster, verb) in [(PROD_HOST, &world.prod, "impersonate"), (STAGING_HOST, &world.staging, "impersonate:user-info")] {
        person.set_up(&world.url(host)).ok();
        let said = person.kubectl(&["auth", "whoami", "-o", "json"]).ok();
        let review: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(review["status"]["userInfo"]["username"], "foo@example.com", "{said}");
        assert_eq!(review["status"]["userInfo"]["groups"], json!(["group1", "system:authenticated"]), "{said}");
        assert_eq!(person.kubectl(&["get", "pods", "-o", "name"]).ok().trim(), "pod/web");
        assert_eq!(person.kubectl(&["auth", "can-i", "delete", "pods"]).stdout.trim(), "no");
        let refused = person.kubectl(&["delete", "pod", "web"]).err();
        assert!(refused.contains("\"foo@example.com\" cannot delete resource \"pods\""), "{refused}");
        let event = cluster.audit_find("a list by foo", |event| {
            event["verb"] == "list"
                && event["objectRef"]["resource"] == "pods"
                && event["impersonatedUser"]["username"] == "foo@example.com"
        });
        let constraint = event["authenticationMetadata"]["impersonationConstraint"].as_str().unwrap_or("impersonate");
        assert_eq!(constraint, verb, "{event}");
    }
}

/// Someone took a group out of the cluster's role that the route still sends: who is in it reads which one.
fn a_missing_group_is_named(world: &World) {
    let bar = world.person("bar");
    let constrained = ("groups.authentication.k8s.io", "impersonate:user-info");
    for (host, cluster, (group, verb)) in [(PROD_HOST, &world.prod, ("groups", "impersonate")), (STAGING_HOST, &world.staging, constrained)]
    {
        bar.set_up(&world.url(host)).ok();
        // kubectl shows no text of what is refused while it discovers the API, so the test is of someone who has used the cluster before.
        bar.kubectl(&["api-resources"]).ok();
        change_role(cluster, |rule| {
            if let Some(names) = rule["resourceNames"].as_array_mut() {
                names.retain(|name| name != "sre");
            }
        });
        let said = eventually_ok("a refusal of the impersonation", Duration::from_secs(15), || {
            let said = bar.kubectl(&["get", "pods"]).err();
            if said.contains("impersonate") { Ok(said) } else { Err(format!("{host}: {said}")) }
        });
        assert!(said.contains(&format!("{group} \"sre\" is forbidden")), "{said}");
        assert!(said.contains(&format!("cannot {verb} resource \"groups\"")), "{said}");
    }
}

fn verbs_that_the_constrained_form_lacks_are_refused(world: &World) {
    change_role(&world.staging, |rule| {
        if let Some(verbs) = rule["verbs"].as_array_mut() {
            verbs.retain(|verb| verb != "impersonate-on:user-info:deletecollection");
        }
    });
    let thief = Thief::new(world, &world.staging);
    let path = "/api/v1/namespaces/default/pods";
    eventually_ok("deletecollection is refused", Duration::from_secs(15), || {
        let (status, message) = thief.ask("DELETE", path, &[FOO, GROUP1]);
        let is_so = status == 403 && message.contains("impersonate-on:user-info:deletecollection");
        if is_so { Ok(()) } else { Err(format!("{status} {message}")) }
    });
    let (status, message) = thief.ask("GET", path, &[FOO, GROUP1]);
    assert_eq!(status, 200, "{message}");
}

/// Changes every rule of kubepass's role on a cluster.
fn change_role(cluster: &Cluster, change: impl Fn(&mut Value)) {
    let text = cluster.kubectl_admin(&["get", "clusterrole", SERVICE_ACCOUNT, "-o", "json"]).ok();
    let mut role: Value = serde_json::from_str(&text).unwrap();
    role["metadata"] = json!({"name": SERVICE_ACCOUNT});
    role["rules"].as_array_mut().unwrap().iter_mut().for_each(change);
    cluster.admin().run_with(&["replace", "-f", "-"], role.to_string().as_bytes()).ok();
}
