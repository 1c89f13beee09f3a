//! Tasks and their end: every background task is tracked, the first to fail ends the process, SIGTERM drains.

use std::future::Future;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long tasks may take to finish after a drain began.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// Spawns and ends the tasks of one process.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    drain: CancellationToken,
    failed: mpsc::UnboundedSender<TaskFailure>,
}

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
}

impl Tasks {
    pub fn new() -> (Self, Failures) {
        let (failed, failures) = mpsc::unbounded_channel();
        (Self { tracker: TaskTracker::new(), drain: CancellationToken::new(), failed }, Failures(failures))
    }

    /// Runs `task` until it ends or the drain begins and it has noticed. A task that ends earlier, or panics, is a failure of the process.
    pub fn spawn<E: std::fmt::Display + Send>(&self, name: &'static str, task: impl Future<Output = Result<(), E>> + Send + 'static) {
        let (drain, failed) = (self.drain.clone(), self.failed.clone());
        // The inner task is awaited so that a panic is seen as well.
        let inner = tokio::spawn(async move { task.await.map_err(|error| error.to_string()) });
        self.tracker.spawn(async move {
            let why = match inner.await {
                Ok(Ok(())) => "it finished".to_owned(),
                Ok(Err(error)) => error,
                Err(join) => join.to_string(),
            };
            if !drain.is_cancelled() {
                tracing::error!(task.name = name, error = %why, "a background task ended");
                // The receiver is gone only when the process is ending anyway.
                let _ = failed.send(TaskFailure { task: name, why });
            }
        });
    }

    /// Cancelled when the drain begins.
    pub fn draining(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Begins the drain and waits for all tasks, at most `DRAIN_DEADLINE`. Returns whether all ended in time.
    pub async fn drain(&self) -> bool {
        self.drain.cancel();
        self.tracker.close();
        tokio::time::timeout(DRAIN_DEADLINE, self.tracker.wait()).await.is_ok()
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
        let drained = tasks.draining();
        tasks.spawn("waits", async move {
            drained.cancelled().await;
            Ok::<_, String>(())
        });
        tasks.spawn("fails", async { Err("no disk") });
        let failure = failures.first().await;
        assert_eq!((failure.task, failure.why.as_str()), ("fails", "no disk"));
        tasks.spawn("panics", async { panic!("planted") as Result<(), String> });
        assert_eq!(failures.first().await.task, "panics");
        assert!(tasks.drain().await);
        assert!(failures.0.try_recv().is_err(), "draining is no failure");
    }
}
