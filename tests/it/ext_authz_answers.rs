//! What a grant becomes on the wire: the message that `prost` would write of it, whatever the names in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, OkHttpResponse};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{BoolValue, Struct, Value};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use kubepass::access::request::RequestHeaders;
use kubepass::access::{AccessRequest, Grant, Outcome, RequestTarget, SessionState, decide};
use kubepass::identity::{Groups, Identity, Principal};
use kubepass::server::ext_authz::convert::{self, Minted};
use kubepass::session::{Authenticated, Session};
use kubepass::snapshot::{NodeView, Snapshot};
use kubepass::token::SessionId;
use proptest::prelude::*;
use prost::Message as _;

use super::fixture;

/// `config/two-clusters.yaml`, whose `prod` also sends a uid and an extra value for each group.
fn snapshot() -> Arc<Snapshot> {
    static SNAPSHOT: std::sync::OnceLock<Arc<Snapshot>> = std::sync::OnceLock::new();
    let load = || {
        let text = std::fs::read_to_string(fixture::root().join("config/two-clusters.yaml")).unwrap();
        let text = text.replacen("      extra:\n", "      uid: user.name\n      extra:\n", 1);
        let text = text.replacen("example.com/idp: user.idp", "example.com/team: user.groups", 1);
        let config = fixture::load(&text, "kubepass.yaml", &BTreeMap::new()).unwrap_or_else(|errors| panic!("{errors}"));
        Arc::new(Snapshot::new(Arc::new(config), "0123456789abcdef"))
    };
    Arc::clone(SNAPSHOT.get_or_init(load))
}

/// The same as a message of the generated types.
fn by_prost(grant: &Grant, request_id: &str) -> CheckResponse {
    let identity = grant.identity();
    let mut metadata =
        vec![("grant".to_owned(), format!("kubernetes:{}", grant.route().id())), ("user".to_owned(), identity.user().to_string())];
    metadata.extend(identity.uid().map(|uid| ("uid".to_owned(), uid.to_string())));
    metadata.extend(identity.groups().iter().enumerate().map(|(index, group)| (format!("g{index}"), group.to_string())));
    for (key, values) in identity.extra() {
        metadata.extend(values.iter().enumerate().map(|(index, value)| (format!("e.{key}.{index}"), value.to_string())));
    }
    let value = |text| Value { kind: Some(Kind::StringValue(text)) };
    let headers =
        vec![overwrite("audit-id", request_id), overwrite("x-envoy-upstream-stream-duration-ms", &grant.stream_limit_ms().to_string())];
    CheckResponse {
        status: Some(RpcStatus::default()),
        dynamic_metadata: Some(Struct { fields: metadata.into_iter().map(|(key, text)| (key, value(text))).collect() }),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse { headers, ..OkHttpResponse::default() })),
    }
}

#[allow(deprecated, reason = "Envoy 1.40 reads `append` and ignores its successor; both are set")]
fn overwrite(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        append: Some(BoolValue { value: false }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        keep_empty_value: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_grant_is_the_message_that_prost_would_write(
        name in "[a-zà-ü]([ -~]{0,200}[!-~])?",
        groups in prop::collection::vec("team-[!-~]{0,300}", 0..15),
        request_id in "[a-z0-9-]{1,64}",
        left in 1..40_000u64,
    ) {
        let snapshot = snapshot();
        let route = snapshot.route("prod").unwrap();
        let session = Arc::new(Session {
            id: SessionId::from_random([9; 16]),
            identity: Identity {
                principal: Principal { idp: "corp".into(), subject: "s".into() },
                username: name,
                email: String::new(),
                groups: groups.into_iter().chain(["sre".to_owned()]).collect::<Groups>(),
                claims: serde_json::Map::new(),
            },
            created_at: fixture::NOW,
            expires_at: fixture::NOW + left,
            client: "kubepass".into(),
            source_ip: String::new(),
        });
        let request = AccessRequest {
            node: NodeView::UNNAMED,
            request_id: &request_id,
            target: RequestTarget::Kubernetes(route.id()),
            method: "GET",
            path: "/api/v1/pods",
            host: &route.host,
            sni: &route.host,
            source_ip: "",
            headers: RequestHeaders::default(),
        };
        let state = SessionState::Live(Authenticated { token_expires_at: session.expires_at, session });
        let decision = decide(&snapshot, &request, state, fixture::NOW);
        let Outcome::Allow(grant) = &decision.outcome else { panic!("{decision:?}") };
        let written = convert::grant(grant, &Minted::Nothing, &request_id);
        prop_assert_eq!(CheckResponse::decode(written.as_slice()).unwrap(), by_prost(grant, &request_id));
    }
}
