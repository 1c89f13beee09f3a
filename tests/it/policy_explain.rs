//! What `policy explain` prints for the example with two clusters: one golden file, read as an operator would.
//! `UPDATE_GOLDEN=1 cargo test --test it policy_explain` rewrites it.

use kubepass::operator::policy_explain::{Explanation, Question, explain};
use serde_json::Map;

use crate::fixture::{self, NOW};

const EXAMPLE: &str = "config/two-clusters.yaml";

fn ask(route: &str, user: &str, groups: &[&str], session_age: u64, words: &str) -> Result<Explanation, String> {
    let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
    let question = Question {
        route,
        user,
        email: None,
        groups: &groups,
        claims: Map::new(),
        idp: None,
        source_ip: "192.0.2.1",
        session_age,
        words: &words.split(' ').collect::<Vec<_>>(),
    };
    explain(&fixture::snapshot_of(EXAMPLE), &question, NOW)
}

/// Route, user, groups, age of the session in seconds, words, and whether it is allowed.
type Asked = (&'static str, &'static str, &'static [&'static str], u64, &'static str, bool);

#[test]
fn answers_are_the_golden_ones() {
    let questions: [Asked; 9] = [
        ("staging", "ann@example.com", &[], 0, "get pods -n web", true),
        ("staging", "eve@example.org", &[], 0, "get pods -n web", false),
        ("prod", "ann@example.com", &["team-web", "sales"], 0, "get pods -n web", true),
        ("prod", "ann@example.com", &["team-web"], 0, "delete deployment/web -n web", false),
        ("prod", "ann@example.com", &["oncall"], 0, "get secrets -n web", false),
        ("prod", "ann@example.com", &["sre"], 5 * 3600, "exec web-0 -n web", false),
        ("prod", "ann@example.com", &["sre", "team-web"], 3600, "exec web-0 -n web", true),
        ("staging", "ann@example.com", &["system:masters"], 0, "get nodes", false),
        ("staging", "ann@example.com", &[], 0, "/api//v1/pods", false),
    ];
    let mut found = String::new();
    for (route, user, groups, session_age, words, allowed) in questions {
        let explanation = ask(route, user, groups, session_age, words).unwrap();
        assert_eq!(explanation.allowed, allowed, "{}", explanation.text);
        found += &format!("$ {route}: {words}\n{}\n", explanation.text);
    }
    let golden = fixture::root().join("tests/it/golden/policy_explain.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&golden).unwrap_or_default(), "UPDATE_GOLDEN=1 takes it as right");
}

#[test]
fn what_cannot_be_asked_says_why() {
    let refusal = |route: &str, words: &str| ask(route, "ann@example.com", &[], 0, words).unwrap_err();
    assert_eq!(refusal("nowhere", "get pods"), "there is no route \"nowhere\"; there are: prod, staging");
    assert!(refusal("prod", "get widgets").contains("a full path can be given instead"));
}
