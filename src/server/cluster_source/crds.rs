//! The custom resource definitions of kubepass's kinds, as YAML for `kubectl apply`. Made from `kinds` alone.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use super::kinds::{Gateway, Grant, Policy, Route};

/// All of them, one YAML document each.
///
/// # Errors
/// When they cannot be written as YAML, which does not depend on any input.
pub fn yaml() -> Result<String, String> {
    let mut text = String::new();
    for definition in definitions()? {
        text.push_str("---\n");
        text.push_str(&serde_yaml::to_string(&definition).map_err(|error| error.to_string())?);
    }
    Ok(text)
}

/// As JSON, in an order that does not change.
///
/// # Errors
/// As [`yaml`].
pub fn definitions() -> Result<Vec<Value>, String> {
    [Route::crd(), Policy::crd(), Gateway::crd(), Grant::crd()].iter().map(finished).collect()
}

/// `null` is no value: a key is left out instead.
fn finished(definition: &CustomResourceDefinition) -> Result<Value, String> {
    let mut definition = serde_json::to_value(definition).map_err(|error| error.to_string())?;
    without_null(&mut definition);
    Ok(definition)
}

fn without_null(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.remove("nullable");
            entries.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}
