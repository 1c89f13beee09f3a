//! One installation under load, and one part after the other that fails: killed, hung, slow, full, gone, wrong by an hour. Nothing reaches an API
//! server without an identity and an audit line, no login that was acknowledged is lost, and all comes back without a restart; how long that
//! takes is printed. At the end kubepass is killed some times more: 3, or as many as `KUBEPASS_TEST_FAULTS` says (`make faults`: 100).

mod faults;
mod load;
mod scene;
mod verdict;

use std::time::{Duration, Instant};

use self::faults::{FAULTS, Fault, Meanwhile};
use self::load::{Load, Period};
use self::scene::Scene;

const KILLS: usize = 3;
/// How long a fault lasts.
const LASTS: Duration = Duration::from_millis(1_500);
/// Until a fault is felt: requests that were under way when it came are nobody's fault.
const FELT: Duration = Duration::from_millis(100);

#[test]
fn every_fault_fails_closed_and_mends_itself() {
    let kills = std::env::var("KUBEPASS_TEST_FAULTS").map_or(KILLS, |count| count.parse().expect("a number of kills"));
    let mut scene = Scene::start(FAULTS.len() + kills);
    let load = Load::start(&scene);
    load.until_served("before any fault", Instant::now());
    let mut rows = Vec::new();
    for fault in FAULTS {
        rows.push(suffer(fault, &mut scene, &load));
        verdict::assert_closed(&scene, fault.name);
    }
    let mut slowest = Duration::ZERO;
    for number in 0..kills {
        slowest = slowest.max(kill(number, &mut scene, &load));
    }
    rows.push(format!("{:<44} {:>8} {:>8} {:>8}   {:.2} s at most", format!("{kills} times SIGKILL"), "", "", "", slowest.as_secs_f32()));
    scene.join_newcomers();
    let exchanges = load.end();
    eprintln!("{:<44} {:>8} {:>8} {:>8}   recovered after", "fault", "served", "refused", "silence");
    rows.iter().for_each(|row| eprintln!("{row}"));
    let joined = verdict::assert_closed(&scene, "the end");
    verdict::assert_answers(&scene, &exchanges);
    let kept = scene.assert_logins_kept();
    eprintln!(
        "{} requests, {joined} of them at the API servers, each with its audit line; {kept} acknowledged logins, none lost",
        exchanges.len()
    );
    scene.end();
}

/// Brings the fault about, looks at what is answered meanwhile, and waits until all is served again.
fn suffer(fault: &Fault, scene: &mut Scene, load: &Load) -> String {
    let began = Instant::now();
    if fault.newcomer {
        scene.newcomer();
    }
    (fault.inject)(scene);
    let felt = Instant::now() + FELT;
    std::thread::sleep(LASTS);
    fault.meanwhile.assert(fault.name, &load.period(felt, Instant::now()));
    let mended = Instant::now();
    (fault.mend)(scene);
    let recovered = load.until_served(fault.name, mended);
    let Period { served, refused, silent, .. } = load.period(began, mended);
    let after = if fault.meanwhile == Meanwhile::Served { "-".to_owned() } else { format!("{:.2} s", recovered.as_secs_f32()) };
    format!("{:<44} {served:>8} {refused:>8} {silent:>8}   {after}", fault.name)
}

/// In the middle of whatever goes on; returns how long it took until both routes were served again.
fn kill(number: usize, scene: &mut Scene, load: &Load) -> Duration {
    let what = format!("kill {number}");
    scene.newcomer();
    // Another moment of the work each time.
    std::thread::sleep(Duration::from_millis((number as u64 * 7919) % 1_500));
    scene.world.stop_kubepass(true);
    let killed = Instant::now();
    scene.restart();
    load.until_served(&what, killed)
}
