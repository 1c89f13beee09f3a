//! The operator verbs of `kubepass-server`.
