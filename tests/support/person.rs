//! A person: a home directory, kubectl with a kubeconfig made by `kubepass kubeconfig`, and a browser that opens when the CLI asks for it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::browser::{Browser, Page};
use super::jwt;
use super::kubectl::{Kubectl, Output};
use super::proxy::Proxy;
use super::run::Run;
use super::tools::Tools;
use super::wait::eventually;
use super::world::cli_binary;

/// Pages on the way of one login, at most.
const MAX_PAGES: usize = 12;

/// Where people are: what they need to know of an installation.
pub struct Place<'a> {
    pub run: &'a Run,
    pub tools: &'a Tools,
    pub proxy: &'a Proxy,
    /// Signs the installation's certificate.
    pub ca_file: PathBuf,
    /// The identity provider at which they log in.
    pub issuer: &'a str,
}

/// One user of an installation.
pub struct Person {
    pub login: String,
    pub home: PathBuf,
    kubepass: Kubectl,
    kubectl: Kubectl,
    desk: Arc<Mutex<Desk>>,
    ca_file: PathBuf,
}

/// The person at their browser.
struct Desk {
    browser: Browser,
    login: String,
    issuer: String,
    /// The last page of each login that was done.
    done: Vec<Page>,
    /// Set to leave the browser window alone.
    away: bool,
}

impl Person {
    /// `login` is the name at the identity provider.
    pub fn new(place: &Place<'_>, login: &str) -> Self {
        let home = place.run.dir(&format!("home-{login}-{}", next()));
        let urls = home.join("browser.urls");
        std::fs::write(&urls, "").expect("the browser's inbox");
        let opener = home.join("open-browser");
        std::fs::write(&opener, format!("#!/bin/sh\necho \"$1\" >> '{}'\n", urls.display())).expect("the browser command");
        make_executable(&opener);
        let ca_pem = std::fs::read_to_string(&place.ca_file).expect("the authority");
        let desk = Arc::new(Mutex::new(Desk {
            browser: Browser::new(place.proxy, &[&ca_pem]),
            login: login.to_owned(),
            issuer: place.issuer.to_owned(),
            done: Vec::new(),
            away: false,
        }));
        watch(&urls, &Arc::downgrade(&desk));
        let kubeconfig = home.join("kubeconfig");
        let environment = |command: Kubectl| {
            command
                .env("HTTPS_PROXY", &place.proxy.url())
                .env("KUBECONFIG", &kubeconfig.display().to_string())
                .env("XDG_CACHE_HOME", &home.join("cache").display().to_string())
                .env("KUBEPASS_BROWSER_CMD", &opener.display().to_string())
                .path_first(place.tools.bin())
                .path_first(cli_binary().parent().expect("a folder"))
        };
        Self {
            login: login.to_owned(),
            kubepass: environment(Kubectl::command(&cli_binary(), &home)),
            kubectl: environment(Kubectl::new(&place.tools.kubectl(), &kubeconfig, &home)),
            ca_file: place.ca_file.clone(),
            desk,
            home,
        }
    }

    /// `kubepass ...`.
    pub fn kubepass(&self, args: &[&str]) -> Output {
        self.kubepass.run(args)
    }

    /// `kubepass kubeconfig URL --ca-file CA`.
    pub fn set_up(&self, url: &str) -> Output {
        self.kubepass(&["kubeconfig", url, "--ca-file", &self.ca_file.display().to_string()])
    }

    /// `kubectl ...` with the current context.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.kubectl.run(args)
    }

    /// bash in the person's environment.
    pub fn shell(&self) -> Kubectl {
        self.kubectl.with_program(Path::new("/bin/bash"))
    }

    /// kubectl itself, for environments, inputs and commands that go on.
    pub fn kubectl_command(&self) -> Kubectl {
        self.kubectl.clone()
    }

    pub fn kubepass_command(&self) -> Kubectl {
        self.kubepass.clone()
    }

    /// The session token that `kubepass k8s exec-credential` hands to kubectl; logs in when there is none.
    pub fn session_token(&self, url: &str) -> String {
        let output = self.kubepass(&["k8s", "exec-credential", url, "--ca-file", &self.ca_file.display().to_string()]).ok();
        let credential: serde_json::Value = serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"));
        credential["status"]["token"].as_str().unwrap_or_else(|| panic!("no token in {output}")).to_owned()
    }

    /// A token of that type in the cache of the person's CLI.
    pub fn cached_token(&self, typ: &str) -> String {
        let folders = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut open = vec![self.home.join("cache")];
        let mut texts = Vec::new();
        while let Some(path) = open.pop() {
            if path.is_dir() { open.extend(folders(&path)) } else { texts.extend(std::fs::read_to_string(path)) }
        }
        let words: Vec<&str> = texts.iter().flat_map(|text| text.split('"')).filter(|word| word.starts_with("eyJ")).collect();
        let found = words.iter().find(|word| jwt::header(word)["typ"] == typ);
        (*found.unwrap_or_else(|| panic!("no {typ} among {} tokens", words.len()))).to_owned()
    }

    /// How many browser windows were opened and gone through.
    pub fn logins(&self) -> usize {
        self.desk.lock().unwrap().done.len()
    }

    /// The last page of the last login.
    pub fn last_page(&self) -> Page {
        eventually("a login in the browser", Duration::from_secs(20), || self.desk.lock().unwrap().done.last().cloned())
    }

    /// Leaves the next windows unanswered (or answers them again).
    pub fn away(&self, away: bool) {
        self.desk.lock().unwrap().away = away;
    }

    /// Uses the person's browser for anything else.
    pub fn browse<T>(&self, act: impl FnOnce(&mut Browser) -> T) -> T {
        act(&mut self.desk.lock().unwrap().browser)
    }

    /// Opens a page in the person's browser and goes through whatever login comes in between.
    pub fn visit(&self, url: &str) -> Page {
        self.desk.lock().unwrap().go_through(url)
    }
}

impl Desk {
    /// Does what a person does: logs in at the provider, confirms, and stops where nothing is asked any more.
    fn go_through(&mut self, url: &str) -> Page {
        let mut page = self.browser.open(url);
        for _ in 0..MAX_PAGES {
            // Where there is a choice, people have their account at the first.
            if let Some(choice) = page.links().into_iter().find(|link| link.href.starts_with("/login?idp=")) {
                page = self.browser.follow(&page, &choice);
            }
            let at_provider = page.url.starts_with(&self.issuer);
            let form =
                if at_provider { page.form_with("prompt") } else { page.forms().into_iter().find(|form| !form.action.contains("logout")) };
            let Some(form) = form else { break };
            let login = self.login.clone();
            let is_login = at_provider && form.value("prompt") == Some("login");
            let values: &[(&str, &str)] = if is_login { &[("login", &login), ("password", "any")] } else { &[] };
            page = self.browser.submit(&page, &form, values);
        }
        page
    }
}

/// Answers each URL that the CLI hands to the browser, until the person is gone.
fn watch(urls: &Path, desk: &std::sync::Weak<Mutex<Desk>>) {
    let (urls, desk) = (urls.to_owned(), desk.clone());
    std::thread::spawn(move || {
        let mut seen = 0;
        loop {
            let Some(desk) = desk.upgrade() else { return };
            let text = std::fs::read_to_string(&urls).unwrap_or_default();
            for url in text.lines().skip(seen) {
                seen += 1;
                let mut desk = desk.lock().unwrap();
                if !desk.away {
                    let page = desk.go_through(url);
                    desk.done.push(page);
                }
            }
            drop(desk);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

fn next() -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("the mode");
}
