//! `envoy.service.auth.v3.Authorization` as a gRPC service whose messages stay bytes: the question is read in place by who answers it, and the
//! answer comes encoded.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tower::Service;

use crate::server::ext_authz::ExtAuthz;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Bytes of one check: Envoy's limit on headers, with room for the message around them.
const MAX_CHECK_BYTES: usize = 256 << 10;
/// Bytes that a usual question or answer has, taken at once for each.
const USUAL_BYTES: usize = 4 << 10;

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
            Ok(Grpc::new(AsBytes).max_decoding_message_size(MAX_CHECK_BYTES).unary(check, request).await)
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

/// Leaves messages as they are.
struct AsBytes;

impl Codec for AsBytes {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsBytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, answer: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&answer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(USUAL_BYTES, MAX_CHECK_BYTES)
    }
}

impl Decoder for AsBytes {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(USUAL_BYTES, MAX_CHECK_BYTES)
    }
}
