//! `ExecCredential`: what kubectl asks of a credential plugin and what the plugin answers (`client.authentication.k8s.io/v1`, `v1beta1`).
//!
//! The request stands in the environment variable [`ENVIRONMENT_VARIABLE`]; the caller reads it.

use serde::{Deserialize, Serialize};

pub const ENVIRONMENT_VARIABLE: &str = "KUBERNETES_EXEC_INFO";

/// The API group and its versions: the answer must have the version of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ApiVersion {
    #[default]
    #[serde(rename = "client.authentication.k8s.io/v1")]
    V1,
    #[serde(rename = "client.authentication.k8s.io/v1beta1")]
    V1Beta1,
}

/// What kubectl tells the plugin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecInfo {
    pub api_version: ApiVersion,
    /// Whether standard input is the user's terminal.
    pub interactive: bool,
    /// The cluster's entry of the kubeconfig, when the user's entry says `provideClusterInfo: true`.
    pub cluster: Option<ExecCluster>,
}

/// The cluster's entry of the kubeconfig, as far as a plugin can follow it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ExecCluster {
    pub server: String,
    pub tls_server_name: Option<String>,
    pub insecure_skip_tls_verify: bool,
    /// PEM, base64-encoded once more.
    pub certificate_authority_data: Option<String>,
    pub proxy_url: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExecInfoError {
    #[error("KUBERNETES_EXEC_INFO is not the JSON of an ExecCredential: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error("KUBERNETES_EXEC_INFO holds a {0:?}, not an ExecCredential")]
    WrongKind(String),
    #[error(
        "kubectl asks for {0:?}, which this plugin does not speak; write \"apiVersion: client.authentication.k8s.io/v1\" \
         into the user's \"exec\" entry of the kubeconfig (or v1beta1)"
    )]
    UnknownVersion(String),
}

impl ExecInfo {
    /// Reads the variable's value; `None` when it is not set, as when a person runs the plugin by hand: then the answer is `v1`.
    ///
    /// # Errors
    /// [`ExecInfoError`]: not JSON, another kind, or a version that is neither `v1` nor `v1beta1`.
    pub fn parse(value: Option<&str>) -> Result<Self, ExecInfoError> {
        let Some(text) = value.filter(|text| !text.trim().is_empty()) else {
            return Ok(Self { interactive: true, ..Self::default() });
        };
        let request: Request = serde_json::from_str(text)?;
        if request.kind != "ExecCredential" {
            return Err(ExecInfoError::WrongKind(request.kind));
        }
        let api_version = match request.api_version.as_str() {
            "client.authentication.k8s.io/v1" => ApiVersion::V1,
            "client.authentication.k8s.io/v1beta1" => ApiVersion::V1Beta1,
            _ => return Err(ExecInfoError::UnknownVersion(request.api_version)),
        };
        Ok(Self { api_version, interactive: request.spec.interactive, cluster: request.spec.cluster })
    }
}

/// The plugin's answer: a bearer token and when kubectl must ask again. It prints a secret, so it has no `Debug`.
#[allow(missing_debug_implementations, reason = "holds a token")]
#[derive(Serialize)]
pub struct ExecCredential<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: ApiVersion,
    status: CredentialStatus<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CredentialStatus<'a> {
    expiration_timestamp: String,
    token: &'a str,
}

impl<'a> ExecCredential<'a> {
    /// `expires_at` in Unix seconds.
    pub fn new(api_version: ApiVersion, token: &'a str, expires_at: u64) -> Self {
        Self { kind: "ExecCredential", api_version, status: CredentialStatus { expiration_timestamp: rfc3339(expires_at), token } }
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        // Strings only: cannot fail. kubectl reads an empty answer as an error.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    kind: String,
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    interactive: bool,
    cluster: Option<ExecCluster>,
}

/// RFC 3339 in UTC with whole seconds; civil date from days after Howard Hinnant's `civil_from_days`.
fn rfc3339(unix_seconds: u64) -> String {
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let shifted = days.saturating_add(719_468);
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn reads_what_kubectl_sends() {
        let v1 = r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"cluster":{"server":"https://prod.example.com","certificate-authority-data":"QUJD","proxy-url":"http://proxy:3128","config":null},"interactive":true}}"#;
        let cluster = ExecCluster {
            server: "https://prod.example.com".to_owned(),
            certificate_authority_data: Some("QUJD".to_owned()),
            proxy_url: Some("http://proxy:3128".to_owned()),
            ..ExecCluster::default()
        };
        assert_eq!(ExecInfo::parse(Some(v1)).unwrap(), ExecInfo { api_version: ApiVersion::V1, interactive: true, cluster: Some(cluster) });
        let v1beta1 = r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","spec":{"interactive":false}}"#;
        assert_eq!(
            ExecInfo::parse(Some(v1beta1)).unwrap(),
            ExecInfo { api_version: ApiVersion::V1Beta1, interactive: false, cluster: None }
        );
        for by_hand in [None, Some(""), Some(" ")] {
            assert_eq!(ExecInfo::parse(by_hand).unwrap(), ExecInfo { interactive: true, ..ExecInfo::default() });
        }
    }

    #[test]
    fn refuses_what_it_does_not_speak() {
        let message = |text| ExecInfo::parse(Some(text)).unwrap_err().to_string();
        assert!(
            message(r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1alpha1","spec":{}}"#)
                .starts_with(r#"kubectl asks for "client.authentication.k8s.io/v1alpha1", which this plugin does not speak; write "#)
        );
        assert_eq!(message(r#"{"kind":"Pod"}"#), r#"KUBERNETES_EXEC_INFO holds a "Pod", not an ExecCredential"#);
        assert!(message("{").starts_with("KUBERNETES_EXEC_INFO is not the JSON of an ExecCredential: "));
    }

    #[test]
    fn answers_in_the_version_asked_for() {
        assert_eq!(
            ExecCredential::new(ApiVersion::V1, "t", 1_700_000_000).to_json(),
            r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"expirationTimestamp":"2023-11-14T22:13:20Z","token":"t"}}"#
        );
        assert_eq!(
            ExecCredential::new(ApiVersion::V1Beta1, "t", 0).to_json(),
            r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","status":{"expirationTimestamp":"1970-01-01T00:00:00Z","token":"t"}}"#
        );
    }

    #[test]
    fn dates() {
        for (seconds, text) in [
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (1_798_761_600, "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
