//! `kubectl get pods` by each method and straight to the API server, by turns. Everything that kubectl does is in it: its start, its plugin, TLS.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use super::super::figures::Timed;
use super::super::paths::{DIRECT, IMPERSONATE, JWT};
use super::super::support::cluster::Cluster;
use super::super::support::person::Person;
use super::super::support::world::{PROD_HOST, STAGING_HOST, World};

const ROWS: [(&str, &str); 3] =
    [(DIRECT, "straight to the API server"), (IMPERSONATE, "kubepass, impersonation"), (JWT, "kubepass, signed JWT")];
const GET_PODS: [&str; 2] = ["get", "pods"];

/// Makes the command anew each time.
type Started<'a> = Box<dyn Fn() -> Command + 'a>;

pub(super) type Commands = BTreeMap<&'static str, Timed>;

/// Milliseconds by path.
pub(super) fn measure(world: &World, person: &Person, rounds: usize) -> Result<Commands, String> {
    let direct = world.prod.admin();
    let through = |host| person.kubectl_command().bare(&[&["--context", host], &GET_PODS[..]].concat());
    let mut order: Vec<(&str, Started<'_>)> = vec![
        (DIRECT, Box::new(|| direct.bare(&[&GET_PODS[..], &["--as=foo@example.com", "--as-group=group1", "--as-group=group2"]].concat()))),
        (IMPERSONATE, Box::new(|| through(PROD_HOST))),
        (JWT, Box::new(|| through(STAGING_HOST))),
    ];
    // Discovery is cached from the first time on.
    order.iter().try_for_each(|(_, command)| one(command()).map(drop))?;
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for (path, command) in &order {
            times.entry(path).or_default().push(one(command())?);
        }
        order.rotate_left(1);
    }
    let seen = |cluster: &Cluster, user: &str| cluster.audit_events().iter().filter(|event| is_of(event, user)).count();
    let counts = [seen(&world.prod, "impersonatedUser"), seen(&world.staging, "user")];
    if counts[0] < 2 * rounds || counts[1] < rounds {
        return Err(format!("the API servers saw {counts:?} of {rounds} commands each"));
    }
    Ok(times.into_iter().map(|(path, times)| (path, Timed::of(times))).collect())
}

/// Whether the API server answered this user a list of pods.
fn is_of(event: &Value, user: &str) -> bool {
    let lists = event["objectRef"]["resource"] == "pods" && event["verb"] == "list" && event["responseStatus"]["code"] == 200;
    lists && event["stage"] == "ResponseComplete" && event[user]["username"] == "foo@example.com"
}

fn one(mut command: Command) -> Result<f64, String> {
    let began = Instant::now();
    let output = command.output().map_err(|error| error.to_string())?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    match output.status.success() && String::from_utf8_lossy(&output.stdout).contains("web") {
        true => Ok(took),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

pub(super) fn table(commands: &Commands) -> String {
    let mut text = "\nkubectl get pods, milliseconds from the start of kubectl to its end\n".to_owned();
    for (path, title) in ROWS {
        if let Some(timed) = commands.get(path) {
            let _ = writeln!(text, "  {title:<30}{}", timed.shown(0));
        }
    }
    text
}
