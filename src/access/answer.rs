//! What a refused person reads: the one `match` from reasons to status, message and the stable word of metrics and audit.

use crate::access::decision::{Challenge, Decision, DenyReason, Evidence, Outcome, Reader};
use crate::kubernetes::status::{Reason, Status};
use crate::token::TokenRejection;

/// A refusal, ready to be rendered as a Kubernetes `Status` or a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Stable word, for audit and metrics.
    pub word: &'static str,
    /// Holds a sentence for the person, without secrets and without the names of rules that did not decide.
    pub status: Status,
    pub form: Form,
}

/// In which form a refusal is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A Kubernetes `Status`.
    Status,
    /// For a browser that opened an API server's address: what this is, and how it is used.
    ApiServerPage,
    /// To the login, and then back to where the person wanted to go.
    LogIn,
    /// A page with the sentence.
    Page,
    /// JSON with the sentence.
    Json,
}

impl Answer {
    /// `None` for what goes on.
    pub fn to(decision: &Decision<'_>) -> Option<Self> {
        match &decision.outcome {
            Outcome::Web | Outcome::Allow(_) => None,
            Outcome::Challenge(challenge) => Some(Self::challenge(challenge, decision.evidence.reader)),
            Outcome::Deny(reason) => Some(Self::deny(reason, &decision.evidence)),
        }
    }

    /// For what cannot happen: refuse all the same.
    pub fn internal() -> Self {
        Self { word: "internal", status: Status::new(Reason::InternalError, "kubepass could not answer"), form: Form::Status }
    }

    fn challenge(challenge: &Challenge, reader: Reader) -> Self {
        let (word, message) = match challenge {
            Challenge::NoCredential { .. } if reader != Reader::Kubernetes => {
                ("no_credential", "log in first: open this address in a browser, or send a session token as `Authorization: Bearer`")
            }
            Challenge::NoCredential { .. } => {
                ("no_credential", "log in first: `kubepass kubeconfig https://HOST` sets kubectl up for this cluster")
            }
            Challenge::SessionAboutToEnd | Challenge::Token(TokenRejection::SessionEnded) => {
                ("session_ended", "your session has ended; log in again")
            }
            Challenge::Token(TokenRejection::Expired) => ("token_expired", "your token has expired; log in again"),
            Challenge::Token(TokenRejection::WrongAudience) => {
                ("token_of_other_route", "this token was issued for another route; log in to this one")
            }
            Challenge::Token(TokenRejection::WrongType) => ("token_of_other_kind", "this kind of token is not accepted here; log in again"),
            Challenge::Token(TokenRejection::NotYetValid) => {
                ("token_not_yet_valid", "this token is not valid yet; check the clocks, then log in again")
            }
            Challenge::Token(TokenRejection::Malformed | TokenRejection::BadSignature) => {
                ("token_invalid", "this token was not issued by this kubepass; log in again")
            }
        };
        let form = match (reader, challenge) {
            (Reader::Kubernetes, Challenge::NoCredential { browser: true }) => Form::ApiServerPage,
            (Reader::Visitor, _) => Form::LogIn,
            (reader, _) => Form::of(reader),
        };
        Self { word, status: Status::unauthorized(message), form }
    }

    fn deny(deny: &DenyReason, evidence: &Evidence<'_>) -> Self {
        let (word, reason, message) = sentence(deny);
        let status = match (reason, &evidence.session, &evidence.request_info) {
            (Reason::Forbidden, Some(session), Some(info)) => Status::forbidden(&session.identity.username, info, &message),
            _ => Status::new(reason, message),
        };
        Self { word, status, form: Form::of(evidence.reader) }
    }
}

impl Form {
    fn of(reader: Reader) -> Self {
        match reader {
            Reader::Kubernetes => Self::Status,
            Reader::Visitor | Reader::Browser => Self::Page,
            Reader::Program => Self::Json,
        }
    }
}

fn sentence(deny: &DenyReason) -> (&'static str, Reason, String) {
    use Reason::{BadRequest, Forbidden, MisdirectedRequest, RequestHeaderFieldsTooLarge, ServiceUnavailable, TooManyRequests};
    match deny {
        DenyReason::UnknownRoute => {
            ("route_unknown", ServiceUnavailable, "kubepass does not know this route at the moment; try again".to_owned())
        }
        DenyReason::RouteNotServed => {
            ("route_not_served", ServiceUnavailable, "this gateway does not serve this route at the moment; try again".to_owned())
        }
        DenyReason::Malformed(malformed) => ("malformed", BadRequest, format!("the request was refused: {malformed}")),
        DenyReason::Misdirected => (
            "misdirected",
            MisdirectedRequest,
            "the connection was opened for another host name (SNI) than the request's; open one for this host".to_owned(),
        ),
        DenyReason::Ambiguous(ambiguous) => ("ambiguous_path", BadRequest, format!("the request was refused: {ambiguous}")),
        DenyReason::ImpersonationRequested => (
            "impersonation",
            Forbidden,
            "kubepass does not let clients impersonate; leave out `--as`, `--as-group` and `--as-uid`".to_owned(),
        ),
        DenyReason::CrossSite => {
            ("cross_site", Forbidden, "the request came from a page of another origin, for which your login here does not count".to_owned())
        }
        DenyReason::UpgradeNotAllowed => ("upgrade_not_allowed", Forbidden, "this route has no WebSockets".to_owned()),
        DenyReason::IdentityProviderNotAccepted { idp } => (
            "identity_provider",
            Forbidden,
            format!("you logged in at {idp:?}, which this route does not accept; log in at another identity provider"),
        ),
        DenyReason::Name(refusal) => ("name_refused", Forbidden, refusal.to_string()),
        DenyReason::TooManyGroups { have, max } => (
            "too_many_groups",
            Forbidden,
            format!(
                "you are in {have} groups that this cluster takes, and it takes {max} at most; ask your administrator to narrow the route's group allow-list"
            ),
        ),
        DenyReason::Rule { message: Some(message), .. } => ("policy_denied", Forbidden, format!("denied by policy: {message}")),
        DenyReason::Rule { rule, message: None } => ("policy_denied", Forbidden, format!("denied by policy rule {rule:?}")),
        DenyReason::NoRuleMatched => ("policy_no_match", Forbidden, "no policy rule of this route allows it".to_owned()),
        DenyReason::TokenTooLarge { groups } => (
            "token_too_large",
            Forbidden,
            format!(
                "with your {groups} groups the token that this route needs would be too large; ask your administrator to narrow the groups that it takes"
            ),
        ),
        DenyReason::TokenUnavailable => {
            ("token_unavailable", ServiceUnavailable, "kubepass cannot sign a token for this route at the moment; try again".to_owned())
        }
        DenyReason::AuditUnavailable => (
            "audit_unavailable",
            ServiceUnavailable,
            "kubepass cannot write its audit trail, so it lets nothing through; try again".to_owned(),
        ),
        DenyReason::TooManyChecks => {
            ("too_many_checks", TooManyRequests, "you send more requests at once than one person may; try again in a moment".to_owned())
        }
        DenyReason::TooManyStreams { max } => (
            "too_many_streams",
            TooManyRequests,
            format!(
                "you have {max} streams open (watches, followed logs, exec, port-forward and the like), and may have no more; end some, and try again"
            ),
        ),
        DenyReason::NoRoomForHeaders => (
            "headers_too_large",
            RequestHeaderFieldsTooLarge,
            "the headers of the request leave no room for those that say who you are; send fewer, or shorter ones".to_owned(),
        ),
        DenyReason::SessionUnavailable => {
            ("session_unavailable", ServiceUnavailable, "kubepass cannot read your session at the moment; try again".to_owned())
        }
    }
}
