//! Holds the source tree to its map: which module may use which, what a pure module may import, how long a file may be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Lines of a file before its inline tests.
const MAX_LINES: usize = 600;

/// Every module with the modules that it may use, in reading order. An edge that is not here is a change of the design: add it with its reason.
const EDGES: &[(&str, &[&str])] = &[
    ("defence", &[]),
    ("kubernetes", &[]),
    ("envoy_names", &[]),
    ("expression", &[]),
    ("header", &[]),
    ("identity", &["expression"]),
    ("token", &["identity"]),
    ("policy", &["expression", "kubernetes"]),
    ("session", &["identity", "token"]),
    ("config", &["kubernetes", "identity", "token", "policy"]),
    ("snapshot", &["config", "policy", "token", "identity"]),
    // `config` for the route and its target, which a grant carries.
    ("access", &["snapshot", "session", "policy", "token", "identity", "kubernetes", "header", "config", "envoy_names"]),
    // `header` and `token` for a grant's names and a session's id, which a line borrows.
    ("audit", &["access", "config", "identity", "kubernetes", "policy", "header", "token", "envoy_names"]),
    ("xds", &["snapshot", "config", "kubernetes", "envoy_names"]),
    // Not `xds`: it judges what others wrote, by the tree of their file.
    ("envoy_check", &["kubernetes", "envoy_names"]),
    // The shell.
    ("clock", &[]),
    ("telemetry", &[]),
    ("lifecycle", &[]),
    ("unix_socket", &[]),
    ("file_modes", &[]),
    ("own_process", &[]),
    ("under_way", &[]),
    // Messages as bytes, for those of which there are many.
    ("wire", &[]),
    // Whose a stream is; `envoy_names` for how often it is told of (in its test).
    ("live_streams", &["identity", "envoy_names"]),
    // `identity`: it tells whose a session is.
    ("store", &["identity", "session", "token"]),
    ("trail", &["audit", "config"]),
    // `snapshot`: it follows the identity providers of the configuration in force.
    ("oidc", &["identity", "token", "config", "snapshot"]),
    // It brings objects and takes verdicts; the publisher knows nothing of it.
    // `snapshot` for which Envoys serve a route.
    ("cluster_source", &["config", "snapshot"]),
    ("publisher", &["config", "snapshot", "oidc", "audit", "trail", "token"]),
    // `audit` and `trail`: each change of a key leaves a line. `identity`: the session's names go into the claims.
    ("signing", &["token", "session", "identity", "store", "config", "snapshot", "audit", "trail"]),
    // Whose a connection is, and where connections come in.
    ("peer", &["config", "snapshot"]),
    ("door", &["peer", "config", "snapshot"]),
    // `config` for the versions of Envoy that it names.
    ("ads", &["peer", "xds", "snapshot", "config"]),
    // `identity` for whose they are.
    ("sessions", &["identity", "session", "store"]),
    // `config` and `snapshot` for whom the mapping in force makes of a login's claims.
    ("ending", &["audit", "session", "sessions", "store", "trail", "config", "snapshot"]),
    (
        "ext_authz",
        &[
            "door",
            "peer",
            "signing",
            "wire",
            "live_streams",
            "token",
            "access",
            "audit",
            "trail",
            "snapshot",
            "session",
            "sessions",
            "kubernetes",
            "header",
            "config",
            "envoy_names",
        ],
    ),
    // `kubernetes` to tell a watch, which has a start worth a line, from a plain read.
    ("access_log", &["peer", "wire", "live_streams", "snapshot", "audit", "trail", "kubernetes", "envoy_names"]),
    // `signing` for the public keys.
    (
        "web",
        &[
            "door",
            "peer",
            "signing",
            "ending",
            "oidc",
            "session",
            "sessions",
            "store",
            "token",
            "snapshot",
            "access",
            "audit",
            "trail",
            "identity",
            "kubernetes",
            "config",
        ],
    ),
    ("managed_envoy", &["xds", "config"]),
    // `xds` for what Envoys are given.
    ("admin", &["ending", "snapshot", "session", "sessions", "store", "ads", "publisher", "audit", "trail", "oidc", "token", "xds"]),
    ("app", &["*"]),
    ("operator", &["*"]),
    ("cli", &["kubernetes"]),
    ("bin", &["operator", "cli", "app", "telemetry"]),
];

/// What any module may use: each asks for its own defences.
const EVERYWHERE: &[&str] = &["defence"];

/// Shell modules that any shell module may use.
const EVERYWHERE_IN_THE_SHELL: &[&str] = &["clock", "telemetry", "lifecycle", "unix_socket", "file_modes", "under_way"];

const PURE: &[&str] = &[
    "defence",
    "kubernetes",
    "envoy_names",
    "expression",
    "header",
    "identity",
    "token",
    "policy",
    "session",
    "config",
    "snapshot",
    "access",
    "audit",
    "xds",
    "envoy_check",
];

/// What a pure module must not name, with what to do instead.
const IMPURE: &[(&str, &str)] = &[
    ("tokio::", "belongs to the shell"),
    ("tonic::", "belongs to the shell"),
    ("axum::", "belongs to the shell"),
    ("hyper::", "belongs to the shell"),
    ("reqwest::", "belongs to the shell"),
    ("std::fs", "take the contents as an argument"),
    ("std::env", "take the value as an argument"),
    ("std::net::Tcp", "belongs to the shell"),
    ("SystemTime", "take `now` as an argument"),
    ("Instant::now", "take `now` as an argument"),
    ("aws_lc_rs::rand", "take random bytes as an argument"),
    ("Uuid::new_v", "take random bytes as an argument"),
];

/// Modules that may name Envoy's generated messages.
const ENVOY_MESSAGES: &[&str] = &["xds", "ads", "ext_authz", "admin", "managed_envoy"];

#[test]
fn the_source_tree_follows_its_map() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for path in files(&root) {
        let text = std::fs::read_to_string(&path).unwrap();
        let relative = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        found.extend(violations(&relative, &text));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn planted_violations_are_found() {
    let doc = "//! Doc.\n";
    let check = |file: &str, text: &str, expected: &str| {
        let found = violations(file, text).join("\n");
        assert!(found.contains(expected), "{file}: expected {expected:?} in {found:?}");
    };
    check("policy/rules.rs", &format!("{doc}use crate::session::Session;"), "policy must not use session");
    check("policy/rules.rs", &format!("{doc}fn f() {{ crate::server::trail::x() }}"), "policy must not use trail");
    check("policy/rules.rs", &format!("{doc}use crate::{{kubernetes::x, session::y}};"), "policy must not use session");
    check("access/decide.rs", &format!("{doc}use tokio::sync::mpsc;"), "access is pure");
    check("access/decide.rs", &format!("{doc}let x = std::fs::read(y);"), "access is pure");
    check("server/web/pages.rs", &format!("{doc}use crate::server::ads::Ads;"), "web must not use ads");
    check("server/web/pages.rs", &format!("{doc}use envoy_types::pb;"), "web must not name Envoy's messages");
    check("server/new.rs", doc, "new is not on the map");
    check("header.rs", "use std::fmt;", "lacks its `//!`");
    check("header.rs", &format!("{doc}{}", "let a = 1;\n".repeat(MAX_LINES)), "lines");
    check("cli/login.rs", &format!("{doc}use crate::session::Session;"), "cli must not use session");
}

#[test]
fn what_is_allowed_is_not_found() {
    let text = "//! Doc.\nuse crate::kubernetes::Status;\nuse crate::policy::rules;\n#[cfg(test)]\nmod tests { use std::fs; use crate::session::S; }\n";
    assert_eq!(violations("policy/rules.rs", text), Vec::<String>::new());
    assert_eq!(violations("server/web.rs", "//! Doc.\nuse crate::server::{clock, trail::Trail};"), Vec::<String>::new());
}

#[test]
fn the_map_has_no_cycle() {
    let order: Vec<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    for (index, (name, uses)) in EDGES.iter().enumerate() {
        for used in uses.iter().filter(|used| **used != "*") {
            let position =
                order.iter().position(|other| other == used).unwrap_or_else(|| panic!("{name} uses {used}, which is not on the map"));
            assert!(position < index || *name == "cli" || *name == "bin", "{name} uses {used}, which stands below it");
        }
    }
}

fn violations(file: &str, text: &str) -> Vec<String> {
    let module = module_of(file);
    let is_test_file = file.ends_with("tests.rs") || file.contains("/tests/");
    let code = if is_test_file { "" } else { text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text) };
    let mut found = Vec::new();
    if !text.starts_with("//!") && !is_test_file {
        found.push(format!("{file}: lacks its `//!`: what it is and what it must not do"));
    }
    if code.lines().count() > MAX_LINES {
        found.push(format!("{file}: {} lines, more than {MAX_LINES}", code.lines().count()));
    }
    if file == "lib.rs" || file == "server.rs" {
        return found;
    }
    let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == module) else {
        found.push(format!("{file}: the module {module} is not on the map"));
        return found;
    };
    let code = without_comments(code);
    // Only the binaries stand outside the library; elsewhere `kubepass::` is the name of a log target.
    let root = if module == "bin" { "kubepass::" } else { "crate::" };
    for used in used_modules(&code, root) {
        let own = used == module || EVERYWHERE.contains(&used.as_str());
        let shell = file.starts_with("server/") && EVERYWHERE_IN_THE_SHELL.contains(&used.as_str());
        if !own && !shell && !allowed.contains(&"*") && !allowed.contains(&used.as_str()) {
            found.push(format!("{file}: {module} must not use {used}"));
        }
    }
    if PURE.contains(&module.as_str()) {
        found.extend(
            IMPURE.iter().filter(|(name, _)| code.contains(name)).map(|(name, why)| format!("{file}: {module} is pure; {name} {why}")),
        );
    }
    if code.contains("envoy_types::") && !ENVOY_MESSAGES.contains(&module.as_str()) {
        found.push(format!("{file}: {module} must not name Envoy's messages"));
    }
    found
}

/// `server/web/pages.rs` belongs to `web`, `policy/rules.rs` to `policy`.
fn module_of(file: &str) -> String {
    let inner = file.strip_prefix("server/").unwrap_or(file);
    inner.split('/').next().unwrap_or(inner).trim_end_matches(".rs").to_owned()
}

fn without_comments(code: &str) -> String {
    code.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line }).collect::<Vec<_>>().join("\n")
}

/// First segments behind `crate::`, also in groups; `crate::server::X` counts as X.
fn used_modules(code: &str, root: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        // `$crate::` of macros and `other_crate::` are not ours.
        let before = code[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            used.extend(first_segments(&code[at + root.len()..]));
        }
    }
    used
}

fn first_segments(rest: &str) -> Vec<String> {
    if let Some(rest) = rest.strip_prefix("server::") {
        return first_segments(rest);
    }
    if let Some(group) = rest.strip_prefix('{') {
        return group_items(group).iter().flat_map(|item| first_segments(item)).collect();
    }
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() { vec![] } else { vec![name] }
}

/// The comma-separated items of a group whose opening brace was taken off.
fn group_items(group: &str) -> Vec<String> {
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(std::mem::take(&mut item));
                continue;
            }
            c if c.is_whitespace() => continue,
            _ => {}
        }
        item.push(c);
    }
    items.push(item);
    items
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// `[lints]` says it too, but a crate must not depend on how it is built.
#[test]
fn every_crate_root_forbids_unsafe_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["src/lib.rs", "src/bin/kubepass.rs", "src/bin/kubepass-server.rs", "proto/build.rs"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        assert!(text.lines().any(|line| line == "#![forbid(unsafe_code)]"), "{file}");
    }
}
