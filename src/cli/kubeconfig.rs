//! A kubeconfig with one route's cluster, user and context merged in; everything else that stands in it is kept. Text in, text out.
//!
//! As with `kubectl config`, comments and the order of keys do not survive.

use std::path::Path;

use serde_json::{Map, Value, json};

/// What to merge in.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// Of cluster, user and context.
    pub(crate) name: &'a str,
    pub(crate) server: &'a str,
    /// PEM, base64-encoded once more.
    pub(crate) certificate_authority_data: Option<String>,
    /// How to run this program: a name on the `PATH`, or a whole path.
    pub(crate) command: String,
    pub(crate) set_current_context: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum KubeconfigError {
    #[error("the kubeconfig is not valid YAML: {0}")]
    NotYaml(String),
    #[error("the kubeconfig's {0} has an unexpected shape; nothing was written")]
    Shape(&'static str),
    #[error("the kubeconfig already has a {kind} {name:?} that is not for this route; choose another name with --name")]
    NameTaken { kind: &'static str, name: String },
    #[error("there is no home folder for the kubeconfig; set KUBECONFIG or give --kubeconfig")]
    NoHome,
    #[error("{0} exists: another program is writing the kubeconfig (if none is, remove that file)")]
    Locked(String),
    #[error("cannot write the kubeconfig {path}: {source}")]
    Io { path: String, source: std::io::Error },
}

/// # Errors
/// A text that is no kubeconfig, and names that stand for something else already.
pub(crate) fn merge(existing: Option<&str>, entry: &Entry<'_>) -> Result<String, KubeconfigError> {
    let not_yaml = |error: &dyn std::fmt::Display| KubeconfigError::NotYaml(error.to_string());
    let mut root = match existing.filter(|text| !text.trim().is_empty()) {
        Some(text) => serde_yaml::from_str::<Value>(text).map_err(|error| not_yaml(&error.without_snippet()))?,
        None => Value::Null,
    };
    if root.is_null() {
        root = json!({});
    }
    let config = root.as_object_mut().ok_or(KubeconfigError::Shape("top level"))?;
    config.entry("apiVersion").or_insert_with(|| "v1".into());
    config.entry("kind").or_insert_with(|| "Config".into());
    merge_cluster(named(config, "clusters", "cluster", entry.name)?, entry)?;
    merge_user(named(config, "users", "user", entry.name)?, entry)?;
    merge_context(named(config, "contexts", "context", entry.name)?, entry)?;
    if entry.set_current_context {
        config.insert("current-context".to_owned(), entry.name.into());
    }
    // Each value on its own line: folding long ones could change their blanks, and other tools cut lines out of this file.
    let options = serde_yaml::ser_options! { prefer_block_scalars: false };
    serde_yaml::to_string_with_options(&root, options).map_err(|error| not_yaml(&error))
}

fn merge_cluster(cluster: &mut Map<String, Value>, entry: &Entry<'_>) -> Result<(), KubeconfigError> {
    refuse_other("cluster", entry, cluster.get("server").is_none_or(|server| server == entry.server))?;
    cluster.insert("server".to_owned(), entry.server.into());
    if let Some(data) = &entry.certificate_authority_data {
        cluster.remove("certificate-authority");
        cluster.remove("insecure-skip-tls-verify");
        cluster.insert("certificate-authority-data".to_owned(), data.as_str().into());
    }
    Ok(())
}

/// A user of another credential plugin, or with a credential of its own, is not ours to replace. One of pomerium-cli is: its words are the same.
fn merge_user(user: &mut Map<String, Value>, entry: &Entry<'_>) -> Result<(), KubeconfigError> {
    let command = user.get("exec").and_then(|exec| exec.get("command")).and_then(Value::as_str);
    let program = command.and_then(|command| Path::new(command).file_stem()).and_then(|stem| stem.to_str());
    refuse_other("user", entry, user.is_empty() || matches!(program, Some("kubepass" | "pomerium-cli")))?;
    let environment = user.get("exec").and_then(|exec| exec.get("env")).filter(|environment| !environment.is_null()).cloned();
    let mut exec = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": entry.command,
        "args": ["k8s", "exec-credential", entry.server],
        "interactiveMode": "IfAvailable",
        "provideClusterInfo": true,
        "installHint": "kubepass is needed to log in to this cluster; ask your administrator where to get it.",
    });
    if let (Some(environment), Some(exec)) = (environment, exec.as_object_mut()) {
        exec.insert("env".to_owned(), environment);
    }
    user.insert("exec".to_owned(), exec);
    Ok(())
}

/// A namespace that the user chose stays.
fn merge_context(context: &mut Map<String, Value>, entry: &Entry<'_>) -> Result<(), KubeconfigError> {
    let is_ours = |key| context.get(key).is_none_or(|value| value == entry.name);
    refuse_other("context", entry, is_ours("cluster") && is_ours("user"))?;
    context.insert("cluster".to_owned(), entry.name.into());
    context.insert("user".to_owned(), entry.name.into());
    Ok(())
}

fn refuse_other(kind: &'static str, entry: &Entry<'_>, is_ours: bool) -> Result<(), KubeconfigError> {
    if is_ours { Ok(()) } else { Err(KubeconfigError::NameTaken { kind, name: entry.name.to_owned() }) }
}

/// The object under `inner` of the element `name` in the list `list`; made where it is missing.
fn named<'a>(
    config: &'a mut Map<String, Value>,
    list: &'static str,
    inner: &'static str,
    name: &str,
) -> Result<&'a mut Map<String, Value>, KubeconfigError> {
    let shape = || KubeconfigError::Shape(list);
    let elements = config.entry(list).or_insert(Value::Null);
    if elements.is_null() {
        *elements = json!([]);
    }
    let elements = elements.as_array_mut().ok_or_else(shape)?;
    let is_named = |element: &Value| element.get("name").is_some_and(|value| value == name);
    let position = elements.iter().position(is_named).unwrap_or_else(|| {
        elements.push(json!({ "name": name }));
        elements.len().saturating_sub(1)
    });
    let element = elements.get_mut(position).and_then(Value::as_object_mut).ok_or_else(shape)?;
    let content = element.entry(inner).or_insert(Value::Null);
    if content.is_null() {
        *content = json!({});
    }
    content.as_object_mut().ok_or_else(shape)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
    use super::*;

    fn entry(name: &str) -> Entry<'_> {
        Entry {
            name,
            server: "https://prod.k8s.example.com",
            certificate_authority_data: None,
            command: "kubepass".to_owned(),
            set_current_context: true,
        }
    }

    fn parse(text: &str) -> Value {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn golden_new_file() {
        let text = merge(None, &Entry { certificate_authority_data: Some("QUJD".to_owned()), ..entry("prod") }).unwrap();
        assert_eq!(
            parse(&text),
            json!({
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "prod", "cluster": {"server": "https://prod.k8s.example.com", "certificate-authority-data": "QUJD"}}],
                "users": [{"name": "prod", "user": {"exec": {
                    "apiVersion": "client.authentication.k8s.io/v1",
                    "command": "kubepass",
                    "args": ["k8s", "exec-credential", "https://prod.k8s.example.com"],
                    "interactiveMode": "IfAvailable",
                    "provideClusterInfo": true,
                    "installHint": "kubepass is needed to log in to this cluster; ask your administrator where to get it.",
                }}}],
                "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "prod"}}],
                "current-context": "prod",
            })
        );
        assert_eq!(merge(Some(&text), &Entry { certificate_authority_data: Some("QUJD".to_owned()), ..entry("prod") }).unwrap(), text);
    }

    const OTHERS: &str = r#"
apiVersion: v1
kind: Config
preferences: {colors: true}
extensions: [{name: x, extension: {a: 1.50, b: "1e3", c: "yes", d: null, e: "0x1F", f: ''}}]
clusters:
- name: other
  cluster: {server: "https://other", certificate-authority: /ca.crt, tls-server-name: x}
users:
- name: other
  user: {token: "12345", username: 'a: b # c', password: "null"}
- name: "2001-01-01"
  user: {client-key-data: LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCg==}
contexts:
- name: other
  context: {cluster: other, user: other, namespace: "007"}
current-context: other
"#;

    #[test]
    fn keeps_everything_else() {
        let before = parse(OTHERS);
        let after = parse(&merge(Some(OTHERS), &Entry { set_current_context: false, ..entry("prod") }).unwrap());
        for key in ["apiVersion", "kind", "preferences", "extensions", "current-context"] {
            assert_eq!(after[key], before[key], "{key}");
        }
        for (list, count) in [("clusters", 1), ("users", 2), ("contexts", 1)] {
            assert_eq!(after[list].as_array().unwrap()[..count], before[list].as_array().unwrap()[..], "{list}");
            assert_eq!(after[list].as_array().unwrap().len(), count + 1, "{list}");
        }
    }

    /// What a YAML writer may get wrong.
    #[test]
    fn any_text_survives() {
        for text in [
            "two  blanks and  a long line of more than eighty characters, which  a writer might  fold at   its blanks  ",
            " leading",
            "trailing ",
            "\ttab\t",
            "a\nb",
            "a\n",
            "\n",
            "a\r\nb",
            "- a",
            "# a",
            "a: b",
            "a #b",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "'",
            "\"",
            "~",
            "null",
            "Null",
            "NO",
            "on",
            "y",
            "1_000",
            "0b1",
            "012",
            ".5",
            "1e3",
            ".inf",
            "12:30:45",
            "2001-01-01",
            "=",
            "<<",
            "?",
            "-",
            "{",
            "[]",
            "",
            "\u{85}x\u{2028}y",
            "\u{feff}",
            "ü\u{1f600}",
        ] {
            let before = json!({"users": [{"name": text, "user": {"token": text, text: text}}]});
            let after = parse(&merge(Some(&before.to_string()), &entry("prod")).unwrap());
            assert_eq!(after["users"][0], before["users"][0], "{text:?}");
        }
        let long = "QUJD".repeat(1_000);
        let text = merge(None, &Entry { certificate_authority_data: Some(long.clone()), ..entry("prod") }).unwrap();
        assert!(text.contains(&format!("certificate-authority-data: {long}\n")));
    }

    #[test]
    fn takes_over_its_own_and_pomeriums() {
        let before = r#"
clusters:
- {name: prod, cluster: {server: "https://prod.k8s.example.com", insecure-skip-tls-verify: true, proxy-url: "http://p"}}
users:
- name: prod
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: /usr/bin/pomerium-cli, args: [k8s, exec-credential, x], env: [{name: A, value: B}]}
contexts:
- {name: prod, context: {cluster: prod, user: prod, namespace: web}}
"#;
        let after = parse(&merge(Some(before), &Entry { certificate_authority_data: Some("QUJD".to_owned()), ..entry("prod") }).unwrap());
        let cluster = json!({"server": "https://prod.k8s.example.com", "certificate-authority-data": "QUJD", "proxy-url": "http://p"});
        assert_eq!(after["clusters"][0]["cluster"], cluster);
        assert_eq!(after["users"][0]["user"]["exec"]["command"], "kubepass");
        assert_eq!(after["users"][0]["user"]["exec"]["env"], json!([{"name": "A", "value": "B"}]));
        assert_eq!(after["contexts"][0]["context"], json!({"cluster": "prod", "user": "prod", "namespace": "web"}));
        assert_eq!(after["users"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn never_replaces_what_is_not_its_own() {
        let taken = |text: &str| match merge(Some(text), &entry("prod")) {
            Err(KubeconfigError::NameTaken { kind, .. }) => kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(taken("clusters: [{name: prod, cluster: {server: 'https://other'}}]"), "cluster");
        assert_eq!(taken("users: [{name: prod, user: {token: x}}]"), "user");
        assert_eq!(taken("users: [{name: prod, user: {exec: {command: aws}}}]"), "user");
        assert_eq!(taken("contexts: [{name: prod, context: {cluster: other, user: prod}}]"), "context");
    }

    #[test]
    fn refuses_what_is_no_kubeconfig() {
        for text in ["[1]", "clusters: {}", "users: [x, y]\nclusters: [a: b", "text"] {
            assert!(merge(Some(text), &entry("prod")).is_err(), "{text}");
        }
        for text in ["", "  \n", "# only a comment\n", "clusters:\nusers: null\ncontexts: []"] {
            assert!(merge(Some(text), &entry("prod")).is_ok(), "{text}");
        }
    }
}
