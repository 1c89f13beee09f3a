//! The user's command line against the whole installation: one browser window for many kubectl, renewal, revocation, log-out, the kubeconfig,
//! and what an attacker on the same machine can do to a login that is under way.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use url::Url;

use super::shared::world;
use super::support::kubectl::Running;
use super::support::person::Person;
use super::support::wait::eventually;
use super::support::world::{PROD_HOST, PUBLIC_HOST, STAGING_HOST, World};

const WHO: [&str; 5] = ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}", "--request-timeout=20s"];

#[test]
fn five_parallel_kubectl_open_one_browser_window() {
    let world = world();
    let person = world.person("foo");
    person.set_up(&world.url(PROD_HOST)).ok();
    let running: Vec<Running> = (0..5).map(|_| person.kubectl_command().start(&WHO)).collect();
    for kubectl in running {
        assert_eq!(kubectl.finish().ok(), "foo@example.com");
    }
    assert_eq!(windows(&person), 1, "five kubectl, one window");
    assert_eq!(person.kubectl(&WHO).ok(), "foo@example.com");
    // Another route of the installation needs no window either: the login renews.
    person.set_up(&world.url(STAGING_HOST)).ok();
    assert_eq!(person.kubectl(&WHO).ok(), "foo@example.com");
    assert_eq!(windows(&person), 1);
    for path in files(&person.home.join("cache/kubepass")) {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert_eq!(mode(&person.home.join("cache/kubepass")), 0o700);
    assert_eq!(mode(&person.home.join("kubeconfig")), 0o600);
}

#[test]
fn the_ca_that_kubectl_told_serves_every_command_later() {
    let world = world();
    let (prod, public) = (world.url(PROD_HOST), world.url(PUBLIC_HOST));
    let stranger = world.person("foo");
    let refused = stranger.kubepass(&["login", &prod]).err();
    assert!(refused.contains("give --ca-file"), "{refused}");

    let person = world.person("foo");
    person.set_up(&prod).ok();
    assert_eq!(person.kubectl(&WHO).ok(), "foo@example.com");
    let expected = format!("prod\t{prod}\nstaging\t{}\n", world.url(STAGING_HOST));
    assert_eq!(person.kubepass(&["routes"]).ok(), expected);
    let kubeconfig: Value = yaml(&person.kubepass(&["kubeconfig", &prod, "--stdout"]).ok());
    assert!(kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"].is_string(), "{kubeconfig}");
    let token = credential(&person, &prod)["status"]["token"].as_str().unwrap().to_owned();
    assert_eq!(status(&world, &prod, &token), 200);
    let output = person.kubepass(&["logout"]);
    assert!(output.stderr.contains(&format!("Logged out of {public}.")), "{}", output.stderr);
    output.ok();
    assert_eq!(status(&world, &prod, &token), 401, "the session has ended at the server");
    assert_eq!(tokens(&person), Vec::<PathBuf>::new(), "no token stays here");
    assert!(person.kubepass(&["logout"]).stderr.contains("Not logged in."));
    assert!(person.kubepass(&["routes"]).err().contains("not logged in"));
    for url in [&prod, &public] {
        let output = person.kubepass(&["login", url]);
        assert!(output.stderr.contains(&format!("Logged in to {public} as foo@example.com.")), "{}", output.stderr);
    }
    person.kubepass(&["logout", &prod]).ok();
}

#[test]
fn a_log_out_that_the_server_did_not_hear_of_keeps_the_login() {
    let world = world();
    let person = world.person("foo");
    let prod = world.url(PROD_HOST);
    person.set_up(&prod).ok();
    person.kubectl(&WHO).ok();
    let token = credential(&person, &prod)["status"]["token"].as_str().unwrap().to_owned();
    let before = tokens(&person);
    let cut_off = person.kubepass_command().env("HTTPS_PROXY", "http://127.0.0.1:1");
    let error = cut_off.run(&["logout"]).err();
    assert!(error.contains("may still be open") && error.contains("cannot reach") && error.contains("flush-credentials"), "{error}");
    assert_eq!(tokens(&person), before, "the login is still here");
    assert_eq!(status(&world, &prod, &token), 200);
    person.kubepass(&["logout", &prod]).ok();
    assert_eq!(status(&world, &prod, &token), 401);
}

#[test]
fn after_a_revocation_the_second_kubectl_works() {
    let world = world();
    // Nobody else's session may end here: the shared installation has other users.
    let person = world.person("bar");
    person.set_up(&world.url(PROD_HOST)).ok();
    assert_eq!(person.kubectl(&WHO).ok(), "bar@example.com");
    assert_eq!(windows(&person), 1);
    world.operator(&["session", "revoke", "--user", "bar@example.com"]).ok();
    let first = person.kubectl(&WHO);
    assert!(first.code == Some(0) || first.stderr.contains("Unauthorized") || first.stderr.contains("logged in"), "{}", first.stderr);
    assert_eq!(person.kubectl(&WHO).ok(), "bar@example.com");
    assert_eq!(windows(&person), 2, "one login for the first session, one for the second");
}

#[test]
fn a_lost_session_token_is_renewed_without_a_window() {
    let world = world();
    let person = world.person("foo");
    let prod = world.url(PROD_HOST);
    person.set_up(&prod).ok();
    person.kubectl(&WHO).ok();
    let first = credential(&person, &prod)["status"]["token"].clone();
    for path in tokens(&person).iter().filter(|path| name(path).starts_with("session-")) {
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(person.kubectl(&WHO).ok(), "foo@example.com");
    let second = credential(&person, &prod)["status"]["token"].clone();
    assert_ne!(first, second);
    assert_eq!(windows(&person), 1);
    person.kubepass(&["k8s", "flush-credentials"]).ok();
    assert_eq!(tokens(&person), Vec::<PathBuf>::new());
    assert_eq!(status(&world, &prod, second.as_str().unwrap()), 200, "flushing forgets here, it ends nothing");
}

#[test]
fn the_plugin_answers_in_the_version_that_kubectl_asks_for() {
    let world = world();
    let person = world.person("foo");
    let prod = world.url(PROD_HOST);
    person.set_up(&prod).ok();
    for version in ["v1", "v1beta1"] {
        let api = format!("client.authentication.k8s.io/{version}");
        let info = json!({"kind": "ExecCredential", "apiVersion": api, "spec": {"interactive": false}});
        let plugin = person.kubepass_command().env("KUBERNETES_EXEC_INFO", &info.to_string());
        // The first one logs in: what is said about that stays off standard output.
        let output = plugin.run(&["k8s", "exec-credential", &prod]);
        assert_eq!(output.stderr.contains("/cli/login?"), version == "v1", "{}", output.stderr);
        let answer: Value = serde_json::from_str(&output.ok()).expect("only JSON");
        let keys: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!((keys.as_slice(), &answer["apiVersion"]), (&["apiVersion", "kind", "status"][..], &json!(api)));
        assert!(answer["status"]["expirationTimestamp"].is_string());
        let kubeconfig = person.home.join("kubeconfig");
        let text = std::fs::read_to_string(&kubeconfig).unwrap();
        std::fs::write(
            &kubeconfig,
            text.replace("client.authentication.k8s.io/v1beta1", "client.authentication.k8s.io/v1")
                .replace("client.authentication.k8s.io/v1", &api),
        )
        .unwrap();
        assert_eq!(person.kubectl(&WHO).ok(), "foo@example.com", "{version}");
    }
    let info = json!({"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v2", "spec": {}});
    let output = person.kubepass_command().env("KUBERNETES_EXEC_INFO", &info.to_string()).run(&["k8s", "exec-credential", &prod]);
    assert_eq!(output.stdout, "");
    assert!(output.err().contains("does not speak"));
}

#[test]
fn a_kubeconfig_keeps_what_stands_in_it() {
    let world = world();
    let person = world.person("foo");
    let prod = world.url(PROD_HOST);
    let path = person.home.join("kubeconfig");
    std::fs::write(&path, OTHERS).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    person.set_up(&prod).ok();
    let once = std::fs::read_to_string(&path).unwrap();
    person.set_up(&prod).ok();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), once, "twice is as once");
    let get = |what: &str, name: &str| {
        let view = person.kubectl(&["config", "view", "--raw", "-o", "json"]).ok();
        let view: Value = serde_json::from_str(&view).unwrap();
        view[what].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("{what} {name}: {view}")).clone()
    };
    assert_eq!(get("users", "old")["user"]["token"], "12345");
    assert_eq!(get("clusters", "old")["cluster"]["server"], "https://old.example.com:6443");
    assert_eq!(get("contexts", "old")["context"]["namespace"], "web");
    assert_eq!(get("users", PROD_HOST)["user"]["exec"]["args"], json!(["k8s", "exec-credential", prod]));
    assert_eq!(person.kubectl(&["config", "current-context"]).ok().trim(), PROD_HOST);
    assert_eq!(person.kubectl(&WHO).ok(), "foo@example.com");
    let printed = person.kubepass(&["kubeconfig", &world.url(STAGING_HOST), "--stdout", "--name", "second"]).ok();
    assert_eq!(yaml(&printed)["current-context"], "second");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), once, "--stdout writes nothing");
    person.kubepass(&["kubeconfig", &world.url(STAGING_HOST), "--name", "old"]).err();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), once, "another's entry is not replaced");
}

/// What any program and any web page on the user's machine can do to a login that waits.
#[test]
fn a_login_belongs_to_the_program_that_began_it() {
    let world = world();
    let person = world.person("foo");
    let public = world.url(PUBLIC_HOST);
    person.away(true);
    let (mut login, page) = begin_login(&person, &world, &["--timeout", "30s"]);
    let (redirect, state) = (parameter(&page, "redirect_uri"), parameter(&page, "state"));
    let direct = super::support::http::client(&[]);
    for wrong in [format!("{redirect}?code=x&state=wrong"), format!("{redirect}?code=x"), format!("{redirect}?error=access_denied&state=x")]
    {
        assert_eq!(direct.get(&wrong).send().unwrap().status(), 400, "{wrong}");
    }
    assert_eq!(direct.get(redirect.replace("/callback", "/")).send().unwrap().status(), 404);
    assert!(login.is_running(), "{}", login.seen());

    // Whoever reads the browser's address gets a code that is worth nothing without the verifier, and spoils only this one.
    person.browse(|browser| browser.stop_at(|url| url.host_str() == Some("127.0.0.1") && url.path() == "/callback"));
    let at_loopback = person.visit(&page);
    let code = at_loopback.query("code").unwrap_or_else(|| panic!("no code\n{at_loopback}"));
    for verifier in ["x".repeat(43), String::new(), parameter(&page, "code_challenge")] {
        let form = [("grant_type", "authorization_code"), ("code", &code), ("code_verifier", &verifier), ("redirect_uri", &redirect)];
        let answer = world.client().post(format!("{public}/cli/token")).form(&form).send().unwrap();
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.json::<Value>().unwrap()["error"], "invalid_grant");
    }
    let last = direct.get(format!("{redirect}?code={code}&state={state}")).send().unwrap();
    assert_eq!(last.status(), 200);
    let error = login.finish().err();
    assert!(error.contains("used") || error.contains("log in again"), "{error}");
    assert_eq!(tokens(&person), Vec::<PathBuf>::new());

    // Left alone, the same works.
    person.browse(|browser| browser.stop_at(|_| false));
    let (login, page) = begin_login(&person, &world, &[]);
    let done = person.visit(&page);
    assert!(
        done.text().contains("You are logged in") && done.header("content-security-policy").starts_with("default-src 'none'"),
        "{done}"
    );
    let output = login.finish();
    assert!(output.stderr.contains("as foo@example.com"), "{}", output.stderr);
    assert_eq!(output.ok(), "");
}

#[test]
fn a_login_that_nobody_finishes_ends() {
    let world = world();
    let person = world.person("foo");
    person.away(true);
    let began = Instant::now();
    let (login, _) = begin_login(&person, &world, &["--timeout", "3s"]);
    let error = login.finish().err();
    assert!(error.contains("nobody finished the login in time"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());

    let (login, page) = begin_login(&person, &world, &[]);
    let refused = person.browse(|browser| {
        let page = browser.open(&page);
        let page = world.idp.log_in(browser, page, "foo");
        let form = page.form_for("Refuse");
        browser.submit_by(&page, &form, &[], "Refuse")
    });
    assert!(refused.text().contains("The login was refused"), "{refused}");
    let error = login.finish().err();
    assert!(error.contains("the login was refused: the user refused in the browser"), "{error}");
    assert_eq!(tokens(&person), Vec::<PathBuf>::new());

    // kubectl says the same, and does not hang.
    person.set_up(&world.url(PROD_HOST)).ok();
    let kubeconfig = person.home.join("kubeconfig");
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    std::fs::write(&kubeconfig, text.replace("- exec-credential\n", "- exec-credential\n      - --timeout=3s\n")).unwrap();
    let error = person.kubectl(&["get", "pods"]).err();
    assert!(error.contains("nobody finished the login in time"), "{error}");
}

#[test]
fn the_browser_is_the_one_that_was_named() {
    let world = world();
    let person = world.person("foo");
    let script = person.home.join("my-browser");
    let seen = person.home.join("seen");
    std::fs::write(&script, format!("#!/bin/sh\necho \"$#:$1:$2\" > '{0}.part'; mv '{0}.part' '{0}'\n", seen.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let command = format!("{} --new-window", script.display());
    let (login, page) = begin_login(&person, &world, &["--browser-cmd", &command, "--timeout", "20s"]);
    let line = eventually("the browser command", Duration::from_secs(10), || std::fs::read_to_string(&seen).ok());
    assert_eq!(line.trim(), format!("2:--new-window:{page}"));
    assert_eq!(windows(&person), 0, "the environment's browser is left alone");
    person.visit(&page);
    login.finish().ok();
}

const OTHERS: &str = "apiVersion: v1
kind: Config
current-context: old
clusters: [{name: old, cluster: {server: 'https://old.example.com:6443'}}]
users: [{name: old, user: {token: '12345'}}]
contexts: [{name: old, context: {cluster: old, user: old, namespace: web}}]
";

/// `kubepass login`, and the page that it wants opened.
fn begin_login(person: &Person, world: &World, more: &[&str]) -> (Running, String) {
    let (url, ca) = (world.url(PROD_HOST), world.run.file("kubepass/ca.pem").display().to_string());
    let mut args = vec!["login", &url, "--ca-file", &ca];
    args.extend(more);
    let mut login = person.kubepass_command().start(&args);
    let page = login.wait_error_line("the login page", |line| line.trim().starts_with("https://"));
    (login, page.trim().to_owned())
}

fn parameter(url: &str, name: &str) -> String {
    let url = Url::parse(url).unwrap();
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_else(|| panic!("{name} in {url}"))
}

fn credential(person: &Person, url: &str) -> Value {
    serde_json::from_str(&person.kubepass(&["k8s", "exec-credential", url]).ok()).expect("only JSON")
}

/// What a request with that token gets.
fn status(world: &World, base: &str, token: &str) -> u16 {
    world.client().get(format!("{base}/version")).bearer_auth(token).send().unwrap().status().as_u16()
}

/// How often the CLI asked for a browser.
fn windows(person: &Person) -> usize {
    std::fs::read_to_string(person.home.join("browser.urls")).unwrap().lines().count()
}

/// The files of the cache that hold a token.
fn tokens(person: &Person) -> Vec<PathBuf> {
    let is_token = |path: &PathBuf| ["login-", "session-"].iter().any(|start| name(path).starts_with(start));
    files(&person.home.join("cache/kubepass")).into_iter().filter(is_token).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
