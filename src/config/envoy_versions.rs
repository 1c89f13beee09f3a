//! `control_plane.allow_envoy_versions`: versions of Envoy that are served although no test has shown how they treat headers.

use super::names::quote;
use super::reader::{Item, Reading};

/// Versions by name; none unless the operator says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvoyVersions(Vec<EnvoyVersion>);

/// `1.41.2`, or `1.41.x` for every release of `1.41`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EnvoyVersion {
    minor: (u32, u32),
    patch: Option<u32>,
}

impl EnvoyVersions {
    pub fn allow(&self, (major, minor, patch): (u32, u32, u32)) -> bool {
        self.0.iter().any(|version| version.minor == (major, minor) && version.patch.is_none_or(|allowed| allowed == patch))
    }

    pub(super) fn read(item: &Item<'_>, reading: &mut Reading) -> Option<Self> {
        const HINT: &str = "write 1.41.2 for one release, 1.41.x for every release of 1.41";
        let versions = item.list(reading, |item, reading| {
            let text = item.text(reading)?;
            let version = EnvoyVersion::parse(&text.value);
            if version.is_none() {
                reading.faults.add_with_hint(&text.spot, format!("{} is no version of Envoy", quote(&text.value)), HINT);
            }
            version
        });
        versions.map(Self)
    }
}

impl EnvoyVersion {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (major, minor, patch) = (parts.next()?, parts.next()?, parts.next()?);
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let patch = if patch == "x" { None } else { Some(number(patch)?) };
        parts.next().is_none().then_some(Self { minor: (number(major)?, number(minor)?), patch })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_version_is_a_release_or_all_of_a_minor_one() {
        let check = |text: &str, version: (u32, u32, u32), allowed: bool| {
            let versions = EnvoyVersions(vec![EnvoyVersion::parse(text).unwrap()]);
            assert_eq!(versions.allow(version), allowed, "{text} {version:?}");
        };
        check("1.41.2", (1, 41, 2), true);
        check("1.41.2", (1, 41, 3), false);
        check("1.41.x", (1, 41, 0), true);
        check("1.41.x", (1, 41, 99), true);
        check("1.41.x", (1, 4, 1), false);
        check("1.41.x", (2, 41, 0), false);
        for wrong in
            ["", "1", "1.41", "1.x", "1.x.x", "x", "1.41.2.3", "v1.41.2", "1.41.*", "1.41.", ".41.2", "1.41.-1", "1.+41.2", "1.41.2-dev"]
        {
            assert_eq!(EnvoyVersion::parse(wrong), None, "{wrong:?}");
        }
        assert!(!EnvoyVersions::default().allow((1, 40, 0)));
    }
}
