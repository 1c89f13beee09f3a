//! How many instructions a decision takes: a budget in `tests/bench/instructions.txt` that cannot drift unseen, counted by valgrind's callgrind
//! for ten fixed requests. No time is measured, so a busy machine changes nothing. `make instructions` compares, and `UPDATE_BUDGET=1 make
//! instructions` takes the counts as they are.
//!
//! The program counted is a debug build: its counts are far above those of a release build, but they move together, and nobody waits for a
//! second build of everything. They hold for the pinned toolchain on x86-64 Linux. A token's verification is not part of a decision, and so no
//! cryptography is counted, whose instructions depend on the processor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../../it/fixture.rs"]
#[allow(dead_code, reason = "made for other tests; only its configurations are needed here")]
mod fixture;
#[path = "../scene.rs"]
mod scene;

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use kubepass::access::request::RequestHeaders;
use kubepass::access::{AccessRequest, Answer, Decision, RequestTarget, SessionState, authenticate, decide};
use kubepass::snapshot::{NodeView, Snapshot};
use scene::Scene;

const BUDGET: &str = "tests/bench/instructions.txt";
/// How far a count may be from its budget, in per cent, to either side: a hash table that collides, another processor's `memcpy`.
const TOLERANCE: u64 = 3;

/// A request, and with which word it is refused; empty where it is let pass.
struct Case {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    header: Option<(&'static str, &'static str)>,
    refused: &'static str,
}

const CASES: [Case; 10] = [
    Case { name: "list", method: "GET", path: scene::PATH, header: None, refused: "" },
    Case { name: "watch", method: "GET", path: "/apis/apps/v1/deployments?watch=true&resourceVersion=12345", header: None, refused: "" },
    Case { name: "get", method: "GET", path: "/api/v1/namespaces/web/pods/web-0", header: None, refused: "" },
    Case { name: "discovery", method: "GET", path: "/apis", header: None, refused: "" },
    Case {
        name: "field-selector",
        method: "GET",
        path: "/api/v1/pods?fieldSelector=metadata.name%3Dweb-0&labelSelector=app%3Dweb",
        header: None,
        refused: "",
    },
    Case { name: "secrets", method: "GET", path: "/api/v1/namespaces/web/secrets", header: None, refused: "policy_denied" },
    Case {
        name: "exec",
        method: "POST",
        path: "/api/v1/namespaces/web/pods/web-0/exec?command=sh&stdin=true",
        header: None,
        refused: "policy_no_match",
    },
    Case { name: "ambiguous", method: "GET", path: "/api/v1/namespaces/web/../pods", header: None, refused: "ambiguous_path" },
    Case { name: "impersonation", method: "GET", path: scene::PATH, header: Some(("impersonate-user", "admin")), refused: "impersonation" },
    Case { name: "malformed", method: "GET", path: scene::PATH, header: Some(("connection", "authorization")), refused: "malformed" },
];

fn main() -> ExitCode {
    let named = std::env::args().nth(1);
    if let Some(case) = CASES.iter().find(|case| named.as_deref() == Some(case.name)) {
        decide_twice(case);
        return ExitCode::SUCCESS;
    }
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What runs under callgrind: the request once before, so that what is made once is made, and then once for the count.
fn decide_twice(case: &Case) {
    let scene = Scene::new(1, 5, 1, 2);
    let bearer = format!("Bearer {}", scene.token);
    let headers = [Some(("authorization", bearer.as_str())), Some(("user-agent", "kubectl/v1.36.3")), case.header];
    let request = AccessRequest {
        node: NodeView::UNNAMED,
        request_id: "7373a616-45b1-4144-adf1-bd54fdb28e23",
        target: RequestTarget::parse(&scene.target),
        method: case.method,
        path: case.path,
        host: &scene.host,
        sni: &scene.host,
        source_ip: "192.0.2.1",
        headers: RequestHeaders::read(headers.into_iter().flatten().map(|(name, value)| (name, value.as_bytes()))),
    };
    let session = || authenticate(&scene.snapshot, &request, &scene.sessions, scene.now);
    let before = decide(&scene.snapshot, &request, session(), scene.now);
    let word = Answer::to(&before).map_or("", |answer| answer.word);
    assert_eq!(word, case.refused, "{}", case.name);
    black_box(counted_decision(&scene.snapshot, &request, session(), scene.now));
}

/// Where callgrind counts: between its begin and its end, and nowhere else.
#[inline(never)]
fn counted_decision<'a>(snapshot: &Snapshot, request: &AccessRequest<'a>, session: SessionState, now: u64) -> Decision<'a> {
    decide(snapshot, request, session, now)
}

fn compare() -> Result<(), String> {
    let counts = count()?;
    let mut found =
        "# Instructions of a decision (5 rules, 2 groups; debug build of the pinned toolchain, x86-64 Linux), by callgrind.\n".to_owned();
    for (case, count) in CASES.iter().zip(&counts) {
        writeln!(found, "{:<16}{count:>8}", case.name).unwrap();
    }
    let path = fixture::root().join(BUDGET);
    if std::env::var_os("UPDATE_BUDGET").is_some() {
        std::fs::write(&path, &found).map_err(|error| format!("{BUDGET}: {error}"))?;
    }
    let budget = std::fs::read_to_string(&path).map_err(|error| format!("{BUDGET}: {error}"))?;
    let allowed: Vec<(&str, u64)> = budget
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, count)| (name.trim(), count.parse().unwrap_or(0)))
        .collect();
    let is_within = |(allowed, found): (u64, u64)| allowed.abs_diff(found) * 100 <= allowed * TOLERANCE;
    let same = allowed.len() == CASES.len()
        && CASES
            .iter()
            .zip(&counts)
            .zip(&allowed)
            .all(|((case, found), (name, allowed))| case.name == *name && is_within((*allowed, *found)));
    if same {
        println!("{found}every count is within {TOLERANCE} % of {BUDGET}");
        return Ok(());
    }
    Err(format!(
        "decisions take other work than {BUDGET} says (more than {TOLERANCE} % apart); if that is meant: UPDATE_BUDGET=1 make instructions\n\
         budget:\n{budget}\nfound:\n{found}"
    ))
}

/// Runs this program under callgrind, once for each request.
fn count() -> Result<Vec<u64>, String> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Err(format!("{BUDGET} holds for x86-64 Linux only"));
    }
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let one = |case: &Case| count_one(&this, &folder.path().join(case.name), case);
    CASES.iter().map(one).collect()
}

fn count_one(this: &Path, counts: &Path, case: &Case) -> Result<u64, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_decision*"])
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(this)
        .arg(case.name)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            format!("valgrind cannot be run ({error}): apt-get install valgrind (Debian, Ubuntu), dnf install valgrind (Fedora)")
        })?;
    if !output.status.success() {
        return Err(format!("the counted program failed:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    total(counts)
}

fn total(dump: &Path) -> Result<u64, String> {
    let text = std::fs::read_to_string(dump).map_err(|error| format!("{}: {error}", dump.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: ")));
    total.and_then(|total| total.trim().parse().ok()).filter(|total| *total > 0).ok_or_else(|| format!("{} counts nothing", dump.display()))
}
