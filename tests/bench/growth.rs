//! `make bench-growth`: how the cost of a check and of a reload grows with what there is, in process. What should be flat is beside what should grow.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kubepass::access::{Outcome, authenticate, decide};
use kubepass::server::ext_authz::question;
use kubepass::snapshot::{NodeView, Snapshot};
use kubepass::xds::resources::Maker;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::figures::Timed;
use super::part::{Cut, Found};
use super::scene::{self, Method, Scene};

/// Of one figure.
const SAMPLES: usize = 15;
/// What takes long is done less often.
const FEW: usize = 3;
const SAMPLE: Duration = Duration::from_millis(4);
/// Routes where changes of different sizes are measured.
const ROUTES: usize = 1_000;

/// One small plot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Curve {
    pub(super) title: String,
    pub(super) unit: String,
    pub(super) series: Vec<Series>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<Point>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) x: usize,
    pub(super) y: Timed,
}

pub(super) fn measure(_: &Cut) -> Result<Found, String> {
    let curves = [
        check("a check, by routes", &[1, 10, 100, 1_000, 10_000], |routes| Scene::new(routes, 5, 1, 2)),
        check("a check, by sessions", &[10, 100, 1_000, 10_000, 100_000, 1_000_000], |sessions| Scene::new(1, 5, sessions, 2)),
        check("a check, by groups of the person", &[0, 2, 16, 64, 256], with_groups),
        check("a check, by rules of the route", &[1, 5, 50, 500], |rules| Scene::new(1, rules, 1, 2)),
        policies(&[100, 1_000, 10_000]),
        reloads(&[1, 10, 100, ROUTES])?,
    ];
    let mut table = String::new();
    curves.iter().for_each(|curve| curve.write(&mut table));
    Ok(Found { table, figures: json!({"curves": curves}) })
}

/// Authentication, decision and policy of a request that is let pass.
fn check(title: &str, sizes: &[usize], scene: impl Fn(usize) -> Scene) -> Curve {
    let point = |size: usize| {
        let scene = scene(size);
        let check = scene.check();
        let request = question::read(&check, NodeView::UNNAMED).unwrap();
        let micros = timed(|| {
            let session = authenticate(&scene.snapshot, black_box(&request), &scene.sessions, scene.now);
            let decision = decide(&scene.snapshot, &request, session, scene.now);
            assert!(matches!(decision.outcome, Outcome::Allow(_)), "{:?}", decision.outcome);
        });
        Point { x: size, y: micros }
    };
    let points = sizes.iter().map(|size| point(*size)).collect();
    Curve { title: title.to_owned(), unit: "us".to_owned(), series: vec![Series { name: "authenticate and decide".to_owned(), points }] }
}

/// As many as a route can let through.
fn with_groups(groups: usize) -> Scene {
    let text = scene::configuration(1, 5, Method::Impersonate).replace("    impersonate:", "    groups: {max: 256}\n    impersonate:");
    Scene::at(snapshot(scene::config(&text)), 1, groups)
}

/// Reading a configuration whose routes all have the same five rules, and one whose routes have rules of their own.
fn policies(sizes: &[usize]) -> Curve {
    let own =
        |number: usize| scene::policy(5).replace("team-", &format!("team-{number}-")).replace("oncall-", &format!("oncall-{number}-"));
    let series = |name: &str, text: &dyn Fn(usize) -> String| {
        let point = |size: usize| {
            let text = text(size);
            Point { x: size, y: few(|| drop(black_box(scene::config(&text)))) }
        };
        Series { name: name.to_owned(), points: sizes.iter().map(|size| point(*size)).collect() }
    };
    let shared = series("the same rules everywhere", &|size| scene::configuration(size, 5, Method::Impersonate));
    let each = series("rules of its own for each", &|size| scene::configuration_with(size, Method::Impersonate, own));
    Curve { title: "reading a configuration, by routes".to_owned(), unit: "ms".to_owned(), series: vec![shared, each] }
}

/// From the new configuration to what one Envoy is sent, among [`ROUTES`] routes.
fn reloads(changes: &[usize]) -> Result<Curve, String> {
    let text = scene::configuration(ROUTES, 2, Method::Impersonate);
    let before = snapshot(scene::config(&text));
    let mut points = Vec::new();
    for changed in changes {
        // The port of so many API servers.
        let after = text.replacen(":6443", ":6444", *changed);
        let after = snapshot(scene::config_after(before.config(), &after));
        let mut times = Vec::new();
        for _ in 0..SAMPLES {
            let mut maker = Maker::default();
            let old = maker.make(&before).map_err(|error| error.to_string())?.of(NodeView::UNNAMED);
            let mut stream = scene::subscribed(&old);
            let began = Instant::now();
            let new = maker.make(&after).map_err(|error| error.to_string())?.of(NodeView::UNNAMED);
            let pushed = stream.on_snapshot(black_box(&new));
            times.push(began.elapsed().as_secs_f64() * 1e3);
            assert!(!pushed.is_empty());
        }
        points.push(Point { x: *changed, y: Timed::of(times) });
    }
    let series = vec![Series { name: "to what an Envoy is sent".to_owned(), points }];
    Ok(Curve { title: format!("a reload of {ROUTES} routes, by routes changed"), unit: "ms".to_owned(), series })
}

fn snapshot(config: kubepass::config::Config) -> Arc<Snapshot> {
    Arc::new(Snapshot::new(Arc::new(config), "0123456789abcdef0123456789abcdef"))
}

/// Microseconds of one call, each sample of as many calls as take some milliseconds.
fn timed(mut act: impl FnMut()) -> Timed {
    let mut calls = 1_u32;
    let mut batch = |calls: u32| {
        let began = Instant::now();
        (0..calls).for_each(|_| act());
        began.elapsed()
    };
    while batch(calls) < SAMPLE {
        calls *= 2;
    }
    Timed::of((0..SAMPLES).map(|_| batch(calls).as_secs_f64() * 1e6 / f64::from(calls)).collect())
}

/// Milliseconds of one call.
fn few(mut act: impl FnMut()) -> Timed {
    let mut once = || {
        let began = Instant::now();
        act();
        began.elapsed().as_secs_f64() * 1e3
    };
    Timed::of((0..FEW).map(|_| once()).collect())
}

impl Curve {
    fn write(&self, table: &mut String) {
        let _ = writeln!(table, "\n{}, {}", self.title, self.unit);
        for Series { name, points } in &self.series {
            let points: Vec<String> = points.iter().map(|point| format!("{}: {}", point.x, point.y.shown(2))).collect();
            let _ = writeln!(table, "  {name}\n    {}", points.join("\n    "));
        }
    }
}
