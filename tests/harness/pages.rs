//! The scripted browser reads pages and keeps cookies as a real one.

use url::Url;

use super::support::html::{Form, forms, links, text, title};
use super::support::jar::{Jar, Origin, same_site};

#[test]
fn a_form_is_read_as_it_would_be_sent() {
    let html = r#"<!doctype html><title>Log in</title><style>p { color: red }</style><!-- <form action=no> -->
        <p>Hello &amp; welcome,<b>Alice</b>&#33;</p>
        <form action="/go?a=1&amp;b=2" method="post" id=f><input type=hidden name="csrf" value="x&quot;y">
        <input type="checkbox" name="off" value="1"><input type="checkbox" name="on" value="1" checked><input required name="who">
        <button name="answer" value="yes">Yes, <i>go</i></button><button type="button" name="no">No</button></form><input name="outside">
        <a href="/next?x=&#x31;">Go <b>on</b></a>"#;
    let expected = Form {
        action: "/go?a=1&b=2".into(),
        method: "POST".into(),
        id: "f".into(),
        fields: [("csrf", "x\"y"), ("on", "1"), ("who", "")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        buttons: vec![("answer".into(), "yes".into(), "Yes,".into())],
    };
    assert_eq!(forms(html), [expected]);
    assert_eq!(links(html).iter().map(|link| (link.href.as_str(), link.text.as_str())).collect::<Vec<_>>(), [("/next?x=1", "Go on")]);
    assert!(text(html).starts_with("Hello & welcome, Alice !"), "{}", text(html));
    assert_eq!(title(html), "Log in");
}

#[test]
fn cookies_go_where_a_browser_sends_them() {
    let mut jar = Jar::default();
    let login = url("https://login.example.test/a/b");
    let refused = [
        "__Host-s=1; Secure",
        "__Host-s=1; Path=/",
        "__Host-s=1; Secure; Path=/; Domain=example.test",
        "s=1; Domain=other.test",
        "s=1; SameSite=None",
    ];
    for line in refused {
        assert!(jar.set(&login, line).is_err(), "{line}");
    }
    assert!(jar.set(&url("http://login.example.test/"), "s=1; Secure").is_err());
    for line in [
        "__Host-s=1; Secure; Path=/; HttpOnly",
        "deep=1; Path=/a",
        "wide=1; Domain=example.test; Path=/",
        "strict=1; SameSite=Strict; Path=/",
    ] {
        jar.set(&login, line).unwrap();
    }
    let check =
        |to: &str, origin, expected: &str| assert_eq!(jar.header(&url(to), origin).unwrap_or_default(), expected, "{to} {origin:?}");
    check("https://login.example.test/a", Origin::SameSite, "deep=1; __Host-s=1; wide=1; strict=1");
    check("https://login.example.test/ab", Origin::CrossSiteNavigation, "__Host-s=1; wide=1");
    check("https://login.example.test/", Origin::CrossSitePost, "");
    check("http://login.example.test/", Origin::SameSite, "wide=1; strict=1");
    check("https://other.example.test/a", Origin::SameSite, "wide=1");
    check("https://notexample.test/a", Origin::SameSite, "");
    jar.set(&login, "__Host-s=; Max-Age=0; Secure; Path=/").unwrap();
    assert!(jar.get("__Host-s").is_none());
    assert!(same_site(&url("https://a.kubepass.localhost"), &url("https://b.kubepass.localhost:8443")));
    assert!(!same_site(&url("https://a.kubepass.localhost"), &url("http://127.0.0.1:1")));
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}
