//! What takes its time: exec, cp, attach, port-forward and logs, over WebSocket and, where kubectl has both, over SPDY.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::super::rows::{Row, for_each_row};
use super::super::shared::world;
use super::super::support::http;
use super::super::support::person::Person;
use super::super::support::wait::eventually;
use super::super::support::world::World;
use super::trails::assert_trails_agree;
use super::{ANYTHING, NAMESPACE, bind, forwarded_port, namespace};

/// What decides in kubectl between the two protocols.
const EXEC_PROTOCOL: &str = "KUBECTL_REMOTE_COMMAND_WEBSOCKETS";
const FORWARD_PROTOCOL: &str = "KUBECTL_PORT_FORWARD_WEBSOCKETS";

const COPIED_BYTES: u32 = 64 << 20;

#[test]
fn exec_attach_and_logs() {
    let world = world();
    let _logs = world.run.watch();
    for_each_row(&world, |world, row| {
        let foo = set_up(world, row);
        exec(world, row, &foo);
        attach_and_logs(world, row, &foo);
    });
    assert_trails_agree(&world);
}

fn exec(world: &World, row: Row, foo: &Person) {
    for (switch, method) in [("true", "get"), ("false", "create")] {
        let kubectl = foo.kubectl_command().env(EXEC_PROTOCOL, switch);
        let script = "tr a-z A-Z; echo to-stderr >&2; exit 7";
        let output = kubectl.run_with(&["exec", "-n", NAMESPACE, "-i", "web", "--", "sh", "-c", script], b"hello\n");
        assert_eq!((output.code, output.stdout.as_str()), (Some(7), "HELLO\n"), "{}", output.stderr);
        assert!(output.stderr.contains("to-stderr"), "{}", output.stderr);
        // A GET is a WebSocket, a POST is SPDY: the test must not have taken one twice.
        let event = row.cluster(world).audit_find(&format!("exec by {method}"), |event| {
            event["objectRef"]["subresource"] == "exec"
                && event["objectRef"]["namespace"] == NAMESPACE
                && event["verb"] == method
                && event["stage"] == "ResponseComplete"
        });
        assert_eq!(event["responseStatus"]["code"], 101, "{row:?}");
        assert_eq!(row.served(&event).unwrap()["username"], "foo@example.com");
    }
}

fn attach_and_logs(world: &World, row: Row, foo: &Person) {
    let cluster = row.cluster(world);
    let mut logs = foo.kubectl_command().start(&["logs", "-n", NAMESPACE, "-f", "web"]);
    cluster.append_log("one for the logs");
    logs.wait_text("one for the logs");
    for switch in ["true", "false"] {
        let mut attached = foo.kubectl_command().env(EXEC_PROTOCOL, switch).start(&["attach", "-n", NAMESPACE, "web"]);
        let line = format!("seen with {EXEC_PROTOCOL}={switch}");
        // Who attaches sees only what comes after, so lines are added until one is seen.
        eventually("the attached terminal shows a line", Duration::from_secs(20), || {
            cluster.append_log(&line);
            std::thread::sleep(Duration::from_millis(100));
            attached.seen().contains(&line).then_some(())
        });
        assert!(attached.is_running());
        logs.wait_text(&line);
    }
    assert!(logs.is_running());
}

#[test]
fn cp_of_64_mib_there_and_back() {
    let world = world();
    let _logs = world.run.watch();
    for_each_row(&world, there_and_back);
}

fn there_and_back(world: &World, row: Row) {
    let foo = set_up(world, row);
    let bytes: Vec<u8> = (0..COPIED_BYTES).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(foo.home.join("there.bin"), &bytes).unwrap();
    let wanted = hash(&bytes);
    drop(bytes);
    for switch in ["true", "false"] {
        let kubectl = foo.kubectl_command().env(EXEC_PROTOCOL, switch);
        let (in_pod, back) = (format!("{switch}.bin"), format!("back-{switch}.bin"));
        kubectl.run(&["cp", "-n", NAMESPACE, "there.bin", &format!("web:{in_pod}")]).ok();
        assert_eq!(hash(&std::fs::read(row.cluster(world).work_dir().join(&in_pod)).unwrap()), wanted, "the copy in the pod differs");
        kubectl.run(&["cp", "-n", NAMESPACE, &format!("web:{in_pod}"), &back]).ok();
        assert_eq!(hash(&std::fs::read(foo.home.join(&back)).unwrap()), wanted, "the copy that came back differs");
    }
    let decisions = world.audit_lines().into_iter().filter(|line| line["event"] == "decision" && line["route"] == row.route);
    let ids: Vec<Value> = decisions.map(|line| line["request_id"].clone()).collect();
    let end = world.audit_line("the end of a copy", |line| {
        let large = line["bytes_received"].as_u64() > Some(u64::from(COPIED_BYTES));
        line["event"] == "completion" && line["phase"] == "end" && large && ids.contains(&line["request_id"])
    });
    assert_eq!(end["status"], 101, "{end}");
}

#[test]
fn port_forward_reaches_the_server_behind_the_pod() {
    let world = world();
    let _logs = world.run.watch();
    for_each_row(&world, port_forward);
    assert_trails_agree(&world);
}

fn port_forward(world: &World, row: Row) {
    let foo = set_up(world, row);
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
        row.cluster(world).audit_find(&format!("port-forward by {method}"), |event| {
            let upgraded = event["objectRef"]["subresource"] == "portforward" && event["responseStatus"]["code"] == 101;
            upgraded && event["verb"] == method && row.is_for(event, "foo@example.com")
        });
    }
}

fn set_up(world: &World, row: Row) -> Person {
    namespace(row.cluster(world));
    bind(row.cluster(world), NAMESPACE, "foo", ANYTHING, ("User", "foo@example.com"));
    let person = world.person("foo");
    person.set_up(&world.url(row.host)).ok();
    person
}

/// SHA-256.
fn hash(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec()
}
