//! What an Envoy sends of its access log: the messages of `opentelemetry.proto.collector.logs.v1`, as far as they are used, and how they are sent.

use envoy_types::pb::opentelemetry::proto::common::v1::{AnyValue, KeyValue, any_value};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};

pub const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

#[derive(Clone, PartialEq, prost::Message)]
pub struct Export {
    #[prost(message, repeated, tag = "1")]
    pub resource_logs: Vec<ResourceLogs>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceLogs {
    #[prost(message, repeated, tag = "2")]
    pub scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ScopeLogs {
    #[prost(message, repeated, tag = "2")]
    pub log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LogRecord {
    #[prost(fixed64, tag = "1")]
    pub time_unix_nano: u64,
    #[prost(message, repeated, tag = "6")]
    pub attributes: Vec<KeyValue>,
}

/// A word, and what it tells.
pub fn attribute((word, value): (&str, &str)) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: word.to_owned(), value, ..KeyValue::default() }
}

/// One message of entries, each as its words and what they tell.
pub fn export(entries: &[&[(&str, &str)]]) -> Export {
    let record = |entry: &&[(&str, &str)]| LogRecord {
        time_unix_nano: 1_767_225_600_000_000_000,
        attributes: entry.iter().copied().map(attribute).collect(),
    };
    let scope = ScopeLogs { log_records: entries.iter().map(record).collect() };
    Export { resource_logs: vec![ResourceLogs { scope_logs: vec![scope] }] }
}

pub async fn send(channel: Channel, message: Export) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<Export, ()>::default();
    client.unary(Request::new(message), PathAndQuery::from_static(EXPORT), codec).await.map(|_| ())
}
