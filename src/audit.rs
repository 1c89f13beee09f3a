//! The audit event: versioned, typed, complete. Built from values; written by `server::trail`. Never holds a token, a cookie or a secret.

pub mod decision;
pub mod event;

pub use decision::decision_event;
pub use event::*;
