//! `make bench-user`: what a person at the other end waits for: kubectl's call for a cached token (`credential`), `kubectl get pods` beside the
//! same straight to the API server (`commands`), and the way from nothing to the first answer in round trips (`first_answer`).

mod commands;
mod credential;
mod first_answer;

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use serde_json::json;

use super::part::{Cut, Found};
use super::support::person::Person;
use super::support::run::Run;
use super::support::tools::Tools;
use super::support::world::{Method, PROD_HOST, STAGING_HOST, World, WorldOptions};

/// Runs a program once and tells how long it took; the parent of a program that looks at who calls it.
pub(super) const ONCE: &str = "once";

pub(super) fn once(program: &str, arguments: &[&str]) -> ExitCode {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let began = Instant::now();
    let output = command.output();
    let micros = began.elapsed().as_secs_f64() * 1e6;
    match output {
        Ok(output) if output.status.success() => {
            println!("{micros:.1}\n{}", String::from_utf8_lossy(&output.stdout));
            ExitCode::SUCCESS
        }
        Ok(output) => {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

pub(super) fn measure(cut: &Cut) -> Result<Found, String> {
    println!("starting two clusters, an identity provider and kubepass ...");
    let mut world = World::prepare(Tools::ensure(), Run::new("user"), WorldOptions { staging: Method::Jwt, ..WorldOptions::default() });
    world.permit("prod", &world.prod);
    world.start_kubepass();
    world.trust("staging", &world.staging);
    for cluster in [&world.prod, &world.staging] {
        cluster.kubectl_admin(&["create", "clusterrolebinding", "foo", "--clusterrole=cluster-admin", "--user=foo@example.com"]).ok();
    }
    let person = world.person("foo");
    let first = first_answer::measure(&world, &person)?;
    set_up(&world, &person);
    let credential = credential::measure(&world, &person, if cut.quick { 10 } else { 100 })?;
    let commands = commands::measure(&world, &person, if cut.quick { 5 } else { 20 })?;
    let figures = json!({"first_answer": first, "exec_credential": credential, "kubectl": commands});
    let table = [first_answer::table(&first), credential.table(), commands::table(&commands)].concat();
    Ok(Found { figures, table })
}

/// Contexts for both routes, and a token for each.
fn set_up(world: &World, person: &Person) {
    for host in [PROD_HOST, STAGING_HOST] {
        person.set_up(&world.url(host)).ok();
        person.session_token(&world.url(host));
    }
}
