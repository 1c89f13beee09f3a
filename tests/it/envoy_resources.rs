//! What kubepass tells Envoy, tried on the pinned Envoy.

use std::path::Path;

use kubepass::server::managed_envoy::{SelfTestFailure, self_test};

use crate::support::tools::Tools;

#[tokio::test]
async fn the_pinned_envoy_treats_headers_as_we_rely_on() {
    self_test(&Tools::ensure().envoy()).await.unwrap_or_else(|failure| panic!("{failure}"));
}

#[tokio::test]
async fn what_is_no_envoy_is_refused_with_its_words() {
    let failure = self_test(Path::new("/bin/false")).await.unwrap_err();
    assert!(matches!(failure, SelfTestFailure::Start { .. }), "{failure}");
    let failure = self_test(Path::new("/nonexistent/envoy")).await.unwrap_err();
    assert!(failure.to_string().contains("/nonexistent/envoy"), "{failure}");
}
