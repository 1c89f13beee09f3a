//! The operator API's client over its Unix socket, for the verbs of `kubepass-server`.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::server::admin::v1::admin_client::AdminClient;

/// Connects to a running kubepass.
pub async fn connect(socket: &Path) -> Result<AdminClient<Channel>, String> {
    let path: PathBuf = socket.to_owned();
    // The URI is not used: the connector knows where to go.
    let endpoint = Endpoint::from_static("http://kubepass.invalid");
    let channel = endpoint
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|error| {
            format!("no kubepass answers at {}: {}; is it running, and may you read the socket?", socket.display(), root_cause(&error))
        })?;
    Ok(AdminClient::new(channel))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
