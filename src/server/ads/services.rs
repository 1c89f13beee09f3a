//! The discovery services by their names on the wire. Each method only opens a stream.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::{HeaderValue, Request, Response, header};
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec as _, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use super::Ads;
use super::response::Responses;
use crate::xds::resource::TypeUrl;
use crate::xds::stream::{Delta, Protocol, StateOfTheWorld};

/// Service, what its methods are named after, and the type that it serves; `None` for all of them.
const SERVICES: [(&str, &str, Option<TypeUrl>); 8] = [
    ("envoy.service.discovery.v3.AggregatedDiscoveryService", "AggregatedResources", None),
    ("envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters", Some(TypeUrl::Cluster)),
    ("envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints", Some(TypeUrl::ClusterLoadAssignment)),
    ("envoy.service.listener.v3.ListenerDiscoveryService", "Listeners", Some(TypeUrl::Listener)),
    ("envoy.service.route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes", Some(TypeUrl::ScopedRouteConfiguration)),
    ("envoy.service.route.v3.RouteDiscoveryService", "Routes", Some(TypeUrl::RouteConfiguration)),
    ("envoy.service.secret.v3.SecretDiscoveryService", "Secrets", Some(TypeUrl::Secret)),
    ("envoy.service.extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs", Some(TypeUrl::ExtensionConfig)),
];

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// All of them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Services(pub(super) Arc<Ads>);

/// What a method opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Delta,
    StateOfTheWorld,
    /// One answer to one question.
    Fetch,
}

impl Service<Request<Body>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(self.answer(request).unwrap_or_else(Status::into_http)))
    }
}

impl Services {
    fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        match method(request.uri().path()) {
            Some((Method::Delta, only)) => self.open::<Delta>(only, request),
            Some((Method::StateOfTheWorld, only)) => self.open::<StateOfTheWorld>(only, request),
            Some((Method::Fetch, _)) => {
                Err(Status::unimplemented("kubepass serves streams: set api_type to GRPC or DELTA_GRPC, or to their aggregated forms"))
            }
            None => Err(Status::unimplemented("no such service or method")),
        }
    }

    fn open<P>(&self, only: Option<TypeUrl>, request: Request<Body>) -> Result<Response<Body>, Status>
    where
        P: Protocol + 'static,
        P::Request: Message + Default + Send + 'static,
    {
        let (parts, body) = request.into_parts();
        let decoder = ProstCodec::<P::Request, P::Request>::default().decoder();
        // Without an encoding, a message that says it is compressed ends the stream.
        let requests = Streaming::new_request(decoder, body, None, Some(self.0.limits.request_bytes));
        let (messages, place) = self.0.open::<P>(only, parts.extensions.get().cloned(), requests)?;
        let mut response = Response::new(Body::new(Responses::<P>::new(messages, place)));
        response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
        Ok(response)
    }
}

/// What a path asks for, and the type of a service of one type.
fn method(path: &str) -> Option<(Method, Option<TypeUrl>)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let (_, word, only) = SERVICES.into_iter().find(|(name, ..)| *name == service)?;
    let method = match method.strip_suffix(word)? {
        "Delta" => Method::Delta,
        "Stream" => Method::StateOfTheWorld,
        "Fetch" if only.is_some() => Method::Fetch,
        _ => return None,
    };
    Some((method, only))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_discovery_services() {
        let check = |path: &str, want: Option<(Method, Option<TypeUrl>)>| assert_eq!(method(path), want, "{path}");
        let aggregated = "/envoy.service.discovery.v3.AggregatedDiscoveryService";
        check(&format!("{aggregated}/DeltaAggregatedResources"), Some((Method::Delta, None)));
        check(&format!("{aggregated}/StreamAggregatedResources"), Some((Method::StateOfTheWorld, None)));
        check(&format!("{aggregated}/FetchAggregatedResources"), None);
        let secrets = "/envoy.service.secret.v3.SecretDiscoveryService";
        check(&format!("{secrets}/DeltaSecrets"), Some((Method::Delta, Some(TypeUrl::Secret))));
        check(&format!("{secrets}/StreamSecrets"), Some((Method::StateOfTheWorld, Some(TypeUrl::Secret))));
        check(&format!("{secrets}/FetchSecrets"), Some((Method::Fetch, Some(TypeUrl::Secret))));
        for other in [
            "",
            "/",
            "//DeltaSecrets",
            &format!("{secrets}/Secrets"),
            &format!("{secrets}/DeltaClusters"),
            &format!("{secrets}/DeltaSecrets/"),
        ] {
            check(other, None);
        }
        check("/envoy.service.runtime.v3.RuntimeDiscoveryService/DeltaRuntime", None);
    }
}
