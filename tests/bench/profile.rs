//! `make profile`: where kubepass's own time goes while 8 clients ask as fast as they can, by perf. For whoever changes the way of a check.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use super::installation::Installation;
use super::load::{self, Amount};
use super::paths::{ASKED, IMPERSONATE};
use super::support::run::Run;
use super::support::tools::Tools;

const CLIENTS: usize = 8;
const SECONDS: u64 = 10;
/// Not a round number, so that no timer beats with it.
const SAMPLES_PER_SECOND: &str = "997";

pub(super) fn run() -> ExitCode {
    match profile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("profile: {error}");
            ExitCode::FAILURE
        }
    }
}

fn profile() -> Result<(), String> {
    load::version()?;
    let installation = Installation::start(Tools::ensure(), Run::new("profile"), None);
    let path = installation.paths().into_iter().find(|path| path.name == IMPERSONATE).expect("the path");
    let kubepass =
        path.processes.iter().find(|(name, _)| *name == "kubepass").map(|(_, process)| process.to_string()).expect("the process");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/perf.data");
    std::fs::create_dir_all(data.parent().expect("a folder")).map_err(|error| error.to_string())?;
    // The clock of the CPU, for virtual machines have no counters; registered threads that come later are followed.
    let mut perf = Command::new("perf");
    perf.args(["record", "-q", "-e", "cpu-clock", "-F", SAMPLES_PER_SECOND, "-p", &kubepass, "-o"]).arg(&data);
    perf.args(["--", "sleep", &SECONDS.to_string()]).stdout(Stdio::null());
    let mut perf = perf.spawn().map_err(|_| "perf is not there: apt-get install linux-perf".to_owned())?;
    let time = Duration::from_secs(SECONDS + 1);
    let round = load::round(&path, ASKED[0].path, CLIENTS, Amount::Time(time), &installation.run.file("h2load.log"))?;
    if !perf.wait().map_err(|error| error.to_string())?.success() {
        return Err("perf failed: it needs root, or kernel.perf_event_paranoid below 2".to_owned());
    }
    println!("{:.0} requests a second while perf looked; kubepass's own time, by thread and then by function:\n", round.rps);
    for sort in ["comm", "symbol"] {
        let mut report = Command::new("perf");
        report.args(["report", "--stdio", "-q", "--percent-limit", "0.7", "--sort", sort, "-i"]).arg(&data);
        let output = report.stderr(Stdio::null()).output().map_err(|error| error.to_string())?;
        // perf pads its lines to the longest name that there is.
        String::from_utf8_lossy(&output.stdout).lines().for_each(|line| println!("{}", line.trim_end_matches([' ', '-'])));
    }
    println!("\nthe samples: {}", data.display());
    Ok(())
}
