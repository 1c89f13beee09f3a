//! The sockets and what answers on each: xDS, ext_authz, access log and web for Envoy, admin for the operator.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;

use tonic::transport::Server;

use super::{Parts, StartError, state};
use crate::server::access_log::{AccessLog, AccessLogCounts};
use crate::server::admin::http::Readiness;
use crate::server::admin::v1::admin_server::AdminServer;
use crate::server::admin::{self, AdminService};
use crate::server::ads::{Admission, Ads, AdsLimits};
use crate::server::ending::SessionEnder;
use crate::server::ext_authz::{self, ExtAuthz};
use crate::server::lifecycle::Tasks;
use crate::server::unix_socket::UnixSocket;
use crate::server::web::{self, Web};

impl Parts {
    /// Binds every socket, then serves; returns the admin address that was bound.
    pub(super) fn serve(&self, admission: Admission, tasks: &Tasks, readiness: &Arc<Readiness>) -> Result<SocketAddr, StartError> {
        let config = Arc::clone(self.snapshot.load().config());
        let folder = &config.control_plane.socket_dir;
        let bind = |name: &str| UnixSocket::bind(&folder.join(name));
        let (xds, ext_authz, access_log, web) = (bind("xds.sock")?, bind("ext_authz.sock")?, bind("access_log.sock")?, bind("web.sock")?);
        let admin = UnixSocket::bind(&config.admin.socket)?;
        let address = self.serve_http(config.admin.address, tasks, readiness)?;
        self.serve_xds(admission, xds, tasks)?;
        self.serve_ext_authz(ext_authz, tasks);
        self.serve_access_log(access_log, tasks);
        self.serve_web(web, tasks);
        self.serve_admin(admin, tasks, readiness);
        Ok(address)
    }

    fn serve_xds(&self, admission: Admission, socket: UnixSocket, tasks: &Tasks) -> Result<(), StartError> {
        let service = Ads::service_for(admission, self.resources(tasks)?, self.ads.clone(), AdsLimits::default(), tasks.ending());
        let (may_serve, stop, serving) = (self.may_serve(), tasks.ending(), tasks.clone());
        tasks.spawn("xds", async move {
            // Who connects meanwhile waits.
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = may_serve => {}
            }
            serve_grpc(service, socket, serving).await
        });
        Ok(())
    }

    fn serve_ext_authz(&self, socket: UnixSocket, tasks: &Tasks) {
        let service = ExtAuthz::new(
            Arc::clone(&self.snapshot),
            Arc::clone(&self.sessions),
            Arc::clone(&self.signing),
            self.trail.clone(),
            Arc::clone(&self.metrics),
        );
        tasks.spawn("ext-authz", ext_authz::serve(service, socket, tasks.ending()));
    }

    fn serve_access_log(&self, socket: UnixSocket, tasks: &Tasks) {
        let counts = AccessLogCounts::default();
        counts.register(&self.metrics);
        tasks.spawn("access-log", serve_grpc(AccessLog::service(self.trail.clone(), counts, tasks.ending()), socket, tasks.clone()));
    }

    fn serve_web(&self, socket: UnixSocket, tasks: &Tasks) {
        let (snapshot, sessions, oidc) = (Arc::clone(&self.snapshot), Arc::clone(&self.sessions), Arc::clone(&self.oidc));
        let (store, trail, signing) = (self.store.clone(), self.trail.clone(), Arc::clone(&self.signing));
        let web = Web::new(snapshot, sessions, store, trail, oidc, signing, Arc::clone(&self.metrics));
        tasks.spawn("web", web::serve(socket, web::router(Arc::new(web)), tasks.ending().cancelled_owned()));
    }

    fn serve_admin(&self, socket: UnixSocket, tasks: &Tasks, readiness: &Arc<Readiness>) {
        let ender = SessionEnder::new(Arc::clone(&self.sessions), self.store.clone(), self.trail.clone());
        let service = AdminServer::new(AdminService::new(ender, state::reader(self, readiness)));
        tasks.spawn("admin", serve_grpc(service, socket, tasks.clone()));
    }

    fn serve_http(&self, address: SocketAddr, tasks: &Tasks, readiness: &Arc<Readiness>) -> Result<SocketAddr, StartError> {
        let failed = |error| StartError::AdminAddress { address, error };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let router = admin::http::router(Arc::clone(&self.metrics), Arc::clone(readiness), bound);
        tasks.spawn("metrics", axum::serve(listener, router).with_graceful_shutdown(tasks.ending().cancelled_owned()).into_future());
        Ok(bound)
    }
}

/// One gRPC service on one socket, until the drain.
async fn serve_grpc<S>(service: S, socket: UnixSocket, tasks: Tasks) -> Result<(), tonic::transport::Error>
where
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
    Server::builder().serve_with_incoming_shutdown(service, socket.into_incoming(), tasks.ending().cancelled_owned()).await
}
