//! The figures of `make bench` say what happened: refusals are no fast answers, and noise is called noise.

#[path = "../bench/figures.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod figures;
#[path = "../bench/paths.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod paths;
#[path = "../bench/proof.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod proof;

use std::io::Write as _;
use std::time::Duration;

use figures::{Figures, Request, Round, difference, median, noisy_rounds, percentile, ratio};
use paths::{ASKED, Path, SeenAs};
use proof::Proof;

fn answers(statuses: &[i32]) -> Vec<Request> {
    // One after the other, each a millisecond longer.
    let request = |(index, status): (usize, &i32)| Request {
        start: (index * (index + 1) / 2) as f64 * 1e3,
        status: *status,
        micros: (index + 1) as f64 * 1e3,
    };
    statuses.iter().enumerate().map(request).collect()
}

fn rounds(rps: &[f64]) -> Vec<Round> {
    rps.iter().map(|rps| Round { answers: 1, rps: *rps, p50_us: 1e6 / rps, p99_us: 2e6 / rps, mean_us: 1e6 / rps }).collect()
}

#[test]
fn a_round_counts_what_was_answered() {
    let round = Round::of(&answers(&[200; 99])).unwrap();
    assert_eq!(round, Round { answers: 99, rps: 20.0, p50_us: 50e3, p99_us: 99e3, mean_us: 50e3 });
}

#[test]
fn a_refusal_or_a_failure_is_no_fast_answer() {
    for other in [403, 503, -1, 304] {
        let error = Round::of(&answers(&[200, other, 200])).unwrap_err();
        assert!(error.contains("1 of 3") && error.contains(&other.to_string()), "{error}");
    }
    assert!(Round::of(&[]).unwrap_err().contains("no request"));
}

#[test]
fn percentiles_and_medians_are_values_or_between_two() {
    let values: Vec<f64> = (1..=200).map(f64::from).collect();
    let at = |part| percentile(&values, part);
    assert_eq!((at(0.0), at(0.5), at(0.99), at(1.0)), (1.0, 100.0, 198.0, 200.0));
    assert_eq!(percentile(&[7.0], 0.99), 7.0);
    assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
}

#[test]
fn rounds_far_apart_are_noise_and_named() {
    let check = |rps: &[f64], spread: f64, noisy: &[usize]| {
        let rounds = rounds(rps);
        let figures = Figures::of(&rounds);
        assert!((figures.spread - spread).abs() < 1e-9, "{rps:?}: {}", figures.spread);
        assert_eq!(figures.is_noise(), spread > 0.1, "{rps:?}");
        assert_eq!(noisy_rounds(&rounds).into_iter().map(|(round, _)| round).collect::<Vec<_>>(), noisy, "{rps:?}");
    };
    check(&[100.0, 101.0, 99.0, 100.0, 102.0], 0.03, &[]);
    check(&[100.0, 101.0, 80.0, 100.0, 102.0], 0.22, &[3]);
    // Apart from each other, but none from the middle.
    check(&[94.0, 100.0, 106.0], 0.12, &[]);
}

#[test]
fn paths_are_compared_round_by_round() {
    // The machine was twice as slow in the second round: the ratio does not see it.
    let (floor, method) = (rounds(&[1000.0, 500.0, 1000.0]), rounds(&[900.0, 450.0, 800.0]));
    assert!((ratio(&method, &floor, |round| round.rps) - 0.9).abs() < 1e-9);
    assert!((difference(&method, &floor, |round| round.rps) + 100.0).abs() < 1e-9);
}

/// The API server writes its line after the client has its answer.
#[test]
fn a_late_line_is_waited_for_and_a_missing_one_is_missed() {
    let mut log = tempfile::NamedTempFile::new().unwrap();
    let asked = &ASKED[0];
    let user = serde_json::json!({"username": paths::USER, "groups": paths::GROUPS});
    let event = serde_json::json!({"requestURI": asked.path, "user": {}, "impersonatedUser": user, "responseStatus": {"code": 200}});
    let line = format!("{event}\n");
    let path = Path {
        name: paths::IMPERSONATE,
        host: String::new(),
        port: 0,
        headers: Vec::new(),
        seen_as: SeenAs::Impersonated,
        processes: Vec::new(),
        trail: None,
    };
    let proof = Proof::new(log.path());
    log.write_all(line.as_bytes()).unwrap();
    assert_eq!(proof.end(&path, asked, 1), Ok(1));
    assert!(proof.end(&path, asked, 2).unwrap_err().contains("the client counts 2 answers to /version, the API server 1"));
    let late = std::thread::spawn(move || {
        // In two halves, as a reader may find it.
        for half in [&line[..40], &line[40..]] {
            std::thread::sleep(Duration::from_millis(300));
            log.write_all(half.as_bytes()).unwrap();
        }
        log
    });
    assert_eq!(proof.end(&path, asked, 2), Ok(2));
    drop(late.join().unwrap());
}
