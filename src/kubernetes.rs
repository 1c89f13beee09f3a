//! Kubernetes words as types: what an API server understands by a request, a user, a refusal, a credential. Knows nothing of kubepass.
//!
//! Pure: values in, values out. The user's CLI uses it too, so nothing here may need a dependency that only the service has.

pub mod authentication_configuration;
pub mod claim_extra;
pub mod exec_credential;
pub mod impersonation;
pub mod manifests;
pub mod request_info;
pub mod status;
pub mod user_info;

pub use request_info::{Ambiguous, RequestInfo};
pub use status::{Reason, Status};
pub use user_info::UserInfo;
