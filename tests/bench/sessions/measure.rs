//! The sizes, and what is measured at each.

use serde_json::{Value, json};

use super::super::figures::{median, percentile};
use super::super::machine;
use super::super::support::run::Run;
use super::asking::Asking;
use super::installation::{Installation, Start};
use super::report;

/// Sessions in the store.
const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];
/// Starts of each; the medians count.
const STARTS: usize = 5;
/// Checks of each kind, one after the other.
const CHECKS: usize = 2_000;
/// More sessions than are in memory whole.
const ASKED_FOR: usize = 2 * kubepass::session::HOT_SESSIONS;

pub(super) fn all() -> Result<(), String> {
    if cfg!(debug_assertions) {
        return Err("this is a debug build, whose figures mean nothing: use `make bench-sessions`".to_owned());
    }
    let load_before = machine::load_average();
    let run = Run::new("bench-sessions");
    let mut sizes = Vec::new();
    for size in SIZES {
        println!("{size} sessions: filling the store ...");
        let row = one(&Installation::new(&run, size))?;
        println!("{}", report::line(&row));
        sizes.push(row);
    }
    let versions = [("kubepass", env!("CARGO_PKG_VERSION").to_owned())];
    let summary = json!({
        "schema": "kubepass.bench-sessions/v1",
        "conditions": {"routes": super::super::kubepass::ROUTES, "rules": 5, "groups": 2, "audit": "written", "in_memory": kubepass::session::HOT_SESSIONS},
        "starts": STARTS,
        "checks": CHECKS,
        "machine": machine::describe(&versions),
        "load_average": {"before": load_before, "after": machine::load_average()},
        "sizes": sizes,
    });
    println!("{}", report::targets(&summary));
    println!("written: {}", report::write(&summary)?.display());
    Ok(())
}

fn one(installation: &Installation<'_>) -> Result<Value, String> {
    let mut starts: Vec<Start> = (1..STARTS).map(|_| installation.start().1).collect();
    let (process, last) = installation.start();
    starts.push(last);
    let at_start = machine::resident_mb(process.id());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let checks = runtime.block_on(checks(installation))?;
    let ms = |of: fn(&Start) -> std::time::Duration| median(starts.iter().map(|start| of(start).as_secs_f64() * 1e3).collect());
    Ok(json!({
        "sessions": installation.sessions,
        "start_to_ready_ms": ms(|start| start.ready),
        "start_to_logins_ms": ms(|start| start.whole),
        "memory_mb": at_start,
        "memory_full_mb": machine::resident_mb(process.id()),
        "store_mb": installation.store_mb(),
        "check_us": checks,
    }))
}

/// Of a session in memory by a token that is known, of one in memory by a new token, and of one that has to be read, by a new token too.
async fn checks(installation: &Installation<'_>) -> Result<Value, String> {
    let snapshot = &installation.snapshot;
    let mut asking = Asking::connect(installation.socket(), snapshot).await;
    let now = installation.since;
    // Evenly over all of them, so that none of the first is asked for twice.
    let number = |index: usize| index * (installation.sessions / (2 * CHECKS).min(installation.sessions)) % installation.sessions;
    let (mut hot, mut new_token, mut at_rest) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..CHECKS {
        let session = installation.session(number(index));
        let tokens = ["one", "other"].map(|id| asking.token(snapshot, &session, id, now));
        at_rest.push(asking.check(&tokens[0]).await?);
        new_token.push(asking.check(&tokens[1]).await?);
        hot.push(asking.check(&tokens[0]).await?);
    }
    for index in 0..ASKED_FOR.min(installation.sessions) {
        let session = installation.session(index);
        let token = asking.token(snapshot, &session, "one", now);
        asking.check(&token).await?;
    }
    let figures = |mut micros: Vec<f64>| {
        micros.sort_by(f64::total_cmp);
        json!({"p50": percentile(&micros, 0.50), "p99": percentile(&micros, 0.99)})
    };
    Ok(json!({"hot": figures(hot), "new_token": figures(new_token), "at_rest": figures(at_rest)}))
}
