//! `envoy.service.auth.v3.Authorization` as a gRPC service whose messages stay bytes: the question is read in place by who answers it, and the
//! answer comes encoded.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Request, Response, Status};
use tower::Service;

use crate::server::ext_authz::ExtAuthz;
use crate::server::wire::AsBytes;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Bytes of one check: Envoy's limit on headers, with room for the message around them.
const MAX_CHECK_BYTES: usize = 256 << 10;
/// As messages are: a usual question or answer has 4 KiB.
const MESSAGES: AsBytes = AsBytes { usual_bytes: 4 << 10, max_bytes: MAX_CHECK_BYTES };

/// The service; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Checks(pub(super) Arc<ExtAuthz>);

impl Service<http::Request<Body>> for Checks {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = Arc::clone(&self.0);
        // From here on, not from when a thread comes to it.
        let arrived = self.0.arrive();
        Box::pin(async move {
            let _arrived = arrived;
            if request.uri().path() != CHECK {
                return Ok(Status::unimplemented("there is nothing but Check").into_http());
            }
            let answer = |question: Request<Bytes>| {
                let service = Arc::clone(&service);
                async move { service.check(question.get_ref(), question.extensions().get()).await.map(Response::new) }
            };
            Ok(MESSAGES.unary(request, answer).await)
        })
    }
}
