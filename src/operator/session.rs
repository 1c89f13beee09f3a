//! `session list`, `session revoke` and `state`: questions to a running kubepass over its admin socket.

use std::future::Future;
use std::path::PathBuf;

use tonic::transport::Channel;

use crate::server::admin::client;
use crate::server::admin::v1::admin_client::AdminClient;
use crate::server::admin::v1::revoke_sessions_request::Which;
use crate::server::admin::v1::{GetStateRequest, ListSessionsRequest, RevokeSessionsRequest, Session};
use crate::server::clock;
use crate::server::publisher;

/// Which kubepass is asked.
#[derive(Debug)]
pub struct Running {
    /// Its configuration file, which names the socket.
    pub config: PathBuf,
    /// The socket, for when the file does not tell.
    pub socket: Option<PathBuf>,
}

impl Running {
    fn socket(&self) -> Result<PathBuf, String> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        publisher::admin_socket(&self.config).map_err(|error| format!("{error}\nwhich kubepass? name its admin socket with --socket"))
    }
}

/// A table of the live sessions, oldest first.
pub fn list(running: &Running, user: Option<&str>) -> Result<String, String> {
    let request = ListSessionsRequest { user: user.unwrap_or_default().to_owned() };
    let (mut sessions, missing) = ask(running, async |mut admin: AdminClient<Channel>| {
        let (metadata, mut parts, extensions) = admin.list_sessions(request).await?.into_parts();
        let mut sessions = Vec::new();
        // What came before something could not be read is worth seeing.
        let missing = loop {
            match parts.message().await {
                Ok(Some(part)) => sessions.extend(part.sessions),
                Ok(None) => break None,
                Err(status) => break Some(status.message().to_owned()),
            }
        };
        Ok(tonic::Response::from_parts(metadata, (sessions, missing), extensions))
    })?;
    sessions.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
    let mut rows = vec![["SESSION", "USER", "IDP", "GROUPS", "AGE", "ENDS IN", "CLIENT", "SOURCE"].map(str::to_owned)];
    rows.extend(sessions.iter().map(|session| row(session, clock::unix_now())));
    match missing {
        None => Ok(table(&rows)),
        Some(missing) => Err(format!("{}\n{missing}", table(&rows))),
    }
}

/// Ends one session or all of a user's.
pub fn revoke(running: &Running, id: Option<&str>, user: Option<&str>) -> Result<String, String> {
    let which = match (id, user) {
        (Some(id), _) => Which::SessionId(id.to_owned()),
        (None, Some(user)) => Which::User(user.to_owned()),
        (None, None) => return Err("name a session or a user".to_owned()),
    };
    let request = RevokeSessionsRequest { which: Some(which) };
    match ask(running, async |mut admin: AdminClient<Channel>| admin.revoke_sessions(request).await)?.revoked {
        0 => Err("there is no such session; `kubepass-server session list` shows them".to_owned()),
        1 => Ok("1 session has ended".to_owned()),
        n => Ok(format!("{n} sessions have ended")),
    }
}

/// The state, as JSON.
pub fn state(running: &Running) -> Result<String, String> {
    let json = ask(running, async |mut admin: AdminClient<Channel>| admin.get_state(GetStateRequest {}).await)?.json;
    let value: serde_json::Value = serde_json::from_str(&json).map_err(|error| error.to_string())?;
    serde_json::to_string_pretty(&value).map_err(|error| error.to_string())
}

/// Puts one question to a running kubepass.
///
/// # Errors
/// A text for the operator.
pub(super) fn ask<T, F: Future<Output = Result<tonic::Response<T>, tonic::Status>>>(
    running: &Running,
    question: impl FnOnce(AdminClient<Channel>) -> F,
) -> Result<T, String> {
    let socket = running.socket()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let admin = client::connect(&socket).await?;
        question(admin).await.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
    })
}

fn row(session: &Session, now: u64) -> [String; 8] {
    [
        session.id.clone(),
        session.user.clone(),
        session.identity_provider.clone(),
        session.groups.join(","),
        duration(now.saturating_sub(session.created_at)),
        duration(session.expires_at.saturating_sub(now)),
        session.client.clone(),
        session.source_ip.clone(),
    ]
}

pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  ")).collect::<String>().trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_tables_are_readable() {
        assert_eq!((duration(5), duration(3_600), duration(43_200 + 60)), ("5s".into(), "60m".into(), "12h01m".into()));
        let rows = [["A".to_owned(), "B".to_owned()], ["long".to_owned(), "x".to_owned()]];
        assert_eq!(table(&rows), "A     B\nlong  x");
    }
}
