//! The `cookie` lines of a request to a plain HTTP route: the one cookie that is a credential, and what of the rest an upstream may see.
//! Nothing of kubepass's own cookies leaves this module towards an upstream, in whatever form a client wrote them.

use std::fmt;

use crate::defence::{Defence, off};

/// What the names of all our cookies begin with. Looked for anywhere in a pair and in any case: upstreams differ in what they take for a name.
const OURS: &[u8] = b"__host-kubepass";

/// The lines as they came. `Debug` shows how many, never what is in them.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Cookies<'a> {
    lines: Vec<&'a [u8]>,
}

/// The one `cookie` line that an upstream gets. `Debug` hides it: it holds the upstream's own sessions.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamCookies(String);

impl<'a> Cookies<'a> {
    pub(super) fn add(&mut self, line: &'a [u8]) {
        self.lines.push(line);
    }

    /// The value of a cookie that was sent exactly once. Two of a `__Host-` name cannot both be ours, so then none counts. The name stands as the
    /// browser keeps it: every space but blank and tab is a part of it there, so any host of the domain may set `<space>__Host-...` for all.
    pub fn only(&self, name: &str) -> Option<&'a str> {
        let mut found = self.pairs().filter_map(|pair| {
            let (found, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
            (found == name).then_some(value)
        });
        found.next().filter(|_| found.next().is_none())
    }

    /// All other cookies, in their order. A pair that is no text, or that names one of ours anywhere (in quotes, behind a comma, as a value),
    /// is left out as a whole. `None` when nothing is left.
    pub fn for_upstream(&self) -> Option<UpstreamCookies> {
        let kept: Vec<&str> = self
            .pairs()
            .filter(|pair| !names_ours(pair) || off(Defence::CookieStrip))
            .filter_map(|pair| std::str::from_utf8(pair).ok())
            .filter(|pair| is_one_line(pair))
            .collect();
        (!kept.is_empty()).then(|| UpstreamCookies(kept.join("; ")))
    }

    fn pairs(&self) -> impl Iterator<Item = &'a [u8]> {
        self.lines.iter().flat_map(|line| line.split(|byte| *byte == b';')).map(trimmed).filter(|pair| !pair.is_empty())
    }
}

impl UpstreamCookies {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Without blanks and tabs at its ends (RFC 6265, 5.2).
fn trimmed(mut pair: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = pair {
        pair = rest;
    }
    pair
}

fn names_ours(pair: &[u8]) -> bool {
    pair.windows(OURS.len()).any(|window| window.eq_ignore_ascii_case(OURS))
}

fn is_one_line(text: &str) -> bool {
    !text.chars().any(|character| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}'))
}

impl fmt::Debug for Cookies<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Cookies({} lines)", self.lines.len())
    }
}

impl fmt::Debug for UpstreamCookies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("UpstreamCookies(..)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn cookies<'a>(lines: &[&'a str]) -> Cookies<'a> {
        Cookies { lines: lines.iter().map(|line| line.as_bytes()).collect() }
    }

    #[track_caller]
    fn check(lines: &[&str], upstream: Option<&str>) {
        assert_eq!(cookies(lines).for_upstream().as_ref().map(UpstreamCookies::as_str), upstream, "{lines:?}");
    }

    #[test]
    fn an_upstream_gets_its_own_cookies_only() {
        check(&[], None);
        check(&["a=b"], Some("a=b"));
        check(&["a=b; c=d"], Some("a=b; c=d"));
        check(&["a=b;c=d", " e=f ;; "], Some("a=b; c=d; e=f"));
        check(&["a=b; a=c; A=d"], Some("a=b; a=c; A=d"));
        check(&["alone"], Some("alone"));
        check(&["a=\"b c\"; d="], Some("a=\"b c\"; d="));
        check(&["name=ü"], Some("name=ü"));
        check(&["__Host-other=1; x__Host-kubep=2"], Some("__Host-other=1; x__Host-kubep=2"));
    }

    #[test]
    fn ours_are_left_out_however_they_are_written() {
        check(&["__Host-kubepass-route=s"], None);
        for name in [
            "__Host-kubepass-route",
            "__Host-kubepass-session",
            "__Host-kubepass-start-0123456789abcdef",
            "__Host-kubepass",
            "__HOST-KubePass-x",
        ] {
            for pair in [
                format!("{name}=s"),
                format!(" {name} = s "),
                format!("\t{name}=s"),
                name.to_owned(),
                format!("={name}=s"),
                format!("\"{name}=s\""),
                format!("x=y, {name}=s"),
                format!("x=\"{name}=s"),
                format!("\u{a0}{name}=s"),
            ] {
                check(&[&pair], None);
                check(&[&format!("{pair}; a=b")], Some("a=b"));
                check(&[&format!("a=b;{pair}")], Some("a=b"));
                check(&[&format!("a=b; {pair}; c=d")], Some("a=b; c=d"));
                check(&[&format!("{pair};{pair}"), "a=b", &pair], Some("a=b"));
            }
        }
    }

    #[test]
    fn what_is_no_line_of_text_is_left_out() {
        let lines: [&[u8]; 3] = [b"a=\xff; b=c", b"d=\x01; e=\x7f", "f=\u{2028}".as_bytes()];
        assert_eq!(Cookies { lines: lines.to_vec() }.for_upstream().unwrap().as_str(), "b=c");
    }

    #[test]
    fn a_credential_is_there_once() {
        let check = |lines: &[&str], value: Option<&str>| assert_eq!(cookies(lines).only("__Host-x"), value, "{lines:?}");
        check(&["__Host-x=1"], Some("1"));
        check(&["a=b; \t__Host-x=1 ;c=d"], Some("1"));
        check(&["a=b", "__Host-x=1=2"], Some("1=2"));
        check(&["__Host-x=1; __Host-x=1"], None);
        check(&["__Host-x=1", "__Host-x=2"], None);
        check(&["__host-x=1", "x__Host-x=1; \"__Host-x=1\"", "__Host-x", "__Host-x =1"], None);
        for blank in ["\u{a0}", "\u{2000}", "\u{3000}", "\u{c}"] {
            check(&[&format!("{blank}__Host-x=1; __Host-x{blank}=1")], None);
        }
    }

    #[test]
    fn debug_shows_no_cookie() {
        let shown = format!("{:?} {:?}", cookies(&["a=secret"]), cookies(&["a=secret"]).for_upstream());
        assert!(!shown.contains("secret"), "{shown}");
    }

    proptest! {
        #[test]
        fn nothing_of_ours_passes_and_nothing_else_is_invented(
            lines in prop::collection::vec(prop::collection::vec("( |\t)?(a=b|c=\"d; e\"|[ -~]{0,12}|__Host-kubepass-route=SECRET|__host-KUBEPASS-session=SECRET|=__Host-kubepass-x=SECRET|.{0,6})( )?", 0..6), 0..4),
            separator in "(;|; |;;| ; )",
        ) {
            let lines: Vec<String> = lines.iter().map(|pairs| pairs.join(&separator)).collect();
            let cookies = Cookies { lines: lines.iter().map(String::as_bytes).collect() };
            let given: Vec<&str> = lines.iter().flat_map(|line| line.split(';')).map(|pair| pair.trim_matches([' ', '\t'])).collect();
            let upstream = cookies.for_upstream();
            let text = upstream.as_ref().map_or("", UpstreamCookies::as_str);
            prop_assert!(!text.to_ascii_lowercase().contains("__host-kubepass") && !text.contains("SECRET"), "{text}");
            prop_assert!(!text.contains(char::is_control), "{text:?}");
            let mut rest = given.iter();
            for pair in text.split("; ").filter(|pair| !pair.is_empty()) {
                prop_assert!(rest.any(|given| *given == pair), "{pair:?} of {lines:?}");
            }
        }
    }
}
