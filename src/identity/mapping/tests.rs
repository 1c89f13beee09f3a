#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use serde_json::json;

use super::*;
use crate::identity::NameFault;

fn claims() -> Json {
    json!({
        "iss": "https://idp.example.com", "sub": "248289761001", "email": "alice@example.com", "email_verified": true,
        "preferred_username": "alice", "groups": ["dev", "ops", "dev"],
    })
}

fn with(name: &str, value: Json) -> Json {
    let mut claims = claims();
    claims.as_object_mut().unwrap().insert(name.into(), value);
    claims
}

fn without(name: &str) -> Json {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name).unwrap();
    claims
}

fn map(mapping: &IdentityMapping, claims: &Json) -> Result<Identity, MappingRefusal> {
    mapping.map("corp", claims.as_object().unwrap())
}

fn mapping(username: &str, groups: Option<&str>, require: Option<&str>) -> IdentityMapping {
    IdentityMapping::compile(username, groups, require).unwrap()
}

fn usual() -> IdentityMapping {
    mapping("claims.email", Some("claims.groups"), None)
}

#[test]
fn the_usual_mapping() {
    let identity = map(&usual(), &claims()).unwrap();
    assert_eq!(identity.principal, Principal { idp: "corp".into(), subject: "248289761001".into() });
    assert_eq!(identity.username, "alice@example.com");
    assert_eq!(identity.email, "alice@example.com");
    assert_eq!(identity.groups.as_slice(), ["dev", "ops"]);
    assert_eq!(Json::Object(identity.claims), claims());
}

#[test]
fn every_fault_of_every_expression_is_told() {
    let errors = IdentityMapping::compile("claim.email", Some("claims.groups +"), Some("1 + 1")).unwrap_err();
    let fields: Vec<MappingField> = errors.iter().map(|(field, _)| *field).collect();
    assert_eq!(fields, [MappingField::Username, MappingField::Groups, MappingField::Require]);
    assert_eq!((errors[0].1.line, errors[0].1.column), (1, 1));
    assert!(IdentityMapping::compile("true", None, None).is_err());
    assert!(IdentityMapping::compile("claims.email", Some("{'a': 1}"), None).is_err());
    assert!(IdentityMapping::compile("user.email", None, None).is_err());
    assert!(IdentityMapping::compile("", None, None).is_err());
}

#[test]
fn an_email_that_is_not_verified_is_no_username() {
    for username in ["claims.email", " claims.email ", "claims['email']", "claims.email.lowerAscii()"] {
        let Ok(mapping) = IdentityMapping::compile(username, None, None) else { continue };
        let check = |claims: Json, expected: Result<(), MappingRefusal>| {
            assert_eq!(map(&mapping, &claims).map(|_| ()), expected, "{username} {claims}");
        };
        check(claims(), Ok(()));
        check(with("email_verified", json!("true")), Ok(()));
        check(without("email_verified"), Err(MappingRefusal::EmailNotVerified));
        for value in [json!(false), json!("false"), json!(null), json!(1), json!("1"), json!("TRUE"), json!([true]), json!({})] {
            check(with("email_verified", value), Err(MappingRefusal::EmailNotVerified));
        }
    }
    assert!(map(&mapping("claims.preferred_username", None, None), &without("email_verified")).is_ok());
}

#[test]
fn a_requirement_of_ones_own() {
    let check = |require: &str, expected: Result<(), MappingRefusal>| {
        let mapping = mapping("claims.email", None, Some(require));
        assert_eq!(map(&mapping, &claims()).map(|_| ()), expected, "{require}");
    };
    let not_met = |missing: Option<&str>| Err(MappingRefusal::RequirementNotMet { missing: missing.map(str::to_owned) });
    check("true", Ok(()));
    check("claims.email_verified && 'ops' in claims.groups", Ok(()));
    check("claims.email.endsWith('@example.org')", not_met(None));
    check("claims.hd == 'example.com'", not_met(Some("hd")));
    check("!claims.suspended", not_met(Some("suspended")));
    let refusal = map(&mapping("claims.email", None, Some("claims.sub")), &claims()).unwrap_err();
    assert!(matches!(refusal, MappingRefusal::RequirementFailed(_)), "{refusal}");
}

#[test]
fn a_username_is_one_good_name() {
    let check = |value: Json, expected: Result<(), MappingRefusal>| {
        let mapping = mapping("claims.name", None, None);
        assert_eq!(map(&mapping, &with("name", value.clone())).map(|_| ()), expected, "{value}");
    };
    let invalid = |fault| Err(MappingRefusal::UsernameInvalid(fault));
    check(json!("Ann, EU"), Ok(()));
    check(json!("system:masters"), Ok(()));
    check(json!(""), invalid(NameFault::Empty));
    check(json!("   "), invalid(NameFault::BlankEnd));
    check(json!("ann "), invalid(NameFault::BlankEnd));
    check(json!("ann\nImpersonate-Group: system:masters"), invalid(NameFault::Control));
    check(json!("ann\u{202e}"), invalid(NameFault::Invisible));
    check(json!("x".repeat(512)), Ok(()));
    check(json!("x".repeat(513)), invalid(NameFault::TooLong));
    for value in [json!(null), json!(true), json!(7), json!(["ann"]), json!({"a": "ann"})] {
        let refusal = map(&mapping("claims.name", None, None), &with("name", value)).unwrap_err();
        assert!(matches!(refusal, MappingRefusal::UsernameFailed(EvaluationError::WrongType { .. })), "{refusal:?}");
    }
    let refusal = map(&mapping("claims.name", None, None), &claims()).unwrap_err();
    assert_eq!(refusal, MappingRefusal::UsernameFailed(EvaluationError::Missing("name".into())));
    assert!(refusal.to_string().contains("`name` is missing"), "{refusal}");
}

#[test]
fn a_prefix_stands_before_the_username_only() {
    let identity = map(&usual().with_username_prefix("corp:"), &claims()).unwrap();
    assert_eq!((identity.username.as_str(), identity.email.as_str()), ("corp:alice@example.com", "alice@example.com"));
    let mapping = mapping("claims.name", None, None).with_username_prefix("corp:");
    // A prefix does not turn an empty or blank name into one.
    assert_eq!(map(&mapping, &with("name", json!(""))), Err(MappingRefusal::UsernameInvalid(NameFault::Empty)));
    assert_eq!(map(&mapping, &with("name", json!(" x"))), Err(MappingRefusal::UsernameInvalid(NameFault::BlankEnd)));
    assert_eq!(map(&mapping, &with("name", json!("x".repeat(508)))), Err(MappingRefusal::UsernameInvalid(NameFault::TooLong)));
}

#[test]
fn only_addresses_in_the_domains_are_taken() {
    let check = |email: &str, taken: bool| {
        let mapping = usual().with_username_prefix("corp:").with_email_domains(vec!["example.com".into(), "example.net".into()]);
        let expected = if taken { Ok(()) } else { Err(MappingRefusal::OutsideDomains) };
        assert_eq!(map(&mapping, &with("email", json!(email))).map(|_| ()), expected, "{email}");
    };
    check("alice@example.com", true);
    check("alice@EXAMPLE.net", true);
    check("a@b@example.com", false);
    check("a@evil.example@example.com", false);
    check("a@example.com@example.com", false);
    check("alice@example.org", false);
    check("alice@sub.example.com", false);
    check("alice@notexample.com", false);
    check("alice@example.com.evil.example", false);
    check("alice@example.com@evil.example", false);
    check("example.com", false);
    check("@example.com", false);
    check("alice", false);
    // The address counts even where the username is something else: rules read it.
    let mapping = mapping("claims.preferred_username + '@example.com'", None, None).with_email_domains(vec!["example.com".into()]);
    assert_eq!(map(&mapping, &with("email", json!("boss@example.org"))), Err(MappingRefusal::OutsideDomains));
}

/// Who sends mail to it may read it otherwise than a rule that looks at its end (CVE-2026-40574), also where no domains are listed.
#[test]
fn an_address_with_two_domains_is_none() {
    for email in ["eve@evil.example@example.com", "a@@example.com", "\"a@b\"@example.com", "@@"] {
        let refusal = Err(MappingRefusal::EmailInvalid(NameFault::SeveralDomains));
        assert_eq!(map(&usual(), &with("email", json!(email))), refusal, "{email}");
        assert_eq!(map(&mapping("claims.sub", None, None), &with("email", json!(email))), refusal, "{email}");
    }
}

#[test]
fn an_email_that_nobody_vouches_for_stays_empty() {
    let check = |mapping: &IdentityMapping, claims: Json, expected: &str| {
        assert_eq!(map(mapping, &claims).unwrap().email, expected, "{claims}");
    };
    let lax = mapping("claims.sub", None, None);
    check(&lax, claims(), "alice@example.com");
    check(&lax, without("email_verified"), "");
    check(&lax, with("email_verified", json!(false)), "");
    check(&lax, without("email"), "");
    check(&lax, with("email", json!("")), "");
    check(&lax, with("email", json!(["alice@example.com"])), "");
    let vouched = mapping("claims.sub", None, Some("claims.iss == 'https://idp.example.com'"));
    check(&vouched, without("email_verified"), "alice@example.com");
    check(&vouched, with("email_verified", json!(false)), "");
    check(&vouched, with("email_verified", json!("no")), "");
    assert_eq!(map(&lax, &with("email", json!("a\n@example.com"))), Err(MappingRefusal::EmailInvalid(NameFault::Control)));
}

#[test]
fn groups_are_texts_or_none() {
    let check = |value: Json, expected: &[&str]| {
        assert_eq!(map(&usual(), &with("groups", value)).unwrap().groups.as_slice(), expected);
    };
    check(json!(["b", "a", "b"]), &["b", "a"]);
    check(json!("one"), &["one"]);
    check(json!([]), &[]);
    check(json!(null), &[]);
    check(json!(["a, b", "c d", "Zürich"]), &["a, b", "c d", "Zürich"]);
    assert!(map(&usual(), &without("groups")).unwrap().groups.is_empty());
    assert!(map(&mapping("claims.email", None, None), &claims()).unwrap().groups.is_empty());

    for value in [json!([1]), json!(["a", null]), json!([["a"]]), json!({"a": 1}), json!(7), json!(true)] {
        let refusal = map(&usual(), &with("groups", value.clone())).unwrap_err();
        assert!(matches!(refusal, MappingRefusal::GroupsFailed(_)), "{value}: {refusal:?}");
    }
    let invalid = |position, fault| Err(MappingRefusal::GroupInvalid { position, fault });
    assert_eq!(map(&usual(), &with("groups", json!(["a", ""]))), invalid(2, NameFault::Empty));
    assert_eq!(map(&usual(), &with("groups", json!([" a"]))), invalid(1, NameFault::BlankEnd));
    assert_eq!(map(&usual(), &with("groups", json!(["a\r\nb"]))), invalid(1, NameFault::Control));
    assert_eq!(map(&usual(), &with("groups", json!(["x".repeat(513)]))), invalid(1, NameFault::TooLong));
    let many = |count: usize| with("groups", (0..count).map(|number| json!(number.to_string())).collect());
    assert_eq!(map(&usual(), &many(MAX_GROUPS)).unwrap().groups.len(), MAX_GROUPS);
    assert_eq!(map(&usual(), &many(MAX_GROUPS + 1)), Err(MappingRefusal::TooManyGroups { count: MAX_GROUPS + 1 }));
}

#[test]
fn a_missing_claim_is_no_groups_only_where_it_is_all_there_is() {
    let path = mapping("claims.email", Some("claims.realm_access.roles"), None);
    assert!(map(&path, &claims()).unwrap().groups.is_empty());
    assert!(map(&path, &with("realm_access", json!({}))).unwrap().groups.is_empty());
    assert_eq!(map(&path, &with("realm_access", json!({"roles": ["a"]}))).unwrap().groups.as_slice(), ["a"]);

    // `dev` would be lost with the role that is missing, and with it a rule that denies `dev`.
    let sum = mapping("claims.email", Some("claims.groups + claims.roles"), None);
    assert_eq!(map(&sum, &claims()), Err(MappingRefusal::GroupsFailed(EvaluationError::Missing("roles".into()))));
    assert_eq!(map(&sum, &with("roles", json!(["r"]))).unwrap().groups.as_slice(), ["dev", "ops", "r"]);
    let careful = mapping("claims.email", Some("claims.groups + (has(claims.roles) ? claims.roles : [])"), None);
    assert_eq!(map(&careful, &claims()).unwrap().groups.as_slice(), ["dev", "ops"]);
}

#[test]
fn groups_that_were_left_out_for_their_number_are_not_no_groups() {
    let mut claims = without("groups");
    let fields = claims.as_object_mut().unwrap();
    fields.insert("_claim_names".into(), json!({"groups": "src1"}));
    fields.insert("_claim_sources".into(), json!({"src1": {"endpoint": "https://graph.example.com"}}));
    assert_eq!(map(&usual(), &claims), Err(MappingRefusal::GroupsElsewhere));
}

#[test]
fn nobody_is_somebody_without_a_subject() {
    let check = |claims: Json| assert_eq!(map(&usual(), &claims), Err(MappingRefusal::NoSubject));
    check(without("sub"));
    for value in [json!(""), json!(null), json!(7), json!(["x"]), json!("a\nb"), json!("x".repeat(513))] {
        check(with("sub", value));
    }
}

#[test]
fn plain_paths() {
    let check = |source: &str, expected: Option<&str>| assert_eq!(plain_claim(source).as_deref(), expected, "{source}");
    check("claims.groups", Some("groups"));
    check(" claims . groups ", Some("groups"));
    check("claims.realm_access.roles", Some("realm_access"));
    check("claims", None);
    check("claims.", None);
    check("claims.a.map(x, x)", None);
    check("claims.a + claims.b", None);
    check("claims.?a", None);
    check("user.groups", None);
}

#[test]
fn no_refusal_repeats_a_claims_value() {
    let secret = "hunter2";
    let values =
        [json!(secret), json!([secret, 1]), json!({ "x": secret }), json!(format!("{secret}\n")), json!(format!("{secret}\u{202e}"))];
    for name in ["sub", "email", "email_verified", "groups", "preferred_username"] {
        for value in &values {
            for mapping in [usual(), mapping("claims.preferred_username", Some("claims.groups"), Some("claims.email_verified"))] {
                let mapping = mapping.with_email_domains(vec!["example.com".into()]);
                if let Err(refusal) = map(&mapping, &with(name, value.clone())) {
                    assert!(!refusal.to_string().contains(secret), "{refusal}");
                    assert!(!refusal.word().is_empty());
                }
            }
        }
    }
}
