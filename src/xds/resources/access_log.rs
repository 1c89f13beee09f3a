//! Envoy's access log, sent to the control plane: an entry when a request or tunnel begins, one when it ends. The audit trail's decision
//! line does not depend on it; it tells how the request went on.

use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, access_log};
use envoy_types::pb::envoy::config::core::v3::ApiVersion;
use envoy_types::pb::envoy::extensions::access_loggers::grpc::v3::{CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::HcmAccessLogOptions;
use envoy_types::util::pack_any;

use super::message::{grpc_service, milliseconds, number};
use super::names::{ACCESS_LOG_CLUSTER, AUDIT_ID};

/// How long an entry may wait in Envoy. It loses those that wait when it ends.
pub const ACCESS_LOG_FLUSH_MILLISECONDS: u32 = 500;

pub(super) fn access_log() -> AccessLog {
    let common = CommonGrpcAccessLogConfig {
        log_name: "kubepass".to_owned(),
        grpc_service: grpc_service(ACCESS_LOG_CLUSTER, None),
        transport_api_version: ApiVersion::V3.into(),
        buffer_flush_interval: milliseconds(ACCESS_LOG_FLUSH_MILLISECONDS),
        buffer_size_bytes: number(16_384),
        ..Default::default()
    };
    let config = HttpGrpcAccessLogConfig {
        common_config: Some(common),
        additional_request_headers_to_log: vec![AUDIT_ID.to_owned()],
        ..Default::default()
    };
    let config_type = Some(access_log::ConfigType::TypedConfig(pack_any(config)));
    AccessLog { name: "envoy.access_loggers.http_grpc".to_owned(), config_type, ..Default::default() }
}

pub(super) fn options() -> HcmAccessLogOptions {
    HcmAccessLogOptions { flush_access_log_on_new_request: true, flush_log_on_tunnel_successfully_established: true, ..Default::default() }
}
