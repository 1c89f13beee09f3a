//! Where a browser says that a request comes from (the Fetch Metadata headers and `Origin`), and so whether the person's cookie may count for
//! it. `SameSite=Lax` on the cookie is the first lock; this is the second, and the only one against other hosts of the same site, which on one
//! domain belong to other teams.

/// What the headers say of where a request was made. None of it is believed to a client's advantage: a client that is no browser has no
/// cookies of a person unless it was given them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Provenance<'a> {
    origin: Said<'a>,
    site: Said<'a>,
    mode: Said<'a>,
    destination: Said<'a>,
    upgrades: bool,
}

/// One header: not there, once, or in a form that no browser sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Said<'a> {
    #[default]
    Nothing,
    Once(&'a str),
    Unusable,
}

/// The headers that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProvenanceHeader {
    Origin,
    Site,
    Mode,
    Destination,
    Upgrade,
}

impl ProvenanceHeader {
    pub(super) fn of(name: &str) -> Option<Self> {
        let names = [
            ("origin", Self::Origin),
            ("upgrade", Self::Upgrade),
            ("sec-fetch-site", Self::Site),
            ("sec-fetch-mode", Self::Mode),
            ("sec-fetch-dest", Self::Destination),
        ];
        names.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, header)| header)
    }
}

impl<'a> Provenance<'a> {
    pub(super) fn note(&mut self, header: ProvenanceHeader, value: &'a [u8]) {
        let said = match header {
            ProvenanceHeader::Origin => &mut self.origin,
            ProvenanceHeader::Site => &mut self.site,
            ProvenanceHeader::Mode => &mut self.mode,
            ProvenanceHeader::Destination => &mut self.destination,
            ProvenanceHeader::Upgrade => {
                self.upgrades = true;
                return;
            }
        };
        *said = match (*said, std::str::from_utf8(value)) {
            (Said::Nothing, Ok(text)) => Said::Once(text),
            _ => Said::Unusable,
        };
    }

    /// Whether the request asks to change the protocol (a WebSocket).
    pub fn upgrades(&self) -> bool {
        self.upgrades
    }

    /// Whether a cookie may stand for a person in this request to `own_origin` (`https://host[:port]`): what a page of this very origin sends;
    /// and of all else only reading, where nothing says that another site's page made it, or where a person follows a link to here.
    pub fn lets_cookies_count(&self, method: &str, own_origin: &str) -> bool {
        match (self.site, self.origin) {
            // Pages with `Referrer-Policy: no-referrer` send `Origin: null`; `Sec-Fetch-Site` they cannot choose.
            (Said::Once("same-origin"), Said::Nothing | Said::Once("null")) => true,
            (Said::Once("same-origin") | Said::Nothing, Said::Once(origin)) => origin == own_origin,
            (Said::Nothing | Said::Once("none"), Said::Nothing) => self.only_reads(method),
            (Said::Once("same-site" | "cross-site"), Said::Nothing) => self.only_reads(method) && self.is_top_level(),
            _ => false,
        }
    }

    /// Whether a person opens a page with it, so that a redirect to a login makes sense. Old browsers say nothing but what they accept.
    pub fn opens_a_page(&self, method: &str) -> bool {
        method == "GET" && !self.upgrades && (self.is_top_level() || (self.mode == Said::Nothing && self.destination == Said::Nothing))
    }

    fn only_reads(&self, method: &str) -> bool {
        matches!(method, "GET" | "HEAD") && !self.upgrades
    }

    /// Not a frame, an image or a script's request: what the answer holds is shown to the person alone.
    fn is_top_level(&self) -> bool {
        self.mode == Said::Once("navigate") && self.destination == Said::Once("document")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "https://wiki.example.com";

    fn provenance<'a>(headers: &[(&str, &'a str)]) -> Provenance<'a> {
        let mut provenance = Provenance::default();
        for (name, value) in headers {
            if let Some(header) = ProvenanceHeader::of(name) {
                provenance.note(header, value.as_bytes());
            }
        }
        provenance
    }

    #[track_caller]
    fn check(method: &str, headers: &[(&str, &str)], counts: bool) {
        assert_eq!(provenance(headers).lets_cookies_count(method, OWN), counts, "{method} {headers:?}");
    }

    const METHODS: [&str; 8] = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"];

    fn reads(method: &str) -> bool {
        matches!(method, "GET" | "HEAD")
    }

    #[test]
    fn pages_of_the_host_itself_may_do_anything() {
        for method in METHODS {
            check(method, &[("origin", OWN)], true);
            check(method, &[("Origin", OWN), ("Sec-Fetch-Site", "same-origin")], true);
            check(method, &[("sec-fetch-site", "same-origin")], true);
            check(method, &[("sec-fetch-site", "same-origin"), ("origin", "null")], true);
        }
        check("GET", &[("origin", OWN), ("upgrade", "websocket")], true);
        check(
            "GET",
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "websocket"), ("upgrade", "websocket"), ("origin", OWN)],
            true,
        );
    }

    #[test]
    fn without_a_word_of_the_origin_only_reading_is_let_through() {
        for method in METHODS {
            check(method, &[], reads(method));
            check(method, &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], reads(method));
        }
        check("GET", &[("upgrade", "websocket")], false);
        check("GET", &[("Upgrade", "anything"), ("sec-fetch-site", "none")], false);
    }

    #[test]
    fn other_sites_and_neighbours_may_only_lead_a_person_here() {
        for site in ["cross-site", "same-site"] {
            for method in METHODS {
                let navigation = [("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
                check(method, &navigation, reads(method));
                check(method, &[&navigation[..], &[("origin", "https://evil.example.com")]].concat(), false);
                check(method, &[&navigation[..], &[("origin", "null")]].concat(), false);
                check(method, &[&navigation[..], &[("upgrade", "websocket")]].concat(), false);
                for (mode, destination) in [
                    ("no-cors", "image"),
                    ("no-cors", "script"),
                    ("cors", "empty"),
                    ("navigate", "iframe"),
                    ("navigate", "object"),
                    ("websocket", "websocket"),
                    ("no-cors", "document"),
                ] {
                    check(method, &[("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", destination)], false);
                }
                check(method, &[("sec-fetch-site", site)], false);
            }
        }
    }

    #[test]
    fn another_origin_never_counts() {
        for origin in [
            "https://evil.example",
            "https://wiki.example.com.evil.example",
            "https://evil.wiki.example.com",
            "http://wiki.example.com",
            "https://wiki.example.com:8443",
            "https://WIKI.example.com",
            "https://wiki.example.com/",
            "https://wiki.example.com https://evil.example",
            "null",
            "",
        ] {
            for method in METHODS {
                check(method, &[("origin", origin)], false);
                check(method, &[("origin", origin), ("sec-fetch-site", "cross-site")], false);
                check(method, &[("origin", origin), ("sec-fetch-site", "none")], false);
                if origin != "null" {
                    check(method, &[("origin", origin), ("sec-fetch-site", "same-origin")], false);
                }
            }
            check("GET", &[("origin", origin), ("upgrade", "websocket")], false);
        }
    }

    #[test]
    fn what_no_browser_sends_never_counts() {
        check("GET", &[("origin", OWN), ("origin", OWN)], false);
        check("GET", &[("origin", OWN), ("Origin", "https://evil.example")], false);
        check("GET", &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")], false);
        check("POST", &[("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-origin"), ("origin", OWN)], false);
        check("POST", &[("sec-fetch-site", "Same-Origin")], false);
        check("GET", &[("sec-fetch-site", "")], false);
        let mut odd = Provenance::default();
        odd.note(ProvenanceHeader::Origin, b"\xff");
        assert!(!odd.lets_cookies_count("GET", OWN));
    }

    #[test]
    fn a_login_is_offered_to_who_opens_a_page() {
        let check = |method: &str, headers: &[(&str, &str)], opens: bool| {
            assert_eq!(provenance(headers).opens_a_page(method), opens, "{method} {headers:?}")
        };
        check("GET", &[], true);
        check("GET", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"), ("sec-fetch-site", "cross-site")], true);
        check("POST", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], false);
        check("GET", &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")], false);
        check("GET", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], false);
        check("GET", &[("upgrade", "websocket")], false);
        check("HEAD", &[], false);
    }
}
