//! The few things that we ask Envoy's admin interface, on its Unix socket.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::http_exchange::exchange;

const PATIENCE: Duration = Duration::from_secs(5);
/// A dump of many routes takes its time.
const DUMP_PATIENCE: Duration = Duration::from_secs(60);

/// One Envoy's admin socket.
#[derive(Debug, Clone)]
pub struct AdminInterface {
    socket: PathBuf,
}

/// Why the admin interface gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("Envoy's admin interface does not answer: {0}")]
    Io(#[from] io::Error),
    #[error("Envoy's admin interface answers {0}")]
    Status(u16),
}

impl AdminInterface {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Whether Envoy has initialised: every first resource has come and the listeners accept.
    ///
    /// # Errors
    /// No answer at all: Envoy does not run, or has only just begun.
    pub async fn is_ready(&self) -> Result<bool, AdminError> {
        match self.ask("GET", "/ready").await {
            Ok(_) => Ok(true),
            Err(AdminError::Status(503)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Counters and gauges whose names match `filter`, a regular expression without blanks.
    ///
    /// # Errors
    /// See `AdminError`.
    pub async fn stats(&self, filter: &str) -> Result<BTreeMap<String, u64>, AdminError> {
        let escaped = percent_encoding::utf8_percent_encode(filter, percent_encoding::NON_ALPHANUMERIC);
        Ok(parse_stats(&self.ask("GET", &format!("/stats?filter={escaped}")).await?))
    }

    /// Takes no new connections, and asks clients of open ones to end them after their next answer. Open streams go on.
    ///
    /// # Errors
    /// See `AdminError`.
    pub async fn begin_drain(&self) -> Result<(), AdminError> {
        self.ask("POST", "/healthcheck/fail").await?;
        self.ask("POST", "/drain_listeners").await?;
        Ok(())
    }

    /// The whole configuration in force, endpoints included, as JSON. Envoy redacts secrets.
    ///
    /// # Errors
    /// See `AdminError`.
    pub async fn config_dump(&self) -> Result<String, AdminError> {
        self.ask_within("GET", "/config_dump?include_eds", DUMP_PATIENCE).await
    }

    async fn ask(&self, method: &str, path: &str) -> Result<String, AdminError> {
        self.ask_within(method, path, PATIENCE).await
    }

    async fn ask_within(&self, method: &str, path: &str, patience: Duration) -> Result<String, AdminError> {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: envoy-admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let reply = exchange(&self.socket, &request, patience).await?;
        if reply.status == 200 { Ok(reply.body) } else { Err(AdminError::Status(reply.status)) }
    }
}

/// `name: value` lines; histograms and texts are left out.
fn parse_stats(text: &str) -> BTreeMap<String, u64> {
    let number = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_the_rest_is_not() {
        let stats = parse_stats("a.b: 3\ncluster.x.upstream_cx_ms: P0(1,2)\nserver.text: \"1.40\"\n");
        assert_eq!(stats, BTreeMap::from([("a.b".to_owned(), 3)]));
    }
}
