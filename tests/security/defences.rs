//! Is each defence needed? Turns one off at a time, and makes the attacks of its row: they must get through, or be held by the second layer that the row
//! names; then they must get through without both. Only kubepass and its Envoy start anew, the clusters go on.

pub(super) mod table;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use self::table::{ROWS, Row};
use super::attack::{Attack, Verdict};
use super::attacks;
use super::scene::{Options, Scene};

const VARIABLE: &str = "KUBEPASS_TEST_DEFENCES_OFF";

/// `filter`: parts of the names of the defences to look at, with commas between them.
pub(super) fn run(filter: Option<&str>) -> ExitCode {
    let rows: Vec<&Row> =
        ROWS.iter().filter(|row| filter.is_none_or(|filter| filter.split(',').any(|part| row.defence.contains(part)))).collect();
    let mut scene = Scene::start(Options::default());
    println!("{} defences, turned off on the installation of {}", rows.len(), scene.world.run.path().display());
    let wrong = rows.iter().filter(|row| !is_as_written(&mut scene, row)).count();
    println!("defences: {} of {} are needed as SECURITY.md says", rows.len() - wrong, rows.len());
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_as_written(scene: &mut Scene, row: &Row) -> bool {
    let alone = without(scene, &[row.defence], row.shown_by);
    if row.layers.is_empty() {
        let right = alone.iter().all(|ended| matches!(ended, Ended::Through(_)));
        tell(right, &format!("{} alone", row.defence), &alone);
        return right;
    }
    let held = alone.iter().all(|ended| matches!(ended, Ended::Held(_)));
    tell(held, &format!("{} alone, behind it {}", row.defence, row.layers.join(", ")), &alone);
    let together = without(scene, &[&[row.defence], row.layers].concat(), row.shown_by);
    let through = together.iter().any(|ended| matches!(ended, Ended::Through(_)));
    tell(through, &format!("{} together with {}", row.defence, row.layers.join(", ")), &together);
    held && through
}

/// How an attack ended without a defence.
enum Ended {
    Through(String),
    Held(String),
    /// It could not be made, which shows nothing.
    Unmade(String),
}

fn tell(right: bool, what: &str, ended: &[Ended]) {
    let ended: Vec<String> = ended
        .iter()
        .map(|ended| match ended {
            Ended::Through(how) => format!("got through: {}", how.chars().take(200).collect::<String>()),
            Ended::Held(how) => format!("held: {how}"),
            Ended::Unmade(why) => format!("could not be made: {why}"),
        })
        .collect();
    println!("{:<6} {what:<60} -> {}", if right { "so" } else { "NOT SO" }, ended.join(" | "));
}

fn without(scene: &mut Scene, off: &[&str], shown_by: &[&str]) -> Vec<Ended> {
    scene.restart_kubepass(vec![(VARIABLE.to_owned(), off.join(","))]);
    shown_by.iter().map(|name| ended(scene, name)).collect()
}

fn ended(scene: &Scene, name: &str) -> Ended {
    let attack: Attack = attacks::all().find(|attack| attack.name == name).unwrap_or_else(|| panic!("there is no attack {name}"));
    match catch_unwind(AssertUnwindSafe(|| (attack.run)(scene))) {
        Ok(Verdict::GotThrough(how)) => Ended::Through(how),
        Ok(Verdict::Held(how)) => Ended::Held(how),
        Err(panic) => Ended::Unmade(super::run::text(panic.as_ref())),
    }
}
