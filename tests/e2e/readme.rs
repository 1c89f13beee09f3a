//! The README's "Before your own cluster in ten minutes", followed to the letter: every command of that section is run, in its order, against
//! an API server that nothing else touches. Only names of the reader's world are put in: addresses, the folder under /run, the issuer.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::support::cluster::{Cluster, ClusterOptions};
use super::support::http;
use super::support::idp::{CLIENT_SECRET, Idp, IdpOptions};
use super::support::kubectl::Kubectl;
use super::support::leash;
use super::support::person::{Person, Place};
use super::support::pki::Authority;
use super::support::ports::free_port;
use super::support::proxy::Proxy;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::world::server_binary;

const SECTION: &str = "## Before your own cluster in ten minutes";

#[test]
fn the_own_cluster_part_of_the_readme_works_as_written() {
    let (tools, run) = (Tools::ensure(), Run::new("readme"));
    let blocks = blocks(&std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap());
    let kinds: Vec<&str> = blocks.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["build", "", "", "", "", "up", "user"], "the section has other blocks than this test knows");

    let cluster = Cluster::start(tools, &run, ClusterOptions { name: "own".into(), ..ClusterOptions::default() });
    let authority = Authority::new("the reader's authority");
    let users = json!({"foo": {"email": "foo@example.com", "email_verified": true, "groups": ["group1"]}});
    let redirect_uris = vec!["https://pass.example.com/callback".to_owned()];
    let idp = Idp::start(tools, &run, IdpOptions { redirect_uris, users, ..IdpOptions::default() });
    let (port, admin_port, proxy) = (free_port(), free_port(), Proxy::start());
    for host in ["pass.example.com", "prod.k8s.example.com"] {
        proxy.map(&format!("{host}:443"), port);
    }
    let folder = run.dir("reader");
    let pair = authority.server(&["pass.example.com", "prod.k8s.example.com"]);
    run.write("reader/tls.crt", &pair.cert);
    run.write("reader/tls.key", &pair.key);
    let ca_file = run.write("reader-ca.pem", authority.pem());
    let here = [
        ("0.0.0.0:443", format!("127.0.0.1:{port}")),
        ("127.0.0.1:9902", format!("127.0.0.1:{admin_port}")),
        ("/run/kubepass", run.file("sockets").display().to_string()),
        ("https://idp.example.com", idp.issuer().trim_end_matches('/').to_owned()),
        ("https://10.0.0.1:6443", cluster.url()),
    ];
    let script = |text: &str| here.iter().fold(text.to_owned(), |text, (written, ours)| text.replace(written, ours));
    let bash = Kubectl::command(Path::new("/bin/bash"), &folder)
        .path_first(tools.bin())
        .path_first(server_binary().parent().unwrap())
        .env("KUBECONFIG", &cluster.admin_kubeconfig().display().to_string())
        .env("CLIENT_SECRET", CLIENT_SECRET);
    let place = Place { run: &run, tools, proxy: &proxy, ca_file: ca_file.clone(), issuer: idp.issuer() };
    let person = Person::new(&place, "foo");
    let mut server = None;
    for (kind, text) in &blocks {
        let text = script(text);
        match kind.as_str() {
            // Cargo built both binaries for this test.
            "build" => {}
            "up" => {
                let mut command = leash::command("/bin/bash");
                command.args(["-ec", &format!("exec {text}")]).current_dir(&folder);
                let path = format!("{}:{}:/usr/bin:/bin", server_binary().parent().unwrap().display(), tools.bin().display());
                command.env("PATH", path);
                let mut process = run.start("reader-kubepass", command);
                let (client, url) = (http::client(&[]), format!("http://127.0.0.1:{admin_port}/readyz"));
                process.until("kubepass is ready", Duration::from_secs(30), || {
                    client.get(&url).send().ok()?.status().is_success().then_some(())
                });
                server = Some(process);
            }
            "user" => {
                let shell = person.shell().env("KUBEPASS_CA_FILE", &ca_file.display().to_string());
                let output = shell.run(&["-ec", &text]).ok();
                assert!(output.contains("foo@example.com") && output.contains("[group1 system:authenticated]"), "{output}");
            }
            _ => {
                bash.run(&["-ec", &format!("set -o pipefail\n{text}")]).ok();
            }
        }
    }
    assert!(server.is_some_and(|mut server| server.ended().is_none()), "kubepass ended");
}

/// The `sh` blocks of the section, with the word behind `sh`.
fn blocks(readme: &str) -> Vec<(String, String)> {
    let section = readme.split(SECTION).nth(1).expect("the section").split("\n## ").next().unwrap();
    let mut found = Vec::new();
    let mut rest = section;
    while let Some((_, after)) = rest.split_once("```sh") {
        let (kind, after) = after.split_once('\n').expect("a block");
        let (text, after) = after.split_once("\n```").expect("the end of a block");
        found.push((kind.trim().to_owned(), text.to_owned()));
        rest = after;
    }
    found
}
