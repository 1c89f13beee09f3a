//! The user commands of `kubepass`.
