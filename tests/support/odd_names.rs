//! Names that an identity provider may say of someone: odd but harmless ones, names of Kubernetes itself, and what is no name at all.

/// Groups that have broken a header somewhere.
pub const ODD: [&str; 14] = [
    "a,b",
    "a, system:masters",
    "two words",
    "stra\u{df}e",
    "\u{65e5}\u{672c}",
    "\"quoted\"",
    "back\\slash",
    "semi;colon: x",
    "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:user)%",
    "%REQ(authorization)%",
    "{\"a\":[1]}",
    "a%2fb%0d%0a",
    "impersonate-user: system:admin",
    "~!@#$^&*()_+`=|'<>?/.",
];

/// The username of whoever has them.
pub const ODD_NAME: &str = "\u{fc}ber, \"x\" y@example.com";

/// Login, username, groups of people who must not get through.
pub const REFUSED: &[(&str, &str, &[&str])] = &[
    ("masters", "m@example.com", &["dev", "system:masters"]),
    ("masters-in-capitals", "m@example.com", &["System:Masters"]),
    ("authenticated", "m@example.com", &["system:authenticated"]),
    ("node", "system:node:node-1", &[]),
    ("controller", "system:kube-controller-manager", &[]),
    ("service-account", "system:serviceaccount:kube-system:default", &[]),
    ("anonymous", "system:anonymous", &[]),
    ("own-name", "kubepass:admin", &[]),
    ("own-group", "m@example.com", &["kubepass:admins"]),
    ("no-name", "", &[]),
    ("blank-name", " ", &[]),
    ("wide-blank-name", "\u{3000}", &[]),
    ("blank-at-end", "foo@example.com ", &[]),
    ("line-in-name", "foo@example.com\r\nimpersonate-group: system:masters", &[]),
    ("nul-in-name", "foo@example.com\0", &[]),
    ("no-group-name", "m@example.com", &[""]),
    ("blank-group", "m@example.com", &[" "]),
    ("tab-group", "m@example.com", &["\t"]),
    ("blank-before-group", "m@example.com", &[" system:masters"]),
    ("line-in-group", "m@example.com", &["a\nimpersonate-group: system:masters"]),
    ("invisible-group", "m@example.com", &["\u{200b}"]),
];
