//! Public keys as JSON (RFC 7517): what those who verify our signed tokens read. Nothing private can stand in these types.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::{Deserialize, Serialize};

use super::signing_key::SigningAlgorithm;

/// One public key, named by its thumbprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicJwk {
    kid: String,
    #[serde(rename = "use")]
    usage: KeyUse,
    alg: SigningAlgorithm,
    #[serde(flatten)]
    key: PublicKey,
}

/// All keys with which tokens of one kind are verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwkSet {
    pub keys: Vec<PublicJwk>,
}

/// What the key is: numbers in Base64 (URL and file name safe, without padding), as RFC 7518, 6 wants them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty")]
pub(super) enum PublicKey {
    #[serde(rename = "EC")]
    Elliptic { crv: Curve, x: String, y: String },
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Curve {
    #[serde(rename = "P-256")]
    P256,
    #[serde(rename = "P-384")]
    P384,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum KeyUse {
    #[serde(rename = "sig")]
    Signature,
}

impl PublicJwk {
    pub(super) fn new(key: PublicKey, alg: SigningAlgorithm) -> Self {
        Self { kid: key.thumbprint(), usage: KeyUse::Signature, alg, key }
    }

    /// The key's thumbprint (RFC 7638, SHA-256): equal keys have equal names, whoever computes them.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub fn algorithm(&self) -> SigningAlgorithm {
        self.alg
    }

    /// `None` when the numbers are no numbers, which only a text from elsewhere can bring about.
    pub(super) fn decoding_key(&self) -> Option<DecodingKey> {
        match &self.key {
            PublicKey::Elliptic { x, y, .. } => DecodingKey::from_ec_components(x, y).ok(),
            PublicKey::Rsa { n, e } => DecodingKey::from_rsa_components(n, e).ok(),
        }
    }
}

impl JwkSet {
    pub fn find(&self, kid: &str) -> Option<&PublicJwk> {
        self.keys.iter().find(|key| key.kid == kid)
    }
}

impl PublicKey {
    /// An uncompressed point (SEC 1, 2.3.3).
    pub(super) fn elliptic(crv: Curve, point: &[u8]) -> Option<Self> {
        let bytes = match crv {
            Curve::P256 => 32,
            Curve::P384 => 48,
        };
        let (&[0x04], coordinates) = point.split_first_chunk()? else { return None };
        let (x, y) = coordinates.split_at_checked(bytes)?;
        (y.len() == bytes).then(|| Self::Elliptic { crv, x: encode(x), y: encode(y) })
    }

    /// Big-endian numbers without leading zeros.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Self {
        Self::Rsa { n: encode(modulus), e: encode(exponent) }
    }

    fn thumbprint(&self) -> String {
        // Members in the order of their names, without blanks (RFC 7638, 3). No character of Base64 or of a curve's name needs an escape.
        let members = match self {
            Self::Elliptic { crv, x, y } => format!(r#"{{"crv":"{}","kty":"EC","x":"{x}","y":"{y}"}}"#, crv.name()),
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
        };
        encode(digest(&SHA256, members.as_bytes()).as_ref())
    }
}

impl Curve {
    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
        }
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn thumbprints_are_those_of_the_rfc() {
        // RFC 7638, 3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W\
                 -5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNL\
                 yrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let key = PublicKey::Rsa { n: n.to_owned(), e: "AQAB".to_owned() };
        assert_eq!(PublicJwk::new(key, SigningAlgorithm::Rs256).kid(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        // The key of RFC 7517, A.1, hashed by `openssl dgst -sha256 -binary | basenc --base64url` as RFC 7638, 3 says.
        let key = PublicKey::Elliptic {
            crv: Curve::P256,
            x: "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4".to_owned(),
            y: "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM".to_owned(),
        };
        assert_eq!(PublicJwk::new(key, SigningAlgorithm::Es256).kid(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
    }

    #[test]
    fn the_json_is_held() {
        let key = PublicKey::Elliptic { crv: Curve::P384, x: "eA".to_owned(), y: "eQ".to_owned() };
        let jwk = PublicJwk::new(key, SigningAlgorithm::Es384);
        let expected = json!({"kid": jwk.kid(), "use": "sig", "alg": "ES384", "kty": "EC", "crv": "P-384", "x": "eA", "y": "eQ"});
        assert_eq!(serde_json::to_value(&jwk).unwrap(), expected);
        assert_eq!(serde_json::from_value::<PublicJwk>(expected).unwrap(), jwk);
        let jwk = PublicJwk::new(PublicKey::rsa(&[0xff], &[1, 0, 1]), SigningAlgorithm::Ps256);
        let expected = json!({"kid": jwk.kid(), "use": "sig", "alg": "PS256", "kty": "RSA", "n": "_w", "e": "AQAB"});
        assert_eq!(serde_json::to_value(&jwk).unwrap(), expected);
        assert_eq!(serde_json::from_value::<PublicJwk>(expected).unwrap(), jwk);
    }

    #[test]
    fn only_an_uncompressed_point_of_the_curve_is_a_point() {
        let check = |crv: Curve, point: &[u8], good: bool| assert_eq!(PublicKey::elliptic(crv, point).is_some(), good, "{point:?}");
        check(Curve::P256, &[&[4][..], &[1; 64]].concat(), true);
        check(Curve::P384, &[&[4][..], &[1; 96]].concat(), true);
        check(Curve::P256, &[&[4][..], &[1; 96]].concat(), false);
        check(Curve::P384, &[&[4][..], &[1; 64]].concat(), false);
        check(Curve::P256, &[&[2][..], &[1; 64]].concat(), false);
        check(Curve::P256, &[4], false);
        check(Curve::P256, &[], false);
    }
}
