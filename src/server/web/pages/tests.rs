#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror='x'>";

#[track_caller]
fn check(document: &str) {
    assert!(!document.contains("<script"), "{document}");
    assert!(!document.contains("<img"), "{document}");
    assert!(!document.contains("onerror='"), "{document}");
    assert!(document.contains("&lt;script&gt;"), "the value is shown: {document}");
}

#[test]
fn hostile_values_stay_text_on_every_page() {
    let hostile = || HOSTILE.to_owned();
    check(&Page::login(&[LoginChoice { provider: hostile(), href: hostile() }]).document());
    let portal = Portal {
        user: hostile(),
        provider: hostile(),
        groups: vec![hostile()],
        minutes_left: 1,
        routes: vec![PortalRoute::Cluster { name: hostile(), url: hostile() }, PortalRoute::Page { name: hostile(), url: hostile() }],
        logout_form: hostile(),
    };
    check(&Page::portal(&portal).document());
    for route in [None, Some((hostile(), hostile()))] {
        for token_in_url in [false, true] {
            let (user, form, form_target, route) = (hostile(), hostile(), String::new(), route.clone());
            check(
                &Page::confirm(&Confirmation { user, client: "kubepass", route, port: 8000, form, form_target, token_in_url }).document(),
            );
        }
    }
    check(&Page::error(StatusCode::BAD_REQUEST, "Title", HOSTILE, HOSTILE, HOSTILE).document());
}

#[test]
fn pages_load_nothing_and_run_nothing() {
    let policy = content_security_policy(Some("http://127.0.0.1:8000"));
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(policy.contains("form-action 'self' http://127.0.0.1:8000; frame-ancestors 'none'; base-uri 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let document = Page::welcome().document();
    let style = document.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
    use base64::Engine;
    let hash = base64::engine::general_purpose::STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, style.as_bytes()));
    assert!(policy.contains(&format!("'sha256-{hash}'")), "the style counts only with its own hash: {policy}");
    for outside in ["src=", "http://", "https://", "url(", "@import", "<script", "<link", "style=\""] {
        assert!(!document.contains(outside), "{outside} in {document}");
    }
}

#[test]
fn the_confirmation_names_user_route_and_port() {
    let confirmation = Confirmation {
        user: "ada@example.com".to_owned(),
        client: "pomerium-cli",
        route: Some(("prod".to_owned(), "prod.k8s.example.com".to_owned())),
        port: 45123,
        form: "sealed".to_owned(),
        form_target: "http://127.0.0.1:45123".to_owned(),
        token_in_url: true,
    };
    let document = Page::confirm(&confirmation).document();
    for part in ["ada@example.com", "pomerium-cli", "prod", "prod.k8s.example.com", "45123", "history"] {
        assert!(document.contains(part), "{part} in {document}");
    }
}
