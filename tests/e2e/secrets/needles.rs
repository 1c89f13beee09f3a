//! Secrets, and every form in which one may be met: as it is, as Base64 (of both alphabets, wherever it stands in what was encoded), as
//! hexadecimal digits, percent-encoded, as a list of bytes.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use regex::bytes::{Regex, RegexBuilder};

use super::places::Place;

/// What stands before the private number of an elliptic key (RFC 5915): version 1, and an octet string of 32 bytes.
const BEFORE_PRIVATE: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];

#[derive(Default)]
pub(super) struct Needles(Vec<Needle>);

struct Needle {
    name: String,
    regex: Regex,
}

impl Needles {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn text(&mut self, name: &str, secret: &str) {
        assert!(secret.len() >= 16, "{name} is too short to be known again: {secret}");
        self.bytes(name, secret.as_bytes());
    }

    /// By its signature: the rest is no secret, and may be shown.
    pub(super) fn jwt(&mut self, name: &str, token: &str) {
        let signature = token.trim().rsplit('.').next().expect("a part");
        assert!(signature.len() >= 40, "{name} is no token: {token}");
        self.text(name, &signature[..40]);
    }

    /// By its private number, as far as that stands in the second line of its PEM form (a line has 48 bytes).
    pub(super) fn private_key(&mut self, name: &str, pem: &str) {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(body).expect("PEM");
        let before = der.windows(BEFORE_PRIVATE.len()).position(|part| part == BEFORE_PRIVATE).expect("a key of P-256");
        let private = before + BEFORE_PRIVATE.len()..before + BEFORE_PRIVATE.len() + 32;
        assert!((30..48).contains(&private.start), "{private:?}");
        self.bytes(name, &der[48..private.end]);
    }

    fn bytes(&mut self, name: &str, secret: &[u8]) {
        let alternatives: Vec<String> = forms(secret).iter().map(|form| escaped(form)).collect();
        let regex = RegexBuilder::new(&format!("(?s-u)(?:{})", alternatives.join("|"))).size_limit(1 << 26).build().expect("a pattern");
        self.0.push(Needle { name: name.to_owned(), regex });
    }

    /// Each secret that stands in a place, with what stands around it.
    pub(super) fn find(&self, place: &Place) -> Vec<String> {
        let of_needle = |needle: &Needle| {
            let found = needle.regex.find(&place.bytes)?;
            (!place.may_hold.contains(&needle.name.as_str())).then(|| {
                let around = found.start().saturating_sub(200)..(found.end() + 80).min(place.bytes.len());
                format!("{} in {}: ...{}...", needle.name, place.name, String::from_utf8_lossy(&place.bytes[around]))
            })
        };
        let mut found: Vec<String> = self.0.iter().filter_map(of_needle).collect();
        found.extend(whole_jwt(place));
        found
    }
}

/// A token with its signature, whoever made it: kubepass makes some that the harness never sees.
fn whole_jwt(place: &Place) -> Option<String> {
    let regex = Regex::new(r"(?-u)eyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{40,}").expect("a pattern");
    let found = regex.find(&place.bytes)?;
    Some(format!("a token in {}: {}", place.name, String::from_utf8_lossy(found.as_bytes())))
}

fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec()];
    for before in 0..3 {
        // What stands before or behind it may change the first and the last digits.
        let mut padded = vec![0; before];
        padded.extend_from_slice(secret);
        let (from, to) = ((before * 4).div_ceil(3), padded.len() / 3 * 4);
        for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            forms.push(alphabet.encode(&padded).as_bytes()[from..to].to_vec());
        }
    }
    let hexadecimal: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    forms.push(hexadecimal.to_uppercase().into_bytes());
    forms.push(hexadecimal.into_bytes());
    let list: Vec<String> = secret.iter().map(u8::to_string).collect();
    forms.push(list.join(", ").into_bytes());
    forms.push(list.join(",").into_bytes());
    forms.push(percent_encoding::percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string().into_bytes());
    forms.push(secret.iter().flat_map(|byte| std::ascii::escape_default(*byte)).collect());
    forms.sort();
    forms.dedup();
    forms
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

#[test]
fn every_form_of_a_secret_is_found() {
    let secret = "PLANTED a=b&c/d+e secret";
    let mut needles = Needles::default();
    needles.text("it", secret);
    let check = |text: &str, want: bool| {
        let place = Place::new("there", text);
        assert_eq!(!needles.find(&place).is_empty(), want, "{text}");
    };
    check("nothing", false);
    check(&format!("x{secret}y"), true);
    for before in ["", "a", "ab", "abc"] {
        check(&STANDARD.encode(format!("{before}{secret}")), true);
        check(&URL_SAFE_NO_PAD.encode(format!("{before}{secret}zz")), true);
    }
    check(&format!("{:?}", secret.as_bytes()), true);
    check(&secret.bytes().map(|byte| format!("{byte:02X}")).collect::<String>(), true);
    check("PLANTED%20a%3Db%26c%2Fd%2Be%20secret", true);
    check(&secret[..20], false);
    let token = format!("eyJ{}.eyJ{}.{}", "a".repeat(20), "b".repeat(20), "c".repeat(43));
    check(&format!("authorization: {token}"), true);
}
