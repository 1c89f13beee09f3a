//! Many Envoys at once: 200 clients that speak as Envoy does and three that are Envoy, beside a `kubepass-server serve`. All have each change; what
//! one of them does or leaves undone delays no other; and when all come back at once, kubepass stays within its bounds.

mod client;
mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;

use self::client::{Behaviour, Holdings, Simulated};
use self::server::{EXTRA, Installation, ROUTES};
use crate::support::wait::{eventually, eventually_ok};

const CLIENTS: usize = 200;
const ENVOYS: usize = 3;
const STORMS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// What 200 connected clients may cost over none, and what a storm may leave behind, in MiB. A debug build's.
const CLIENTS_MIB: u64 = 100;
const STORM_MIB: u64 = 40;
/// Types that a client asks for.
const TYPES: u64 = 6;

#[test]
fn all_of_many_envoys_have_each_change_and_none_delays_another() {
    let mut scene = Scene::start();
    scene.every_change_comes_to_all();
    scene.one_that_dies_and_those_that_do_not_answer_delay_nobody();
    scene.all_come_back_at_once();
    scene.every_change_comes_to_all();
}

struct Scene {
    installation: Installation,
    runtime: tokio::runtime::Runtime,
    clients: Vec<Simulated>,
    /// Nodes that do not do as they should, or are gone.
    apart: Vec<&'static str>,
    /// Resident memory of kubepass with every client connected, in MiB.
    resident: u64,
}

impl Scene {
    fn start() -> Self {
        let mut installation = Installation::start();
        (0..ENVOYS).for_each(|number| installation.start_envoy(number));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut scene = Self { installation, runtime, clients: Vec::new(), apart: Vec::new(), resident: 0 };
        scene.all_have("the Envoys begin", |_| true);
        scene.installation.is_shown_to_the_operator_alone();
        let before = scene.installation.resident_mib();
        scene.clients = scene.connect();
        scene.all_have("everybody begins", |held| held.names("cds").len() == ROUTES);
        scene.resident = scene.installation.resident_mib();
        assert!(scene.resident < before + CLIENTS_MIB, "{CLIENTS} clients made kubepass grow from {before} to {} MiB", scene.resident);
        scene
    }

    fn connect(&self) -> Vec<Simulated> {
        (0..CLIENTS).map(|number| self.simulate(&format!("client-{number}"), Behaviour::Good)).collect()
    }

    fn simulate(&self, node: &str, behaviour: Behaviour) -> Simulated {
        Simulated::start(&self.runtime, &self.installation.xds_socket(), node, behaviour)
    }

    /// Of each type one: a route that comes, another address of a server, certificates, a token, a route that goes. Then one that is not theirs.
    fn every_change_comes_to_all(&mut self) {
        let extra = |held: &Holdings| held.names("cds").iter().any(|name| name.starts_with(&format!("kubernetes:{EXTRA}@")));
        self.change("a route comes", |installation| installation.wanted.extra = true, extra);
        let port = format!(":{}", self.installation.wanted.port + 1);
        self.change(
            "a server moves",
            |installation| installation.wanted.port += 1,
            |held| held.names("cds").iter().any(|name| name.contains(&port)),
        );
        let before = self.clients[0].holdings().of("sds");
        self.installation.rotate_certificate();
        self.all_have("the certificate is another", |held| held.of("sds") != before);
        let before = self.clients[0].holdings().of("sds");
        self.installation.rotate_token();
        self.all_have("the token is another", |held| held.of("sds") != before);
        self.change("a route goes", |installation| installation.wanted.extra = false, |held| !extra(held));
        let (before, version) = (self.pushed(), self.installation.version());
        self.installation.wanted.rule += 1;
        self.installation.write();
        eventually("another policy is in force", PATIENCE, || (self.installation.version() != version).then_some(()));
        assert_eq!(self.pushed(), before, "an Envoy was told of a policy");
    }

    fn change(&mut self, what: &str, change: impl FnOnce(&mut Installation), holds: impl Fn(&Holdings) -> bool) {
        change(&mut self.installation);
        self.installation.write();
        self.all_have(what, holds);
    }

    /// Waits until every client that behaves holds the same, for which `holds`, and kubepass says of each, and of each Envoy, that it has
    /// acknowledged all that it should have.
    fn all_have(&self, what: &str, holds: impl Fn(&Holdings) -> bool) {
        eventually_ok(what, PATIENCE, || {
            let held: Vec<Holdings> = self.clients.iter().map(Simulated::holdings).collect();
            if let Some(other) = held.iter().position(|one| !holds(one) || one != &held[0]) {
                return Err(format!("client {other} holds {:?}", held[other]));
            }
            self.all_acknowledged()
        });
    }

    fn all_acknowledged(&self) -> Result<(), String> {
        let streams = self.installation.streams();
        let good: Vec<_> = streams.into_iter().filter(|stream| !self.apart.contains(&stream.node.as_str())).collect();
        let envoys = ENVOYS - self.apart.iter().filter(|node| node.starts_with("envoy-")).count();
        let wanted = self.clients.len() + envoys;
        if good.len() != wanted {
            return Err(format!("{} streams instead of {wanted}", good.len()));
        }
        let late: BTreeMap<_, _> =
            good.iter().filter(|stream| !stream.late.is_empty()).map(|stream| (&stream.node, &stream.late)).collect();
        if late.is_empty() { Ok(()) } else { Err(format!("not settled: {late:?}")) }
    }

    fn one_that_dies_and_those_that_do_not_answer_delay_nobody(&mut self) {
        let deviants = [self.simulate("silent", Behaviour::NeverAnswers), self.simulate("deaf", Behaviour::NeverReads)];
        eventually("they are connected", PATIENCE, || (self.installation.streams().len() == CLIENTS + ENVOYS + 2).then_some(()));
        // It goes on being connected, and acknowledges nothing.
        self.installation.signal_envoy(0, Signal::STOP);
        self.apart = vec!["silent", "deaf", "envoy-0"];
        self.every_change_comes_to_all();
        // Each of them has at most one response of each type under way, whatever changed since.
        let in_flight = self.installation.metric("kubepass_xds_in_flight", "");
        assert!(in_flight > 0 && in_flight <= 3 * TYPES, "{in_flight} responses wait for an answer");
        self.installation.signal_envoy(0, Signal::KILL);
        self.every_change_comes_to_all();
        drop(deviants);
        eventually("they are gone", PATIENCE, || (self.installation.streams().len() == CLIENTS + ENVOYS - 1).then_some(()));
        assert_eq!(self.installation.metric("kubepass_xds_in_flight", ""), 0);
        self.apart = vec!["envoy-0"];
    }

    /// Each client costs one response of each type when it comes back, and nothing that stays.
    fn all_come_back_at_once(&mut self) {
        for storm in 0..STORMS {
            let (pushed, bytes) = (self.pushed(), self.pushed_bytes());
            let whole = self.clients[0].holdings().bytes();
            self.clients.clear();
            self.clients = self.connect();
            self.all_have("everybody is back", |held| held.names("cds").len() == ROUTES);
            let (pushed, bytes) = (self.pushed() - pushed, self.pushed_bytes() - bytes);
            let clients = u64::try_from(CLIENTS).unwrap();
            // A type may come in two parts: what a client asks for by name, it learns of from another.
            assert!(pushed <= clients * TYPES * 2, "storm {storm}: {pushed} responses");
            assert!(bytes <= clients * whole * 2, "storm {storm}: {bytes} bytes for {clients} clients that hold {whole} each");
            let resident = self.installation.resident_mib();
            assert!(resident <= self.resident + STORM_MIB, "storm {storm}: kubepass grew from {} to {resident} MiB", self.resident);
        }
        assert_eq!(self.installation.metric("kubepass_xds_streams", ""), u64::try_from(CLIENTS + ENVOYS - self.apart.len()).unwrap());
    }

    fn pushed(&self) -> u64 {
        self.installation.metric("kubepass_xds_responses_total{", "pushed")
    }

    fn pushed_bytes(&self) -> u64 {
        self.installation.metric("kubepass_xds_pushed_bytes_total{", "")
    }
}
