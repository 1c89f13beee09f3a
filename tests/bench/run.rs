//! One run: everything started once, then round after round, in each of them every path by turns.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use super::figures::Round;
use super::installation::Installation;
use super::load::{self, Amount};
use super::machine;
use super::paths::{ASKED, Asked, CLIENTS, Path};
use super::proof::{self, Proof};
use super::summary::{self, Measured};
use super::support::run::Run;
use super::support::tools::Tools;
use super::table;

const ROUNDS: usize = 5;
const SECONDS: Duration = Duration::from_secs(3);
/// `QUICK=1`: to see that it works, in less than four minutes.
const QUICK_SECONDS: Duration = Duration::from_millis(600);

/// How a run is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) rounds: usize,
    pub(super) time: Duration,
    /// Lists that each client asks for in a round.
    pub(super) lists: usize,
    pub(super) quick: bool,
}

impl Plan {
    /// `QUICK=1` for short rounds, `ROUNDS=N` for more of them.
    fn of_environment() -> Result<Self, String> {
        let quick = std::env::var("QUICK").is_ok_and(|text| !text.is_empty() && text != "0");
        let rounds = match std::env::var("ROUNDS") {
            Ok(text) => text.parse().ok().filter(|rounds| *rounds >= ROUNDS).ok_or_else(|| format!("ROUNDS={text}: at least {ROUNDS}"))?,
            Err(_) => ROUNDS,
        };
        let (time, lists) = if quick { (QUICK_SECONDS, 2) } else { (SECONDS, 6) };
        Ok(Self { rounds, time, lists, quick })
    }
}

/// `make bench`.
pub(super) fn run() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Tests can turn the defences of other builds off: this is a release build, as people get it.
fn no_switches() -> Result<(), String> {
    let (variable, binary) = (b"KUBEPASS_TEST_DEFENCES_OFF", super::support::world::server_binary());
    let bytes = std::fs::read(&binary).map_err(|error| format!("{}: {error}", binary.display()))?;
    match bytes.windows(variable.len()).any(|window| window == variable) {
        true => Err(format!("{} is a release build and knows the switches of the security suite", binary.display())),
        false => Ok(()),
    }
}

fn measure() -> Result<(), String> {
    if cfg!(debug_assertions) {
        return Err("this is a debug build, whose figures mean nothing: use `make bench`".to_owned());
    }
    no_switches()?;
    let plan = Plan::of_environment()?;
    let h2load = load::version()?;
    let baseline = std::env::var_os("BASELINE").map(std::path::PathBuf::from);
    let load_before = machine::load_average();
    let tools = Tools::ensure();
    println!("starting a cluster with 500 pods, two Envoys to compare with, kubepass with 10,000 sessions and 100 routes ...");
    let installation = Installation::start(tools, Run::new("bench"), baseline);
    println!(
        "kubepass was ready after {} ms (its test of Envoy and Envoy's own start included)\n",
        installation.kubepass.start_to_ready.as_millis()
    );
    let measured = Measuring::new(&installation).all_rounds(&plan)?;
    let versions = [
        ("kubepass", env!("CARGO_PKG_VERSION").to_owned()),
        ("kube-apiserver", machine::first_line(&tools.kube_apiserver(), &["--version"])),
        ("envoy", machine::first_line(&tools.envoy(), &["--version"])),
        ("h2load", h2load),
    ];
    let summary = summary::of(&measured, &installation, &plan, machine::describe(&versions), load_before);
    println!("{}", table::of(&summary));
    let path = summary::write(&summary)?;
    println!("written: {}", path.display());
    Ok(())
}

/// Runs the rounds and gathers what they give.
struct Measuring<'a> {
    installation: &'a Installation,
    proof: Proof,
    measured: Measured,
}

impl<'a> Measuring<'a> {
    fn new(installation: &'a Installation) -> Self {
        let measured = Measured { paths: installation.paths(), rounds: BTreeMap::new(), cpu: BTreeMap::new() };
        Self { installation, proof: Proof::new(&installation.cluster.audit_log()), measured }
    }

    fn all_rounds(mut self, plan: &Plan) -> Result<Measured, String> {
        let mut order = self.measured.paths.clone();
        for number in 1..=plan.rounds {
            println!("round {number} of {}", plan.rounds);
            for asked in &ASKED {
                for (clients_key, clients) in CLIENTS {
                    let mut line = format!("  {:<20}{clients:>3} clients:", asked.title);
                    for path in &order {
                        let round = self.one_round(path, asked, clients, plan)?;
                        line.push_str(&format!("  {} {:.0}", path.name, round.rps));
                        self.measured.rounds.entry((asked.key, clients_key, path.name)).or_default().push(round);
                    }
                    println!("{line}");
                }
            }
            // Nobody is always first after a pause of the machine.
            order.rotate_left(1);
        }
        Ok(self.measured)
    }

    fn one_round(&mut self, path: &Path, asked: &Asked, clients: usize, plan: &Plan) -> Result<Round, String> {
        self.proof.begin();
        path.trail.iter().for_each(|trail| proof::empty(trail));
        let cpu = |path: &Path| path.processes.iter().map(|(_, process)| machine::cpu_seconds(*process)).collect::<Vec<f64>>();
        let before = cpu(path);
        let amount = if asked.lists { Amount::FromEachClient(plan.lists) } else { Amount::Time(plan.time) };
        let round = load::round(path, asked.path, clients, amount, &self.installation.run.file("h2load.log"))
            .map_err(|error| format!("{} by {}: {error}", asked.title, path.name))?;
        let used = cpu(path);
        let answered = self.proof.end(path, asked, round.answers)?;
        if let Some(trail) = &path.trail {
            proof::check_trail(trail, round.answers)?;
        }
        if !asked.lists && clients == 8 {
            for (((what, _), before), after) in path.processes.iter().zip(before).zip(used) {
                let (seconds, requests) = self.measured.cpu.entry((path.name, what)).or_default();
                *seconds += after - before;
                *requests += answered;
            }
        }
        Ok(round)
    }
}
