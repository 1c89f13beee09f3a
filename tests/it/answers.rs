//! Every refusal as the person and kubectl get it: the golden file is read whole when a word of it changes.

use std::fmt::Write as _;

use kubepass::access::upstream::NameRefusal;
use kubepass::access::{Answer, Challenge, Decision, DenyReason, Evidence, Form, Malformed, Outcome, Reader};
use kubepass::kubernetes::request_info::Ambiguous;
use kubepass::token::TokenRejection;

use super::fixture;

#[test]
fn every_refusal_reads_as_reviewed() {
    let mut text = String::new();
    for outcome in outcomes() {
        let shown = format!("{outcome:?}");
        let decision = Decision { outcome, evidence: Evidence::default() };
        let answer = Answer::to(&decision).expect("a refusal");
        let status = answer.status.with_request_id("0192f0c1-0000-4000-8000-000000000000");
        let form = if answer.form == Form::ApiServerPage { " (page)" } else { "" };
        writeln!(text, "# {shown}\n{} {}{form}\n{}\n", status.code, answer.word, status.to_json()).unwrap();
    }
    for reader in [Reader::Visitor, Reader::Browser, Reader::Program] {
        for outcome in outcomes_of_web_pages() {
            let shown = format!("{outcome:?}");
            let decision = Decision { outcome, evidence: Evidence { reader, ..Evidence::default() } };
            let answer = Answer::to(&decision).expect("a refusal");
            let (status, form) = (answer.status, answer.form);
            writeln!(text, "# {shown} of a web page, for a {reader:?}\n{} {} ({form:?})\n{}\n", status.code, answer.word, status.message)
                .unwrap();
        }
    }
    fixture::compare_golden("tests/it/golden/answers.txt", &text);
}

fn outcomes_of_web_pages() -> [Outcome; 5] {
    [
        Outcome::Challenge(Challenge::NoCredential { browser: true }),
        Outcome::Challenge(Challenge::Token(TokenRejection::SessionEnded)),
        Outcome::Deny(DenyReason::CrossSite),
        Outcome::Deny(DenyReason::UpgradeNotAllowed),
        Outcome::Deny(DenyReason::NoRuleMatched),
    ]
}

fn outcomes() -> Vec<Outcome> {
    let tokens = [
        TokenRejection::Malformed,
        TokenRejection::BadSignature,
        TokenRejection::WrongType,
        TokenRejection::WrongAudience,
        TokenRejection::Expired,
        TokenRejection::NotYetValid,
        TokenRejection::SessionEnded,
    ];
    let malformed = [
        Malformed::SeveralAuthorizations,
        Malformed::NotABearer,
        Malformed::WebSocketBearer,
        Malformed::ConnectionNomination,
        Malformed::NotText,
        Malformed::MissingAttributes,
    ];
    let names = [
        NameRefusal::Invalid { what: "group", name: "a\nb".into(), why: "holds a control character".into() },
        NameRefusal::System { what: "group", name: "system:masters".into() },
        NameRefusal::Reserved { what: "user name", name: "kubepass:x".into() },
        NameRefusal::UserNotListed { name: "eve@example.com".into() },
        NameRefusal::Expression { what: "uid".into(), why: "it gives several values".into() },
    ];
    let mut outcomes = vec![
        Outcome::Challenge(Challenge::NoCredential { browser: false }),
        Outcome::Challenge(Challenge::NoCredential { browser: true }),
        Outcome::Challenge(Challenge::SessionAboutToEnd),
        Outcome::Deny(DenyReason::UnknownRoute),
        Outcome::Deny(DenyReason::RouteNotServed),
        Outcome::Deny(DenyReason::Misdirected),
        Outcome::Deny(DenyReason::Ambiguous(Ambiguous::EncodedSlash)),
        Outcome::Deny(DenyReason::ImpersonationRequested),
        Outcome::Deny(DenyReason::IdentityProviderNotAccepted { idp: "partner".into() }),
        Outcome::Deny(DenyReason::TooManyGroups { have: 65, max: 64 }),
        Outcome::Deny(DenyReason::Rule { rule: "no-secrets".into(), message: Some("ask the SRE on call".into()) }),
        Outcome::Deny(DenyReason::Rule { rule: "no-secrets".into(), message: None }),
        Outcome::Deny(DenyReason::NoRuleMatched),
        Outcome::Deny(DenyReason::AuditUnavailable),
        Outcome::Deny(DenyReason::TooManyChecks),
        Outcome::Deny(DenyReason::TooManyStreams { max: 1_000 }),
        Outcome::Deny(DenyReason::NoRoomForHeaders),
        Outcome::Deny(DenyReason::SessionUnavailable),
    ];
    outcomes.extend(tokens.map(|token| Outcome::Challenge(Challenge::Token(token))));
    outcomes.extend(malformed.map(|malformed| Outcome::Deny(DenyReason::Malformed(malformed))));
    outcomes.extend(names.map(|name| Outcome::Deny(DenyReason::Name(name))));
    outcomes
}
