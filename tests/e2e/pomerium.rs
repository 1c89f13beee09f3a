//! The contract of pomerium-cli, with a client written from its published behaviour and a kubeconfig as its users have it: nothing in either
//! knows of kubepass. On a route that does not ask for it nothing of it works.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};
use url::Url;

use super::shared::own_world;
use super::support::browser::{Browser, Page};
use super::support::kubectl::Kubectl;
use super::support::person::Person;
use super::support::wait::eventually;
use super::support::world::{PROD_HOST, PUBLIC_HOST, STAGING_HOST, World, WorldOptions};

const WHO: [&str; 5] = ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", "--request-timeout=20s"];

#[test]
fn an_unmodified_pomerium_cli_works_where_the_route_says_so() {
    let world = own_world("pomerium", WorldOptions { prod_route: "pomerium_cli: true\n".to_owned(), ..WorldOptions::default() });
    let person = world.person("foo");
    let prod = world.url(PROD_HOST);
    let client = StandIn::install(&world, &person, "foo");
    write_kubeconfig(&world, &person, &prod);
    let kubectl = person.kubectl_command().path_first(&client.home);

    // The first command logs in; the page names route and port before the token leaves.
    assert_eq!(kubectl.run(&WHO).ok(), "foo@example.com");
    assert_eq!(client.windows(), 1);
    let asked = client.asked.lock().unwrap().last().cloned().expect("a page that asks");
    for part in ["foo@example.com", "pomerium-cli", PROD_HOST, &client.last_port().to_string()] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    let cached = client.cached(&prod);
    let token = cached["status"]["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("Pomerium-"), "the client's own word");
    assert_ne!(cached["status"]["expirationTimestamp"], "0001-01-01T00:00:00Z", "kubectl knows when to ask again");

    // The next one probes and opens nothing.
    assert_eq!(kubectl.run(&WHO).ok(), "foo@example.com");
    assert_eq!(client.windows(), 1);
    discovery_reaches_the_api_server(&world, &person, &kubectl, &token);
    probes(&world, &prod, &token);
    the_list_of_routes(&world, &prod, &token);

    // Revoked: the probe notices, so the very next command logs in and works.
    world.operator(&["session", "revoke", "--user", "foo@example.com"]).ok();
    for path in ["/healthz", "/livez", "/.pomerium/api/v1/routes"] {
        assert_eq!(get(&world.client(), &format!("{prod}{path}"), Some(&token)).status(), 401, "{path}");
    }
    assert_eq!(kubectl.run(&WHO).ok(), "foo@example.com");
    assert_eq!(client.windows(), 2);

    nothing_without_the_flag(&world, &person);
}

/// With an empty discovery cache kubectl asks `/api` and `/apis`: never answered by kubepass itself.
fn discovery_reaches_the_api_server(world: &World, person: &Person, kubectl: &Kubectl, token: &str) {
    std::fs::remove_dir_all(person.home.join(".kube/cache")).ok();
    let before = world.prod.audit_events().len();
    let resources = kubectl.run(&["api-resources", "--no-headers", "-o", "name"]).ok();
    assert!(resources.lines().any(|line| line == "pods"), "{resources}");
    let seen = |path: &str| {
        world.prod.audit_events().into_iter().skip(before).any(|event| {
            let uri = event["requestURI"].as_str().unwrap_or_default();
            uri.split('?').next() == Some(path) && event["impersonatedUser"]["username"] == "foo@example.com"
        })
    };
    for path in ["/api", "/apis"] {
        eventually(path, Duration::from_secs(5), || seen(path).then_some(()));
    }
    // Versions of the client before 0.30 probe `/api`.
    let answer = get(&world.client(), &format!("{}/api", world.url(PROD_HOST)), Some(token));
    assert_eq!((answer.status().as_u16(), answer.json::<Value>().unwrap()["kind"].clone()), (200, json!("APIVersions")));
}

fn probes(world: &World, prod: &str, token: &str) {
    let client = world.client();
    let ours = world.person("bar").session_token(prod);
    for path in ["/healthz", "/livez"] {
        let url = format!("{prod}{path}");
        let live = get(&client, &url, Some(token));
        assert_eq!(live.status(), 200, "{path}");
        assert!(live.headers().get("audit-id").is_none(), "{path}: the client's probe is answered here, the API server is left alone");
        for wrong in ["Pomerium-", "Pomerium-junk", &token[..token.len() - 2]] {
            assert_eq!(get(&client, &url, Some(wrong)).status(), 401, "{path} {wrong}");
        }
        let answer = get(&client, &url, Some(&ours));
        let id = answer.headers()["audit-id"].to_str().unwrap().to_owned();
        assert_eq!((answer.status().as_u16(), answer.text().unwrap().as_str()), (200, "ok"), "{path}");
        world.prod.audit_find("the probe with another bearer", |event| {
            event["auditID"] == id.as_str() && event["impersonatedUser"]["username"] == "bar@example.com"
        });
        let answer = get(&client, &url, None);
        assert_eq!((answer.status().as_u16(), answer.json::<Value>().unwrap()["kind"].clone()), (401, json!("Status")), "{path}");
        let answer = client.post(&url).bearer_auth(token).send().unwrap();
        assert_eq!(answer.status(), 405, "{path}");
    }
    // A path below the probe is none.
    let answer = get(&client, &format!("{prod}/livez/ping"), Some(token));
    assert!(answer.headers().get("audit-id").is_some(), "the API server's");
}

fn the_list_of_routes(world: &World, prod: &str, token: &str) {
    let url = format!("{prod}/.pomerium/api/v1/routes");
    let routes: Value = get(&world.client(), &url, Some(token)).json().unwrap();
    let list: Vec<_> = routes["routes"].as_array().unwrap().iter().map(|route| (route["name"].clone(), route["from"].clone())).collect();
    assert_eq!(list, [(json!("prod"), json!(prod))], "those that take this client alone");
    assert_eq!(get(&world.client(), &url, None).status(), 401, "never a redirect");
}

fn nothing_without_the_flag(world: &World, person: &Person) {
    let (client, staging) = (world.client(), world.url(STAGING_HOST));
    let ca = world.run.file("kubepass/ca.pem").display().to_string();
    let login = person.kubepass(&["login", &staging, "--ca-file", &ca]);
    assert_eq!(login.code, Some(0), "{}", login.stderr);
    let credential: Value = serde_json::from_str(&person.kubepass(&["k8s", "exec-credential", &staging]).ok()).unwrap();
    let plain = credential["status"]["token"].as_str().unwrap();
    assert_eq!(get(&client, &format!("{staging}/version"), Some(plain)).status(), 200);
    let before = world.staging.audit_events().len();
    let bearer = format!("Pomerium-{plain}");
    for path in [
        "/version",
        "/api",
        "/healthz",
        "/livez",
        "/.pomerium/api/v1/routes",
        "/.pomerium/api/v1/login?pomerium_redirect_uri=http://127.0.0.1:45123",
    ] {
        let url = format!("{staging}{path}");
        assert_eq!(get(&client, &url, Some(&bearer)).status(), 401, "{path}");
        assert_eq!(get(&client, &url, None).status(), 401, "{path}");
    }
    let page = person.visit(&format!("{}/pomerium/login?redirect_uri=http://127.0.0.1:45123&route={STAGING_HOST}", world.url(PUBLIC_HOST)));
    assert!(page.status == 403 && page.text().contains("pomerium_cli: true"), "{page}");
    let after: Vec<_> = world
        .staging
        .audit_events()
        .into_iter()
        .skip(before)
        .filter(|event| event["user"]["username"].as_str().is_some_and(|name| name.ends_with(":kubepass")))
        .collect();
    assert_eq!(after, Vec::<Value>::new(), "nothing of it reaches the API server");
}

fn get(client: &Client, url: &str, bearer: Option<&str>) -> Response {
    let request = client.get(url).header("accept", "application/json");
    bearer.into_iter().fold(request, |request, bearer| request.bearer_auth(bearer)).send().unwrap()
}

/// As users of pomerium-cli have it: its command, its version of the API, no cluster info.
fn write_kubeconfig(world: &World, person: &Person, url: &str) {
    let ca = STANDARD.encode(world.authority.pem());
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: via-pomerium\n\
         clusters:\n- name: via-pomerium\n  cluster:\n    certificate-authority-data: {ca}\n    server: {url}\n\
         contexts:\n- name: via-pomerium\n  context:\n    cluster: via-pomerium\n    user: via-pomerium\n\
         users:\n- name: via-pomerium\n  user:\n    exec:\n      apiVersion: client.authentication.k8s.io/v1beta1\n      args:\n      - k8s\n      - exec-credential\n      - {url}\n      command: pomerium-cli\n      env: null\n      provideClusterInfo: false\n"
    );
    std::fs::write(person.home.join("kubeconfig"), text).unwrap();
}

/// pomerium-cli as far as kubectl needs it. The program that kubectl runs only passes the question on, by two named pipes, to a thread here.
struct StandIn {
    home: PathBuf,
    client: Client,
    login: String,
    browser: Mutex<Browser>,
    /// The confirmation pages that were shown, as text.
    asked: Mutex<Vec<String>>,
    ports: Mutex<Vec<u16>>,
}

impl StandIn {
    fn install(world: &World, person: &Person, login: &str) -> Arc<Self> {
        let home = person.home.join("pomerium");
        std::fs::create_dir_all(&home).unwrap();
        let program = home.join("pomerium-cli");
        let (question, answer) = (home.join("question"), home.join("answer"));
        for pipe in [&question, &answer] {
            assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        }
        let script = format!("#!/bin/sh\nset -e\necho \"$*\" > '{}'\ncat '{}'\n", question.display(), answer.display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let stand_in = Arc::new(Self {
            home,
            client: world.client(),
            login: login.to_owned(),
            browser: Mutex::new(Browser::new(&world.proxy, &[world.authority.pem()])),
            asked: Mutex::default(),
            ports: Mutex::default(),
        });
        let (serving, issuer) = (Arc::clone(&stand_in), world.idp.issuer().to_owned());
        std::thread::spawn(move || {
            loop {
                // Opening waits for the program at the other end.
                let question = std::fs::read_to_string(&question).unwrap();
                let url = question.trim().strip_prefix("k8s exec-credential ").unwrap_or_else(|| panic!("{question}")).to_owned();
                let credential = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| serving.exec_credential(&url, &issuer)));
                // A failed step has printed itself; kubectl must not wait for it.
                std::fs::write(&answer, credential.map_or_else(|_| String::new(), |credential| credential.to_string())).unwrap();
            }
        });
        stand_in
    }
}
impl StandIn {
    fn exec_credential(&self, url: &str, issuer: &str) -> Value {
        let cache = self.cache_path(url);
        if let Some(cached) = std::fs::read(&cache).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok()) {
            let probe = get(&self.client, &format!("{url}/healthz"), cached["status"]["token"].as_str());
            if probe.status().is_success() {
                return cached;
            }
        }
        let jwt = self.log_in(url, issuer);
        let credential = json!({
            "apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential", "spec": {"interactive": false},
            "status": {"expirationTimestamp": expiry(&jwt), "token": format!("Pomerium-{jwt}")},
        });
        std::fs::create_dir_all(cache.parent().unwrap()).unwrap();
        std::fs::write(&cache, credential.to_string()).unwrap();
        credential
    }

    /// Listens, asks the route for the address of its login, opens that, and takes the token from whatever address the browser comes to.
    fn log_in(&self, url: &str, issuer: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        self.ports.lock().unwrap().push(port);
        let waiting = std::thread::spawn(move || wait_for_token(&listener));
        let mut ask = Url::parse(&format!("{url}/.pomerium/api/v1/login")).unwrap();
        ask.query_pairs_mut().append_pair("pomerium_redirect_uri", &format!("http://127.0.0.1:{port}"));
        let answer = self.client.get(ask).send().unwrap();
        assert!(answer.status() == 200 && answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain"), "{answer:?}");
        self.browse(answer.text().unwrap().trim(), issuer);
        waiting.join().expect("the token")
    }

    /// What the person does: logs in at the provider, reads the page that asks, agrees.
    fn browse(&self, url: &str, issuer: &str) {
        let mut browser = self.browser.lock().unwrap();
        let mut page: Page = browser.open(url);
        while page.url.starts_with(issuer) {
            let form = page.form_with("prompt").unwrap_or_else(|| panic!("no form\n{page}"));
            page = browser.submit(&page, &form, &[("login", &self.login), ("password", "any")]);
        }
        let form = page.form_for("Let it in");
        assert!(form.buttons.iter().any(|(_, _, label)| label == "Refuse"), "{page}");
        self.asked.lock().unwrap().push(page.text());
        let done = browser.submit_by(&page, &form, &[], "Let it in");
        assert!(done.text().contains("login complete"), "{done}");
    }

    fn windows(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn last_port(&self) -> u16 {
        *self.ports.lock().unwrap().last().unwrap()
    }

    fn cached(&self, url: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.cache_path(url)).unwrap()).unwrap()
    }

    fn cache_path(&self, url: &str) -> PathBuf {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, url.as_bytes());
        let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        self.home.join(format!("cache/pomerium-cli/exec-credential/{hash}.json"))
    }
}

/// Any method and path that carries the form value counts; all else is not found.
fn wait_for_token(listener: &TcpListener) -> String {
    loop {
        let (mut connection, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        let mut request = String::new();
        reader.read_line(&mut request).unwrap();
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 2 {
            line.clear();
        }
        let target = request.split(' ').nth(1).unwrap_or("/");
        let url = Url::parse("http://127.0.0.1").unwrap().join(target).unwrap();
        let token = url.query_pairs().find(|(name, _)| name == "pomerium_jwt").map(|(_, value)| value.into_owned());
        let (status, text) =
            if token.is_some() { ("200 OK", "login complete, you may close this page") } else { ("404 Not Found", "not found") };
        let length = text.len();
        write!(connection, "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}")
            .unwrap();
        if let Some(token) = token {
            return token;
        }
    }
}

/// Reads the claim `exp` of a compact JWS without verifying anything.
fn expiry(jwt: &str) -> String {
    let parts: Vec<&str> = jwt.split('.').collect();
    assert_eq!(parts.len(), 3, "a compact JWS");
    let payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    jiff::Timestamp::from_second(payload["exp"].as_i64().expect("an integer")).unwrap().to_string()
}
