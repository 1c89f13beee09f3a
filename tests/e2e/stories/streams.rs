//! What takes its time: exec, cp, attach, port-forward and logs, over WebSocket and, where kubectl has both, over SPDY.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::super::shared::world;
use super::super::support::http;
use super::super::support::kubectl::Kubectl;
use super::super::support::person::Person;
use super::super::support::wait::eventually;
use super::super::support::world::{PROD_HOST, STAGING_HOST, World};
use super::trails::assert_trails_agree;
use super::{ANYTHING, NAMESPACE, bind, forwarded_port, namespace};

/// What decides in kubectl between the two protocols.
const EXEC_PROTOCOL: &str = "KUBECTL_REMOTE_COMMAND_WEBSOCKETS";
const FORWARD_PROTOCOL: &str = "KUBECTL_PORT_FORWARD_WEBSOCKETS";

/// How long `logs -f` hears nothing. Proxies like to end such a stream after 60 s or 5 min.
const QUIET: Duration = Duration::from_secs(70);
const LONG_QUIET: Duration = Duration::from_secs(330);

const COPIED_BYTES: u32 = 64 << 20;

#[test]
fn exec_attach_and_logs() {
    let world = world();
    let _logs = world.run.watch();
    let foo = set_up(&world, PROD_HOST);
    for (switch, method) in [("true", "get"), ("false", "create")] {
        let kubectl = foo.kubectl_command().env(EXEC_PROTOCOL, switch);
        let script = "tr a-z A-Z; echo to-stderr >&2; exit 7";
        let output = kubectl.run_with(&["exec", "-n", NAMESPACE, "-i", "web", "--", "sh", "-c", script], b"hello\n");
        assert_eq!((output.code, output.stdout.as_str()), (Some(7), "HELLO\n"), "{}", output.stderr);
        assert!(output.stderr.contains("to-stderr"), "{}", output.stderr);
        // A GET is a WebSocket, a POST is SPDY: the test must not have taken one twice.
        let event = world.prod.audit_find(&format!("exec by {method}"), |event| {
            event["objectRef"]["subresource"] == "exec"
                && event["objectRef"]["namespace"] == NAMESPACE
                && event["verb"] == method
                && event["stage"] == "ResponseComplete"
        });
        assert_eq!((&event["responseStatus"]["code"], &event["impersonatedUser"]["username"]), (&101.into(), &"foo@example.com".into()));
    }
    let mut logs = foo.kubectl_command().start(&["logs", "-n", NAMESPACE, "-f", "web"]);
    world.prod.append_log("one for the logs");
    logs.wait_text("one for the logs");
    for switch in ["true", "false"] {
        let mut attached = foo.kubectl_command().env(EXEC_PROTOCOL, switch).start(&["attach", "-n", NAMESPACE, "web"]);
        let line = format!("seen with {EXEC_PROTOCOL}={switch}");
        // Who attaches sees only what comes after, so lines are added until one is seen.
        eventually("the attached terminal shows a line", Duration::from_secs(20), || {
            world.prod.append_log(&line);
            std::thread::sleep(Duration::from_millis(100));
            attached.seen().contains(&line).then_some(())
        });
        assert!(attached.is_running());
        logs.wait_text(&line);
    }
    assert!(logs.is_running());
    drop(logs);
    assert_trails_agree(&world);
}

#[test]
fn cp_of_64_mib_there_and_back() {
    let world = world();
    let _logs = world.run.watch();
    let foo = set_up(&world, PROD_HOST);
    let bytes: Vec<u8> = (0..COPIED_BYTES).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(foo.home.join("there.bin"), &bytes).unwrap();
    let wanted = hash(&bytes);
    drop(bytes);
    foo.kubectl(&["cp", "-n", NAMESPACE, "there.bin", "web:there.bin"]).ok();
    assert_eq!(hash(&std::fs::read(world.prod.work_dir().join("there.bin")).unwrap()), wanted, "the copy in the pod differs");
    foo.kubectl(&["cp", "-n", NAMESPACE, "web:there.bin", "back.bin"]).ok();
    assert_eq!(hash(&std::fs::read(foo.home.join("back.bin")).unwrap()), wanted, "the copy that came back differs");
    let end = world.audit_line("the end of a copy", |line| {
        line["event"] == "completion" && line["phase"] == "end" && line["bytes_received"].as_u64() > Some(u64::from(COPIED_BYTES))
    });
    assert_eq!(end["status"], 101, "{end}");
}

#[test]
fn port_forward_reaches_the_server_behind_the_pod() {
    let world = world();
    let _logs = world.run.watch();
    let foo = set_up(&world, PROD_HOST);
    for (switch, method) in [("true", "get"), ("false", "create")] {
        let mut forward = foo.kubectl_command().env(FORWARD_PROTOCOL, switch).start(&["port-forward", "-n", NAMESPACE, "pod/web", ":80"]);
        let port = forwarded_port(&mut forward);
        for path in ["/over/there", "/and/again"] {
            let answer = http::client(&[]).get(format!("http://127.0.0.1:{port}{path}")).send().unwrap().text().unwrap();
            assert_eq!(answer, format!("hello from {path}\n"));
        }
        // Two connections at once, a MiB each way on one of them.
        let mut quiet = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut busy = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let bytes: Vec<u8> = (0..1_u32 << 20).map(|n| (n % 251) as u8).collect();
        let mut writer = busy.try_clone().unwrap();
        let mut back = vec![0; bytes.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&bytes).unwrap());
            busy.read_exact(&mut back).unwrap();
        });
        assert!(back == bytes, "what came back differs");
        quiet.write_all(b"still here").unwrap();
        let mut answer = [0; 10];
        quiet.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"still here");
        assert!(forward.is_running());
        forward.interrupt();
        drop(forward);
        world.prod.audit_find(&format!("port-forward by {method}"), |event| {
            event["objectRef"]["subresource"] == "portforward" && event["verb"] == method && event["responseStatus"]["code"] == 101
        });
    }
    assert_trails_agree(&world);
}

/// Waits beside the other stories: nothing else adds to what the pods of `staging` log.
#[test]
fn quiet_logs_stay_open() {
    let quiet = if std::env::var_os("KUBEPASS_TEST_MATRIX").is_some() { LONG_QUIET } else { QUIET };
    let (mut logs, staging, foo) = {
        let world = world();
        let foo = set_up(&world, STAGING_HOST);
        let kubectl: Kubectl = foo.kubectl_command().limit(Duration::from_secs(20));
        let mut logs = kubectl.start(&["logs", "-n", NAMESPACE, "-f", "web"]);
        world.staging.append_log("before the silence");
        logs.wait_text("before the silence");
        (logs, std::sync::Arc::clone(&world.staging), foo)
    };
    let began = Instant::now();
    while began.elapsed() < quiet {
        std::thread::sleep(Duration::from_secs(1));
        assert!(logs.is_running(), "ended after {:?} of silence: {}", began.elapsed(), logs.seen());
    }
    staging.append_log("after the silence");
    logs.wait_text("after the silence");
    drop((logs, foo));
}

fn set_up(world: &World, host: &str) -> Person {
    let cluster = if host == PROD_HOST { &world.prod } else { &world.staging };
    namespace(cluster);
    bind(cluster, NAMESPACE, "foo", ANYTHING, ("User", "foo@example.com"));
    let foo = world.person("foo");
    foo.set_up(&world.url(host)).ok();
    foo
}

/// SHA-256.
fn hash(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec()
}
