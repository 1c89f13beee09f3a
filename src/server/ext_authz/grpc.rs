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
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tower::Service;

use crate::server::ext_authz::ExtAuthz;
use crate::server::wire::AsBytes;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Bytes of one check: Envoy's limit on headers, with room for the message around them.
const MAX_CHECK_BYTES: usize = 256 << 10;
/// As messages are: a usual question or answer has 4 KiB.
const MESSAGES: AsBytes = AsBytes { usual_bytes: 4 << 10, max_bytes: MAX_CHECK_BYTES };

type Pending<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// The service; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Checks(pub(super) Arc<ExtAuthz>);

impl Service<http::Request<Body>> for Checks {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pending<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let check = Check(Arc::clone(&self.0));
        // From here on, not from when a thread comes to it.
        let arrived = self.0.arrive();
        Box::pin(async move {
            let _arrived = arrived;
            if request.uri().path() != CHECK {
                return Ok(Status::unimplemented("there is nothing but Check").into_http());
            }
            Ok(Grpc::new(MESSAGES).max_decoding_message_size(MAX_CHECK_BYTES).unary(check, request).await)
        })
    }
}

struct Check(Arc<ExtAuthz>);

impl UnaryService<Bytes> for Check {
    type Response = Vec<u8>;
    type Future = Pending<Response<Vec<u8>>, Status>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let service = Arc::clone(&self.0);
        Box::pin(async move {
            let answer = service.check(request.get_ref(), request.extensions().get()).await;
            answer.map(Response::new)
        })
    }
}
