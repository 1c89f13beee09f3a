//! The claims that a session keeps for policies: without tokens, and bounded.

use serde_json::{Map, Value};

use crate::identity::mapping::MappingRefusal;

/// Claims that are kept have at most this many bytes as JSON. More is a refusal and not a cut: a rule that denies by a claim which was cut
/// away would let its user in.
pub const MAX_CLAIMS_BYTES: usize = 16 * 1024;

/// Credentials, and what served the login alone (OpenID Connect Core 1.0, 3.1.3.6).
const NOT_KEPT: &[&str] = &[
    "access_token",
    "refresh_token",
    "id_token",
    "id_token_hint",
    "device_secret",
    "client_secret",
    "nonce",
    "at_hash",
    "c_hash",
    "s_hash",
];

/// The claims without tokens, at any depth.
pub(super) fn kept(claims: &Map<String, Value>) -> Result<Map<String, Value>, MappingRefusal> {
    let kept = without_tokens(claims);
    let bytes = size(&kept);
    if bytes <= MAX_CLAIMS_BYTES {
        return Ok(kept);
    }
    let largest = kept.iter().max_by_key(|(_, value)| size(value)).map(|(name, _)| name.chars().take(64).collect());
    Err(MappingRefusal::ClaimsTooLarge { bytes, largest: largest.unwrap_or_default() })
}

fn without_tokens(claims: &Map<String, Value>) -> Map<String, Value> {
    let kept = claims.iter().filter(|(name, value)| !NOT_KEPT.contains(&name.as_str()) && !is_jwt(value));
    kept.map(|(name, value)| (name.clone(), value_without_tokens(value))).collect()
}

fn value_without_tokens(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(without_tokens(fields)),
        Value::Array(items) => items.iter().filter(|item| !is_jwt(item)).map(value_without_tokens).collect(),
        other => other.clone(),
    }
}

/// Whether a value looks like a signed or encrypted JWT: `eyJ` is how `{"` begins in base64.
fn is_jwt(value: &Value) -> bool {
    let Value::String(text) = value else { return false };
    let of_a_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() >= 2 && text.bytes().all(of_a_token)
}

fn size(value: &impl serde::Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn tokens_are_not_kept_at_any_depth() {
        let jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln";
        let claims = json!({
            "sub": "1", "email": "eyJ@example.com", "version": "eyJ.1", "access_token": "opaque", "nonce": "n", "at_hash": "h",
            "hint": jwt, "encrypted": "eyJh.a.b.c.d", "list": ["a", jwt, {"id_token": 1, "x": [jwt, 2]}], "deep": {"refresh_token": "r", "y": 3},
        });
        let expected = json!({
            "sub": "1", "email": "eyJ@example.com", "version": "eyJ.1", "list": ["a", {"x": [2]}], "deep": {"y": 3},
        });
        assert_eq!(kept(&object(claims)).unwrap(), object(expected));
    }

    #[test]
    fn too_much_is_refused_with_the_name_of_the_largest() {
        let with = |length: usize| object(json!({"sub": "1", "photo": "x".repeat(length)}));
        let fixed = size(&with(0));
        assert!(kept(&with(MAX_CLAIMS_BYTES - fixed)).is_ok());
        let refusal = kept(&with(MAX_CLAIMS_BYTES - fixed + 1)).unwrap_err();
        assert_eq!(refusal, MappingRefusal::ClaimsTooLarge { bytes: MAX_CLAIMS_BYTES + 1, largest: "photo".into() });
    }
}
