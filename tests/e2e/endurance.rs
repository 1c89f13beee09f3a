//! Streams that hear nothing for long. They wait beside the other tests; their names come early so that nobody waits for them at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shared::world;
use super::stories::{NAMESPACE, READ_PODS, bind, namespace};
use super::support::world::STAGING_HOST;

/// Proxies like to end a quiet stream after 60 s or 5 min.
const QUIET: Duration = Duration::from_secs(70);
/// The same in `make test-matrix`.
const LONG_QUIET: Duration = Duration::from_secs(330);

/// Nothing else adds to what the pods of `staging` log.
#[test]
fn quiet_logs_stay_open() {
    let quiet = if std::env::var_os("KUBEPASS_TEST_MATRIX").is_some() { LONG_QUIET } else { QUIET };
    let (mut logs, staging, _person) = {
        let world = world();
        namespace(&world.staging);
        bind(&world.staging, NAMESPACE, "foo", READ_PODS, ("User", "foo@example.com"));
        let person = world.person("foo");
        person.set_up(&world.url(STAGING_HOST)).ok();
        let mut logs = person.kubectl_command().limit(Duration::from_secs(20)).start(&["logs", "-n", NAMESPACE, "-f", "web"]);
        world.staging.append_log("before the silence");
        logs.wait_text("before the silence");
        (logs, Arc::clone(&world.staging), person)
    };
    let began = Instant::now();
    while began.elapsed() < quiet {
        std::thread::sleep(Duration::from_secs(1));
        assert!(logs.is_running(), "ended after {:?} of silence: {}", began.elapsed(), logs.seen());
    }
    staging.append_log("after the silence");
    logs.wait_text("after the silence");
}
