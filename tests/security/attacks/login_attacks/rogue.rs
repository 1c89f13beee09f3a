//! Identity providers that lie, beside the honest one: an operator has configured them for people of their own (a partner's, say), and their people
//! may use the same routes. And one route takes pomerium-cli, in the same configuration.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use url::Url;

use super::stage::Stage;
use crate::scene::Scene;
use crate::support::browser::{Browser, Page};
use crate::support::fake_idp::{CLIENT_ID, CLIENT_SECRET, FakeIdp};
use crate::support::wait::eventually;
use crate::support::world::PROD_HOST;

/// A provider in the installation's configuration.
#[derive(Clone)]
pub(super) struct Rogue {
    /// In the configuration; its people are `@NAME.example`.
    pub(super) name: String,
    pub(super) idp: FakeIdp,
}

impl Rogue {
    /// The one whose discovery is right: what it does afterwards is the attack.
    pub(super) fn usual(scene: &Scene) -> Self {
        let rogue = usual();
        rogue.idp.behave();
        configure(scene, std::slice::from_ref(&rogue));
        rogue.of_its_own_people();
        rogue
    }

    /// A new one that nobody has asked for anything yet, for lies in its discovery and keys.
    pub(super) fn liar(scene: &Scene, lie: impl FnOnce(&FakeIdp)) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let liar = Self { name: format!("liar-{}", NEXT.fetch_add(1, Ordering::Relaxed)), idp: start() };
        liar.of_its_own_people();
        lie(&liar.idp);
        configure(scene, &[usual(), liar.clone()]);
        liar
    }

    pub(super) fn own_email(&self) -> String {
        format!("ada@{}.example", self.name)
    }

    fn of_its_own_people(&self) {
        let email = self.own_email();
        self.idp.set(|behaviour| drop(behaviour.id_token.insert("email".to_owned(), email.into())));
    }

    /// A login there, as far as it goes.
    pub(super) fn log_in(&self, stage: &Stage<'_>, browser: &mut Browser) -> Page {
        browser.stop_at(|url| url.path() == "/authorize");
        let page = browser.open(&stage.at(&format!("/login?idp={}", self.name)));
        browser.stop_at(|_| false);
        let at_provider = Url::parse(&page.url).unwrap();
        if at_provider.path() != "/authorize" {
            return page;
        }
        browser.open(self.idp.authorize(&at_provider).as_str())
    }
}

fn usual() -> Rogue {
    static USUAL: OnceLock<Rogue> = OnceLock::new();
    USUAL.get_or_init(|| Rogue { name: "rogue".to_owned(), idp: start() }).clone()
}

fn start() -> FakeIdp {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime =
        RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime"));
    runtime.block_on(FakeIdp::start())
}

/// Puts them into the configuration, unless they stand there, and waits until the login pages offer them.
fn configure(scene: &Scene, rogues: &[Rogue]) {
    let entry = |rogue: &Rogue| {
        format!(
            "- name: {0}\n  issuer: {1}\n  client_id: {CLIENT_ID}\n  client_secret: {{file: rogue-secret}}\n  scopes: [openid, email]\n  \
             identity: {{username: claims.email, groups: claims.groups, email_domains: [{0}.example]}}\n",
            rogue.name,
            rogue.idp.issuer()
        )
    };
    let entries: String = rogues.iter().map(entry).collect();
    let prod = format!("  host: {PROD_HOST}\n");
    // Of the usual configuration only the people of the honest provider are said: without it two providers could give one name.
    let honest = "groups: claims.groups, email_domains: [example.com, evil.example]}";
    let text = scene.config().replacen("groups: claims.groups}", honest, 1).replacen("sessions:", &format!("{entries}sessions:"), 1);
    let text = text.replacen(&prod, &format!("{prod}  pomerium_cli: true\n"), 1);
    assert!(text.contains(honest) && text.contains(&entries) && text.contains("pomerium_cli: true"));
    if std::fs::read_to_string(scene.world.config_path()).is_ok_and(|in_force| in_force == text) {
        return;
    }
    scene.world.secret("rogue-secret", CLIENT_SECRET);
    scene.world.write_config(&text);
    let stage = Stage::new(scene, "logins-configuration");
    let last = &rogues.last().expect("one").name;
    eventually("the other provider is offered", Duration::from_secs(20), || {
        let page = stage.browser().open(&stage.at("/login"));
        page.links().iter().any(|link| link.text == *last).then_some(())
    });
}
