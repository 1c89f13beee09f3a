#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::*;

/// `verb prefix/group/version namespace resource/subresource name`, `-` for what is empty; for a path that is no resource only the verb.
fn words(info: &RequestInfo<'_>) -> String {
    if !info.is_resource_request {
        return info.verb.to_string();
    }
    let or_dash = |text: &Cow<'_, str>| if text.is_empty() { "-".to_owned() } else { text.to_string() };
    let subresource = if info.subresource.is_empty() { String::new() } else { format!("/{}", info.subresource) };
    format!(
        "{} {}/{}/{} {} {}{subresource} {}",
        or_dash(&info.verb),
        info.api_prefix,
        info.api_group,
        info.api_version,
        or_dash(&info.namespace),
        info.resource,
        or_dash(&info.name),
    )
}

#[track_caller]
fn check(method: &str, target: &str, expected: &str) {
    assert_eq!(RequestInfo::parse(method, target).map(|info| words(&info)), Ok(expected.to_owned()), "{method} {target}");
}

#[track_caller]
fn refused(method: &str, target: &str, expected: Ambiguous) {
    assert_eq!(RequestInfo::parse(method, target).map(|info| words(&info)), Err(expected), "{method} {target}");
}

#[test]
fn paths_that_are_no_resources() {
    for path in
        ["/", "/api", "/api/", "/api/v1", "/api/v1/", "/apis", "/apis/apps", "/apis/apps/v1", "/apis/apps/v1/", "/healthz", "/version"]
    {
        check("GET", path, "get");
    }
    check("GET", "/openapi/v3/apis/apps/v1?hash=A;B", "get");
    check("GET", "/livez/ping/x/y/z", "get");
    check("POST", "/logs/a/b/c", "post");
    check("HEAD", "/healthz?exclude=etcd", "head");
    check("OPTIONS", "/", "options");
    check("PURGE", "/x/y/z", "purge");
    check("GET", "/API/v1/pods", "get");
    let discovery = RequestInfo::parse("GET", "/apis/apps/v1").unwrap();
    assert_eq!((&*discovery.api_prefix, &*discovery.api_group, &*discovery.path), ("apis", "", "/apis/apps/v1"));
}

#[test]
fn verbs_of_resources() {
    check("GET", "/api/v1/namespaces", "list api//v1 - namespaces -");
    check("GET", "/api/v1/namespaces/web", "get api//v1 web namespaces web");
    check("PUT", "/api/v1/namespaces/web/status", "update api//v1 web namespaces/status web");
    check("PUT", "/api/v1/namespaces/web/finalize", "update api//v1 web namespaces/finalize web");
    check("GET", "/api/v1/namespaces/web/pods", "list api//v1 web pods -");
    check("GET", "/api/v1/namespaces/web/pods/", "list api//v1 web pods -");
    check("HEAD", "/api/v1/namespaces/web/pods", "list api//v1 web pods -");
    check("GET", "/api/v1/pods", "list api//v1 - pods -");
    check("GET", "/api/v1/namespaces/web/pods/a", "get api//v1 web pods a");
    check("HEAD", "/api/v1/namespaces/web/pods/a", "get api//v1 web pods a");
    check("POST", "/api/v1/namespaces/web/pods?fieldManager=kubectl&fieldValidation=Strict", "create api//v1 web pods -");
    check("PATCH", "/apis/apps/v1/namespaces/web/deployments/a?force=true", "patch apis/apps/v1 web deployments a");
    check("PUT", "/apis/apps/v1/namespaces/web/deployments/a/scale", "update apis/apps/v1 web deployments/scale a");
    check("DELETE", "/api/v1/nodes/n1", "delete api//v1 - nodes n1");
    check("DELETE", "/api/v1/namespaces/web/pods", "deletecollection api//v1 web pods -");
    check("OPTIONS", "/api/v1/namespaces/web/pods", "- api//v1 web pods -");
    check("POST", "/api/v1/namespaces/web/pods/a/eviction", "create api//v1 web pods/eviction a");
    check("PATCH", "/api/v1/namespaces/web/pods/a/ephemeralcontainers", "patch api//v1 web pods/ephemeralcontainers a");
    check("POST", "/api/v1/namespaces/web/serviceaccounts/a/token", "create api//v1 web serviceaccounts/token a");
    check("GET", "/api/v1/namespaces/web/pods/a/log?follow=true", "get api//v1 web pods/log a");
    check("GET", "/apis/g.example.com/v1alpha1/things/a/b/c/d/e/f/g/h", "get apis/g.example.com/v1alpha1 - things/b a");
}

#[test]
fn encoded_bytes_are_decoded_once() {
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Acontroller%3aa";
    check("GET", role, "get apis/rbac.authorization.k8s.io/v1 - clusterroles system:controller:a");
    assert_eq!(RequestInfo::parse("GET", role).unwrap().path, "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:controller:a");
    check(
        "GET",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
        "get apis/rbac.authorization.k8s.io/v1 - clusterroles system:node",
    );
    check("GET", "/%61pi/v1/wat%63h/p%6fds", "watch api//v1 - pods -");
    check("GET", "/api/v1/namespac%65s/web/secrets/", "list api//v1 web secrets -");
    check("GET", "/api/v1/namespaces/web/pods/a;b=c", "get api//v1 web pods a;b=c");
    check("GET", "/api/v1/namespaces/web/configmaps/a+b", "get api//v1 web configmaps a+b");
    check("GET", "/api/v1/namespaces/web/configmaps/%C3%BC", "get api//v1 web configmaps ü");
    check("GET", "/api/v1/namespaces/web/configmaps/a%3Fwatch=1", "get api//v1 web configmaps a?watch=1");
    let trailing = RequestInfo::parse("GET", "/api/v1/%70ods/").unwrap();
    assert_eq!(trailing.path, "/api/v1/pods/");
}

#[test]
fn borrows_what_needs_no_decoding() {
    let info = RequestInfo::parse("GET", "/apis/apps/v1/namespaces/web/deployments?labelSelector=app&watch=1").unwrap();
    for field in [&info.path, &info.verb, &info.api_group, &info.namespace, &info.resource, &info.label_selector] {
        assert!(matches!(field, Cow::Borrowed(_)), "{field}");
    }
}

#[test]
fn list_or_watch() {
    let base = "/api/v1/namespaces/web/pods";
    for (query, verb) in [
        ("", "list"),
        ("?", "list"),
        ("?watch", "watch"),
        ("?watch=", "watch"),
        ("?watch=1", "watch"),
        ("?watch=true", "watch"),
        ("?watch=no", "watch"),
        ("?watch=0", "list"),
        ("?watch=00", "watch"),
        ("?watch=FALSE", "list"),
        ("?w%61tch=%31", "watch"),
        ("?Watch=1", "list"),
        ("?watch%20=1", "list"),
        ("?&&watch=1&&", "watch"),
        ("?watch=1&watch=1", "watch"),
        ("?limit=500&resourceVersion=0", "list"),
        ("?limit=x&watch=1", "watch"),
        ("?timeoutSeconds=&watch=false", "list"),
    ] {
        check("GET", &format!("{base}{query}"), &format!("{verb} api//v1 web pods -"));
    }
    check("GET", "/api/v1/namespaces/web/pods/a?watch=1", "get api//v1 web pods a");
    check("POST", "/api/v1/namespaces/web/pods?watch=1", "create api//v1 web pods -");
}

#[test]
fn verbs_in_the_path() {
    check("GET", "/api/v1/watch/pods", "watch api//v1 - pods -");
    check("GET", "/api/v1/watch/namespaces", "watch api//v1 - namespaces -");
    check("GET", "/api/v1/watch/namespaces/web", "watch api//v1 web namespaces web");
    check("GET", "/api/v1/watch/namespaces/web/pods/a?labelSelector=x", "watch api//v1 web pods a");
    check("HEAD", "/apis/apps/v1/watch/namespaces/web/deployments", "watch apis/apps/v1 web deployments -");
    check("POST", "/api/v1/proxy/namespaces/web/services/a/b/c", "proxy api//v1 web services a");
    check("GET", "/api/v1/proxy/nodes/n1", "proxy api//v1 - nodes n1");
    check("GET", "/api/v1/proxy/namespaces", "proxy api//v1 - namespaces -");
    check("GET", "/api/v1/namespaces/watch/pods", "list api//v1 watch pods -");
    let legacy = RequestInfo::parse("GET", "/api/v1/watch/pods?labelSelector=x&fieldSelector=y").unwrap();
    assert_eq!((&*legacy.label_selector, &*legacy.field_selector), ("", ""));
    for path in ["/api/v1/watch", "/api/v1/proxy/", "/apis/apps/v1/watch", "/api/v1/%77atch"] {
        refused("GET", path, Ambiguous::SpecialVerbAlone);
    }
    for method in ["POST", "DELETE", "PUT", "OPTIONS"] {
        refused(method, "/api/v1/watch/pods", Ambiguous::WatchMethod);
    }
}

#[test]
fn selectors() {
    let read = |method: &'static str, query: &str| {
        let target = format!("/api/v1/namespaces/web/pods?{query}");
        let info = RequestInfo::parse(method, &target).unwrap();
        (info.verb.to_string(), info.field_selector.to_string(), info.label_selector.to_string())
    };
    let expect = |verb: &str, field: &str, label: &str| (verb.to_owned(), field.to_owned(), label.to_owned());
    let query = "labelSelector=app+in+%28a%2Cb%29%2C%21x&fieldSelector=status.phase%21%3DRunning";
    assert_eq!(read("GET", query), expect("list", "status.phase!=Running", "app in (a,b),!x"));
    assert_eq!(read("DELETE", query), expect("deletecollection", "status.phase!=Running", "app in (a,b),!x"));
    assert_eq!(read("POST", query), expect("create", "", ""));
    assert_eq!(read("GET", "labelSelector=app=a,tier!=b,(!x)&watch=1"), expect("watch", "", "app=a,tier!=b,(!x)"));
}

#[test]
fn a_name_in_a_field_selector() {
    let base = "/api/v1/namespaces/web/pods?";
    for (query, name) in [
        ("fieldSelector=metadata.name=a", "a"),
        ("fieldSelector=metadata.name%3D%3Da&watch=true", "a"),
        ("fieldSelector=status.phase=x,metadata.name=a", "a"),
        ("fieldSelector=metadata.name=a,metadata.name==a", "a"),
        ("fieldSelector=metadata.name=a&labelSelector=b,!c,d+in+(e,,f),g%3E1", "a"),
        ("fieldSelector=metadata.name=a&labelSelector=", "a"),
        ("fieldSelector=metadata.name=a&limit=500&timeoutSeconds=-1", "a"),
        ("fieldSelector=metadata.name=a%5C%2Cb", "a,b"),
        ("fieldSelector=metadata.name=", "-"),
        ("fieldSelector=metadata.name!=a", "-"),
        ("fieldSelector=metadata.name", "-"),
        ("fieldSelector=+metadata.name=a", "-"),
        ("fieldSelector=metadata.namespace=a", "-"),
        ("fieldSelector=metadata.name=a=b", "-"),
        ("fieldSelector=metadata.name=a,x", "-"),
        ("fieldSelector=metadata.name=a%5Cb", "-"),
        ("fieldSelector=metadata.name=a%2Fb", "-"),
        ("fieldSelector=metadata.name=..", "-"),
        ("fieldSelector=metadata.name=a&limit=x", "-"),
        ("fieldSelector=metadata.name=a&timeoutSeconds=99999999999999999999", "-"),
        ("fieldselector=metadata.name=a", "-"),
    ] {
        let verb = if query.contains("watch") { "watch" } else { "list" };
        check("GET", &format!("{base}{query}"), &format!("{verb} api//v1 web pods {name}"));
    }
    check("DELETE", &format!("{base}fieldSelector=metadata.name=a"), "deletecollection api//v1 web pods -");
    for selector in ["a b", "a=", "a=b c", "=", "a in b", "a in (b", "!a=b", "a,", ",a", "a>x", "-a", "A/b", "a/b/c", "a notin (b,c))", "é"]
    {
        let encoded: String = selector.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let target = format!("{base}fieldSelector=metadata.name=a&labelSelector={encoded}");
        let expected = if selector == "a=" { Ok("a".to_owned()) } else { Err(Ambiguous::Selector("labelSelector")) };
        assert_eq!(RequestInfo::parse("GET", &target).map(|info| info.name.to_string()), expected, "{selector}");
    }
    refused("GET", &format!("{base}fieldSelector=metadata.name=a,metadata.name=b"), Ambiguous::Selector("fieldSelector"));
    refused("GET", &format!("{base}fieldSelector=metadata.name=a%0ab"), Ambiguous::Selector("fieldSelector"));
}

#[test]
fn what_can_be_read_in_two_ways() {
    for (target, why) in [
        ("", Ambiguous::NotAPath),
        ("*", Ambiguous::NotAPath),
        ("http://prod/api/v1/pods", Ambiguous::NotAPath),
        ("//api/v1/pods", Ambiguous::EmptySegment),
        ("//", Ambiguous::EmptySegment),
        ("/api//v1/pods", Ambiguous::EmptySegment),
        ("/api/v1/pods//", Ambiguous::EmptySegment),
        ("/api/v1/./pods", Ambiguous::DotSegment),
        ("/api/v1/pods/..", Ambiguous::DotSegment),
        ("/api/v1/%2e%2E/v2", Ambiguous::DotSegment),
        ("/api/v1/pods/a%2Fb", Ambiguous::EncodedSlash),
        ("/api/v1/pods/a%5cb", Ambiguous::EncodedSlash),
        ("/api/v1/pods/a\\b", Ambiguous::EncodedSlash),
        ("/api/v1/pods/a%252Fb", Ambiguous::EncodedPercent),
        ("/healthz%25", Ambiguous::EncodedPercent),
        ("/apis/a%25/v1", Ambiguous::EncodedPercent),
        ("/api/v1/pods/a%00", Ambiguous::ControlCharacter),
        ("/api/v1/pods/a%0aimpersonate-user:x", Ambiguous::ControlCharacter),
        ("/api/v1/pods/a%7f", Ambiguous::ControlCharacter),
        ("/api/v1/pods/a%c2%85", Ambiguous::ControlCharacter),
        ("/api/v1/pods/%ff", Ambiguous::NotUtf8),
        ("/api/v1/pods/%C0%AF", Ambiguous::NotUtf8),
        ("/api/v1/pods/%zz", Ambiguous::InvalidEscape),
        ("/api/v1/pods/a%", Ambiguous::InvalidEscape),
        ("/api/v1/pods/a%2", Ambiguous::InvalidEscape),
        ("/api/v1/pods/a b", Ambiguous::RawCharacter),
        ("/api/v1/pods/a\tb", Ambiguous::RawCharacter),
        ("/api/v1/pods/ü", Ambiguous::RawCharacter),
        ("/api/v1/pods#x", Ambiguous::RawCharacter),
        ("/api/v1/pods?a=b#x", Ambiguous::RawCharacter),
        ("/api/v1/pods?a=b c", Ambiguous::RawCharacter),
        ("/api/v1/pods?watch=1;x", Ambiguous::Semicolon),
        ("/api/v1/pods?x;watch=1", Ambiguous::Semicolon),
        ("/api/v1/pods?watch=%zz", Ambiguous::InvalidEscape),
        ("/api/v1/pods?watc%=1", Ambiguous::InvalidEscape),
        ("/api/v1/pods?watch=0&watch=1", Ambiguous::Duplicate("watch")),
        ("/api/v1/pods?watch=0&w%61tch=1", Ambiguous::Duplicate("watch")),
        ("/api/v1/pods?fieldSelector=a&fieldSelector=b", Ambiguous::Duplicate("fieldSelector")),
        ("/api/v1/pods?labelSelector=a&labelSelector=", Ambiguous::Duplicate("labelSelector")),
        ("/api/v1/pods?watch=fal%C5%BFe", Ambiguous::WatchValue),
        ("/api/v1/pods?labelSelector=%ff", Ambiguous::NotUtf8),
    ] {
        refused("GET", target, why);
    }
    refused("GET", &format!("/api/v1/pods?{}watch=1", "&".repeat(10_001)), Ambiguous::TooManyParameters);
    for method in ["", "GE T", "GET\n", "GËT", "get", "Delete"] {
        refused(method, "/api", Ambiguous::Method);
    }
}

#[test]
fn what_clients_send_is_never_refused() {
    check(
        "GET",
        "/api/v1/namespaces/web/pods/a/exec?command=sh&command=-c&command=echo+%22a%3B+b%22+%7C+cat&command=%ff&container=c&stderr=true&stdout=true",
        "get api//v1 web pods/exec a",
    );
    check("POST", "/api/v1/namespaces/web/pods/a/portforward", "create api//v1 web pods/portforward a");
    check(
        "GET",
        "/apis/apps/v1/deployments?allowWatchBookmarks=true&resourceVersion=1&timeoutSeconds=412&watch=true",
        "watch apis/apps/v1 - deployments -",
    );
    check(
        "GET",
        "/api/v1/events?fieldSelector=involvedObject.name%3Da%2CinvolvedObject.namespace%3Dweb%2CinvolvedObject.uid%3Dx&limit=500",
        "list api//v1 - events -",
    );
    check("GET", "/api/v1/namespaces/web/secrets?labelSelector=name%3Dshop%2Cowner%3Dhelm", "list api//v1 web secrets -");
    check("GET", "/api/v1/namespaces/web/secrets/sh.helm.release.v1.shop.v1", "get api//v1 web secrets sh.helm.release.v1.shop.v1");
    check("GET", "/apis?aggregated=1&x=a;b", "get");
    check("GET", "/api/v1/pods?labelSelector=a&labelSelector=a", "list api//v1 - pods -");
}

#[test]
fn below_proxy_the_path_is_the_workloads() {
    let base = "/api/v1/namespaces/web/services/https:shop:443/proxy";
    for rest in ["", "/", "/a%25b", "/a;b/c?x;y&watch=1&watch=0&z=%zz", "/%E2%82%AC"] {
        check("GET", &format!("{base}{rest}"), "get api//v1 web services/proxy https:shop:443");
    }
    check("GET", "/api/v1/proxy/namespaces/web/services/a/%25", "proxy api//v1 web services a");
    for (rest, why) in [
        ("/a%2f..%2fb", Ambiguous::EncodedSlash),
        ("/%2e%2e/x", Ambiguous::DotSegment),
        ("/a//b", Ambiguous::EmptySegment),
        ("/a%0d%0ab", Ambiguous::ControlCharacter),
        ("/a%zz", Ambiguous::InvalidEscape),
        ("/a?b c", Ambiguous::RawCharacter),
    ] {
        refused("GET", &format!("{base}{rest}"), why);
    }
    refused("GET", "/api/v1/namespaces/web/services/a%25/proxy/x", Ambiguous::EncodedPercent);
    refused("GET", "/api/v1/namespaces/web/services/a/other/x%25", Ambiguous::EncodedPercent);
}

#[test]
fn policys_view() {
    // (method, target, verb, read only, long running)
    for (method, target, verb, read_only, long_running) in [
        ("GET", "/api/v1/namespaces/web/pods", "list", true, false),
        ("GET", "/api/v1/namespaces/web/pods?watch=1", "watch", true, true),
        ("GET", "/api/v1/watch/pods", "watch", true, true),
        ("GET", "/api/v1/namespaces/web/pods/a", "get", true, false),
        ("GET", "/api/v1/namespaces/web/pods/a/status", "get", true, false),
        ("GET", "/api/v1/namespaces/web/pods/a/log", "get", true, false),
        ("GET", "/api/v1/namespaces/web/pods/a/log?follow=false", "get", true, false),
        ("GET", "/api/v1/namespaces/web/pods/a/log?follow=true&tailLines=1", "get", true, true),
        ("GET", "/api/v1/namespaces/web/pods/a/exec", "exec", false, true),
        ("POST", "/api/v1/namespaces/web/pods/a/exec", "exec", false, true),
        ("GET", "/api/v1/namespaces/web/pods/a/attach", "attach", false, true),
        ("GET", "/api/v1/namespaces/web/pods/a/portforward", "portforward", false, true),
        ("GET", "/api/v1/watch/namespaces/web/pods/a/exec", "exec", false, true),
        ("GET", "/api/v1/namespaces/web/pods/a/e%78ec", "exec", false, true),
        ("GET", "/apis/subresources.kubevirt.io/v1/namespaces/web/virtualmachineinstances/a/portforward/22", "portforward", false, true),
        ("GET", "/apis/subresources.kubevirt.io/v1/namespaces/web/virtualmachineinstances/a/console", "get", false, true),
        ("GET", "/api/v1/namespaces/web/pods/a/proxy/x", "proxy", false, true),
        ("OPTIONS", "/api/v1/namespaces/web/services/a/proxy", "proxy", false, true),
        ("GET", "/api/v1/nodes/n/proxy/exec/x", "proxy", false, true),
        ("GET", "/api/v1/proxy/nodes/n", "proxy", false, true),
        ("POST", "/api/v1/namespaces/web/serviceaccounts/a/token", "create", false, false),
        ("GET", "/api/v1/namespaces/web/serviceaccounts/a/token", "get", false, true),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "create", false, false),
        ("DELETE", "/api/v1/namespaces/web/pods", "deletecollection", false, false),
        ("OPTIONS", "/api/v1/namespaces/web/pods", "", false, false),
        ("GET", "/api/exec/x", "list", true, false),
        ("GET", "/version", "get", true, false),
        ("HEAD", "/livez", "head", true, false),
        ("OPTIONS", "/", "options", true, false),
        ("POST", "/", "post", false, false),
        ("GET", "/debug/pprof/profile?seconds=30", "get", true, true),
    ] {
        let info = RequestInfo::parse(method, target).unwrap();
        assert_eq!((info.policy_verb(), info.read_only(), info.is_long_running()), (verb, read_only, long_running), "{method} {target}");
    }
}

proptest! {
    #[test]
    fn any_text_ends_in_a_value(method in ".{0,8}", target in ".{0,64}") {
        let _ = RequestInfo::parse(&method, &target);
    }

    /// Whatever pieces a path is made of: what is read has no separators, dots or controls in it, and reads the same when sent decoded.
    #[test]
    fn fields_are_clean(pieces in prop::collection::vec(
        prop::sample::select(vec![
            "/", "api", "apis", "v1", "watch", "proxy", "namespaces", "pods", "exec", "status", "%2f", "%2e", "..", ".", "%25", "%70ods", "//",
            "?", "watch=1", "&", ";", "fieldSelector=metadata.name%3Da", "a", "%00", "\\", "#",
        ]), 0..14)) {
        let target = format!("/{}", pieces.concat());
        if let Ok(info) = RequestInfo::parse("GET", &target) {
            for field in [&info.namespace, &info.resource, &info.subresource, &info.name, &info.api_group, &info.api_version] {
                prop_assert!(!field.contains(['/', '\\', '%']) && *field != "." && *field != ".." && !field.contains(char::is_control));
            }
            prop_assert!(info.is_resource_request || info.resource.is_empty());
            let again = if info.path.contains(['?', '%']) { None } else { Some(RequestInfo::parse("GET", &info.path).unwrap()) };
            if let Some(again) = again {
                prop_assert_eq!(&again.resource, &info.resource);
                prop_assert_eq!(&again.subresource, &info.subresource);
                prop_assert_eq!(&again.namespace, &info.namespace);
            }
        }
    }
}
