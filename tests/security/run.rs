//! Makes the attacks one after the other and tells how each ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::attack::{Attack, Verdict};
use super::attacks;
use super::scene::{Options, Scene};

/// Fewer make no suite.
const ENOUGH: usize = 80;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// Without the attacks that take long.
    Short,
    Long,
}

/// An attack and how it ended; `Err` with its words where it could not be made.
pub(super) struct Row {
    pub(super) attack: Attack,
    pub(super) ended: Result<Verdict, String>,
    pub(super) took: Duration,
}

impl Row {
    pub(super) fn held(&self) -> bool {
        matches!(self.ended, Ok(Verdict::Held(_)))
    }
}

/// `filter`: part of the names of those to make.
pub(super) fn run(length: Length, filter: Option<&str>) -> ExitCode {
    let chosen: Vec<Attack> = attacks::all()
        .filter(|attack| length == Length::Long || !attack.long)
        .filter(|attack| filter.is_none_or(|filter| attack.name.contains(filter)))
        .collect();
    let names: std::collections::BTreeSet<&str> = chosen.iter().map(|attack| attack.name).collect();
    assert_eq!(names.len(), chosen.len(), "two attacks of one name");
    let began = Instant::now();
    let scene = Scene::start(Options::default());
    println!("{} attacks on the installation of {}", chosen.len(), scene.world.run.path().display());
    let rows = make(&scene, &chosen);
    let stray = scene.judge.sweep();
    for finding in &stray {
        println!("through  (sweep)  {finding}");
    }
    let through = rows.iter().filter(|row| !row.held()).count() + stray.len();
    let enough = filter.is_some() || rows.len() >= ENOUGH;
    if !enough {
        println!("only {} attacks, {ENOUGH} are the least", rows.len());
    }
    if through > 0 {
        println!("{}", scene.world.run.tails());
    }
    println!("the slowest: {}", slowest(&rows));
    println!("{} requests sent in {} s", scene.sent(), began.elapsed().as_secs());
    println!("security: {} attacks, {through} got through", rows.len());
    if through == 0 && enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Makes the attacks in their order, each told when it has ended.
pub(super) fn make(scene: &Scene, chosen: &[Attack]) -> Vec<Row> {
    chosen
        .iter()
        .map(|attack| {
            let (began, before) = (Instant::now(), scene.sent());
            let ended = catch_unwind(AssertUnwindSafe(|| (attack.run)(scene))).map_err(|panic| text(panic.as_ref()));
            let row = Row { attack: *attack, ended, took: began.elapsed() };
            tell(&row, scene.sent() - before);
            row
        })
        .collect()
}

fn slowest(rows: &[Row]) -> String {
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.took));
    let told = rows.iter().take(10).map(|row| format!("{} {:.1} s", row.attack.name, row.took.as_secs_f32()));
    told.collect::<Vec<_>>().join(", ")
}

fn tell(row: &Row, requests: usize) {
    let Attack { name, source, sent, .. } = row.attack;
    let (word, how) = match &row.ended {
        Ok(Verdict::Held(how)) => ("held", how.clone()),
        Ok(Verdict::GotThrough(what)) => ("THROUGH", what.clone()),
        Err(why) => ("THROUGH", format!("it could not be made: {why}")),
    };
    println!("{word:<8} {name:<34} {source:<34} {sent} -> {how} ({requests} requests, {:.1} s)", row.took.as_secs_f32());
}

pub(super) fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}
