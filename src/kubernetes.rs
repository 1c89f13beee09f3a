//! Kubernetes words as types: what an API server understands by a request, a user, a refusal, a credential. Knows nothing of kubepass.

pub mod request_info;
