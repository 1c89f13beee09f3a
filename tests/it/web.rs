//! The login pages, the command line's protocol and pomerium-cli's contract in process: the real web part, store and trail, an identity provider that can
//! misbehave, and browsers that keep cookies.

mod bad_providers;
mod browser_login;
mod client_login;
mod discovery;
mod hostile_providers;
mod installation;
mod pomerium;
mod provider_tls;
mod redirects;
mod route_login;
mod socket;
