//! Memory over time, and Envoy's own count of what it drained.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::installation::Installation;
use super::requests::Requests;

/// Growth over the second half that is no leak, in MiB: an allocator's, and that of a cache that fills.
const GENEROUS_MIB: u64 = 48;

/// Notes at about 20 moments.
pub(super) struct Figures {
    count: usize,
    began: Instant,
    notes: Vec<Note>,
}

#[derive(Clone, Copy, Debug)]
struct Note {
    changes: usize,
    kubepass_mib: u64,
    envoy_mib: u64,
}

impl Figures {
    pub(super) fn new(count: usize) -> Self {
        Self { count, began: Instant::now(), notes: Vec::new() }
    }

    pub(super) fn note(&mut self, changes: usize, installation: &mut Installation, requests: &Requests) {
        if !changes.is_multiple_of((self.count / 20).max(1)) {
            return;
        }
        let note = Note {
            changes,
            kubepass_mib: resident_mib(installation.world.server().id()),
            envoy_mib: resident_mib(installation.envoy.id()),
        };
        let (seconds, answers) = (self.began.elapsed().as_secs(), requests.count());
        println!(
            "soak: {changes} of {} changes, {answers} answers in {seconds} s; kubepass {} MiB, Envoy {} MiB",
            self.count, note.kubepass_mib, note.envoy_mib
        );
        self.notes.push(note);
    }

    /// Over the second half, in which kubepass was not started again, neither grew by more than is generous.
    pub(super) fn assert_flat(&self) {
        let half: Vec<&Note> = self.notes.iter().filter(|note| note.changes >= self.count / 2).collect();
        let (first, last) = (half[0], half[half.len() - 1]);
        for (what, before, after) in [("kubepass", first.kubepass_mib, last.kubepass_mib), ("Envoy", first.envoy_mib, last.envoy_mib)] {
            assert!(after <= before + GENEROUS_MIB, "{what} grew from {before} to {after} MiB: {:?}", self.notes);
        }
    }
}

/// Envoy touched no listener and refused nothing.
pub(super) fn assert_nothing_drained(installation: &Installation) {
    let stats = envoy_stats(installation);
    let zero = [
        "listener_manager.listener_modified",
        "listener_manager.listener_in_place_updated",
        "listener_manager.listener_removed",
        "listener_manager.total_filter_chains_draining",
        "listener_manager.lds.update_rejected",
        "cluster_manager.cds.update_rejected",
    ];
    for name in zero {
        assert_eq!(stats.get(name), Some(&0), "{name}: {stats:?}");
    }
    assert_eq!(stats.get("listener_manager.listener_added"), Some(&1));
    assert!(stats.get("cluster_manager.cds.update_success") > Some(&0));
    let refused = installation.world.metric(&["kubepass_xds_responses_total", "nacked"]);
    assert!(refused.iter().all(|line| line.ends_with(" 0")), "{refused:?}");
}

fn envoy_stats(installation: &Installation) -> BTreeMap<String, u64> {
    let mut admin = UnixStream::connect(installation.world.run.file("kubepass/run/envoy-soak-admin.sock")).unwrap();
    admin.write_all(b"GET /stats HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    admin.read_to_string(&mut text).unwrap();
    text.lines().filter_map(|line| line.split_once(": ").and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))).collect()
}

fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}
