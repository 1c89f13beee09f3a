//! From nothing to the first answer, in round trips, counted at kubepass's Envoy: two for each new connection (TCP, and TLS 1.3's), and one for each
//! request, as if none were sent while another is under way. So it is the most that a far-away user waits for. What passes between the
//! browser and the identity provider is theirs and not counted.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::super::support::envoy_stats;
use super::super::support::person::Person;
use super::super::support::world::{PROD_HOST, World};

/// One step of the way.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    name: &'static str,
    connections: u64,
    requests: u64,
    round_trips: u64,
}

pub(super) fn measure(world: &World, person: &Person) -> Result<Vec<Step>, String> {
    let counting = Counting { socket: world.run.file("kubepass/run/envoy-admin.sock") };
    let url = world.url(PROD_HOST);
    let set_up = counting.step("kubepass kubeconfig (once)", || _ = person.set_up(&url).ok());
    let log_in = counting.step("the login: command line and browser (once a session)", || _ = person.session_token(&url));
    let get_pods = || _ = person.kubectl(&["get", "pods"]).ok();
    let discovery = counting.step("the first kubectl get pods (discovery; once in some hours)", get_pods);
    let usual = counting.step("each further kubectl get pods", get_pods);
    let session = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("session-"));
    let cache = std::fs::read_dir(person.home.join("cache/kubepass")).map_err(|error| error.to_string())?;
    for file in cache.flatten().map(|entry| entry.path()).filter(session) {
        std::fs::remove_file(file).map_err(|error| error.to_string())?;
    }
    let renewal = counting.step("a new token from the same login (once an hour)", || _ = person.session_token(&url));
    let steps = vec![set_up, log_in, discovery, usual, renewal];
    match steps.iter().find(|step| step.requests == 0) {
        Some(step) => Err(format!("{}: Envoy counted no request", step.name)),
        None => Ok(steps),
    }
}

struct Counting {
    socket: PathBuf,
}

impl Counting {
    fn step(&self, name: &'static str, act: impl FnOnce()) -> Step {
        let before = self.counts();
        act();
        let after = self.counts();
        let (connections, requests) = (after.0 - before.0, after.1 - before.1);
        Step { name, connections, requests, round_trips: 2 * connections + requests }
    }

    /// Connections and requests so far, of all listeners.
    fn counts(&self) -> (u64, u64) {
        let of = |what: &str| {
            let all = envoy_stats::read(&self.socket, &format!("downstream_{what}_total$"));
            all.iter().filter(|(name, _)| name.starts_with("http.") && !name.starts_with("http.admin.")).map(|(_, count)| count).sum()
        };
        (of("cx"), of("rq"))
    }
}

pub(super) fn table(steps: &[Step]) -> String {
    let mut text = format!("\n{:<64}{:>12}{:>12}{:>12}\n", "round trips to kubepass", "connections", "requests", "round trips");
    for step in steps {
        let _ = writeln!(text, "  {:<62}{:>12}{:>12}{:>12}", step.name, step.connections, step.requests, step.round_trips);
    }
    text
}
