//! Streams of one person on both clusters, open from the beginning to the end; between changes each carries something new.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::super::rows::{ROWS, Row};
use super::super::stories::forwarded_port;
use super::super::support::kubectl::Running;
use super::super::support::person::Person;
use super::super::support::world::World;

/// Of so many rounds, one brings something to the watches: that takes a kubectl for each cluster.
const ROUNDS_OF_A_WATCH: usize = 5;

pub(super) struct Streams {
    of_rows: [OfRow; 2],
    rounds: usize,
}

/// On one cluster.
struct OfRow {
    row: Row,
    /// By WebSocket and by SPDY.
    execs: [Running; 2],
    forward: Running,
    /// Through `forward`.
    forwarded: TcpStream,
    logs: Running,
    watch: Running,
}

impl Streams {
    pub(super) fn start(world: &World, person: &Person) -> Self {
        let kubectl = person.kubectl_command().limit(Duration::from_secs(30));
        let of_rows = ROWS.map(|row| {
            let context = |args: &[&str]| [&["--context", row.host], args].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
            let start = |protocol: &str, args: &[&str]| {
                let args = context(args);
                let kubectl = kubectl.clone().env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", protocol);
                kubectl.start(&args.iter().map(String::as_str).collect::<Vec<_>>())
            };
            let echo = ["exec", "-i", "web", "--", "sh", "-c", "while read -r word; do echo got $word; done"];
            let mut forward = start("true", &["port-forward", "pod/web", ":80"]);
            let forwarded = TcpStream::connect(("127.0.0.1", forwarded_port(&mut forward))).unwrap();
            forwarded.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            OfRow {
                row,
                execs: [start("true", &echo), start("false", &echo)],
                forward,
                forwarded,
                logs: start("true", &["logs", "-f", "web"]),
                watch: start(
                    "true",
                    &["get", "configmaps", "-n", "default", "-w", "-o", "jsonpath={.metadata.resourceVersion} {.data.word}{\"\\n\"}"],
                ),
            }
        });
        let streams = Self { of_rows, rounds: 0 };
        for OfRow { row, .. } in &streams.of_rows {
            row.cluster(world).kubectl_admin(&["create", "configmap", "soak", "-n", "default", "--from-literal=word=begin"]).ok();
        }
        streams
    }

    /// Each carries something that was not there before.
    pub(super) fn go_on(&mut self, world: &World, what: &str) {
        let word = format!("round-{}.", self.rounds);
        for OfRow { row, execs, forward, forwarded, logs, watch } in &mut self.of_rows {
            let cluster = row.cluster(world);
            for exec in &mut *execs {
                exec.write(format!("{word}\n").as_bytes());
                exec.wait_text(&format!("got {word}"));
            }
            let mut back = vec![0; word.len()];
            let echoed = forwarded.write_all(word.as_bytes()).and_then(|()| forwarded.read_exact(&mut back));
            assert!(echoed.is_ok() && back == word.as_bytes(), "{row:?}: {what}: the forwarded port: {echoed:?} {}", forward.seen());
            cluster.append_log(&word);
            logs.wait_text(&word);
            if self.rounds.is_multiple_of(ROUNDS_OF_A_WATCH) {
                let patch = format!("{{\"data\": {{\"word\": \"{word}\"}}}}");
                cluster.kubectl_admin(&["patch", "configmap", "soak", "-n", "default", "-p", &patch]).ok();
                watch.wait_text(&word);
            }
            let [one, other] = execs;
            for stream in [one, other, forward, logs, watch] {
                assert!(stream.is_running(), "{row:?}: {what}: {}", stream.seen());
            }
        }
        self.rounds += 1;
    }

    pub(super) fn end(self) {
        for OfRow { row, execs, .. } in self.of_rows {
            for exec in execs {
                assert_eq!(exec.finish().code, Some(0), "{row:?}: the stream was open to its own end");
            }
        }
    }
}
