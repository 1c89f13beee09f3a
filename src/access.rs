//! The decision: `decide(&Snapshot, &AccessRequest, session, now) -> Decision`, pure, synchronous and total.
//!
//! A `Grant` can be made only inside `decide`; upstream identity can be made only from a `Grant`. A malformed request is a value that denies.

pub mod answer;
pub mod authenticate;
pub mod cookies;
pub mod decide;
pub mod decision;
pub mod provenance;
pub mod request;
pub mod return_path;
pub mod upstream;

pub use answer::{Answer, Form};
pub use authenticate::{AtRest, SessionState, authenticate};
pub use decide::{decide, policy_input, user_view};
pub use decision::{Challenge, Decision, DenyReason, Evidence, Grant, Outcome, Reader};
pub use request::{AccessRequest, Credential, Malformed, RequestTarget};
