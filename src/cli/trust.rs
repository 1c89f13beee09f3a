//! Whom to trust for an address and by which way to reach it: what this run was told, else what an earlier run was told and found to work.
//!
//! kubectl tells its plugin the cluster's CA and proxy; `logout` and `routes` are run by the user, who has no reason to know them. What is
//! remembered counts for that one address only, and what a run is told replaces it. It is no login: logging out leaves it.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::installation::Transport;
use super::token_cache::{CacheError, TokenCache};
use crate::kubernetes::exec_credential::ExecInfo;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error("cannot read the CA file {path}: {source}", path = path.display())]
    CaFile { path: PathBuf, source: io::Error },
    #[error("the cluster's certificate-authority-data is not base64")]
    CaData,
}

/// What the user's options and kubectl say in this run.
pub(crate) struct Told {
    ca_bundles: Vec<Vec<u8>>,
    proxy: Option<String>,
    /// Whether kubectl described the cluster: then no proxy means none.
    by_kubectl: bool,
}

/// What is kept for one address. Not shown: a proxy's URL may hold a password.
#[allow(missing_debug_implementations, reason = "a proxy's URL may hold a password")]
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RememberedTrust {
    pub(crate) address: String,
    /// PEM.
    certificate_authorities: Vec<String>,
    proxy: Option<String>,
}

impl Told {
    /// The cluster's own CA and proxy count for the login pages too: route and login pages are one installation.
    ///
    /// # Errors
    /// A CA file or CA data that cannot be read.
    pub(crate) fn new(ca_file: Option<&Path>, info: &ExecInfo) -> Result<Self, TrustError> {
        let mut ca_bundles: Vec<Vec<u8>> = ca_file.map(read_ca_file).transpose()?.into_iter().collect();
        let cluster = info.cluster.as_ref();
        if let Some(data) = cluster.and_then(|cluster| cluster.certificate_authority_data.as_deref()).filter(|data| !data.is_empty()) {
            ca_bundles.push(STANDARD.decode(data).map_err(|_| TrustError::CaData)?);
        }
        let proxy = cluster.and_then(|cluster| cluster.proxy_url.clone()).filter(|proxy| !proxy.is_empty());
        Ok(Self { ca_bundles, proxy, by_kubectl: cluster.is_some() })
    }

    /// How to speak to `address`.
    pub(crate) fn transport(&self, cache: &TokenCache, address: &str) -> Transport {
        let remembered = self.over(cache.trust(address).unwrap_or_default());
        let ca_bundles = remembered.certificate_authorities.into_iter().map(String::into_bytes).collect();
        Transport { ca_bundles, proxy: remembered.proxy }
    }

    /// The same without memory.
    pub(crate) fn transport_as_told(&self) -> Transport {
        Transport { ca_bundles: self.ca_bundles.clone(), proxy: self.proxy.clone() }
    }

    /// Keeps what was told for later runs; to be called when it has proved right. What was not told stays as it was.
    ///
    /// # Errors
    /// A cache that cannot be written.
    pub(crate) fn remember(&self, cache: &TokenCache, address: &str) -> Result<(), CacheError> {
        let before = cache.trust(address).unwrap_or_default();
        let after = RememberedTrust { address: address.to_owned(), ..self.over(before.clone()) };
        let nothing = after.certificate_authorities.is_empty() && after.proxy.is_none();
        if after == before || (nothing && before.address.is_empty()) { Ok(()) } else { cache.put_trust(&after) }
    }

    fn over(&self, mut remembered: RememberedTrust) -> RememberedTrust {
        if !self.ca_bundles.is_empty() {
            // PEM is ASCII; what stands around it does not matter.
            let text = |bundle: &Vec<u8>| String::from_utf8_lossy(bundle).into_owned();
            remembered.certificate_authorities = self.ca_bundles.iter().map(text).collect();
        }
        if self.by_kubectl {
            remembered.proxy.clone_from(&self.proxy);
        }
        remembered
    }
}

fn read_ca_file(path: &Path) -> Result<Vec<u8>, TrustError> {
    std::fs::read(path).map_err(|source| TrustError::CaFile { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::kubernetes::exec_credential::ExecCluster;

    const ROUTE: &str = "https://prod.example.com";

    fn told(ca: Option<&str>, cluster: Option<(&str, &str)>) -> Told {
        let folder = tempfile::tempdir().unwrap();
        let file = ca.map(|text| {
            let path = folder.path().join("ca.pem");
            std::fs::write(&path, text).unwrap();
            path
        });
        let cluster = cluster.map(|(ca, proxy)| ExecCluster {
            certificate_authority_data: (!ca.is_empty()).then(|| STANDARD.encode(ca)),
            proxy_url: (!proxy.is_empty()).then(|| proxy.to_owned()),
            ..ExecCluster::default()
        });
        Told::new(file.as_deref(), &ExecInfo { cluster, ..ExecInfo::default() }).unwrap()
    }

    #[track_caller]
    fn check(cache: &TokenCache, told: &Told, address: &str, cas: &[&str], proxy: Option<&str>) {
        let transport = told.transport(cache, address);
        let found: Vec<_> = transport.ca_bundles.iter().map(|bundle| String::from_utf8_lossy(bundle).into_owned()).collect();
        assert_eq!((found.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), transport.proxy.as_deref()), (cas, proxy));
    }

    #[test]
    fn what_was_told_counts_later_for_that_address_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = TokenCache::open(folder.path().join("kubepass")).unwrap();
        let nothing = told(None, None);
        check(&cache, &nothing, ROUTE, &[], None);
        nothing.remember(&cache, ROUTE).unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("kubepass")).unwrap().count(), 0, "nothing to remember");
        told(None, Some(("one", "http://proxy"))).remember(&cache, ROUTE).unwrap();
        check(&cache, &nothing, ROUTE, &["one"], Some("http://proxy"));
        check(&cache, &nothing, "https://other.example.com", &[], None);
        // Told anew: replaced, not added to.
        check(&cache, &told(Some("two"), None), ROUTE, &["two"], Some("http://proxy"));
        check(&cache, &told(Some("two"), Some(("three", ""))), ROUTE, &["two", "three"], None);
        // kubectl names no CA: the one of before helps; no proxy means none.
        check(&cache, &told(None, Some(("", ""))), ROUTE, &["one"], None);
        told(Some("two"), None).remember(&cache, ROUTE).unwrap();
        nothing.remember(&cache, ROUTE).unwrap();
        cache.forget_all().unwrap();
        check(&cache, &nothing, ROUTE, &["two"], Some("http://proxy"));
        told(None, Some(("", ""))).remember(&cache, ROUTE).unwrap();
        check(&cache, &nothing, ROUTE, &["two"], None);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert!(matches!(Told::new(Some(Path::new("/nowhere")), &ExecInfo::default()), Err(TrustError::CaFile { .. })));
        let cluster = ExecCluster { certificate_authority_data: Some("%".to_owned()), ..ExecCluster::default() };
        let info = ExecInfo { cluster: Some(cluster), ..ExecInfo::default() };
        assert!(matches!(Told::new(None, &info), Err(TrustError::CaData)));
    }
}
