//! A check in the place of kubepass's that allows every request to where it is routed: what is then still refused, Envoy refuses.

use std::sync::{Arc, Mutex};

use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, OkHttpResponse};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{BoolValue, Struct, Value};

use super::super::support::false_check::FalseCheck;
use super::super::support::world::World;

type Headers = Vec<(&'static str, String)>;

/// Stands in the place of kubepass's own check until [`AllowAll::end`].
pub(super) struct AllowAll {
    check: FalseCheck,
    headers: Arc<Mutex<Headers>>,
}

impl AllowAll {
    /// Answers each check with the grant that its route asks for and with the headers of [`AllowAll::add`].
    pub(super) fn instead_of_kubepass(world: &World) -> Self {
        let headers: Arc<Mutex<Headers>> = Arc::default();
        let given = Arc::clone(&headers);
        let mut check = FalseCheck::instead_of_kubepass(world);
        check.answer(move |target, _| Ok(allow(target, &given.lock().unwrap())));
        Self { check, headers }
    }

    /// What the next answers add to a request.
    pub(super) fn add(&self, headers: Headers) {
        *self.headers.lock().unwrap() = headers;
    }

    /// kubepass's own check again.
    pub(super) fn end(self, world: &World) {
        self.check.end(world);
    }
}

fn allow(target: &str, headers: &Headers) -> CheckResponse {
    let grant = ("grant".to_owned(), Value { kind: Some(Kind::StringValue(target.to_owned())) });
    let headers = headers.iter().map(|(name, value)| overwrite(name, value)).collect();
    CheckResponse {
        status: Some(envoy_types::pb::google::rpc::Status::default()),
        dynamic_metadata: Some(Struct { fields: [grant].into() }),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse { headers, ..OkHttpResponse::default() })),
    }
}

#[allow(deprecated, reason = "Envoy 1.40 reads `append`")]
fn overwrite(name: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() };
    HeaderValueOption { header: Some(header), append: Some(BoolValue { value: false }), ..HeaderValueOption::default() }
}
