//! What `decide` answers, and why. A reason to refuse is a variant here; the compiler then leads to `answer`.

use std::sync::Arc;

use crate::access::cookies::UpstreamCookies;
use crate::access::request::Malformed;
use crate::access::upstream::{NameRefusal, UpstreamIdentity};
use crate::config::Route;
use crate::kubernetes::request_info::{Ambiguous, RequestInfo};
use crate::policy::RuleFault;
use crate::session::Session;
use crate::token::TokenRejection;

/// The answer to one request.
#[derive(Debug)]
pub struct Decision<'a> {
    pub outcome: Outcome,
    pub evidence: Evidence<'a>,
}

/// Exactly one of these reaches Envoy.
#[derive(Debug)]
pub enum Outcome {
    /// Goes to kubepass's own web part, without any identity.
    Web,
    Allow(Box<Grant>),
    /// Log in (again): 401.
    Challenge(Challenge),
    Deny(DenyReason),
}

/// Leave to reach one upstream under one identity. Only `decide` makes one.
#[derive(Debug)]
pub struct Grant {
    route: Arc<Route>,
    session: Arc<Session>,
    identity: UpstreamIdentity,
    cookies: Option<UpstreamCookies>,
    stream_limit_ms: u64,
}

impl Grant {
    /// `stream_limit_ms` is at least 1,000: 0 would mean "no limit" to Envoy.
    pub(super) fn new(route: Arc<Route>, session: Arc<Session>, identity: UpstreamIdentity, stream_limit_ms: u64) -> Self {
        debug_assert!(stream_limit_ms >= 1_000);
        Self { route, session, identity, cookies: None, stream_limit_ms }
    }

    pub(super) fn with_cookies(self, cookies: Option<UpstreamCookies>) -> Self {
        Self { cookies, ..self }
    }

    /// The upstream's own cookies; none on a Kubernetes route.
    pub fn cookies(&self) -> Option<&UpstreamCookies> {
        self.cookies.as_ref()
    }

    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Whose request it is.
    pub fn session(&self) -> &Session {
        &self.session
    }

    pub fn identity(&self) -> &UpstreamIdentity {
        &self.identity
    }

    /// Milliseconds after which Envoy ends the stream.
    pub fn stream_limit_ms(&self) -> u64 {
        self.stream_limit_ms
    }
}

/// Why the client must log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    NoCredential {
        /// Somebody opened an API server's address in a browser.
        browser: bool,
    },
    Token(TokenRejection),
    /// Less than a second of the session is left.
    SessionAboutToEnd,
}

/// Why a request is refused although it may be known who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DenyReason {
    /// Envoy speaks of a route that this configuration does not have (yet, or any more).
    UnknownRoute,
    /// An Envoy asks for a route that it may not have (yet, or any more).
    RouteNotServed,
    Malformed(Malformed),
    /// The connection was opened for another host than the request names.
    Misdirected,
    Ambiguous(Ambiguous),
    /// `kubectl --as` and the like.
    ImpersonationRequested,
    /// A person's cookie came with a request that a page of another origin made, or may have made.
    CrossSite,
    /// A change of protocol that the route does not allow.
    UpgradeNotAllowed,
    /// The route lists other identity providers.
    IdentityProviderNotAccepted {
        idp: String,
    },
    Name(NameRefusal),
    TooManyGroups {
        have: usize,
        max: usize,
    },
    /// A deny rule matched, or could not be evaluated.
    Rule {
        rule: Arc<str>,
        message: Option<Arc<str>>,
    },
    NoRuleMatched,
    /// The token that would tell the API server who it is would be larger than an API server takes.
    TokenTooLarge {
        groups: usize,
    },
    /// No token could be signed.
    TokenUnavailable,
    /// The audit line could not be written.
    AuditUnavailable,
    /// As many requests of this person, or address, are being decided as may be.
    TooManyChecks,
    /// The person has as many streams open as one may have.
    TooManyStreams {
        max: usize,
    },
    /// With what is added the headers would be more than Envoy lets through.
    NoRoomForHeaders,
    /// The session lives, and what it says could not be read.
    SessionUnavailable,
}

/// Who reads a refusal, and so in which form it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reader {
    /// A client of an API server.
    #[default]
    Kubernetes,
    /// A person whose browser opens a page: can be led to a login and back.
    Visitor,
    /// A person whose browser shows what it gets.
    Browser,
    /// Anything else that speaks HTTP.
    Program,
}

/// What the decision rests on; becomes the audit line.
#[derive(Debug, Default)]
pub struct Evidence<'a> {
    pub reader: Reader,
    pub route: Option<Arc<Route>>,
    pub session: Option<Arc<Session>>,
    pub request_info: Option<RequestInfo<'a>>,
    /// The rule that allowed or refused.
    pub rule: Option<Arc<str>>,
    pub rule_faults: Vec<RuleFault>,
    /// Groups that the route's allow-list kept back.
    pub dropped_groups: Vec<String>,
}
