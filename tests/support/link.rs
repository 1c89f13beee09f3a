//! A way to a server that can be cut: what connects here is passed on, until the way is cut. It lives in threads of this process.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// The way. Dropping it leaves it as it is.
#[derive(Clone, Default)]
pub struct Link(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// What becomes of what the server says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answers {
    #[default]
    PassedOn,
    /// Each part of it comes that much later.
    Late(Duration),
    /// It waits here until this changes, or the way is cut.
    Held,
}

#[derive(Default)]
struct State {
    cut: bool,
    answers: Answers,
    carried: usize,
    /// Ends each connection that goes this way.
    open: Vec<Box<dyn Fn() + Send>>,
}

/// A connection's end, as this module needs it.
trait End: Read + Write + Send + Sized + 'static {
    fn twin(&self) -> io::Result<Self>;
    fn end(&self, how: Shutdown);
}

impl Link {
    /// From a Unix socket, made at `from`, to the one at `to`.
    pub fn of_unix_sockets(from: &Path, to: &Path) -> Self {
        let (link, to) = (Self::default(), to.to_owned());
        let (passing, listener) = (link.clone(), UnixListener::bind(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                passing.pass(client, || UnixStream::connect(&to));
            }
        });
        link
    }

    /// From a port of 127.0.0.1, which is returned as well, to the port `to`.
    pub fn of_ports(to: u16) -> (Self, u16) {
        let link = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let passing = link.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                passing.pass(client, || TcpStream::connect(("127.0.0.1", to)));
            }
        });
        (link, port)
    }

    /// Ends every connection; new ones end at once, until [`Link::mend`].
    pub fn cut(&self) {
        let mut state = self.0.state.lock().unwrap();
        state.cut = true;
        state.open.drain(..).for_each(|end| end());
        self.0.changed.notify_all();
    }

    pub fn mend(&self) {
        self.0.state.lock().unwrap().cut = false;
    }

    pub fn answers(&self, answers: Answers) {
        self.0.state.lock().unwrap().answers = answers;
        self.0.changed.notify_all();
    }

    /// How many connections have gone this way so far.
    pub fn carried(&self) -> usize {
        self.0.state.lock().unwrap().carried
    }

    fn pass<E: End>(&self, client: E, connect: impl Fn() -> io::Result<E>) {
        let mut state = self.0.state.lock().unwrap();
        if state.cut {
            return;
        }
        let Ok(server) = connect() else { return };
        let twins = || Ok::<_, io::Error>((client.twin()?, server.twin()?, client.twin()?, server.twin()?));
        let Ok((client_end, server_end, from_client, to_server)) = twins() else { return };
        state.carried += 1;
        state.open.push(Box::new(move || [&client_end, &server_end].into_iter().for_each(|end| end.end(Shutdown::Both))));
        thread::spawn(move || copy(from_client, to_server, || ()));
        let link = self.clone();
        thread::spawn(move || copy(server, client, || link.wait()));
    }

    /// Before a part of what the server says goes on.
    fn wait(&self) {
        let state = self.0.state.lock().unwrap();
        let answers = state.answers;
        match answers {
            Answers::PassedOn => {}
            Answers::Late(by) => {
                drop(state);
                thread::sleep(by);
            }
            Answers::Held => drop(self.0.changed.wait_while(state, |state| state.answers == Answers::Held && !state.cut).unwrap()),
        }
    }
}

fn copy<E: End>(mut from: E, mut to: E, before: impl Fn()) {
    let mut part = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut part) {
        before();
        if to.write_all(&part[..read]).is_err() {
            break;
        }
    }
    to.end(Shutdown::Write);
    from.end(Shutdown::Read);
}

impl End for UnixStream {
    fn twin(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn end(&self, how: Shutdown) {
        let _ = self.shutdown(how);
    }
}

impl End for TcpStream {
    fn twin(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn end(&self, how: Shutdown) {
        let _ = self.shutdown(how);
    }
}
