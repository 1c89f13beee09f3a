//! `opentelemetry.proto.collector.logs.v1.LogsService` as a gRPC service whose messages stay bytes. A message is let in only where there is a place for
//! it, and read whole before anything is done with it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::to_bytes;
use bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Request, Response, Status};
use tower::Service;

use super::{ARRIVAL, AccessLog, MAX_MESSAGE_BYTES, Place};
use crate::server::peer::Peer;
use crate::server::wire::AsBytes;

const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// What gRPC puts before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// As messages are: Envoy gathers 16 KiB.
const MESSAGES: AsBytes = AsBytes { usual_bytes: 16 << 10, max_bytes: MAX_MESSAGE_BYTES };

/// The service; cheap to clone.
#[derive(Debug, Clone)]
pub struct Exports(pub(super) Arc<AccessLog>);

impl Service<http::Request<Body>> for Exports {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let log = Arc::clone(&self.0);
        Box::pin(async move {
            match arrive(&log, request).await {
                Ok((_place, request)) => {
                    let answer = |message: Request<Bytes>| {
                        let log = Arc::clone(&log);
                        async move {
                            log.take(message.get_ref(), message.extensions().get()).await?;
                            // Of `ExportLogsServiceResponse` nothing is said: what was passed over stands in our own metrics.
                            Ok(Response::new(Vec::new()))
                        }
                    };
                    Ok(MESSAGES.unary(request, answer).await)
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// A request when all of it is there.
async fn arrive(log: &AccessLog, request: http::Request<Body>) -> Result<(Place, http::Request<axum::body::Body>), Status> {
    if request.uri().path() != EXPORT {
        return Err(Status::unimplemented("there is nothing but Export"));
    }
    let place = log.place(request.extensions().get::<Peer>())?;
    let (parts, body) = request.into_parts();
    let whole = tokio::time::timeout(ARRIVAL, to_bytes(axum::body::Body::new(body), PREFIX_BYTES + MAX_MESSAGE_BYTES)).await;
    let whole = whole.map_err(|_| Status::deadline_exceeded("the message did not arrive in time"))?;
    let whole = whole.map_err(|_| Status::out_of_range(format!("no whole message of at most {MAX_MESSAGE_BYTES} bytes")))?;
    Ok((place, http::Request::from_parts(parts, axum::body::Body::from(whole))))
}
