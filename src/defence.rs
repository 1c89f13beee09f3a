//! The defences that the security suite turns off, one by one, to see that an attack gets through without them: so none stands there for show, and
//! each has the second layer that `SECURITY.md` says. A defence is asked for at the one place that decides it.
//!
//! For tests alone: in a release build `off` is a constant, the questions vanish, and nothing reads a switch.

use std::fmt;

/// Makes the enumeration, the list of all and the names from one list.
macro_rules! defences {
    ($($(#[$doc:meta])* $variant:ident $name:literal,)*) => {
        /// What stands between an attacker and a cluster.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Defence {
            $($(#[$doc])* $variant,)*
        }

        impl Defence {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As switches and `SECURITY.md` name it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

defences! {
    // What Envoy makes of a request before it asks.
    /// Headers that no client may send go before anything reads them.
    EarlyStrip "early-strip",
    /// No underscores in the names of headers.
    UnderscoreRefusal "underscore-refusal",
    /// Envoy normalises the path, and refuses encoded slashes.
    PathNormalisation "path-normalisation",
    /// Nothing but WebSocket and SPDY is switched to.
    UpgradeList "upgrade-list",
    /// Routes are chosen by the server name of the connection, not by the request's host.
    HostScope "host-scope",
    /// Only the balancers that a listener names may say by the PROXY protocol who connected.
    ProxyProtocolSource "proxy-protocol-source",

    // What ext_authz refuses.
    /// The request's host is that of its connection.
    HostCheck "host-check",
    /// A path that can be read in two ways is refused.
    PathRefusal "path-refusal",
    /// One credential, not several.
    SingleAuthorization "single-authorization",
    /// No bearer token in `sec-websocket-protocol`.
    WebSocketBearer "websocket-bearer",
    /// `connection` names no header.
    ConnectionRefusal "connection-refusal",
    /// Clients do not impersonate.
    ImpersonationRefusal "impersonation-refusal",
    /// A cookie does not stand for a person in what pages of other origins ask.
    CrossSite "cross-site",
    /// No cookie counts on a Kubernetes route.
    CookieKind "cookie-kind",
    /// Nothing goes on without its audit line.
    AuditFirst "audit-first",
    /// A token that stands in a path or query is none in the audit trail.
    TrailRedaction "trail-redaction",
    /// One person has so many streams open and no more.
    StreamsOfOne "streams-of-one",

    // Names.
    /// What is no name makes no identity at a login.
    LoginNames "login-names",
    /// Nothing becomes a header upstream that would not arrive as it is.
    HeaderValue "header-value",
    /// No identity provider gives names of Kubernetes itself.
    SystemNames "system-names",

    // Between the check and the upstream.
    /// Envoy stops requests whose check failed.
    FailClosed "fail-closed",
    /// An answer of ext_authz sets the few headers that it needs.
    MutationRules "mutation-rules",
    /// Every `impersonate-*` line of the client goes before ours are written.
    LatePrefixStrip "late-prefix-strip",
    /// No trailer of the client goes upstream.
    TrailerStrip "trailer-strip",
    /// `x-forwarded-for` is the one address that is believed.
    SourceOverwrite "source-overwrite",
    /// The client's `authorization` does not go upstream.
    CredentialOverwrite "credential-overwrite",
    /// Nor do its cookies that are ours, nor other credentials.
    CookieStrip "cookie-strip",
    /// Nothing passes without this route's grant and a user.
    Guard "guard",
    /// `connection` is rewritten on upgrades.
    ConnectionRewrite "connection-rewrite",
    /// The upstream's certificate carries its name.
    UpstreamName "upstream-name",

    // Tokens and cookies.
    /// Each kind of token has its `typ` and its claim `token_use`.
    TokenType "token-type",
    /// A token is for one host.
    TokenAudience "token-audience",
    /// Each kind of token has keys of its own.
    TokenKeys "token-keys",
    /// A session that was ended is gone for every token of it, at once.
    SessionEnd "session-end",
    /// A signed token is used again only for what it says.
    TokenCacheClaims "token-cache-claims",
    /// A signed token is looked for by session and route.
    TokenCacheKey "token-cache-key",
    /// The cookie of a host of web pages is sealed for that host.
    CookieHost "cookie-host",

    // Logins.
    /// An identity provider's answer is for the login that its `state` names, in the browser that began it.
    LoginState "login-state",
    /// A `state` counts once.
    LoginStateOnce "login-state-once",
    /// The ID token carries this login's `nonce`.
    LoginNonce "login-nonce",
    /// A code of an identity provider is worth something with this login's PKCE verifier only.
    LoginPkce "login-pkce",
    /// An answer that names another issuer is none.
    LoginIssuer "login-issuer",
    /// A one-time code of ours is worth something with its verifier only.
    CodeVerifier "code-verifier",
    /// And for the destination only that it was made for.
    CodeDestination "code-destination",
    /// A form comes back from the session that it was shown to.
    FormSession "form-session",
    /// A form comes back from a page of ours.
    FormOrigin "form-origin",
    /// Browsers are led to pages of ours, or to programs on the person's own machine.
    RedirectCheck "redirect-check",

    // The control plane.
    /// A node gets its own routes, and nothing of others.
    NodeScope "node-scope",
    /// An Envoy that no node is configured for gets nothing.
    NodeIdentity "node-identity",
    /// What an Envoy calls itself is the node that it is.
    NodeClaim "node-claim",
    /// The admin address is asked by address, not by a name that was rebound to it.
    AdminHost "admin-host",
}

/// Whether a test has turned the defence off.
#[cfg(not(debug_assertions))]
pub const fn off(_: Defence) -> bool {
    false
}

/// Whether a test has turned any of them off.
#[cfg(not(debug_assertions))]
pub const fn any_off() -> bool {
    false
}

#[cfg(debug_assertions)]
pub use switches::{UnknownDefence, any_off, off, turn_off};

impl fmt::Display for Defence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(debug_assertions)]
mod switches {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Defence;

    /// Set once, before anything is served.
    static OFF: AtomicU64 = AtomicU64::new(0);

    const _: () = assert!(Defence::ALL.len() <= u64::BITS as usize);

    /// A name that is none.
    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    #[error("there is no defence {name:?}; there are {known}", known = known())]
    pub struct UnknownDefence {
        name: String,
    }

    /// Whether a test has turned the defence off.
    pub fn off(defence: Defence) -> bool {
        OFF.load(Ordering::Relaxed) & 1 << defence as u64 != 0
    }

    /// Whether a test has turned any of them off.
    pub fn any_off() -> bool {
        OFF.load(Ordering::Relaxed) != 0
    }

    /// Turns the defences of a list off, for the rest of the process. `names` has commas between them; an empty list turns nothing off.
    ///
    /// # Errors
    /// A name that is none; nothing is turned off then.
    pub fn turn_off(names: &str) -> Result<Vec<Defence>, UnknownDefence> {
        let defences = parse(names)?;
        let bits = defences.iter().fold(0, |bits, defence| bits | 1 << *defence as u64);
        OFF.fetch_or(bits, Ordering::Relaxed);
        Ok(defences)
    }

    fn parse(names: &str) -> Result<Vec<Defence>, UnknownDefence> {
        let find = |name: &str| Defence::ALL.iter().copied().find(|defence| defence.name() == name);
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| find(name).ok_or_else(|| UnknownDefence { name: name.to_owned() })).collect()
    }

    fn known() -> String {
        Defence::ALL.iter().map(|defence| defence.name()).collect::<Vec<_>>().join(", ")
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        // None is turned off here: the tests of one process share the switches.
        #[test]
        fn lists_name_defences_and_nothing_else() {
            assert_eq!(parse(""), Ok(vec![]));
            assert_eq!(parse("guard"), Ok(vec![Defence::Guard]));
            assert_eq!(parse("guard, early-strip,"), Ok(vec![Defence::Guard, Defence::EarlyStrip]));
            for unknown in ["Guard", "guards", "guard early-strip", "guard;early-strip", "all", "*"] {
                let error = parse(&format!("early-strip,{unknown}")).map_err(|error| error.to_string());
                assert!(error.is_err_and(|text| text.contains(unknown) && text.contains("late-prefix-strip")), "{unknown}");
            }
        }

        #[test]
        fn each_has_a_name_of_its_own_and_is_on_in_the_beginning() {
            for (index, defence) in Defence::ALL.iter().enumerate() {
                assert_eq!(parse(defence.name()), Ok(vec![*defence]));
                assert_eq!(*defence as usize, index);
                assert!(!off(*defence), "{defence}");
            }
            assert!(!any_off());
        }
    }
}
