//! The runs: each size with kubepass and with go-control-plane, and many clients at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::kubepass::xds::resource::ResourceSet;

use super::super::machine;
use super::super::support::run::Run;
use super::super::support::tools::Tools;
use super::client::Clients;
use super::envoy;
use super::events::Settled;
use super::go_control_plane::{self, GoControlPlane};
use super::kubepass::{self, Kubepass};
use super::outcome::{Outcome, Sample};
use super::report;
use super::scene::{Change, Scene};

/// Routes of a run; the last one is the one that the targets are about.
const SIZES: [usize; 3] = [100, 1_000, 10_000];
/// Of each kind.
const CHANGES: usize = 3;
const MANY_ROUTES: usize = 1_000;
const MANY_CLIENTS: usize = 100;
/// A big configuration takes an Envoy some time at its start.
const PATIENCE: Duration = Duration::from_secs(300);
/// The reference answers each of an Envoy's requests for a secret at a cost that grows with all of them: with 10,000 routes it is at it for longer.
const REFERENCE_PATIENCE: Duration = Duration::from_secs(120);

/// One size, in both servers.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) routes: usize,
    pub(super) clients: usize,
    pub(super) kubepass: Outcome,
    pub(super) go_control_plane: Outcome,
}

/// `make bench-xds`. `QUICK=1` leaves out the biggest size; `TRIAL=1` takes a debug build, to see that it works.
pub(super) fn all() -> Result<(), String> {
    let set = |name: &str| std::env::var(name).is_ok_and(|text| !text.is_empty() && text != "0");
    let (quick, trial) = (set("QUICK"), set("TRIAL"));
    if cfg!(debug_assertions) && !trial {
        return Err("this is a debug build, whose figures mean nothing: use `make bench-xds`".to_owned());
    }
    let load_before = machine::load_average();
    let (tools, reference) = (Tools::ensure(), go_control_plane::program());
    let sizes = if quick { &SIZES[..2] } else { &SIZES[..] };
    let curve = sizes.iter().map(|routes| pair(tools, &reference, *routes, None)).collect::<Result<Vec<_>, String>>()?;
    let many = pair(tools, &reference, MANY_ROUTES, Some(MANY_CLIENTS))?;
    let summary = report::of(&curve, &many, quick, load_before, &[("envoy", machine::first_line(&tools.envoy(), &["--version"]))]);
    println!("{}", report::table(&summary));
    println!("written: {}", report::write(&summary)?.display());
    Ok(())
}

/// `clients`: so many reference clients and no Envoy; otherwise one of each.
fn pair(tools: &Tools, reference: &Path, routes: usize, clients: Option<usize>) -> Result<Pair, String> {
    let run = Run::new("xds");
    let of = clients.map_or_else(|| "an Envoy and a client".to_owned(), |clients| format!("{clients} clients"));
    println!("{routes} routes, {of}: kubepass ...");
    let mut scene = Scene::write(&run, "kubepass", routes);
    let mut recording = Recording::new(&run, &scene)?;
    let kubepass = with_kubepass(&run, tools, &mut scene, &mut recording, clients)?;
    println!("{routes} routes, {of}: go-control-plane ...");
    // Its own limits end no run of ours.
    let go_control_plane = with_reference(&run, tools, reference, &recording, clients).unwrap_or_else(|failure| {
        println!("go-control-plane: {failure}");
        Outcome { failure: Some(failure), ..Outcome::default() }
    });
    Ok(Pair { routes, clients: clients.unwrap_or(1), kubepass, go_control_plane })
}

/// The resources of each moment, as files that the reference reads.
struct Recording {
    folder: PathBuf,
    last: Arc<ResourceSet>,
    steps: Vec<(Option<Change>, PathBuf)>,
}

impl Recording {
    fn new(run: &Run, scene: &Scene) -> Result<Self, String> {
        let mut recording = Self { folder: run.dir("recording"), last: Arc::default(), steps: Vec::new() };
        recording.record(None, scene)?;
        Ok(recording)
    }

    fn record(&mut self, change: Option<Change>, scene: &Scene) -> Result<(), String> {
        let set = kubepass::resources_of(scene)?;
        let file = self.folder.join(format!("{}.pb", self.steps.len()));
        std::fs::write(&file, go_control_plane::encoded(&self.last, &set)).map_err(|error| error.to_string())?;
        self.last = set;
        self.steps.push((change, file));
        Ok(())
    }
}

/// Who listens to a server.
struct Listeners {
    clients: Clients,
    count: usize,
    /// Ends when it is dropped.
    _envoy: Option<super::super::support::leash::Process>,
}

impl Listeners {
    fn start(run: &Run, tools: &Tools, folder: &Path, clients: Option<usize>) -> Self {
        let (mut started, count) = (Clients::new(), clients.unwrap_or(1));
        (0..count).for_each(|number| started.start(&format!("client-{number}"), folder));
        let envoy = clients.is_none().then(|| envoy::start(run, tools, folder));
        Self { clients: started, count: count + usize::from(envoy.is_some()), _envoy: envoy }
    }
}

fn with_kubepass(
    run: &Run,
    tools: &Tools,
    scene: &mut Scene,
    recording: &mut Recording,
    clients: Option<usize>,
) -> Result<Outcome, String> {
    let mut kubepass = Kubepass::start(run, scene);
    let process = kubepass.process.id();
    let listeners = Listeners::start(run, tools, &scene.socket_dir(), clients);
    kubepass.log.settle(None, listeners.count, PATIENCE)?;
    let mut outcome = Outcome { start_cpu_seconds: machine::cpu_seconds(process), ..Outcome::default() };
    for (number, change) in changes() {
        let (bytes, cpu, at) = (listeners.clients.received(), cpu_ms(process), now());
        scene.change(change, place(number, recording));
        let settled = kubepass.log.settle(Some(at), listeners.count, PATIENCE)?;
        let file_ms = Some((settled.published - at) as f64 / 1000.0);
        let sample = Sample { file_ms, ..sample(&settled, listeners.clients.received() - bytes, cpu_ms(process) - cpu)? };
        outcome.samples.entry(change).or_default().push(sample);
        recording.record(Some(change), scene)?;
    }
    outcome.memory_mb = machine::resident_mb(process);
    Ok(outcome)
}

fn with_reference(run: &Run, tools: &Tools, program: &Path, recording: &Recording, clients: Option<usize>) -> Result<Outcome, String> {
    let folder = run.dir("reference");
    let mut server = GoControlPlane::start(run, program, &folder);
    let process = server.process.id();
    let mut steps = recording.steps.iter();
    let Some((_, first)) = steps.next() else { return Err("nothing was recorded".to_owned()) };
    let at = now();
    server.publish(first);
    server.log.settle(Some(at), 0, PATIENCE)?;
    let listeners = Listeners::start(run, tools, &folder, clients);
    server.log.settle(None, listeners.count, REFERENCE_PATIENCE)?;
    let mut outcome = Outcome { start_cpu_seconds: machine::cpu_seconds(process), ..Outcome::default() };
    for (change, file) in steps {
        let (bytes, cpu, at) = (listeners.clients.received(), cpu_ms(process), now());
        server.publish(file);
        let settled = server.log.settle(Some(at), listeners.count, PATIENCE)?;
        let sample = sample(&settled, listeners.clients.received() - bytes, cpu_ms(process) - cpu)?;
        outcome.samples.entry(change.ok_or("a change has no name")?).or_default().push(sample);
    }
    outcome.memory_mb = machine::resident_mb(process);
    Ok(outcome)
}

/// Each kind by turns.
fn changes() -> impl Iterator<Item = (usize, Change)> {
    (0..CHANGES).flat_map(|_| Change::ALL).enumerate()
}

/// Another route for each change, spread over all.
fn place(number: usize, recording: &Recording) -> usize {
    let routes = recording.last.len(::kubepass::xds::resource::TypeUrl::Cluster);
    (number * 37 + 11) % routes
}

fn sample(settled: &Settled, bytes: u64, cpu_ms: f64) -> Result<Sample, String> {
    let ms = |micros: &i64| *micros as f64 / 1000.0;
    let clients = settled.acknowledged.iter().filter(|(node, _)| *node != envoy::NODE).map(|(_, micros)| ms(micros)).fold(0.0, f64::max);
    if clients == 0.0 {
        return Err("no client acknowledged the change".to_owned());
    }
    Ok(Sample { envoy_ms: settled.acknowledged.get(envoy::NODE).map(ms), clients_ms: clients, bytes, cpu_ms, file_ms: None })
}

/// Microseconds since the epoch.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as i64)
}

/// CPU time of a process's threads so far; finer than the ticks of `machine::cpu_seconds`.
fn cpu_ms(process: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let nanos = threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok()?.split_whitespace().next()?.parse::<f64>().ok());
    nanos.sum::<f64>() / 1e6
}
