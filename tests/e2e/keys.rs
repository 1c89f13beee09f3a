//! An operator's keys: made by kubepass itself, then by the operator, rotated, published as files; a broken file changes nothing; and nothing
//! that is said about them is a key.

use std::time::Duration;

use serde_json::Value;

use super::shared::own_world;
use super::support::wait::{eventually, eventually_ok};
use super::support::world::{World, WorldOptions};

/// A change of files is in force, and a key's wait (2 s below) is over.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn keys_are_made_rotated_published_and_never_shown() {
    let mut world = own_world("keys", WorldOptions::default());
    let [own] = kids(&world, "upstream", "signs").try_into().expect("a key of its own");
    let line = world
        .audit_line("its own key signs", |line| line["event"] == "signing_key" && line["key"] == own.as_str() && line["change"] == "signs");
    assert_eq!((&line["tokens"], &line["algorithm"]), (&"upstream".into(), &"ES256".into()));
    assert_ne!(kids(&world, "assertion", "signs"), [own.as_str()]);

    let file = world.run.file("kubepass/signing.pem");
    let said = world.operator(&["keys", "generate", file.to_str().unwrap(), "--algorithm", "PS256"]).ok();
    assert!(said.contains("algorithm: PS256"), "{said}");
    assert!(world.operator(&["keys", "generate", file.to_str().unwrap()]).err().contains("never overwritten"));
    assert!(world.operator(&["keys", "generate", "x.pem", "--algorithm", "HS256"]).err().contains("ES256, ES384, RS256, PS256"));

    // The new key is published, waits its time, and then signs; the old one stays in what is published.
    let configured = format!(
        "{}signing_keys: [{{file: signing.pem, algorithm: PS256}}]\npublish_before_use: 2s\n",
        world.config(super::support::world::POLICY)
    );
    world.write_config(&configured);
    let new = eventually("the new key signs", SOON, || {
        let signs = kids(&world, "upstream", "signs");
        let old = kids(&world, "upstream", "withdrawn");
        (signs != [own.as_str()] && old == [own.as_str()]).then(|| signs[0].clone())
    });
    world
        .audit_line("the new key signs", |line| line["event"] == "signing_key" && line["key"] == new.as_str() && line["change"] == "signs");
    assert_eq!(world.metric(&["kubepass_signing_keys_published", "upstream"]), ["kubepass_signing_keys_published{tokens=\"upstream\"} 2"]);
    assert_eq!(world.metric(&["kubepass_tokens_minted_total", "upstream"]), ["kubepass_tokens_minted_total{tokens=\"upstream\"} 0"]);

    a_broken_file_changes_nothing(&world, &new);
    published_files_say_what_is_published(&world, &new, &own);

    // The same from the store, when nothing runs.
    let running = table(&world);
    world.stop_kubepass(false);
    assert_eq!(table(&world), running);
    world.start_kubepass();
    assert_eq!(table(&world), running, "a restart changes nothing");
    a_stolen_key_is_out_at_once(&world, &configured, &new, &own);
    nothing_shows_a_private_key(&world);
}

fn a_stolen_key_is_out_at_once(world: &World, configured: &str, signs: &str, stolen: &str) {
    assert_eq!(kids(world, "upstream", "withdrawn"), [stolen]);
    world.write_config(&format!("{configured}revoked_keys: [{signs}]\n"));
    eventually_ok("a key that is still configured is named", SOON, || {
        let state: Value = serde_json::from_str(&world.operator(&["state"]).ok()).unwrap();
        let errors = state["configuration"]["errors"].to_string();
        if errors.contains("which `revoked_keys` names") { Ok(()) } else { Err(errors) }
    });
    world.write_config(&format!("{configured}revoked_keys: [{stolen}]\n"));
    eventually("the stolen key is no longer published", SOON, || table(world).iter().all(|row| !row.contains(stolen)).then_some(()));
    assert_eq!(kids(world, "upstream", "signs"), [signs]);
    world.audit_line("the stolen key is gone", |line| line["key"] == stolen && line["change"] == "removed");
}

fn a_broken_file_changes_nothing(world: &World, signs: &str) {
    let good = std::fs::read_to_string(world.run.file("kubepass/signing.pem")).unwrap();
    world.secret("signing.pem", &good[..good.len() / 2]);
    let state = || -> Value { serde_json::from_str(&world.operator(&["state"]).ok()).unwrap() };
    eventually_ok("the broken key is refused", SOON, || {
        let errors = state()["configuration"]["errors"].to_string();
        if errors.contains("is not valid PEM") { Ok(()) } else { Err(errors) }
    });
    assert_eq!(kids(world, "upstream", "signs"), [signs]);
    world.secret("signing.pem", &good);
    eventually("all is well again", SOON, || (state()["configuration"]["last_change"] == "applied").then_some(()));
}

fn published_files_say_what_is_published(world: &World, signs: &str, leaves: &str) {
    let folder = world.run.file("published");
    world.operator(&["keys", "publish", folder.to_str().unwrap(), "--base-url", "https://keys.example.com/"]).ok();
    let read = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(folder.join(".well-known").join(name)).unwrap()).unwrap() };
    let discovery = read("openid-configuration");
    assert_eq!(discovery["issuer"], world.url(super::support::world::PUBLIC_HOST));
    assert_eq!(discovery["jwks_uri"], "https://keys.example.com/.well-known/jwks.json");
    let keys: Vec<Value> = read("jwks.json")["keys"].as_array().unwrap().clone();
    assert_eq!(keys.iter().map(|key| key["kid"].as_str().unwrap()).collect::<Vec<_>>(), [signs, leaves]);
    assert_eq!(keys.iter().map(|key| key["alg"].as_str().unwrap()).collect::<Vec<_>>(), ["PS256", "ES256"]);
    let private = |key: &Value| ["d", "p", "q", "k"].iter().any(|part| key.get(part).is_some());
    assert!(!keys.iter().any(private), "{keys:?}");
}

fn nothing_shows_a_private_key(world: &World) {
    let pem = std::fs::read_to_string(world.run.file("kubepass/signing.pem")).unwrap();
    // A line of the key's own Base64, behind the part that all keys share.
    let part = pem.lines().nth(3).unwrap();
    let shown = [
        std::fs::read_to_string(world.audit_path()).unwrap(),
        std::fs::read_to_string(world.run.log_path("kubepass-server")).unwrap(),
        world.operator(&["state"]).ok(),
        world.metric(&[]).join("\n"),
        table(world).join("\n"),
    ];
    for text in shown {
        assert!(!text.is_empty() && !text.contains(part) && !text.contains("PRIVATE KEY"), "{text}");
    }
}

/// `keys list` without the times.
fn table(world: &World) -> Vec<String> {
    let rows = world.operator(&["keys", "list"]).ok();
    rows.lines().skip(1).map(|row| row.split_whitespace().take(4).collect::<Vec<_>>().join(" ")).collect()
}

fn kids(world: &World, tokens: &str, state: &str) -> Vec<String> {
    let cells: Vec<Vec<String>> = table(world).iter().map(|row| row.split(' ').map(str::to_owned).collect()).collect();
    cells.into_iter().filter(|row| row[0] == tokens && row[3] == state).map(|row| row[1].clone()).collect()
}
