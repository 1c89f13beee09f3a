//! The machine that it runs on, and what its processes use, from /proc.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// Ticks of a process's CPU time in a second: fixed in Linux's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// For the summary: figures of two machines, or of a busy one, are not to be compared.
pub(super) fn describe(versions: &[(&str, String)]) -> Value {
    let cpu =
        read("/proc/cpuinfo").lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned()));
    let versions: serde_json::Map<String, Value> =
        versions.iter().map(|(name, version)| ((*name).to_owned(), version.as_str().into())).collect();
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": cpu.unwrap_or_default(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "memory_mb": memory_line("/proc/meminfo", "MemTotal:").map(|kib| kib / 1024),
        "versions": versions,
    })
}

/// Processes that were ready to run in the last minute, on average: what else the machine had to do.
pub(super) fn load_average() -> f64 {
    read("/proc/loadavg").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// What to say of figures that were found while the machine had something else to do, by their own `machine` and `load_average`.
pub(super) fn was_busy(figures: &Value) -> Option<String> {
    let before = figures["load_average"]["before"].as_f64().unwrap_or(0.0);
    let is_busy = before > figures["machine"]["cores"].as_f64().unwrap_or(1.0) / 4.0;
    is_busy.then(|| format!("the machine was busy before this run (load average {before:.1}): take its figures as a trial"))
}

/// The processors that this program may use; none where the system does not say.
pub(super) fn processors() -> Vec<usize> {
    let status = read("/proc/self/status");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

/// Seconds of CPU time that a process has used.
pub(super) fn cpu_seconds(process: u32) -> f64 {
    let stat = read(&format!("/proc/{process}/stat"));
    // The name, in brackets, may hold blanks.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// Resident megabytes of a process.
pub(super) fn resident_mb(process: u32) -> f64 {
    memory_line(&format!("/proc/{process}/status"), "VmRSS:").unwrap_or(0) as f64 / 1024.0
}

/// The process that was started from `program` with `argument` among its arguments.
pub(super) fn process_with(program: &Path, argument: &str) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|process| {
        let arguments = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|byte| *byte == 0);
        arguments.next() == program.to_str().map(str::as_bytes) && arguments.any(|other| other == argument.as_bytes())
    })
}

/// The first line that a command prints, or why it does not.
pub(super) fn first_line(program: &Path, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            String::from_utf8_lossy(&output.stdout).lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
        }
        Err(error) => error.to_string(),
    }
}

/// Kibibytes of a line such as `VmRSS:     1234 kB`.
fn memory_line(file: &str, name: &str) -> Option<u64> {
    read(file).lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
