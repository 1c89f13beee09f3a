//! A check in the place of kubepass's, which answers what kubepass never would, or nothing: what is then still refused, Envoy refuses.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::processes::{envoys, kill};
use super::wait::eventually;
use super::world::{STAGING_HOST, World};

/// Of who starts Envoy again: the more often it was killed, the longer the pause.
const PATIENCE: Duration = Duration::from_secs(60);

/// The answer to a check, from the target of its route and its message.
type Answer = Box<dyn Fn(&str, &CheckRequest) -> Result<CheckResponse, Status> + Send + Sync>;

/// Stands in the place of kubepass's own check until [`FalseCheck::end`].
pub struct FalseCheck {
    socket: PathBuf,
    answer: Arc<Mutex<Answer>>,
    /// Whether somebody answers checks.
    answering: bool,
    /// Of whoever is there now; its end closes all connections.
    runtime: Option<Runtime>,
}

struct Answers(Arc<Mutex<Answer>>);

impl FalseCheck {
    /// Envoy keeps its connection to kubepass, so it is started anew.
    pub fn instead_of_kubepass(world: &World) -> Self {
        let socket = world.run.file("kubepass/run/ext_authz.sock");
        std::fs::rename(&socket, away(&socket)).expect("kubepass's socket");
        let refuse: Answer = Box::new(|_, _| Err(Status::unavailable("not yet")));
        let mut check = Self { socket, answer: Arc::new(Mutex::new(refuse)), answering: false, runtime: None };
        check.answers();
        restart_envoy(world);
        check
    }

    /// What the next checks are answered.
    pub fn answer(&mut self, answer: impl Fn(&str, &CheckRequest) -> Result<CheckResponse, Status> + Send + Sync + 'static) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(answer);
        if !self.answering {
            self.answers();
        }
    }

    fn answers(&mut self) {
        let (runtime, listener) = self.listen();
        let service = AuthorizationServer::new(Answers(Arc::clone(&self.answer)));
        runtime.spawn(tonic::transport::Server::builder().serve_with_incoming(service, UnixListenerStream::new(listener)));
        (self.runtime, self.answering) = (Some(runtime), true);
    }

    /// Nobody is there.
    pub fn gone(&mut self) {
        self.answering = false;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = std::fs::remove_file(&self.socket);
    }

    /// Somebody who says these bytes to whoever connects, and then nothing or good-bye.
    pub fn says(&mut self, bytes: &'static [u8], hangs_up: bool) {
        let (runtime, listener) = self.listen();
        runtime.spawn(async move {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = stream.into_std() else { continue };
                let _ = stream.write_all(bytes);
                if !hangs_up {
                    kept.push(stream);
                }
            }
        });
        self.runtime = Some(runtime);
    }

    fn listen(&mut self) -> (Runtime, UnixListener) {
        self.gone();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(async { UnixListener::bind(&self.socket) }).expect("the socket");
        (runtime, listener)
    }

    /// kubepass's own check again.
    pub fn end(mut self, world: &World) {
        self.gone();
        std::fs::rename(away(&self.socket), &self.socket).expect("kubepass's socket");
        restart_envoy(world);
    }
}

fn away(socket: &Path) -> PathBuf {
    socket.with_extension("away")
}

fn restart_envoy(world: &World) {
    let [before] = envoys(world)[..] else { panic!("one Envoy is expected") };
    kill(before);
    eventually("another Envoy answers", PATIENCE, || {
        let answers = || world.client().get(format!("https://{STAGING_HOST}/version?is=up")).send().is_ok();
        (envoys(world).iter().any(|envoy| *envoy != before) && answers()).then_some(())
    });
}

#[tonic::async_trait]
impl Authorization for Answers {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let request = request.into_inner();
        let target = request.attributes.as_ref().and_then(|attributes| attributes.context_extensions.get("target").cloned());
        let answer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answer(&target.unwrap_or_default(), &request).map(Response::new)
    }
}
