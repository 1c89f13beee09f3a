//! The decision: `decide(&Snapshot, &AccessRequest, session, now) -> Decision`, pure, synchronous and total.
//!
//! A `Grant` can be made only inside `decide`; upstream identity can be made only from a `Grant`. A malformed request is a value that denies.

pub mod answer;
pub mod authenticate;
pub mod decide;
pub mod decision;
pub mod request;
pub mod upstream;

pub use answer::Answer;
pub use authenticate::{SessionState, authenticate};
pub use decide::{decide, policy_input, user_view};
pub use decision::{Challenge, Decision, DenyReason, Evidence, Grant, Outcome};
pub use request::{AccessRequest, Credential, Malformed, RequestTarget};
