//! The cases of the public xDS conformance harness (github.com/ii/xds-test-harness: `subscribing`, `unsubscribing`, `delta`), written anew:
//! a real gRPC client against the discovery services, in every variant to which the harness applies the case. Its "the service never
//! responds more than necessary" is `assert_quiet`: a name that was not asked for yet is answered next, and nothing before it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kubepass::server::ads::{Ads, AdsLimits, AdsState};
use kubepass::server::unix_socket::UnixSocket;
use kubepass::xds::resource::{ResourceSet, TypeUrl};
use kubepass::xds::resources::NodeResources;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::xds_client::{Client, DEADLINE, Got, Variant, set};

use TypeUrl::{
    Cluster as Cds, ClusterLoadAssignment as Eds, ExtensionConfig as Ecds, Listener as Lds, RouteConfiguration as Rds, Secret as Sds,
};

/// A resource of every type that no case asks for.
const SENTINEL: &str = "sentinel";

type Row = (TypeUrl, &'static str, &'static str);

/// A target with resources, and a client of it.
struct Target {
    _folder: tempfile::TempDir,
    resources: watch::Sender<Arc<NodeResources>>,
    content: BTreeMap<(TypeUrl, String), String>,
    state: AdsState,
    client: Client,
    variant: Variant,
    what: String,
}

impl Target {
    async fn start(variant: Variant, kinds: &[TypeUrl], names: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/xds.sock");
        let content: BTreeMap<_, _> =
            kinds.iter().flat_map(|kind| words(names).into_iter().map(|name| ((*kind, name), "1".to_owned()))).collect();
        let resources = watch::Sender::new(Arc::new(of(&content).into()));
        let state = AdsState::default();
        let service = Ads::service(resources.subscribe(), state.clone(), AdsLimits::default(), CancellationToken::new());
        let incoming = UnixSocket::bind(&socket).unwrap().into_incoming();
        tokio::spawn(Server::builder().serve_with_incoming(service, incoming));
        let client = Client::connect(variant, &socket, "node").await;
        Self { _folder: folder, resources, content, state, client, variant, what: format!("{variant:?} {kinds:?} {names}") }
    }

    async fn subscribe(&mut self, kind: TypeUrl, names: &str) {
        let names = words(names);
        self.client.subscribe(kind, &names.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
    }

    async fn unsubscribe(&mut self, kind: TypeUrl, names: &str) {
        let names = words(names);
        self.client.unsubscribe(kind, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let sent = self.client.requests;
        self.until(move |state| state.streams().iter().map(|stream| stream.requests).sum::<u64>() == sent).await;
    }

    async fn until(&self, holds: impl Fn(&AdsState) -> bool) {
        let wait = async {
            while !holds(&self.state) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{}: never", self.what));
    }

    /// `version` empty: removed.
    async fn publish(&mut self, kind: TypeUrl, name: &str, version: &str) {
        if version.is_empty() {
            self.content.remove(&(kind, name.to_owned()));
        } else {
            self.content.insert((kind, name.to_owned()), version.to_owned());
        }
        let set = of(&self.content);
        let wanted = set.type_version(kind).to_owned();
        self.resources.send_replace(Arc::new(set.into()));
        let sees =
            move |state: &AdsState| state.streams().iter().all(|stream| stream.types.get(&kind).is_some_and(|view| view.wanted == wanted));
        self.until(sees).await;
    }

    /// The next response holds exactly `expected`, as `NAME=VERSION` words, in one piece.
    async fn expect(&mut self, kind: TypeUrl, expected: &str) -> Got {
        let got = self.client.take(kind).await;
        let resources: BTreeSet<String> =
            got.resources.iter().filter(|(name, _)| *name != SENTINEL).map(|(name, version)| format!("{name}={version}")).collect();
        assert_eq!((got.kind, resources), (kind, words(expected)), "{}", self.what);
        got
    }

    async fn assert_quiet(&mut self, kind: TypeUrl) {
        let asked_by_name = ["*", SENTINEL];
        let wildcard = self.content.keys().any(|(of, _)| *of == kind) && self.what.contains("wildcard");
        self.client.subscribe(kind, if wildcard { &asked_by_name } else { &asked_by_name[1..] }).await.unwrap();
        let got = self.client.next(kind).await.unwrap();
        assert!(got.kind == kind && got.resources.contains_key(SENTINEL), "{}: more than necessary: {got:?}", self.what);
        for (name, version) in got.resources.iter().filter(|(name, _)| *name != SENTINEL) {
            assert_eq!(self.content.get(&(kind, name.clone())), Some(version), "{}", self.what);
        }
    }
}

fn of(content: &BTreeMap<(TypeUrl, String), String>) -> ResourceSet {
    let sentinels = TypeUrl::ALL.map(|kind| (kind, SENTINEL, "0"));
    set(content.iter().map(|((kind, name), version)| (*kind, name.as_str(), version.as_str())).chain(sentinels))
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn whole() -> impl Iterator<Item = Variant> {
    Variant::ALL.into_iter().filter(|variant| !variant.delta)
}

fn delta() -> impl Iterator<Item = Variant> {
    Variant::ALL.into_iter().filter(|variant| variant.delta)
}

#[tokio::test]
async fn the_service_sends_all_resources_on_a_wildcard_request() {
    for variant in Variant::ALL {
        for (kind, names, expected) in [(Cds, "A B C", "A=1 B=1 C=1"), (Lds, "D E F", "D=1 E=1 F=1")] {
            let mut target = Target::start(variant, &[kind], names).await;
            target.what += " wildcard";
            target.subscribe(kind, "").await;
            target.expect(kind, expected).await;
            target.assert_quiet(kind).await;
        }
    }
}

#[tokio::test]
async fn the_service_sends_updates_to_the_client() {
    for variant in Variant::ALL {
        for (kind, names, first, changed, whole, delta) in
            [(Cds, "A B C", "A=1 B=1 C=1", "A", "A=2 B=1 C=1", "A=2"), (Lds, "D E F", "D=1 E=1 F=1", "D", "D=2 E=1 F=1", "D=2")]
        {
            let mut target = Target::start(variant, &[kind], names).await;
            target.what += " wildcard";
            target.subscribe(kind, "").await;
            target.expect(kind, first).await;
            target.publish(kind, changed, "2").await;
            target.expect(kind, if variant.delta { delta } else { whole }).await;
            target.assert_quiet(kind).await;
        }
    }
}

#[tokio::test]
async fn wildcard_subscriptions_receive_updates_when_new_resources_are_added() {
    for variant in Variant::ALL {
        for (kind, names, first, added, whole, delta) in
            [(Cds, "A B C", "A=1 B=1 C=1", "D", "A=1 B=1 C=1 D=2", "D=2"), (Lds, "D E F", "D=1 E=1 F=1", "G", "D=1 E=1 F=1 G=2", "G=2")]
        {
            let mut target = Target::start(variant, &[kind], names).await;
            target.what += " wildcard";
            target.subscribe(kind, "").await;
            target.expect(kind, first).await;
            target.publish(kind, added, "2").await;
            target.expect(kind, if variant.delta { delta } else { whole }).await;
            target.assert_quiet(kind).await;
        }
    }
}

#[tokio::test]
async fn when_subscribing_to_specific_resources_only_these_are_received() {
    for variant in Variant::ALL {
        for (kind, names, subset, expected) in [
            (Cds, "A B C D", "B D", "B=1 D=1"),
            (Lds, "G B L D", "L G", "L=1 G=1"),
            (Rds, "B A", "B A", "B=1 A=1"),
            (Eds, "A B C", "A B", "A=1 B=1"),
            (Sds, "A B C", "A B", "A=1 B=1"),
            (Ecds, "A B C", "A B", "A=1 B=1"),
        ] {
            let mut target = Target::start(variant, &[kind], names).await;
            target.subscribe(kind, subset).await;
            target.expect(kind, expected).await;
            target.assert_quiet(kind).await;
        }
    }
}

#[tokio::test]
async fn when_subscribing_to_specific_resources_a_response_comes_when_those_change() {
    for variant in Variant::ALL {
        for (kind, subset, first, changed, whole, delta) in [
            (Cds, "B D", "B=1 D=1", "B", "B=2 D=1", "B=2"),
            (Lds, "B D", "B=1 D=1", "D", "B=1 D=2", "D=2"),
            (Rds, "B D", "B=1 D=1", "B", "B=2", "B=2"),
            (Eds, "B D", "B=1 D=1", "B", "B=2", "B=2"),
            (Sds, "B D", "B=1 D=1", "B", "B=2", "B=2"),
            (Ecds, "B D", "B=1 D=1", "B", "B=2", "B=2"),
        ] {
            let mut target = Target::start(variant, &[kind], "A B C D").await;
            target.subscribe(kind, subset).await;
            let before = target.expect(kind, first).await;
            target.publish(kind, changed, "2").await;
            let after = target.expect(kind, if variant.delta { delta } else { whole }).await;
            assert_ne!(before.nonce, after.nonce);
            target.assert_quiet(kind).await;
        }
    }
}

#[tokio::test]
async fn when_subscribing_to_resources_that_do_not_exist_a_response_comes_when_they_are_created() {
    for variant in Variant::ALL {
        for (kind, whole, delta) in [
            (Cds, "A=1 Z=2", "Z=2"),
            (Lds, "A=1 Z=2", "Z=2"),
            (Rds, "Z=2", "Z=2"),
            (Eds, "Z=2", "Z=2"),
            (Sds, "Z=2", "Z=2"),
            (Ecds, "Z=2", "Z=2"),
        ] {
            let mut target = Target::start(variant, &[kind], "A B C").await;
            target.subscribe(kind, "A Z").await;
            let first = target.expect(kind, "A=1").await;
            assert_eq!(first.removed, if variant.delta { words("Z") } else { BTreeSet::new() }, "the client is told");
            target.publish(kind, "Z", "2").await;
            let second = target.expect(kind, if variant.delta { delta } else { whole }).await;
            assert_ne!(first.nonce, second.nonce);
            target.assert_quiet(kind).await;
        }
    }
}

#[tokio::test]
async fn a_client_can_subscribe_to_multiple_services_on_one_stream() {
    for variant in Variant::ALL.into_iter().filter(|variant| variant.aggregated) {
        for (one, other) in [(Cds, Lds), (Lds, Cds), (Rds, Eds), (Eds, Rds), (Sds, Ecds)] {
            let mut target = Target::start(variant, &[one, other], "A B C").await;
            target.subscribe(one, "B").await;
            target.expect(one, "B=1").await;
            target.subscribe(other, "B").await;
            target.expect(other, "B=1").await;
            target.publish(one, "B", "2").await;
            target.expect(one, "B=2").await;
            target.publish(other, "B", "2").await;
            target.expect(other, "B=2").await;
            target.assert_quiet(one).await;
        }
    }
}

#[tokio::test]
async fn a_client_can_unsubscribe_from_some_resources() {
    for variant in whole() {
        for kind in [Cds, Lds, Rds, Eds, Sds, Ecds] {
            let mut target = Target::start(variant, &[kind], "F A B C D").await;
            target.subscribe(kind, "A B C").await;
            target.expect(kind, "A=1 B=1 C=1").await;
            target.unsubscribe(kind, "B C").await;
            target.publish(kind, "B", "2").await;
            target.publish(kind, "A", "2").await;
            target.expect(kind, "A=2").await;
            target.assert_quiet(kind).await;
        }
    }
}

#[tokio::test]
async fn a_client_can_unsubscribe_from_all_resources() {
    for variant in whole() {
        for kind in [Cds, Rds, Lds, Eds, Sds, Ecds] {
            let mut target = Target::start(variant, &[kind], "A B C D").await;
            target.subscribe(kind, "A B").await;
            target.expect(kind, "A=1 B=1").await;
            target.unsubscribe(kind, "A B").await;
            target.publish(kind, "B", "2").await;
            target.assert_quiet(kind).await;
        }
    }
}

#[tokio::test]
async fn a_client_subscribes_to_resources_one_after_the_other() {
    let rows: [Row; 6] =
        [(Cds, "A=1", "B=1"), (Lds, "A=1", "B=1"), (Rds, "A=1", "B=1"), (Eds, "A=1", "B=1"), (Sds, "A=1", "B=1"), (Ecds, "A=1", "B=1")];
    for variant in delta() {
        for (kind, first, second) in rows {
            let mut target = Target::start(variant, &[kind], "A B C").await;
            target.subscribe(kind, "A").await;
            target.expect(kind, first).await;
            target.subscribe(kind, "B").await;
            target.expect(kind, second).await;
            target.assert_quiet(kind).await;
        }
    }
}

#[tokio::test]
async fn a_client_is_told_when_a_resource_is_removed() {
    for variant in delta() {
        for kind in [Cds, Lds, Rds, Eds, Sds, Ecds] {
            let mut target = Target::start(variant, &[kind], "A B").await;
            target.subscribe(kind, "A B").await;
            target.expect(kind, "A=1 B=1").await;
            target.publish(kind, "B", "").await;
            assert_eq!(target.expect(kind, "").await.removed, words("B"));
            target.publish(kind, "B", "2").await;
            target.expect(kind, "B=2").await;
            target.assert_quiet(kind).await;
        }
    }
}

#[tokio::test]
async fn a_client_can_unsubscribe_one_by_one() {
    for variant in delta() {
        for kind in [Cds, Lds, Rds, Eds, Sds, Ecds] {
            let mut target = Target::start(variant, &[kind], "A B").await;
            target.subscribe(kind, "A B").await;
            target.expect(kind, "A=1 B=1").await;
            target.unsubscribe(kind, "B").await;
            target.publish(kind, "B", "2").await;
            target.unsubscribe(kind, "A").await;
            target.publish(kind, "A", "2").await;
            target.assert_quiet(kind).await;
        }
    }
}

#[tokio::test]
async fn a_service_of_one_type_refuses_another() {
    for variant in Variant::ALL.into_iter().filter(|variant| !variant.aggregated) {
        let mut target = Target::start(variant, &[Lds], "A").await;
        target.subscribe(Lds, "").await;
        target.expect(Lds, "A=1").await;
        target.client.misdirect(Lds, Cds).await;
        let refused = target.client.next(Lds).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{:?}", target.variant);
        assert!(refused.message().contains("envoy.config.listener.v3.Listener alone"), "{refused}");
    }
}
