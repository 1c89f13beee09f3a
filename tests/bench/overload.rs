//! `make bench-overload`: twice as much is offered as can be answered, at a fixed rate that waits for no answer.
//!
//! What counts: how many are answered all the same, how long those take, how the others are refused, whether memory grows, and how soon after it
//! everybody is served again. Others (`probe`) ask all the time and read what a refusal says. Envoy, kubepass and the API server have one half of the
//! machine's processors, who asks has the other (`halves`). The floor, whose ext_authz always allows, shows what Envoy itself does under such a load.

mod halves;
mod probe;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::figures::{Request, Timed, median, percentile};
use super::installation::Installation;
use super::load::{self, Amount, Offer};
use super::machine;
use super::part::{Cut, Found};
use super::paths::{ASKED, EXT_AUTHZ_FLOOR, IMPERSONATE, JWT, Path};
use super::proof::Proof;
use super::support::run::Run;
use super::support::tools::Tools;
use halves::Halves;
use probe::{Probe, Said};

const PATHS: [&str; 3] = [EXT_AUTHZ_FLOOR, IMPERSONATE, JWT];
/// Who asks one after the other, to find the most that is answered.
const CLIENTS: usize = 64;
/// Connections of the load, and requests that each may have under way (as many as Envoy lets it): so many that it waits for no answer.
const CONNECTIONS: usize = 256;
const STREAMS: usize = 100;
const TIMES_CAPACITY: f64 = 2.0;
/// What still counts as that.
const OFFERED: f64 = 1.8;

/// Whoever is answered within so many times what the slowest took at the peak is served again as before.
const USUAL: f64 = 4.0;

/// What was promised.
const HELD: f64 = 0.90;
const RECOVERY_MS: f64 = 1_000.0;

/// One round on one path.
#[derive(Debug)]
struct Round {
    peak_rps: f64,
    offered_rps: f64,
    answered_rps: f64,
    answered: usize,
    refused: BTreeMap<i32, usize>,
    /// Neither answered nor refused when the time was over.
    unanswered: usize,
    p50_us: f64,
    p99_us: f64,
    refusal_p99_us: f64,
    recovery_ms: f64,
    said: Said,
    /// Resident megabytes before, at most, and a moment after, by process.
    memory_mb: BTreeMap<&'static str, [f64; 3]>,
}

/// All rounds on one path: medians.
#[derive(Debug, Serialize)]
struct Figures {
    peak_rps: f64,
    offered_rps: f64,
    /// Offered of the peak.
    offered: Timed,
    answered_rps: f64,
    /// Answered of the peak.
    held: Timed,
    refused_share: f64,
    refused: BTreeMap<i32, usize>,
    p50_us: f64,
    p99_us: f64,
    refusal_p99_us: f64,
    recovery_ms: Timed,
    /// Of the refusals that somebody read.
    refusals_said: Said,
    memory_mb: BTreeMap<&'static str, [f64; 3]>,
}

pub(super) fn measure(cut: &Cut) -> Result<Found, String> {
    load::version()?;
    let (rounds, time) = if cut.quick { (1, Duration::from_secs(2)) } else { (3, Duration::from_secs(5)) };
    println!("starting a cluster, two Envoys to compare with, kubepass ...");
    let halves = Halves::of_machine()?;
    halves.serve()?;
    let installation = Installation::start(Tools::ensure(), Run::new("overload"), None);
    halves.ask()?;
    let mut paths: Vec<Path> = installation.paths().into_iter().filter(|path| PATHS.contains(&path.name)).collect();
    let mut all: BTreeMap<&str, Vec<Round>> = BTreeMap::new();
    for number in 1..=rounds {
        println!("round {number} of {rounds}");
        for path in &paths {
            let round = one_round(&installation, path, time)?;
            println!(
                "  {:<16} peak {:>6.0}, offered {:>6.0}, answered {:>6.0} a second; p99 {:>5.0} ms; refused {:?}; recovered after {:.0} ms",
                path.name,
                round.peak_rps,
                round.offered_rps,
                round.answered_rps,
                round.p99_us / 1e3,
                round.refused,
                round.recovery_ms
            );
            all.entry(path.name).or_default().push(round);
        }
        paths.rotate_left(1);
    }
    let figures: BTreeMap<&str, Figures> = all.iter().map(|(path, rounds)| (*path, Figures::of(rounds))).collect();
    let conditions = json!({"clients": CLIENTS, "connections": CONNECTIONS, "streams": STREAMS, "halves": halves, "times_capacity": TIMES_CAPACITY, "seconds": time.as_secs_f64(), "rounds": rounds});
    Ok(Found { table: table(&figures), figures: json!({"conditions": conditions, "paths": figures}) })
}

fn one_round(installation: &Installation, path: &Path, time: Duration) -> Result<Round, String> {
    let (asked, log) = (&ASKED[0], installation.run.file("h2load.log"));
    let peak = load::round(path, asked.path, CLIENTS, Amount::Time(time), &log).map_err(|error| format!("{}: {error}", path.name))?;
    let proof = Proof::new(&installation.cluster.audit_log());
    proof.begin();
    let memory = || path.processes.iter().map(|(name, process)| (*name, machine::resident_mb(*process))).collect::<BTreeMap<_, _>>();
    let before = memory();
    let usual = Duration::from_secs_f64(USUAL * peak.p99_us / 1e6);
    let probe = Probe::start(path, asked.path, &installation.authority, usual);
    let offer = Offer { clients: CONNECTIONS, streams: STREAMS, per_second: TIMES_CAPACITY * peak.rps, time };
    let (requests, over) = load::offer(path, asked.path, &offer, &log)?;
    let most = probe.until_quiet(over);
    let Seen { answered, refused, unanswered } = Seen::of(&requests);
    proof.end(path, asked, answered.len())?;
    let after = memory();
    let began = requests.iter().map(|request| request.start).fold(f64::INFINITY, f64::min);
    let last = requests.iter().map(|request| request.start).fold(0.0, f64::max);
    let seconds = (last - began) / 1e6;
    let p99 = |sorted: &[f64]| if sorted.is_empty() { 0.0 } else { percentile(sorted, 0.99) };
    if answered.is_empty() {
        return Err(format!("{}: nothing was answered under load", path.name));
    }
    let by_name = |name: &'static str| (name, [before[name], most.memory_mb.get(name).copied().unwrap_or(after[name]), after[name]]);
    Ok(Round {
        peak_rps: peak.rps,
        offered_rps: requests.len() as f64 / seconds,
        answered_rps: answered.len() as f64 / seconds,
        answered: answered.len(),
        unanswered,
        p50_us: percentile(&answered, 0.50),
        p99_us: p99(&answered),
        refusal_p99_us: p99(&refused.values().flatten().copied().collect::<Vec<_>>().sorted()),
        refused: refused.iter().map(|(status, times)| (*status, times.len())).collect(),
        recovery_ms: most.recovery_ms,
        said: most.said,
        memory_mb: before.keys().map(|name| by_name(name)).collect(),
    })
}

/// Microseconds, in order.
struct Seen {
    answered: Vec<f64>,
    refused: BTreeMap<i32, Vec<f64>>,
    unanswered: usize,
}

impl Seen {
    fn of(requests: &[Request]) -> Self {
        let mut refused: BTreeMap<i32, Vec<f64>> = BTreeMap::new();
        let (mut answered, mut unanswered) = (Vec::new(), 0);
        for request in requests {
            match request.status {
                200 => answered.push(request.micros),
                ..200 => unanswered += 1,
                status => refused.entry(status).or_default().push(request.micros),
            }
        }
        Self { answered: answered.sorted(), refused, unanswered }
    }
}

trait Sorted {
    fn sorted(self) -> Self;
}

impl Sorted for Vec<f64> {
    fn sorted(mut self) -> Self {
        self.sort_by(f64::total_cmp);
        self
    }
}

impl Figures {
    fn of(rounds: &[Round]) -> Self {
        let values = |get: &dyn Fn(&Round) -> f64| rounds.iter().map(get).collect::<Vec<f64>>();
        let middle = |get: &dyn Fn(&Round) -> f64| median(values(get));
        let mut refused: BTreeMap<i32, usize> = BTreeMap::new();
        for (status, count) in rounds.iter().flat_map(|round| &round.refused) {
            *refused.entry(*status).or_default() += count;
        }
        let mut said = Said::new();
        for (what, count) in rounds.iter().flat_map(|round| &round.said) {
            *said.entry(what.clone()).or_default() += count;
        }
        let share = |round: &Round| {
            let refused: usize = round.refused.values().sum();
            refused as f64 / (refused + round.answered + round.unanswered) as f64
        };
        let memory = |name: &&'static str| {
            let at = |index: usize| median(rounds.iter().map(|round| round.memory_mb[name][index]).collect());
            (*name, [at(0), at(1), at(2)])
        };
        Self {
            peak_rps: middle(&|round| round.peak_rps),
            offered_rps: middle(&|round| round.offered_rps),
            offered: Timed::of(values(&|round| round.offered_rps / round.peak_rps)),
            answered_rps: middle(&|round| round.answered_rps),
            held: Timed::of(values(&|round| round.answered_rps / round.peak_rps)),
            refused_share: middle(&share),
            refused,
            p50_us: middle(&|round| round.p50_us),
            p99_us: middle(&|round| round.p99_us),
            refusal_p99_us: middle(&|round| round.refusal_p99_us),
            recovery_ms: Timed::of(values(&|round| round.recovery_ms)),
            refusals_said: said,
            memory_mb: rounds[0].memory_mb.keys().map(memory).collect(),
        }
    }
}

fn table(figures: &BTreeMap<&str, Figures>) -> String {
    let mut text = format!(
        "\ntwice as much offered as is answered at most by one half of the processors, {CONNECTIONS} connections with up to {STREAMS} requests each (GET /version)\n"
    );
    let mark = |holds: bool| if holds { "[met]" } else { "[MISSED]" };
    for (path, of) in figures {
        let (offered, held, recovery) = (&of.offered, &of.held, &of.recovery_ms);
        let _ =
            writeln!(text, "  {path}: {:.0} a second at most, {:.0} offered, {:.0} answered", of.peak_rps, of.offered_rps, of.answered_rps);
        let _ = writeln!(text, "    offered of the most {} (at least {OFFERED}) {}", offered.shown(2), mark(offered.median >= OFFERED));
        let _ = writeln!(text, "    answered of the most {} (target: at least {HELD}) {}", held.shown(2), mark(held.median >= HELD));
        let _ = writeln!(text, "    those answered: p50 {:.0} ms, p99 {:.0} ms", of.p50_us / 1e3, of.p99_us / 1e3);
        let (share, p99) = (of.refused_share * 100.0, of.refusal_p99_us / 1e3);
        let _ = writeln!(text, "    refused: {share:.0} %, p99 {p99:.0} ms, by status {:?}", of.refused);
        let _ = writeln!(text, "    what those said that were read: {:?}", of.refusals_said);
        let _ = writeln!(
            text,
            "    served again after {} ms (target: {RECOVERY_MS:.0}) {}",
            recovery.shown(0),
            mark(recovery.median <= RECOVERY_MS)
        );
        let _ = writeln!(text, "    resident MB before, at most, after: {:.0?}", of.memory_mb);
    }
    text
}
