//! What a policy decides on, borrowed from the session, the request and the route.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::kubernetes::RequestInfo;

/// Everything that a rule can read.
#[derive(Debug, Clone, Copy)]
pub struct PolicyInput<'a> {
    pub user: UserView<'a>,
    pub request: RequestView<'a>,
    pub route: RouteView<'a>,
}

/// Who asks, as the mapping gave it: before the route's prefix and allow-list.
#[derive(Debug, Clone, Copy)]
pub struct UserView<'a> {
    pub name: &'a str,
    /// Empty when the identity provider gave none.
    pub email: &'a str,
    pub groups: &'a [String],
    pub claims: &'a Map<String, Value>,
    pub idp: &'a str,
    /// Seconds since login.
    pub session_age: u64,
}

/// The request. Its path and Kubernetes words come from `info` alone: as the API server reads them, so that no other spelling of a path
/// (`/%61pi`) passes a rule.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    pub info: &'a RequestInfo<'a>,
    pub method: &'a str,
    /// Lower case, without port.
    pub host: &'a str,
    pub source_ip: &'a str,
    pub user_agent: &'a str,
    /// Unix seconds.
    pub time: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct RouteView<'a> {
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
}
