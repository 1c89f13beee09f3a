//! What every attack on a login needs: browsers of victims and attackers, the way to the identity provider and back cut in two, and the question whose
//! session a browser holds.

use std::collections::BTreeMap;

use url::Url;

use crate::attack::Verdict;
use crate::judge::Must;
use crate::scene::{CLUSTERS, Scene, Target};
use crate::support::browser::{Browser, Page};
use crate::support::jar::Jar;
use crate::support::raw::{Answer, Connection};
use crate::support::world::PUBLIC_HOST;
use crate::trial::Trial;

pub(super) const SESSION: &str = "__Host-kubepass-session";
/// Who attacks, and as whom nobody but them may be logged in.
pub(super) const ATTACKER: &str = "mallory";
/// A login at the honest provider, whichever others there are.
pub(super) const HONEST: &str = "/login?idp=corp";
/// Who is attacked.
pub(super) const VICTIM: &str = "foo";

pub(super) struct Stage<'s> {
    pub(super) scene: &'s Scene,
    trial: Trial<'s>,
    ends: BTreeMap<String, usize>,
    tried: usize,
}

impl<'s> Stage<'s> {
    pub(super) fn new(scene: &'s Scene, name: &'static str) -> Self {
        Self { scene, trial: scene.trial(name).on(&CLUSTERS), ends: BTreeMap::new(), tried: 0 }
    }

    /// `https://pass...` and the path.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.scene.world.url(PUBLIC_HOST))
    }

    pub(super) fn browser(&self) -> Browser {
        Browser::new(&self.scene.world.proxy, &[self.scene.world.authority.pem()])
    }

    /// A browser of the same person with these cookies.
    pub(super) fn browser_with(&self, jar: &Jar) -> Browser {
        let mut browser = self.browser();
        browser.jar = jar.clone();
        browser
    }

    pub(super) fn logged_in(&self, login: &str) -> Browser {
        let mut browser = self.browser();
        let back = self.way_back(&mut browser, login);
        let page = browser.open(back.as_str());
        assert_eq!(self.whose(&mut browser).as_deref(), Some(&*email(login)), "{page}");
        browser
    }

    /// Begins a login: the address at the identity provider to which the browser is sent.
    pub(super) fn begin(&self, browser: &mut Browser, path: &str) -> Url {
        browser.stop_at(|url| url.host_str() != Some(PUBLIC_HOST));
        let page = browser.open(&self.at(path));
        browser.stop_at(|_| false);
        Url::parse(&page.url)
            .ok()
            .filter(|url| url.query().is_some_and(|query| query.contains("code_challenge")))
            .unwrap_or_else(|| panic!("{page}"))
    }

    /// From there to the address of the callback, with the code in it, which the browser does not open.
    pub(super) fn agree(&self, browser: &mut Browser, at_provider: &Url, login: &str) -> Url {
        browser.stop_at(|url| url.host_str() == Some(PUBLIC_HOST));
        let page = browser.open(at_provider.as_str());
        let page = if page.url.contains("/callback?") { page } else { self.scene.world.idp.log_in(browser, page, login) };
        browser.stop_at(|_| false);
        let url = Url::parse(&page.url).unwrap();
        assert!(url.query_pairs().any(|(name, _)| name == "code"), "{page}");
        url
    }

    pub(super) fn way_back(&self, browser: &mut Browser, login: &str) -> Url {
        let at_provider = self.begin(browser, HONEST);
        self.agree(browser, &at_provider, login)
    }

    /// Whose session the browser holds, by the portal's own word.
    pub(super) fn whose(&self, browser: &mut Browser) -> Option<String> {
        let text = browser.open(&self.at("/")).text();
        named_by(&text)
    }

    /// A finding unless the browser is logged in as `who`, or not at all.
    pub(super) fn is(&mut self, browser: &mut Browser, who: Option<&str>, after: &str) {
        self.tried += 1;
        let (found, wanted) = (self.whose(browser), who.map(email));
        if found != wanted {
            self.found(format!("after {after} the browser is {found:?}, not {wanted:?}"));
        }
    }

    /// Notes how a step ended; one that a browser was sent on from is a finding unless it is meant to be.
    pub(super) fn refused(&mut self, page: &Page, what: &str) {
        self.tried += 1;
        *self.ends.entry(page.status.to_string()).or_default() += 1;
        if !(400..600).contains(&page.status) || page.hops.iter().any(|hop| hop.location.as_deref().is_some_and(has_secret)) {
            self.found(format!("{what} ended at {} with {}", page.url, page.status));
        }
    }

    pub(super) fn note(&mut self, end: impl Into<String>) {
        self.tried += 1;
        *self.ends.entry(end.into()).or_default() += 1;
    }

    pub(super) fn found(&mut self, what: impl Into<String>) {
        self.trial.finding(what);
    }

    pub(super) fn expect(&mut self, holds: bool, what: impl Into<String>) {
        self.tried += 1;
        if !holds {
            self.found(what);
        }
    }

    /// Tries a text as a token at both API servers; what arrives there has got through.
    pub(super) fn opens_nothing(&mut self, token: &str) {
        for target in CLUSTERS {
            self.opens_not(target, &format!("authorization: Bearer {token}"));
        }
    }

    /// The same with header lines of one's own.
    pub(super) fn opens_not(&mut self, target: Target, lines: &str) {
        let request = format!("GET {{at}} HTTP/1.1\r\nhost: {{host}}\r\nuser-agent: security/{{mark}}.\r\n{lines}\r\n\r\n");
        let sent = self.trial.raw_to(target, Some(target.host), &request, Must::Stop);
        self.note(format!("API server {}", sent.status()));
    }

    /// A request to a host, byte by byte.
    pub(super) fn raw(&self, host: &str, head: &str, body: &str) -> Answer {
        let world = &self.scene.world;
        let mut connection = Connection::open(world.port, host, world.authority.pem());
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        connection.send(format!("{head}\r\nhost: {host}\r\nconnection: close\r\n{length}\r\n{body}").as_bytes());
        connection.answer().unwrap_or(Answer { status: 0, headers: Vec::new(), body: Vec::new() })
    }

    pub(super) fn verdict(self) -> Verdict {
        let ends: Vec<String> = self.ends.iter().map(|(end, count)| format!("{end} x{count}")).collect();
        match self.trial.verdict() {
            Verdict::Held(_) => Verdict::Held(format!("{} tries: {}", self.tried, ends.join(", "))),
            through => through,
        }
    }
}

/// The address that the honest provider has verified of someone.
pub(super) fn email(login: &str) -> String {
    format!("{login}@example.com")
}

pub(super) fn value(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(found, _)| found == name).unwrap_or_else(|| panic!("no {name} in {url}")).1.into_owned()
}

pub(super) fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The portal says "You are foo@example.com, logged in at corp."
fn named_by(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("You are ").filter(|(_, rest)| !rest.starts_with("not "))?;
    rest.split_once(", logged in").map(|(name, _)| name.trim().to_owned())
}

/// Whether an address carries what is for one receiver only.
fn has_secret(location: &str) -> bool {
    Url::parse(location).is_ok_and(|url| url.query_pairs().any(|(name, _)| name == "code" || name == "pomerium_jwt"))
}
