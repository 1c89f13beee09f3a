//! What the machine says of an installation's processes.

use rustix::process::{Pid, Signal, kill_process};

use super::world::World;

/// The Envoy processes of an installation, without the shells that guard them.
pub fn envoys(world: &World) -> Vec<u32> {
    let socket_dir = world.run.file("kubepass/run").display().to_string();
    let of_proc = |pid: u32, file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let numbers = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_ours = |pid: &u32| {
        let command = String::from_utf8_lossy(&of_proc(*pid, "cmdline")).into_owned();
        command.contains(&socket_dir)
            && command.split('\0').next().is_some_and(|program| program.ends_with("/envoy") || program.contains("/envoy-"))
    };
    numbers.filter(is_ours).collect()
}

/// SIGKILL.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

pub fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
