//! How the last change of the configuration went, for the state page and metrics; and which changes only a restart brings into force.

use crate::config::{AuditSink, Config, StoreSettings};

/// What became of the last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    /// What stands in the files is in force.
    Applied,
    /// What stands in the files has mistakes; the last good state is in force.
    Rejected,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadState {
    pub last_result: ReloadResult,
    /// The mistakes of what stands in the files now; empty when that is in force.
    pub errors: Vec<String>,
    /// Version of the snapshot in force.
    pub version: String,
    /// Unix seconds of the last change, good or bad.
    pub last_attempt_at: u64,
    /// Unix seconds since which the version is in force.
    pub last_success_at: u64,
    /// Changes put in force since the start, the first state included.
    pub applied: u64,
    /// Changes refused since the start.
    pub rejected: u64,
    /// Keys whose new value waits for a restart.
    pub restart_needed: Vec<&'static str>,
}

impl ReloadState {
    pub(super) fn first(version: &str, now: u64) -> Self {
        Self {
            last_result: ReloadResult::Applied,
            errors: Vec::new(),
            version: version.to_owned(),
            last_attempt_at: now,
            last_success_at: now,
            applied: 1,
            rejected: 0,
            restart_needed: Vec::new(),
        }
    }

    pub(super) fn applied(self, version: &str, restart: Vec<&'static str>, now: u64) -> Self {
        let mut restart_needed = self.restart_needed;
        restart_needed.extend(restart);
        restart_needed.sort_unstable();
        restart_needed.dedup();
        let applied = self.applied + 1;
        Self { applied, rejected: self.rejected, restart_needed, ..Self::first(version, now) }
    }

    /// A version that differs in what the API server's objects say: of the files all stays as it was.
    pub(super) fn with_objects(self, version: &str, now: u64) -> Self {
        Self { version: version.to_owned(), last_success_at: now, applied: self.applied + 1, ..self }
    }

    pub(super) fn rejected(self, errors: Vec<String>, now: u64) -> Self {
        Self { last_result: ReloadResult::Rejected, errors, last_attempt_at: now, rejected: self.rejected + 1, ..self }
    }

    pub(super) fn restored(self, now: u64) -> Self {
        Self { last_result: ReloadResult::Applied, errors: Vec::new(), last_attempt_at: now, ..self }
    }
}

/// Keys that differ and that are read only at the start.
pub(super) fn restart_needed(before: &Config, after: &Config) -> Vec<&'static str> {
    let StoreSettings::Embedded { path: store_before } = &before.sessions.store;
    let StoreSettings::Embedded { path: store_after } = &after.sessions.store;
    let sinks = |config: &Config| config.audit.sinks.iter().map(|AuditSink::File { path }| path.clone()).collect::<Vec<_>>();
    let admin = |config: &Config| (config.admin.address, config.admin.socket.clone());
    // Certificates are taken as they come.
    let control_plane = |config: &Config| {
        let tcp = config.control_plane.tcp.as_ref();
        let sockets = (config.control_plane.socket_dir.clone(), config.control_plane.allow_envoy_versions.clone());
        (sockets, tcp.map(|tcp| (tcp.addresses(), tcp.tls.is_some())))
    };
    let differences = [
        ("control_plane", control_plane(before) != control_plane(after)),
        ("admin", admin(before) != admin(after)),
        ("sessions.store", store_before != store_after),
        ("audit.sinks", sinks(before) != sinks(after)),
        ("cluster_source", before.cluster_source != after.cluster_source),
        ("audit.durability", before.audit.durability != after.audit.durability),
    ];
    differences.into_iter().filter(|(_, differ)| *differ).map(|(key, _)| key).collect()
}
