//! Where a browser may be led on a route's host once it has logged in: the one rule for who sends it to the login (`ext_authz`) and who leads it back
//! (`web`).

use crate::defence::{Defence, off};

/// The longest, in bytes: it travels in a query and in a cookie.
const MAX_BYTES: usize = 1500;
/// Our own pages: a login that led there would begin again.
const OWN_PATHS: &str = "/.kubepass/";

/// Whether a text is a path (with its query) in plain URL characters that no browser takes for another host.
pub fn is_return_path(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\\\"<>#`".contains(&byte);
    let is_path = text.starts_with('/') && !text.starts_with("//") && !text.starts_with(OWN_PATHS);
    off(Defence::RedirectCheck) || (is_path && text.len() <= MAX_BYTES && text.bytes().all(plain) && !has_dot_segments(text))
}

/// By these a browser makes another path of it, which would have to be looked at again. Envoy lets none through to us.
fn has_dot_segments(text: &str) -> bool {
    let path = text.split('?').next().unwrap_or(text);
    path.split('/').any(|segment| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_host_and_nothing_else() {
        for text in [
            "/",
            "/wiki/Start?action=edit&x=1;y",
            "/a%20b/%C3%BC",
            "/...",
            "/a.b/.c/..d?/../x",
            "/~user/@x:y/(z)'!*,+$[0]{|}^",
            "/.kubepass",
            "/a//b",
        ] {
            assert!(is_return_path(text), "{text}");
        }
        for text in [
            "",
            "wiki",
            "//evil.example/",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "https://evil.example/",
            "javascript:alert(1)",
            "/a b",
            "/a\r\nSet-Cookie: x=y",
            "/a#b",
            "/<script>",
            "/\"",
            "/é",
            "/.kubepass/start?return=/",
            "/.kubepass/logout",
            "/./.kubepass/logout",
            "/x/../.kubepass/logout",
            "/x/%2e%2E/.kubepass/logout",
            "/..",
            "/.",
        ] {
            assert!(!is_return_path(text), "{text}");
        }
        assert!(!is_return_path(&format!("/{}", "a".repeat(1500))));
    }
}
