//! HTML that cannot be broken out of: markup is a constant of the program, everything else is escaped. The only place that knows how.

use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub(super) const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#1b1f24;background:#f4f5f7}\
main{max-width:38rem;margin:8vh auto;padding:2rem;background:#fff;border:1px solid #d8dce1;border-radius:8px}\
h1{margin-top:0;font-size:1.5rem}h2{font-size:1.1rem}h3{font-size:1rem;margin-bottom:0}\
pre{padding:.6rem;background:#f4f5f7;overflow-x:auto}code,pre{font-family:ui-monospace,monospace;overflow-wrap:anywhere}\
button,.button,.choices a{display:inline-block;padding:.5rem 1rem;border:1px solid #1f5fbf;border-radius:6px;background:#1f5fbf;color:#fff;\
font:inherit;text-decoration:none;cursor:pointer}button.quiet{background:#fff;color:#1f5fbf}\
.choices{list-style:none;padding:0}.choices li{margin:.5rem 0}.small{color:#5a6370;font-size:.85rem}";

/// Markup under construction.
#[derive(Debug, Clone, Default)]
pub struct Html(String);

impl Html {
    pub fn new() -> Self {
        Self::default()
    }

    /// Markup: a constant, so that no value can get in.
    #[must_use]
    pub fn raw(mut self, markup: &'static str) -> Self {
        self.0.push_str(markup);
        self
    }

    /// A value, as text between tags or inside a double-quoted attribute.
    #[must_use]
    pub fn text(mut self, value: &str) -> Self {
        escape_into(&mut self.0, value);
        self
    }

    #[must_use]
    pub fn join(mut self, other: &Html) -> Self {
        self.0.push_str(&other.0);
        self
    }

    pub fn into_text(self) -> String {
        self.0
    }
}

/// For CSP's `style-src`.
pub(super) fn style_hash() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| STANDARD.encode(digest(&SHA256, STYLE.as_bytes())))
}

/// Control characters and those that turn the reading direction are shown as U+FFFD: they can make a name look like another one.
fn escape_into(to: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '&' => to.push_str("&amp;"),
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '"' => to.push_str("&quot;"),
            '\'' => to.push_str("&#39;"),
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => to.push('\u{fffd}'),
            c if c.is_control() && c != '\n' => to.push('\u{fffd}'),
            c => to.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: &str) {
        assert_eq!(Html::new().text(value).into_text(), expected);
    }

    #[test]
    fn values_stay_text() {
        check("plain é 名", "plain é 名");
        check("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;");
        check("\" onmouseover=\"x", "&quot; onmouseover=&quot;x");
        check("' onx='", "&#39; onx=&#39;");
        check("&lt;", "&amp;lt;");
        check("a\u{0}b\u{1b}c\u{7f}d\u{85}", "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}");
        check("moc.live@\u{202e}bob", "moc.live@\u{fffd}bob");
    }
}
