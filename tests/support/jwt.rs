//! JSON Web Tokens made by hand, so that the tests can say what no honest issuer would. Knows RFC 7515 and nothing of kubepass's code.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

/// A private P-256 key.
#[derive(Debug)]
pub struct Signer {
    key: EcdsaKeyPair,
}

impl Signer {
    /// From PKCS #8 in PEM.
    pub fn from_pem(pem: &str) -> Self {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a private key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der()).expect("a P-256 key");
        Self { key }
    }

    /// The public key's thumbprint (RFC 7638).
    pub fn kid(&self) -> String {
        let (x, y) = self.point();
        let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
    }

    /// ES256, whatever the header says.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The point, uncompressed.
    pub fn public_key(&self) -> &[u8] {
        self.key.public_key().as_ref()
    }

    /// As a server would have it in a file.
    pub fn public_key_pem(&self) -> String {
        // SubjectPublicKeyInfo of a P-256 key, up to the point.
        let head = hex("3059301306072a8648ce3d020106082a8648ce3d030107034200");
        let text = STANDARD.encode([head.as_slice(), self.public_key()].concat());
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    fn point(&self) -> (String, String) {
        let point = self.public_key();
        (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]))
    }
}

/// The two parts that a signature is over.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", part(header), part(claims))
}

/// HS256 with any bytes as the secret.
pub fn with_hmac(secret: &[u8], header: &Value, claims: &Value) -> String {
    let signed = unsigned(header, claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// Other claims under the signature that a token has.
pub fn with_claims(token: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims(token);
    change(&mut claims);
    let (header, signature) = (token.split('.').next().unwrap_or_default(), token.rsplit('.').next().unwrap_or_default());
    format!("{header}.{}.{signature}", part(&claims))
}

pub fn header(token: &str) -> Value {
    decoded(token, 0)
}

pub fn claims(token: &str) -> Value {
    decoded(token, 1)
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex")).collect()
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn decoded(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| json!({}))
}
