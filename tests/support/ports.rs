//! Free TCP ports on loopback that no other run on this machine takes at the same time.
//!
//! Asking the kernel for port 0 and closing the socket again would leave a gap in which another run, or an outgoing connection, gets the
//! same number. So the ports lie below the kernel's range for outgoing connections, and each is claimed by a locked file for as long as
//! this process lives.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// The locks end with the process, so that a port whose server was stopped can be used for it again.
static CLAIMED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port on 127.0.0.1 that nobody listens on and no other caller was given.
pub fn free_port() -> u16 {
    let start = (RandomState::new().build_hasher().finish() % u64::from(COUNT)) as u16;
    for step in 0..COUNT {
        let port = FIRST + (start + step) % COUNT;
        if let Some(lock) = claim(port) {
            CLAIMED.lock().unwrap().push(lock);
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

fn claim(port: u16) -> Option<File> {
    let dir = std::env::temp_dir().join("kubepass-ports");
    if std::fs::create_dir(&dir).is_ok() {
        // Another user's run takes its ports from the same range, and may only read the files of this one.
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o1777)).ok()?;
    }
    let file = dir.join(port.to_string());
    let lock = File::create(&file).or_else(|_| File::open(&file)).ok()?;
    lock.try_lock().ok()?;
    TcpListener::bind(("127.0.0.1", port)).ok()?;
    Some(lock)
}
