//! Tasks and their end: every background task is tracked, the first to fail ends the process, SIGTERM drains in two steps: first what
//! carries traffic, then what it needs while it does.

use std::future::Future;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the tasks that end first may take. Both deadlines together stay below the 30 s that Kubernetes gives a pod by default.
pub const FIRST_DEADLINE: Duration = Duration::from_secs(18);
/// How long the others may take after those.
pub const REST_DEADLINE: Duration = Duration::from_secs(10);

/// Spawns and ends the tasks of one process.
#[derive(Debug, Clone)]
pub struct Tasks {
    first: Step,
    rest: Step,
    failed: mpsc::UnboundedSender<TaskFailure>,
}

/// Tasks that are told to end at the same time.
#[derive(Debug, Clone, Default)]
struct Step {
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// Short work that comes to its end although whoever asked for it has left, as a server drops what it does for a client that is gone. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Errands(TaskTracker);

/// A background task that ended although nobody asked it to.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the task {task:?} ended: {why}")]
pub struct TaskFailure {
    pub task: &'static str,
    pub why: String,
}

/// Receives the failures of `Tasks`.
#[derive(Debug)]
pub struct Failures(mpsc::UnboundedReceiver<TaskFailure>);

impl Failures {
    /// Waits for the first failure; never returns while all is well.
    pub async fn first(&mut self) -> TaskFailure {
        match self.0.recv().await {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// A failure that has come already.
    pub fn any(&mut self) -> Option<TaskFailure> {
        self.0.try_recv().ok()
    }
}

impl Tasks {
    pub fn new() -> (Self, Failures) {
        let (failed, failures) = mpsc::unbounded_channel();
        (Self { first: Step::default(), rest: Step::default(), failed }, Failures(failures))
    }

    /// Runs `task` until it ends, or [`Self::ending`] is cancelled and it has noticed. A task that ends earlier, or panics, is a failure of the
    /// process.
    pub fn spawn<E: std::fmt::Display + Send>(&self, name: &'static str, task: impl Future<Output = Result<(), E>> + Send + 'static) {
        self.spawn_in(&self.rest, name, task);
    }

    /// As [`Self::spawn`], for a task that needs the others until it has ended: it is told by [`Self::draining`], before them.
    pub fn spawn_first<E: std::fmt::Display + Send>(&self, name: &'static str, task: impl Future<Output = Result<(), E>> + Send + 'static) {
        self.spawn_in(&self.first, name, task);
    }

    fn spawn_in<E: std::fmt::Display + Send>(
        &self,
        step: &Step,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (stop, failed) = (step.stop.clone(), self.failed.clone());
        // The inner task is awaited so that a panic is seen as well.
        let inner = tokio::spawn(async move { task.await.map_err(|error| error.to_string()) });
        step.tracker.spawn(async move {
            let why = match inner.await {
                Ok(Ok(())) => "it finished".to_owned(),
                Ok(Err(error)) => error,
                Err(join) => join.to_string(),
            };
            if !stop.is_cancelled() {
                tracing::error!(task.name = name, error = %why, "a background task ended");
                // The receiver is gone only when the process is ending anyway.
                let _ = failed.send(TaskFailure { task: name, why });
            }
        });
    }

    /// Cancelled when the drain begins: for what must be seen at once (readiness), and for tasks of [`Self::spawn_first`].
    pub fn draining(&self) -> CancellationToken {
        self.first.stop.clone()
    }

    /// Cancelled when no traffic is carried any more.
    pub fn ending(&self) -> CancellationToken {
        self.rest.stop.clone()
    }

    /// Errands for which the drain waits as for the tasks that end last.
    pub fn errands(&self) -> Errands {
        Errands(self.rest.tracker.clone())
    }

    /// Ends the first tasks, at most within `FIRST_DEADLINE`, then the others, within `REST_DEADLINE`. Returns whether all ended in time.
    pub async fn drain(&self) -> bool {
        let first = self.first.end(FIRST_DEADLINE).await;
        let rest = self.rest.end(REST_DEADLINE).await;
        first && rest
    }
}

impl Errands {
    /// Begins at once, and goes on when what this returns is dropped. During a drain too: who asks is a task that the drain waits for.
    pub fn run<T: Send + 'static>(&self, errand: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.spawn(errand)
    }
}

impl Step {
    async fn end(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

/// Resolves on SIGTERM or SIGINT.
pub async fn stop_signal() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_a_failure_and_one_that_drains_is_not() {
        let (tasks, mut failures) = Tasks::new();
        let ending = tasks.ending();
        tasks.spawn("waits", async move {
            ending.cancelled().await;
            Ok::<_, String>(())
        });
        tasks.spawn("fails", async { Err("no disk") });
        let failure = failures.first().await;
        assert_eq!((failure.task, failure.why.as_str()), ("fails", "no disk"));
        tasks.spawn("panics", async { panic!("planted") as Result<(), String> });
        assert_eq!(failures.first().await.task, "panics");
        assert!(tasks.drain().await);
        assert!(failures.any().is_none(), "draining is no failure");
    }

    #[tokio::test]
    async fn what_carries_traffic_ends_before_what_it_needs() {
        let (tasks, mut failures) = Tasks::new();
        let (draining, ending) = (tasks.draining(), tasks.ending());
        let needed = tasks.ending();
        tasks.spawn("needed", async move {
            needed.cancelled().await;
            Ok::<_, String>(())
        });
        let (last_stream, closed) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn_first("carries", async move {
            draining.cancelled().await;
            // An open stream.
            closed.await.map_err(|error| error.to_string())
        });
        let drain = tokio::spawn({
            let tasks = tasks.clone();
            async move { tasks.drain().await }
        });
        tasks.draining().cancelled().await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!ending.is_cancelled(), "the rest was told to end while a stream was open");
        assert!(last_stream.send(()).is_ok());
        assert!(drain.await.is_ok_and(|in_time| in_time));
        assert!(ending.is_cancelled() && failures.any().is_none());
    }

    #[tokio::test]
    async fn an_errand_is_finished_before_the_drain_is() {
        let (tasks, _failures) = Tasks::new();
        let (errands, ending) = (tasks.errands(), tasks.ending());
        let (may_end, told) = tokio::sync::oneshot::channel::<()>();
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        // A server that begins an errand while it drains, and whose client leaves.
        tasks.spawn("asks", async move {
            ending.cancelled().await;
            let errand = async move { (told.await.is_ok(), finish.send(())) };
            drop(errands.run(errand));
            Ok::<_, String>(())
        });
        let drain = tokio::spawn(async move { tasks.drain().await });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!drain.is_finished(), "an errand was left behind");
        assert!(may_end.send(()).is_ok());
        assert!(finished.await.is_ok() && drain.await.is_ok_and(|in_time| in_time));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_holds_nothing_up_for_ever() {
        let (tasks, _failures) = Tasks::new();
        tasks.spawn_first("deaf", std::future::pending::<Result<(), String>>());
        let began = tokio::time::Instant::now();
        assert!(!tasks.drain().await);
        assert_eq!(began.elapsed().as_secs(), FIRST_DEADLINE.as_secs());
        assert!(tasks.ending().is_cancelled());
    }
}
