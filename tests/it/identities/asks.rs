//! People who log in, what they ask and with what in hand, and by what of it they may be let through.

use std::sync::Arc;

use kubepass::access::request::RequestHeaders;
use kubepass::access::{AccessRequest, Outcome, RequestTarget, authenticate, decide};
use kubepass::server::clock;
use kubepass::session::Session;
use kubepass::snapshot::NodeView;
use kubepass::token::SessionId;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::Claims;
use super::configurations::{Installation, PROVIDERS, REQUEST_ID, ROUTES, SRE, STAFF, Shape};
use super::envoy::{Headers, Request, SOURCE};
use super::judge::Arrivals;
use super::words::{claims, forged_headers};

/// Someone at a provider.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) provider: usize,
    pub(super) claims: Claims,
    /// The session was made by the provider that had this name before.
    old_issuer: bool,
    ended: bool,
}

/// What stands where the credential does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    SessionToken,
    Nothing,
    OfOtherRoute,
    LoginToken,
    Tampered,
    Twice,
    PomeriumForm,
    Basic,
    OwnClaims,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    OfRoute,
    OfOtherRoute,
    Public,
    Unknown,
    None,
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) person: usize,
    route: usize,
    credential: Credential,
    sni: Host,
    host: Host,
    method: &'static str,
    path: &'static str,
    forged: Headers,
}

pub(super) fn person() -> BoxedStrategy<Person> {
    (0..2usize, claims(), prop::bool::weighted(0.05), prop::bool::weighted(0.05))
        .prop_map(|(provider, claims, old_issuer, ended)| Person { provider, claims, old_issuer, ended })
        .boxed()
}

pub(super) fn ask() -> BoxedStrategy<Ask> {
    use Credential::*;
    let others = select(vec![Nothing, OfOtherRoute, LoginToken, Tampered, Twice, PomeriumForm, Basic, OwnClaims]);
    let credential = prop_oneof![3 => Just(SessionToken), 1 => others];
    let host = || prop_oneof![12 => Just(Host::OfRoute), 1 => select(vec![Host::OfOtherRoute, Host::Public, Host::Unknown, Host::None])];
    let forged = prop_oneof![1 => Just(Vec::new()), 1 => forged_headers()];
    let line = (
        select(vec!["GET", "POST", "DELETE"]),
        select(vec!["/version", "/api/v1/pods?watch=1", "/api/v1/namespaces/a/pods/b/exec?command=sh", "/.kubepass/config", "/healthz"]),
    );
    (0..4usize, 0..2usize, credential, (host(), host()), line, forged)
        .prop_map(|(person, route, credential, (sni, host), (method, path), forged)| Ask {
            person,
            route,
            credential,
            sni,
            host,
            method,
            path,
            forged,
        })
        .boxed()
}

impl Person {
    pub(super) fn plain(provider: usize, claims: Claims) -> Self {
        Self { provider, claims, old_issuer: false, ended: false }
    }

    /// The name that the provider gave.
    pub(super) fn said(&self) -> &str {
        self.claims["email"].as_str().unwrap()
    }
}

/// A session for everyone whom the mapping takes.
pub(super) fn log_in(installation: &Installation, people: &[Person]) -> Vec<Option<Arc<Session>>> {
    let now = clock::unix_now();
    let session = |(index, person): (usize, &Person)| {
        let (name, issuer, _) = PROVIDERS[person.provider];
        let mut claims = person.claims.clone();
        let issuer = if person.old_issuer { "https://old.example.com" } else { issuer };
        claims.insert("iss".to_owned(), json!(issuer));
        let identity = installation.snapshot.identity_provider(name).unwrap().mapping.map(name, &claims).ok()?;
        let session = Arc::new(Session {
            id: SessionId::from_random([u8::try_from(index).unwrap() + 1; 16]),
            identity,
            created_at: now,
            expires_at: now + 3_600,
            client: "kubepass".into(),
            source_ip: String::new(),
        });
        installation.sessions.insert(Arc::clone(&session)).unwrap();
        if person.ended {
            installation.sessions.end(&session.id);
        }
        Some(session)
    };
    people.iter().enumerate().map(session).collect()
}

impl Ask {
    pub(super) fn plain(person: usize, route: usize) -> Self {
        let (credential, here) = (Credential::SessionToken, Host::OfRoute);
        Self { person, route, credential, sni: here, host: here, method: "GET", path: "/version", forged: Vec::new() }
    }

    /// As it arrives at Envoy.
    pub(super) fn request(&self, installation: &Installation, session: Option<&Arc<Session>>) -> Request {
        let mut headers = vec![("user-agent".to_owned(), b"kubectl".to_vec()), ("x-own".to_owned(), b"1".to_vec())];
        let authorization = self.credentials(installation, session).into_iter();
        headers.extend(authorization.map(|value| ("authorization".to_owned(), value.into_bytes())));
        headers.extend(self.forged.iter().cloned());
        Request { sni: self.name(self.sni), host: self.name(self.host), path: self.path.to_owned(), headers }
    }

    fn name(&self, host: Host) -> String {
        match host {
            Host::OfRoute => ROUTES[self.route].1,
            Host::OfOtherRoute => ROUTES[1 - self.route].1,
            Host::Public => "pass.example.com",
            Host::Unknown => "evil.example",
            Host::None => "",
        }
        .to_owned()
    }

    /// The values of `authorization`.
    fn credentials(&self, installation: &Installation, session: Option<&Arc<Session>>) -> Vec<String> {
        let Some(session) = session else { return vec!["Bearer eyJhbGciOiJub25lIn0.e30.".to_owned()] };
        let (now, keys) = (clock::unix_now(), installation.snapshot.token_keys());
        let token = |host: &str| keys.sign_session_token(&session.session_token_claims(host, "jti".into(), now)).unwrap();
        let own = token(ROUTES[self.route].1);
        match self.credential {
            Credential::Nothing => Vec::new(),
            Credential::SessionToken => vec![format!("Bearer {own}")],
            Credential::OfOtherRoute => vec![format!("Bearer {}", token(ROUTES[1 - self.route].1))],
            Credential::LoginToken => {
                let claims = session.login_token_claims("https://pass.example.com", "jti".into(), now);
                vec![format!("Bearer {}", keys.sign_login_token(&claims).unwrap())]
            }
            Credential::Tampered => vec![format!("Bearer {}", tampered(&own))],
            Credential::Twice => vec![format!("Bearer {own}"), format!("Bearer {own}")],
            Credential::PomeriumForm => vec![format!("Bearer Pomerium-{own}")],
            Credential::Basic => vec![format!("Basic {own}")],
            Credential::OwnClaims => {
                let payload = own.split('.').nth(1).unwrap();
                vec![format!("Bearer eyJhbGciOiJub25lIn0.{payload}.")]
            }
        }
    }

    /// Whether there is anything by which this could be let through, told without a look at how it is decided.
    fn may_pass(&self, shape: &Shape, person: &Person, session: Option<&Arc<Session>>) -> Result<(), &'static str> {
        let authorizations = self.forged.iter().filter(|(name, _)| name == "authorization").count();
        let rule = shape.routes[self.route].rule;
        let groups = || groups_said(&person.claims).unwrap_or_default();
        match session {
            None => Err("nobody"),
            Some(_) if person.ended => Err("an ended session"),
            Some(_) if person.old_issuer => Err("a session of another issuer"),
            Some(_) if self.credential != Credential::SessionToken || authorizations > 0 => Err("another credential"),
            Some(_) if self.sni != Host::OfRoute || self.host != Host::OfRoute => Err("another host"),
            Some(_) if !shape.takes(self.route, person.provider) => Err("a provider that the route does not list"),
            Some(_) if self.forged.iter().any(|(name, _)| name.starts_with("impersonate-")) => Err("an impersonation"),
            Some(_) if rule == STAFF && !person.said().ends_with("@example.com") => Err("no rule"),
            Some(_) if rule == SRE && !groups().iter().any(|group| group == "sre") => Err("no rule"),
            Some(_) => Ok(()),
        }
    }

    /// Sends it, and judges what arrives.
    pub(super) fn carry_out(
        &self,
        installation: &Installation,
        shape: &Shape,
        person: &Person,
        session: Option<&Arc<Session>>,
        arrivals: &mut Arrivals,
    ) {
        let request = self.request(installation, session);
        let Some(routed) = installation.envoy.route(&request) else { return };
        let answer = installation.check(&routed, &request.sni, &request.host, self.method, self.path);
        let upstream = installation.envoy.forward(&routed, &answer);
        let asked = AccessRequest {
            node: NodeView::UNNAMED,
            request_id: REQUEST_ID,
            target: RequestTarget::parse(&routed.target),
            method: self.method,
            path: self.path,
            host: &request.host,
            sni: &request.sni,
            source_ip: SOURCE,
            headers: RequestHeaders::read(routed.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))),
        };
        let (snapshot, now) = (&installation.snapshot, clock::unix_now());
        let decision = decide(snapshot, &asked, authenticate(snapshot, &asked, &installation.sessions, now), now);
        match (decision.outcome, upstream) {
            (Outcome::Allow(grant), Some(upstream)) => {
                assert_eq!(self.may_pass(shape, person, session), Ok(()));
                arrivals.judge(installation, shape, self.route, person, &request, &upstream, &grant);
            }
            (Outcome::Web, Some(upstream)) => {
                assert_eq!(upstream.cluster, "kubepass-web");
                assert!(upstream.headers.iter().all(|(name, _)| !name.starts_with("impersonate-")), "{upstream:?}");
            }
            // A token that would be too large.
            (Outcome::Allow(_), None) => assert!(shape.routes[self.route].by_token, "granted, and did not arrive: {answer:?}"),
            (Outcome::Challenge(_) | Outcome::Deny(_), None) => {}
            (outcome, upstream) => panic!("{outcome:?}, and there arrived {upstream:?}"),
        }
    }
}

/// The groups that these claims name; `None` when the claim is nothing that names any.
pub(super) fn groups_said(claims: &Claims) -> Option<Vec<String>> {
    let names = match claims.get("groups") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(names)) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()?,
        Some(_) => return None,
    };
    let mut once = Vec::new();
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    Some(once)
}

/// The same token with another character in the middle of its signature.
fn tampered(token: &str) -> String {
    let at = token.len() - 20;
    let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &token[..at], &token[at + 1..])
}
