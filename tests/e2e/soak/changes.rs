//! The changes: what each of them is, and when it is in force.

use super::super::support::person::Person;
use super::super::support::pki::Authority;
use super::super::support::raw::Connection;
use super::super::support::wait::eventually;
use super::super::support::world::{NAMESPACE, PROD_HOST, SERVICE_ACCOUNT};
use super::expected::{Ask, Expected};
use super::installation::{Installation, Object, PATIENCE, serving};
use super::requests::Requests;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Another rule of both routes' policy, or none.
    Policy,
    /// A route comes or goes.
    Route,
    /// A route that is an object of an API server comes, gets another policy, or goes.
    Object,
    /// An option of a route with open streams.
    RouteOption,
    /// Another address of the API server under open streams.
    Endpoint,
    ServingCertificate,
    CaBundle,
    ServiceAccountToken,
    Secrets,
    /// A mistake, and its correction.
    Mistake,
    /// Someone logs in, or their session is ended.
    Session,
    /// Envoy's link to the control plane is cut, and mended after two other changes.
    CutLink,
    Restart,
    Crash,
}

/// What comes again and again; the order is mixed.
const MIX: [Change; 18] = [
    Change::Policy,
    Change::Policy,
    Change::Policy,
    Change::Route,
    Change::Route,
    Change::Route,
    Change::Object,
    Change::Object,
    Change::RouteOption,
    Change::RouteOption,
    Change::Endpoint,
    Change::ServingCertificate,
    Change::CaBundle,
    Change::ServiceAccountToken,
    Change::Secrets,
    Change::Mistake,
    Change::Session,
    Change::CutLink,
];

const ALLOWED: [Ask; 4] = [Ask::Prod, Ask::Staging, Ask::ProdServices, Ask::StagingServices];
/// What a route may be answered that comes or goes: Envoy may know it when kubepass does not, or the other way round; and foo has no token for one
/// that was never there before.
const ON_THE_WAY: [&str; 4] = ["200", "401", "404", "503"];
const SERVICES: [Ask; 2] = [Ask::ProdServices, Ask::StagingServices];

/// `count` changes in a fixed order, with every kind in each 50. kubepass starts again in the first half only, so that the second shows whether
/// its memory grows.
pub(super) fn plan(count: usize) -> Vec<Change> {
    let mut mixed = Mixed(20_261_126);
    let mut plan = Vec::new();
    while plan.len() < count {
        let mut round = MIX.to_vec();
        (1..round.len()).rev().for_each(|last| round.swap(last, mixed.below(last + 1)));
        plan.extend(round);
    }
    plan.truncate(count);
    let step = (count / 10).max(1);
    for (number, at) in (step..count / 2).step_by(step).enumerate() {
        plan[at] = if number % 2 == 0 { Change::Restart } else { Change::Crash };
    }
    plan
}

/// A linear congruential generator (Knuth's MMIX): the same order in every run.
struct Mixed(u64);

impl Mixed {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Makes changes, and says what may be answered meanwhile.
pub(super) struct Changes<'a> {
    expected: &'a Expected,
    requests: &'a Requests,
    bar: Option<Person>,
}

impl<'a> Changes<'a> {
    pub(super) fn new(expected: &'a Expected, requests: &'a Requests) -> Self {
        Self { expected, requests, bar: None }
    }

    /// Returns when it is in force.
    pub(super) fn make(&mut self, change: Change, index: usize, installation: &mut Installation, what: &str) {
        match change {
            Change::Policy => self.policy(index, installation, what),
            Change::Route => self.route(installation, what),
            Change::Object => self.object(index, installation, what),
            Change::RouteOption => installation.program(what, "rds", |installation| {
                installation.wanted.shorter = (installation.wanted.shorter + 1) % 8;
                installation.write();
            }),
            Change::Endpoint => self.endpoint(installation, what),
            Change::ServingCertificate => serving_certificate(installation, what),
            Change::CaBundle => installation.program(what, "sds", |installation| {
                let next = format!("{}{}", installation.world.prod.ca_pem(), Authority::new(&format!("authority {index}")).pem());
                installation.mount.put(&[("prod-ca.crt", &next)]);
            }),
            Change::ServiceAccountToken => installation.program(what, "sds", |installation| {
                let token = installation.world.prod.create_token(NAMESPACE, SERVICE_ACCOUNT);
                installation.mount.put(&[("prod-token", &token)]);
            }),
            Change::Secrets => installation.configure(what, |installation| {
                installation.wanted.next_secret = !installation.wanted.next_secret;
                installation.write();
            }),
            Change::Mistake => mistake(installation, what),
            Change::Session => self.session(installation, what),
            Change::CutLink => self.cut_link(index, installation, what),
            Change::Restart => self.restart(false, installation, what),
            Change::Crash => self.restart(true, installation, what),
        }
    }

    fn policy(&self, index: usize, installation: &mut Installation, what: &str) {
        // Each second time the rule is another, so that one rule also follows another.
        let denied = if index.is_multiple_of(3) && installation.wanted.denied.is_some() { None } else { Some(index) };
        let answer = denied.map_or("200".to_owned(), |change| format!("403 change {change}"));
        self.expected.also(&SERVICES, &answer);
        installation.configure(what, |installation| {
            installation.wanted.denied = denied;
            installation.write();
        });
        SERVICES.iter().for_each(|ask| self.requests.until(*ask, &answer, what));
        self.expected.only(&SERVICES, &answer);
    }

    fn route(&self, installation: &mut Installation, what: &str) {
        self.begin_route(installation);
        installation.program(what, "rds", |installation| installation.write());
        self.route_is_there(installation, what);
    }

    fn begin_route(&self, installation: &mut Installation) {
        installation.wanted.extra = !installation.wanted.extra;
        ON_THE_WAY.iter().for_each(|answer| self.expected.also(&[Ask::Extra], answer));
    }

    fn route_is_there(&self, installation: &Installation, what: &str) {
        self.is_answered(Ask::Extra, if installation.wanted.extra { "200" } else { "404" }, installation, what);
    }

    /// Waits until a route that came, changed or went is answered so; foo gets a token for one that is new.
    fn is_answered(&self, ask: Ask, answer: &str, installation: &Installation, what: &str) {
        let host = ask.host();
        if answer != "404" && !self.requests.has_token("foo", host) {
            self.requests.until(ask, "401", what);
            self.requests.set_token("foo", host, &installation.foo.session_token(&installation.world.url(host)));
        }
        self.requests.until(ask, answer, what);
        self.expected.only(&[ask], answer);
    }

    fn object(&self, index: usize, installation: &mut Installation, what: &str) {
        let (next, answer) = match installation.object {
            Object::Absent => (Object::Allowing, "200".to_owned()),
            Object::Allowing => (Object::Denying(index), format!("403 change {index}")),
            Object::Denying(_) => (Object::Absent, "404".to_owned()),
        };
        if matches!(next, Object::Denying(_)) {
            self.expected.also(&[Ask::Object], &answer);
        } else {
            ON_THE_WAY.iter().for_each(|answer| self.expected.also(&[Ask::Object], answer));
        }
        installation.object = next;
        installation.apply_object();
        self.is_answered(Ask::Object, &answer, installation, what);
    }

    /// A decision is for one server: while Envoy and kubepass speak of two, there is none.
    fn endpoint(&self, installation: &mut Installation, what: &str) {
        let asks = [Ask::Prod, Ask::ProdServices, Ask::Stranger, Ask::Bar];
        self.expected.also(&asks, "503");
        installation.program(what, "rds", |installation| {
            installation.wanted.door = 1 - installation.wanted.door;
            installation.write();
        });
        self.requests.until(Ask::Prod, "200", what);
        self.expected.no_longer(&asks, "503");
    }

    fn session(&mut self, installation: &Installation, what: &str) {
        let world = &installation.world;
        let answer = if self.bar.take().is_some() {
            self.expected.also(&[Ask::Bar], "401");
            assert_eq!(world.operator(&["session", "revoke", "--user", "bar@example.com"]).ok(), "1 session has ended\n");
            "401"
        } else {
            self.expected.also(&[Ask::Bar], "200");
            let bar = world.person("bar");
            self.requests.set_token("bar", PROD_HOST, &bar.session_token(&world.url(PROD_HOST)));
            self.bar = Some(bar);
            "200"
        };
        self.requests.until(Ask::Bar, answer, what);
        self.expected.only(&[Ask::Bar], answer);
    }

    /// The policy does not need the link; a route does, and comes when the link is back.
    fn cut_link(&self, index: usize, installation: &mut Installation, what: &str) {
        installation.link.cut();
        self.policy(index, installation, what);
        self.begin_route(installation);
        installation.configure(what, |installation| installation.write());
        installation.link.mend();
        installation.settled(what);
        self.route_is_there(installation, what);
    }

    /// Whoever asks while kubepass is away is refused; whoever was let in stays.
    fn restart(&self, kill: bool, installation: &mut Installation, what: &str) {
        let there = installation.hosts();
        let asks: Vec<Ask> = Ask::ALL.into_iter().filter(|ask| there.contains(&ask.host())).collect();
        self.expected.also(&asks, "503");
        installation.restart(kill);
        installation.settled(what);
        ALLOWED.iter().take(2).for_each(|ask| self.requests.until(*ask, "200", what));
        self.expected.no_longer(&asks, "503");
    }
}

fn serving_certificate(installation: &mut Installation, what: &str) {
    let pair = serving(&installation.world.authority);
    installation.program(what, "sds", |installation| installation.mount.put(&[("tls.crt", &pair.cert), ("tls.key", &pair.key)]));
    let world = &installation.world;
    let mut connection = Connection::open(world.port, PROD_HOST, world.authority.pem());
    assert_eq!(connection.request("GET", "/api", &[("host", PROD_HOST)]).answer().unwrap().status, 401);
    assert_eq!(connection.server_certificate(), pair.der(), "{what}: another certificate is served");
}

fn mistake(installation: &Installation, what: &str) {
    let good = std::fs::read_to_string(installation.world.config_path()).unwrap();
    let refused = || installation.world.metric(&["kubepass_config_reloads_total", "rejected"]);
    let before = refused();
    installation.world.write_config(&good.replace("allow: user.email", "allow: user.emial"));
    eventually(&format!("{what}: it is refused"), PATIENCE, || (refused() != before).then_some(()));
    installation.world.write_config(&good);
    let state = || super::super::serve::state(&installation.world)["configuration"]["last_change"] == "applied";
    eventually(&format!("{what}: it is forgotten"), PATIENCE, || state().then_some(()));
}
