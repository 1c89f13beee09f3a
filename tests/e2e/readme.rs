//! The README's "Before your own cluster in ten minutes" and "Your own cluster, with signed tokens", followed to the letter: every command of a section is
//! run, in its order, against an API server that nothing else touches. Only names of the reader's world are put in: addresses, the folder under /run,
//! the issuer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::support::cluster::{Cluster, ClusterOptions};
use super::support::document::blocks;
use super::support::http;
use super::support::idp::{CLIENT_SECRET, Idp, IdpOptions};
use super::support::kubectl::Kubectl;
use super::support::leash::{self, Process};
use super::support::person::{Person, Place};
use super::support::pki::Authority;
use super::support::ports::free_port;
use super::support::proxy::Proxy;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::world::server_binary;

const SECTION: &str = "## Before your own cluster in ten minutes";
const SIGNED_SECTION: &str = "### Your own cluster, with signed tokens";

#[test]
fn the_own_cluster_part_of_the_readme_works_as_written() {
    let reader = Reader::new("readme", |_| ClusterOptions { name: "own".into(), ..ClusterOptions::default() });
    let blocks = blocks("README.md", SECTION);
    let kinds: Vec<&str> = blocks.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["build", "", "", "", "", "up", "user"], "the section has other blocks than this test knows");
    let mut server = None;
    for (kind, text) in &blocks {
        match kind.as_str() {
            // Cargo built both binaries for this test.
            "build" => {}
            "up" => server = Some(reader.up(text)),
            "user" => reader.user(text),
            _ => reader.administrator(text),
        }
    }
    assert!(server.is_some_and(|mut server| server.ended().is_none()), "kubepass ended");
}

#[test]
fn the_part_with_signed_tokens_works_as_written() {
    // The API server reaches the reader's names as everyone here does.
    let reader = Reader::new("readme-jwt", |proxy| ClusterOptions {
        name: "signed".into(),
        structured_authentication: true,
        api_server_env: vec![("HTTPS_PROXY".to_owned(), proxy.url())],
        ..ClusterOptions::default()
    });
    let common = blocks("README.md", SECTION);
    let (written, rest) = common.split_at(3);
    assert!(
        written[2].1.contains("cat > kubepass.yaml") && rest[0].1.contains("cluster rbac"),
        "the section has other blocks than this test knows"
    );
    for (_, text) in &written[1..] {
        reader.administrator(text);
    }
    let signed = blocks("README.md", SIGNED_SECTION);
    assert_eq!(signed.len(), 2, "the section has other blocks than this test knows");
    for (_, text) in &signed {
        reader.administrator(text);
    }
    let of_kind = |wanted: &str| &common.iter().find(|(kind, _)| kind == wanted).expect("the block").1;
    let mut server = reader.up(of_kind("up"));
    // "Copy it to every machine that runs an API server": this one was started with the flag, and takes a changed file over by itself.
    reader.cluster.reload_authentication_config(&std::fs::read_to_string(reader.folder.join("authentication.yaml")).unwrap());
    reader.user(of_kind("user"));
    assert!(server.ended().is_none(), "kubepass ended");
}

/// Who follows the README, with their cluster, their identity provider and their machine.
struct Reader {
    run: Run,
    folder: PathBuf,
    cluster: Cluster,
    idp: Idp,
    proxy: Proxy,
    ca_file: PathBuf,
    admin_port: u16,
    port: u16,
}

impl Reader {
    fn new(name: &str, options: impl FnOnce(&Proxy) -> ClusterOptions) -> Self {
        let (tools, run) = (Tools::ensure(), Run::new(name));
        let (port, admin_port, proxy) = (free_port(), free_port(), Proxy::start());
        for host in ["pass.example.com", "prod.k8s.example.com"] {
            proxy.map(&format!("{host}:443"), port);
        }
        let cluster = Cluster::start(tools, &run, options(&proxy));
        let authority = Authority::new("the reader's authority");
        let users = json!({"foo": {"email": "foo@example.com", "email_verified": true, "groups": ["group1"]}});
        let redirect_uris = vec!["https://pass.example.com/callback".to_owned()];
        let idp = Idp::start(tools, &run, IdpOptions { redirect_uris, users, ..IdpOptions::default() });
        let folder = run.dir("reader");
        let pair = authority.server(&["pass.example.com", "prod.k8s.example.com"]);
        run.write("reader/tls.crt", &pair.cert);
        run.write("reader/tls.key", &pair.key);
        run.write("reader/tls-ca.crt", authority.pem());
        let ca_file = run.write("reader-ca.pem", authority.pem());
        Self { run, folder, cluster, idp, proxy, ca_file, admin_port, port }
    }

    /// The text with the names of the reader's world.
    fn script(&self, text: &str) -> String {
        let here = [
            ("0.0.0.0:443", format!("127.0.0.1:{}", self.port)),
            ("127.0.0.1:9902", format!("127.0.0.1:{}", self.admin_port)),
            ("/run/kubepass", self.run.file("sockets").display().to_string()),
            ("https://idp.example.com", self.idp.issuer().trim_end_matches('/').to_owned()),
            ("https://10.0.0.1:6443", self.cluster.url()),
        ];
        here.iter().fold(text.to_owned(), |text, (written, ours)| text.replace(written, ours))
    }

    fn administrator(&self, text: &str) {
        let bash = Kubectl::command(Path::new("/bin/bash"), &self.folder)
            .path_first(Tools::ensure().bin())
            .path_first(server_binary().parent().unwrap())
            .env("KUBECONFIG", &self.cluster.admin_kubeconfig().display().to_string())
            .env("CLIENT_SECRET", CLIENT_SECRET);
        bash.run(&["-ec", &format!("set -o pipefail\n{}", self.script(text))]).ok();
    }

    fn up(&self, text: &str) -> Process {
        let mut command = leash::command("/bin/bash");
        command.args(["-ec", &format!("exec {}", self.script(text))]).current_dir(&self.folder);
        let bin = Tools::ensure().bin();
        let path = format!("{}:{}:/usr/bin:/bin", server_binary().parent().unwrap().display(), bin.display());
        command.env("PATH", path);
        let mut process = self.run.start("reader-kubepass", command);
        let (client, url) = (http::client(&[]), format!("http://127.0.0.1:{}/readyz", self.admin_port));
        process.until("kubepass is ready", Duration::from_secs(30), || client.get(&url).send().ok()?.status().is_success().then_some(()));
        process
    }

    fn user(&self, text: &str) {
        let place =
            Place { run: &self.run, tools: Tools::ensure(), proxy: &self.proxy, ca_file: self.ca_file.clone(), issuer: self.idp.issuer() };
        let person = Person::new(&place, "foo");
        let shell = person.shell().env("KUBEPASS_CA_FILE", &self.ca_file.display().to_string());
        let output = shell.run(&["-ec", &self.script(text)]).ok();
        assert!(output.contains("foo@example.com") && output.contains("[group1 system:authenticated]"), "{output}");
    }
}
