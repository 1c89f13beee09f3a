//! Whatever ends a harness ends what it started.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::support::leash;
use super::support::ports::free_port;
use super::support::run::Run;
use super::support::wait::eventually;

/// How the harness of a child process ends.
const HOW: &str = "KUBEPASS_TEST_HARNESS_ENDS_BY";

/// Not a test by itself: the other tests run it in a process of its own.
#[test]
fn child_harness() {
    let Ok(how) = std::env::var(HOW) else { return };
    let run = Run::new("child");
    let mut plain = leash::command("sleep");
    plain.arg("600");
    let plain = run.start("plain", plain);
    // One that has a child of its own, and one time does not listen to SIGTERM.
    let mut stubborn = leash::command("sh");
    let trap = if how == "kill" { "trap '' TERM; " } else { "" };
    stubborn.args(["-c", &format!("{trap}sleep 601 & echo started $!; wait; wait; sleep 602")]);
    let mut stubborn = run.start("stubborn", stubborn);
    stubborn.until_log("started", Duration::from_secs(10));
    let inner = stubborn.log().trim().rsplit(' ').next().unwrap().to_owned();
    println!("pids {} {} {inner} {}", plain.id(), stubborn.id(), leash::base().display());
    match how.as_str() {
        "panic" => panic!("as asked"),
        "exit" => std::process::exit(0),
        "return" => {}
        _ => std::thread::sleep(Duration::from_secs(600)),
    }
}

fn start_child(how: &str) -> (Child, Vec<i32>, PathBuf) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let (_, module) = module_path!().split_once("::").expect("a module of a test binary");
    command.args(["--exact", &format!("{module}::child_harness"), "--nocapture"]).env(HOW, how);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.contains("pids ")).expect("the pids");
    let words: Vec<&str> = line.split("pids ").nth(1).unwrap().split(' ').collect();
    let pids = words[..3].iter().map(|pid| pid.parse().unwrap()).collect();
    (child, pids, words[3].into())
}

fn check_all_end(how: &str, signal: Option<Signal>) {
    let (mut child, pids, base) = start_child(how);
    if let Some(signal) = signal {
        for &pid in &pids {
            assert!(is_alive(pid), "{pid} is not there before {how}");
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
    }
    child.wait().unwrap();
    eventually(&format!("all of {pids:?} end ({how})"), Duration::from_secs(12), || pids.iter().all(|&pid| !is_alive(pid)).then_some(()));
    if how == "panic" {
        assert!(base.exists(), "the files of a failed run stay");
        std::fs::remove_dir_all(base).unwrap();
    } else {
        eventually("the directory is removed", Duration::from_secs(5), || (!base.exists()).then_some(()));
    }
}

fn is_alive(pid: i32) -> bool {
    let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok() && !zombie
}

#[test]
fn all_end_after_kill() {
    check_all_end("kill", Some(Signal::KILL));
}

#[test]
fn all_end_after_term() {
    check_all_end("term", Some(Signal::TERM));
}

#[test]
fn all_end_after_interrupt() {
    check_all_end("interrupt", Some(Signal::INT));
}

#[test]
fn all_end_after_a_panic() {
    check_all_end("panic", None);
}

#[test]
fn all_end_after_exit() {
    check_all_end("exit", None);
}

#[test]
fn all_end_after_the_normal_end() {
    check_all_end("return", None);
}

#[test]
fn a_process_that_ends_by_itself_is_seen_and_its_log_shown() {
    let run = Run::new("short");
    let mut command = leash::command("sh");
    command.args(["-c", "echo why it ended; exit 3"]);
    let mut process = run.start("short", command);
    let status = eventually("the end", Duration::from_secs(5), || process.ended());
    assert_eq!(status.code(), Some(3));
    assert!(run.tails().contains("why it ended"));
}

#[test]
fn ports_are_given_once() {
    let mut ports: Vec<u16> = (0..50).map(|_| free_port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 50);
}
