//! The audit event: versioned, typed, complete. Built from values; written by `server::trail`. Never holds a token, a cookie or a secret.

pub mod event;

pub use event::*;
