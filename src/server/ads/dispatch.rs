//! Several gRPC services on one socket, told apart by the first part of the path. Knows nothing of what they serve.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::util::{BoxCloneSyncService, Oneshot};
use tower::{Service, ServiceExt};

type Boxed = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Services by name. A path that names none of them is answered as gRPC answers it.
#[derive(Debug, Clone, Default)]
pub struct Services(Vec<(&'static str, Boxed)>);

impl Services {
    #[must_use]
    pub(super) fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        self.0.push((S::NAME, BoxCloneSyncService::new(service)));
        self
    }
}

impl Service<Request<Body>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = futures::future::Either<Oneshot<Boxed, Request<Body>>, futures::future::Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let name = request.uri().path().split('/').nth(1).unwrap_or_default();
        match self.0.iter().find(|(known, _)| *known == name) {
            Some((_, service)) => futures::future::Either::Left(service.clone().oneshot(request)),
            None => futures::future::Either::Right(futures::future::ready(Ok(Status::unimplemented("no such service").into_http()))),
        }
    }
}
