//! The files of a kubepass with 100 routes and so many sessions in its store, and the program on them.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kubepass::server::store::Store;
use kubepass::server::{clock, publisher};
use kubepass::session::Session;
use kubepass::snapshot::Snapshot;

use super::super::kubepass::{POLICY, ROUTES, configuration, session};
use super::super::support::leash::{self, Process};
use super::super::support::pki::Authority;
use super::super::support::ports::free_port;
use super::super::support::run::Run;
use super::super::support::world::server_binary;

/// How long a start may take.
const START: Duration = Duration::from_secs(120);
/// Between two looks at whether it is ready.
const LOOK: Duration = Duration::from_micros(500);
/// Sessions that are made and stored together.
const TOGETHER: usize = 20_000;
/// The last thing that a start does, in the background.
const OWNERS_KNOWN: &str = "it is known whose the stored sessions are";

pub(super) struct Installation<'a> {
    run: &'a Run,
    name: String,
    folder: PathBuf,
    admin_port: u16,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) sessions: usize,
    /// When the sessions began.
    pub(super) since: u64,
}

/// How long one start took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) ready: Duration,
    /// Until log-ins were taken too.
    pub(super) whole: Duration,
}

impl<'a> Installation<'a> {
    pub(super) fn new(run: &'a Run, sessions: usize) -> Self {
        let (name, admin_port) = (format!("sessions-{sessions}"), free_port());
        let folder = run.dir(&name);
        let write = |file: &str, content: &str, mode: u32| {
            let path = run.write(&format!("{name}/{file}"), content);
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("the mode");
        };
        let authority = Authority::new("kubepass bench authority");
        let pair = authority.server(&["pass.localhost", "*.k8s.localhost"]);
        write("tls.crt", &pair.cert, 0o644);
        write("tls.key", &pair.key, 0o600);
        write("ca.crt", authority.pem(), 0o644);
        write("token", "a-token-of-a-service-account", 0o600);
        write("secret", "a secret for benchmarks only, long enough", 0o600);
        write("client-secret", "unused", 0o600);
        let dir = folder.join("run");
        write("kubepass.yaml", &configuration(&dir.display().to_string(), free_port(), admin_port, &routes()), 0o644);
        let snapshot = publisher::load_once(&folder.join("kubepass.yaml")).unwrap_or_else(|error| panic!("{error}"));
        let installation = Self { run, name, folder, admin_port, snapshot, sessions, since: clock::unix_now() };
        installation.store();
        installation
    }

    /// The session of this number.
    pub(super) fn session(&self, number: usize) -> Session {
        session(number, self.since)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("run/ext_authz.sock")
    }

    pub(super) fn store_mb(&self) -> f64 {
        std::fs::metadata(self.folder.join("kubepass.db")).map_or(0.0, |file| file.len() as f64 / (1 << 20) as f64)
    }

    /// Starts it, and waits until it is ready and has done what it does in the background.
    pub(super) fn start(&self) -> (Process, Start) {
        let mut command = leash::command(server_binary());
        command.arg("serve").arg("--config").arg(self.folder.join("kubepass.yaml")).current_dir(&self.folder);
        let log = self.run.log_path(&self.name);
        let _ = std::fs::remove_file(log);
        let began = Instant::now();
        let mut process = self.run.start(&self.name, command);
        while !self.is_ready() {
            assert!(began.elapsed() < START && process.ended().is_none(), "kubepass is not ready\n{}", process.tail(20));
            std::thread::sleep(LOOK);
        }
        let ready = began.elapsed();
        process.until_log(OWNERS_KNOWN, START);
        (process, Start { ready, whole: began.elapsed() })
    }

    fn is_ready(&self) -> bool {
        use std::io::{Read as _, Write as _};
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.admin_port)) else { return false };
        let mut answer = String::new();
        let asked = stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
        asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.starts_with("HTTP/1.1 200")
    }

    /// Fills the store as log-ins would have.
    fn store(&self) {
        let mut numbers: Vec<usize> = (0..self.sessions).collect();
        // By id, as many as are written together touch few pages.
        numbers.sort_by_cached_key(|number| self.session(*number).id);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let store = Store::open(&self.folder.join("kubepass.db"), Arc::clone(self.snapshot.token_keys())).expect("the store");
            for some in numbers.chunks(TOGETHER) {
                let sessions: Vec<Session> = some.iter().map(|number| self.session(*number)).collect();
                store.put_all(&sessions).await.expect("the sessions are stored");
            }
        });
        // What the system has yet to write would hold up the audit trail's lines; logins of many days would be written long ago.
        rustix::fs::sync();
    }
}

fn routes() -> String {
    let route = |number: usize| {
        format!(
            "- name: route-{number}\n  host: route-{number}.k8s.localhost\n  kubernetes:\n    server: https://10.0.0.{number}:6443\n    \
             ca: {{file: ca.crt}}\n    impersonate: {{token: {{file: token}}}}\n  policy:{POLICY}\n"
        )
    };
    (1..=ROUTES).map(route).collect()
}
