//! Streams that hear nothing for long. They wait beside the other tests; their names come early so that nobody waits for them at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::rows::ROWS;
use super::shared::world;
use super::stories::{NAMESPACE, READ_PODS, bind, namespace};

/// Proxies like to end a quiet stream after 60 s or 5 min.
const QUIET: Duration = Duration::from_secs(70);
/// The same in `make test-matrix`.
const LONG_QUIET: Duration = Duration::from_secs(330);

/// Longer than a token of the signed-JWT method lives in the matrix: an open stream needs no new one. Nothing else adds to what a pod called
/// `quiet` logs.
#[test]
fn quiet_logs_stay_open() {
    let quiet = if std::env::var_os("KUBEPASS_TEST_MATRIX").is_some() { LONG_QUIET } else { QUIET };
    let (mut streams, _person) = {
        let world = world();
        let person = world.person("foo");
        let streams = ROWS.map(|row| {
            let cluster = row.cluster(&world);
            namespace(cluster);
            cluster.run_pod(NAMESPACE, "quiet");
            bind(cluster, NAMESPACE, "foo-reads", READ_PODS, ("User", "foo@example.com"));
            person.set_up(&world.url(row.host)).ok();
            let kubectl = person.kubectl_command().limit(Duration::from_secs(20));
            let mut logs = kubectl.start(&["--context", row.host, "logs", "-n", NAMESPACE, "-f", "quiet"]);
            cluster.append_quiet_log("before the silence");
            logs.wait_text("before the silence");
            (row, Arc::clone(cluster), logs)
        });
        (streams, person)
    };
    let began = Instant::now();
    while began.elapsed() < quiet {
        std::thread::sleep(Duration::from_secs(1));
        for (row, _, logs) in &mut streams {
            assert!(logs.is_running(), "{row:?}: ended after {:?} of silence: {}", began.elapsed(), logs.seen());
        }
    }
    for (_, cluster, logs) in &mut streams {
        cluster.append_quiet_log("after the silence");
        logs.wait_text("after the silence");
    }
}
