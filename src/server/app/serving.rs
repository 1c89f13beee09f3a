//! The sockets and addresses and what answers on each: xDS, ext_authz, access log and web for Envoys, admin for the operator.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::{Parts, StartError, state};
use crate::server::access_log::{self, AccessLog, AccessLogCounts};
use crate::server::admin::http::Readiness;
use crate::server::admin::v1::admin_server::AdminServer;
use crate::server::admin::{self, AdminService, GivenResources};
use crate::server::ads::{Admission, Ads, AdsLimits};
use crate::server::door::{self, Door, DoorCounts, Speech};
use crate::server::ext_authz::{self, ExtAuthz};
use crate::server::lifecycle::Tasks;
use crate::server::peer::Standing;
use crate::server::unix_socket::UnixSocket;
use crate::server::web::{self, Web};

impl Parts {
    /// Binds every socket and address, then serves; returns the admin address that was bound.
    pub(super) fn serve(&self, admission: Admission, tasks: &Tasks, readiness: &Arc<Readiness>) -> Result<SocketAddr, StartError> {
        let config = Arc::clone(self.snapshot.load().config());
        let counts = DoorCounts::default();
        counts.register(&self.metrics);
        // Whoever has our own user where kubepass runs an Envoy is that Envoy.
        let own = if matches!(admission, Admission::Tried { .. }) { Standing::Own } else { Standing::Local };
        let bind = |service, speech| Door::bind(service, speech, &self.snapshot, own, counts.clone());
        let (xds, ext_authz) = (bind("xds", Speech::Grpc)?, bind("ext_authz", Speech::Grpc)?);
        let (access_log, web) = (bind("access_log", Speech::Grpc)?, bind("web", Speech::Http1)?);
        let gates = [&xds, &ext_authz, &access_log, &web].map(Door::gate).to_vec();
        let admin = UnixSocket::bind(&config.admin.socket)?;
        let address = self.serve_http(config.admin.address, tasks, readiness)?;
        tasks.spawn("envoy-connections", door::follow(gates, self.publisher.subscribe(), tasks.ending()));
        self.serve_xds(admission, xds, tasks)?;
        self.serve_ext_authz(ext_authz, tasks);
        self.serve_access_log(access_log, tasks);
        self.serve_web(web, tasks);
        self.serve_admin(admin, tasks, readiness);
        Ok(address)
    }

    fn serve_xds(&self, admission: Admission, door: Door, tasks: &Tasks) -> Result<(), StartError> {
        let service = Ads::service_for(admission, self.resources(tasks)?, self.ads.clone(), AdsLimits::default(), tasks.ending());
        let (may_serve, stop) = (self.may_serve(), tasks.ending());
        tasks.spawn("xds", async move {
            // Who connects meanwhile waits.
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = may_serve => {}
            }
            serve_grpc(service, door.into_links(), stop.cancelled_owned()).await
        });
        Ok(())
    }

    fn serve_ext_authz(&self, door: Door, tasks: &Tasks) {
        let service = ExtAuthz::new(
            Arc::clone(&self.snapshot),
            self.sessions.clone(),
            Arc::clone(&self.signing),
            self.trail.clone(),
            Arc::clone(&self.metrics),
        )
        .with_streams(Arc::clone(&self.streams));
        tasks.spawn("ext-authz", ext_authz::serve(service, door, tasks.ending()));
    }

    fn serve_access_log(&self, door: Door, tasks: &Tasks) {
        let counts = AccessLogCounts::default();
        counts.register(&self.metrics);
        let (snapshot, streams) = (Arc::clone(&self.snapshot), Arc::clone(&self.streams));
        let service = AccessLog::service(snapshot, self.trail.clone(), counts, streams);
        tasks.spawn("access-log", serve_grpc(service, door.into_links(), access_log::lingered(tasks.ending())));
    }

    fn serve_web(&self, door: Door, tasks: &Tasks) {
        let (snapshot, oidc, signing) = (Arc::clone(&self.snapshot), Arc::clone(&self.oidc), Arc::clone(&self.signing));
        let web = Web::new(snapshot, self.ender(tasks), oidc, signing, Arc::clone(&self.metrics));
        tasks.spawn("web", web::serve(door, web::router(Arc::new(web)), tasks.ending().cancelled_owned()));
    }

    fn serve_admin(&self, socket: UnixSocket, tasks: &Tasks, readiness: &Arc<Readiness>) {
        let built = self.built.subscribe();
        let given = GivenResources::new(Arc::new(move || Arc::clone(&built.borrow().resources)), self.ads.clone());
        let service = AdminServer::new(AdminService::new(self.ender(tasks), state::reader(self, readiness), given));
        tasks.spawn("admin", serve_grpc(service, socket.into_incoming(), tasks.ending().cancelled_owned()));
    }

    fn serve_http(&self, address: SocketAddr, tasks: &Tasks, readiness: &Arc<Readiness>) -> Result<SocketAddr, StartError> {
        let failed = |error| StartError::AdminAddress { address, error };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let router = admin::http::router(Arc::clone(&self.metrics), Arc::clone(readiness), bound);
        tasks.spawn("metrics", admin::http::serve(listener, router, tasks.ending().cancelled_owned()));
        Ok(bound)
    }
}

/// One gRPC service on its connections, until `end`.
async fn serve_grpc<S, C>(
    service: S,
    connections: impl Stream<Item = io::Result<C>> + Send,
    end: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    S: tower::Service<
            axum::http::Request<tonic::body::Body>,
            Response = axum::http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    Server::builder().serve_with_incoming_shutdown(service, connections, end).await
}
