//! `cluster authentication-config`: from a configuration on disk to what the API server is given.

use std::path::Path;

use kubepass::kubernetes::authentication_configuration::ApiVersion;
use kubepass::operator::cluster_authentication_config::{Options, run};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture;

/// A folder with an example configuration and the files that it names; what makes tokens of service accounts is not there yet.
struct Folder(TempDir);

impl Folder {
    fn of(example: &str, change: impl FnOnce(String) -> String) -> Self {
        let folder = Self(TempDir::new().unwrap());
        let text = std::fs::read_to_string(fixture::root().join("config").join(example)).unwrap();
        folder.write("kubepass.yaml", change(text).as_bytes());
        for name in ["tls.crt", "tls.key"] {
            folder.write(name, &fixture::fixed(name));
        }
        for name in ["prod-ca.crt", "own-ca.crt", "managed-ca.crt"] {
            folder.write(name, &fixture::fixed("ca.crt"));
        }
        folder.write("signing.pem", &fixture::fixed("keys/signing.pem"));
        folder.write("secret", b"test-only-content-of-the-secret-0123456789abcdef");
        folder.write("client-secret", b"test-only-content");
        folder
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.0.path().join(name), content).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, options: Options) -> Result<String, String> {
        run(&self.path("kubepass.yaml"), &options)
    }

    #[track_caller]
    fn refused(&self, options: Options, expected: &str) {
        let refusal = self.run(options);
        assert!(refusal.as_ref().is_err_and(|message| message.contains(expected)), "{refusal:?}");
    }
}

fn of_route(route: &str) -> Options {
    Options { route: route.to_owned(), ..Options::default() }
}

fn parsed(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

#[test]
fn the_example_says_what_its_route_says() {
    let folder = Folder::of("jwt.yaml", |text| text);
    let whole = parsed(&folder.run(of_route("prod")).unwrap());
    assert_eq!((&whole["apiVersion"], &whole["kind"]), (&json!("apiserver.config.k8s.io/v1"), &json!("AuthenticationConfiguration")));
    assert_eq!(whole.as_object().unwrap().len(), 3, "{whole}");
    let entry = &whole["jwt"][0];
    assert_eq!(entry["issuer"], json!({"url": "https://pass.example.com", "audiences": ["prod"]}));
    assert_eq!(entry["claimValidationRules"][1]["expression"], "claims.nbf == claims.iat && claims.exp - claims.iat <= 300");
    assert_eq!(entry["claimMappings"]["uid"]["expression"], "claims.?uid.orValue(\"\")");
    let keys: Vec<&Value> = entry["claimMappings"]["extra"].as_array().unwrap().iter().map(|extra| &extra["key"]).collect();
    assert_eq!(keys, ["kubepass.dev/session", "kubepass.dev/policy", "example.com/idp"]);
    let beta = folder.run(Options { api_version: Some(ApiVersion::V1beta1), ..of_route("prod") }).unwrap();
    assert_eq!(parsed(&beta)["jwt"], whole["jwt"]);
}

/// An issuer stands once in a file, so routes to one API server have one entry.
#[test]
fn routes_to_one_api_server_share_an_entry() {
    let folder = Folder::of("jwt.yaml", |text| {
        let (before, after) = text.split_once("\naudit:").unwrap();
        let route = |name: &str, server: &str, more: &str| {
            format!(
                "\n- name: {name}\n  host: {name}.k8s.example.com\n  kubernetes:\n    server: {server}\n    ca: {{file: prod-ca.crt}}\n    {more}\n  \
                 policy: [{{allow: \"true\"}}]"
            )
        };
        let admin =
            route("admin", "https://10.0.0.1:6443", "jwt: {audience: prod-admin, lifetime: 1h}\n    allow_system: [system:masters]");
        let other = route("other", "https://10.0.0.2:6443", "jwt: {audience: other}");
        format!("{before}{admin}{other}\n\naudit:{after}")
    });
    for asked in ["prod", "admin"] {
        let text = folder.run(of_route(asked)).unwrap();
        assert!(
            text.starts_with("# kubepass: this API server takes the tokens that kubepass signs for routes \"prod\", \"admin\".\n"),
            "{text}"
        );
        let entry = parsed(&text)["jwt"][0].clone();
        assert_eq!(entry["issuer"]["audiences"], json!(["prod", "prod-admin"]));
        assert_eq!(entry["issuer"]["audienceMatchPolicy"], "MatchAny");
        assert_eq!(entry["claimValidationRules"][1]["expression"], "claims.nbf == claims.iat && claims.exp - claims.iat <= 3600");
        assert!(text.contains("group in [\"system:masters\"]"), "{text}");
    }
    assert_eq!(parsed(&folder.run(of_route("other")).unwrap())["jwt"][0]["issuer"]["audiences"], json!(["other"]));
}

#[test]
fn the_discovery_server_and_its_authority_are_named() {
    let folder = Folder::of("both-methods.yaml", |text| text);
    let url = "https://keys.internal:8443/kubepass/openid-configuration";
    let ca = String::from_utf8(fixture::fixed("ca.crt")).unwrap();
    folder.write("keys-ca.crt", format!("the company's authority\n{ca}").as_bytes());
    let options = Options { discovery_url: Some(url.to_owned()), discovery_ca: Some(folder.path("keys-ca.crt")), ..of_route("own") };
    let issuer = parsed(&folder.run(options).unwrap())["jwt"][0]["issuer"].clone();
    assert_eq!(issuer["discoveryURL"], url);
    assert_eq!(issuer["certificateAuthority"], ca.replace("\r\n", "\n"));
    let with_url = |url: &str| Options { discovery_url: Some(url.to_owned()), ..of_route("own") };
    folder.refused(with_url("http://keys.internal/d"), "is not https");
    folder.refused(with_url("keys.internal"), "is no URL");
    folder.refused(with_url("https://user@keys.internal/d"), "must not hold a user");
    folder.refused(with_url("https://keys.internal/d?x"), "must not hold a user");
    folder.refused(with_url("https://keys.internal"), "must name the document itself");
    folder.refused(with_url("https://keys.internal/kubepass/"), "must name the document itself");
    folder.refused(with_url("https://pass.example.com"), "must name the document itself");
    let with_ca = |name: &str| Options { discovery_ca: Some(folder.path(name)), ..of_route("own") };
    folder.write("both.pem", &[fixture::fixed("ca.crt"), fixture::fixed("tls.key")].concat());
    folder.refused(with_ca("both.pem"), "holds a private key");
    folder.refused(with_ca("secret"), "holds no certificate");
    folder.write("broken.crt", b"-----BEGIN CERTIFICATE-----\naHVudGVyMg==\n-----END CERTIFICATE-----\n");
    folder.refused(with_ca("broken.crt"), "a certificate that cannot be read");
    folder.refused(with_ca("nowhere.crt"), "nowhere.crt cannot be read: ");
}

#[test]
fn an_existing_file_is_merged_or_refused_by_its_name() {
    let folder = Folder::of("both-methods.yaml", |text| text);
    let existing = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {url: https://idp.example.com, audiences: [kubernetes]} # theirs\n  claimMappings: {username: {claim: sub, prefix: \"\"}}\n";
    folder.write("authentication.yaml", existing.as_bytes());
    let options = || Options { merge: Some(folder.path("authentication.yaml")), ..of_route("own") };
    let merged = folder.run(options()).unwrap();
    assert!(merged.contains(existing), "{merged}");
    assert_eq!(parsed(&merged)["jwt"][1]["issuer"]["url"], "https://pass.example.com");
    folder.write("authentication.yaml", merged.as_bytes());
    assert_eq!(folder.run(options()).unwrap(), merged);
    let other = Options { api_version: Some(ApiVersion::V1), ..options() };
    folder.refused(other, "authentication.yaml has the apiVersion apiserver.config.k8s.io/v1beta1, not");
    folder.refused(Options { merge: Some(Path::new("/nonexistent").to_owned()), ..of_route("own") }, "/nonexistent cannot be read");
}

#[test]
fn a_route_without_tokens_is_pointed_to_its_own_verb() {
    let folder = Folder::of("both-methods.yaml", |text| text);
    folder.refused(of_route("managed"), "`kubepass-server cluster rbac managed` prints");
    folder.refused(of_route("nowhere"), "there is no route \"nowhere\"; there are: managed, own");
}
