//! What a client, a load balancer and a proxy may say about where a request came from, and what is believed of it.

use std::net::{IpAddr, Ipv4Addr};

use super::{BALANCER, CLIENT, OTHER_PROXY, PROXY};

#[derive(Clone, Copy, Debug)]
pub(super) enum Listener {
    /// Believes nobody.
    Plain,
    /// `proxy_protocol` from the load balancer.
    Balanced,
    /// `trusted_proxies`.
    Proxied,
    /// Both, on `[::]`.
    Both,
}

pub(super) struct Forgery {
    pub(super) name: &'static str,
    pub(super) listener: Listener,
    /// Who connects.
    pub(super) from: Ipv4Addr,
    pub(super) before_tls: Before,
    /// Header lines.
    pub(super) lines: &'static [&'static str],
    /// What stands in the trails; none when the request is refused.
    pub(super) source: Option<&'static str>,
}

/// What comes before TLS.
pub(super) enum Before {
    Nothing,
    Text(&'static str),
    /// PROXY protocol version 2: version and command, family, the two addresses, further fields.
    V2(u8, u8, &'static str, &'static [u8]),
    Bytes(&'static [u8]),
}

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version and command.
const PROXIED: u8 = 0x21;
const LOCAL: u8 = 0x20;
/// Address families, with TCP.
const INET: u8 = 0x11;
const INET6: u8 = 0x21;

impl Before {
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Text(text) => text.as_bytes().to_vec(),
            Self::Bytes(bytes) => bytes.to_vec(),
            Self::V2(command, family, address, fields) => {
                let addresses: Vec<u8> = match address.parse() {
                    Ok(IpAddr::V4(address)) => [address.octets(), [203, 0, 113, 1]].concat(),
                    Ok(IpAddr::V6(address)) => [address.octets(), address.octets()].concat(),
                    Err(_) => Vec::new(),
                };
                let ports: &[u8] = if addresses.is_empty() { &[] } else { &[0x12, 0x67, 0x01, 0xbb] };
                let rest = [addresses.as_slice(), ports, fields].concat();
                let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
                [V2_SIGNATURE, &[*command, *family], &length, &rest].concat()
            }
        }
    }
}

const fn forgery(
    name: &'static str,
    listener: Listener,
    from: Ipv4Addr,
    before_tls: Before,
    lines: &'static [&'static str],
    source: Option<&'static str>,
) -> Forgery {
    Forgery { name, listener, from, before_tls, lines, source }
}

const V1: Before = Before::Text("PROXY TCP4 198.51.100.7 203.0.113.1 4711 443\r\n");
const V2: Before = Before::V2(PROXIED, INET, "198.51.100.7", &[]);
/// What is said by whoever should not be believed.
const LIES: &[&str] = &[
    "x-forwarded-for: 203.0.113.66",
    "X-Forwarded-For: 203.0.113.67, 203.0.113.68",
    "x-real-ip: 203.0.113.66",
    "forwarded: for=203.0.113.66",
    "x-envoy-external-address: 203.0.113.66",
    "x-original-forwarded-for: 203.0.113.66",
    "x-forwarded-host: evil.example",
    "true-client-ip: 203.0.113.66",
    "x-kubepass-source: 203.0.113.66",
];

use Before::{Bytes, Nothing, Text};
use Listener::{Balanced, Both, Plain, Proxied};

const CLIENT_TEXT: Option<&str> = Some("127.0.0.9");
const TOLD: Option<&str> = Some("198.51.100.7");

pub(super) const FORGERIES: &[Forgery] = &[
    // A listener that believes nobody.
    forgery("plain", Plain, CLIENT, Nothing, &[], CLIENT_TEXT),
    forgery("plain-lies", Plain, CLIENT, Nothing, LIES, CLIENT_TEXT),
    forgery("plain-lies-of-a-proxy", Plain, PROXY, Nothing, LIES, Some("127.0.0.2")),
    forgery("plain-v1", Plain, CLIENT, V1, &[], None),
    forgery("plain-v2", Plain, CLIENT, V2, &[], None),
    forgery("plain-v1-of-a-balancer", Plain, BALANCER, V1, &[], None),
    // Behind a load balancer.
    forgery("balanced-v1", Balanced, BALANCER, V1, &[], TOLD),
    forgery("balanced-v2", Balanced, BALANCER, V2, &[], TOLD),
    forgery("balanced-v1-ipv6", Balanced, BALANCER, Text("PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n"), &[], Some("2001:db8::7")),
    forgery("balanced-v2-ipv6", Balanced, BALANCER, Before::V2(PROXIED, INET6, "2001:db8::7", &[]), &[], Some("2001:db8::7")),
    // The balancer speaks for itself, as in its health checks.
    forgery("balanced-v1-unknown", Balanced, BALANCER, Text("PROXY UNKNOWN\r\n"), &[], Some("127.0.0.3")),
    forgery("balanced-v2-local", Balanced, BALANCER, Before::V2(LOCAL, 0, "", &[]), &[], Some("127.0.0.3")),
    forgery("balanced-v2-local-lies", Balanced, BALANCER, Before::V2(LOCAL, INET, "203.0.113.66", &[]), &[], Some("127.0.0.3")),
    forgery("balanced-lies", Balanced, BALANCER, V1, LIES, TOLD),
    // Further fields: an authority, and what a TLS client said.
    forgery(
        "balanced-v2-fields",
        Balanced,
        BALANCER,
        Before::V2(PROXIED, INET, "198.51.100.7", b"\x02\x00\x04evil\x20\x00\x05\x01\0\0\0\0"),
        &[],
        TOLD,
    ),
    forgery("balanced-v2-bad-fields", Balanced, BALANCER, Before::V2(PROXIED, INET, "198.51.100.7", b"\x02\xff\xffevil"), &[], None),
    forgery("balanced-nothing", Balanced, BALANCER, Nothing, &[], None),
    forgery("balanced-direct", Balanced, CLIENT, Nothing, &[], None),
    forgery("balanced-direct-v1", Balanced, CLIENT, V1, &[], None),
    forgery("balanced-direct-v2", Balanced, CLIENT, V2, &[], None),
    forgery("balanced-direct-names-the-balancer", Balanced, CLIENT, Text("PROXY TCP4 127.0.0.3 127.0.0.1 4711 443\r\n"), &[], None),
    forgery("balanced-direct-v2-local", Balanced, CLIENT, Before::V2(LOCAL, 0, "", &[]), &[], None),
    forgery(
        "balanced-twice",
        Balanced,
        BALANCER,
        Text("PROXY TCP4 198.51.100.7 203.0.113.1 1 2\r\nPROXY TCP4 203.0.113.66 203.0.113.1 1 2\r\n"),
        &[],
        None,
    ),
    forgery("balanced-v1-names-a-proxy", Balanced, BALANCER, Text("PROXY TCP4 127.0.0.2 127.0.0.1 1 2\r\n"), LIES, Some("127.0.0.2")),
    forgery("balanced-v1-short", Balanced, BALANCER, Text("PROXY TCP4 198.51.100.7\r\n"), &[], None),
    forgery("balanced-v1-no-address", Balanced, BALANCER, Text("PROXY TCP4 evil evil 1 2\r\n"), &[], None),
    forgery("balanced-v1-out-of-range", Balanced, BALANCER, Text("PROXY TCP4 198.51.100.777 203.0.113.1 1 2\r\n"), &[], None),
    forgery("balanced-v1-bare-newline", Balanced, BALANCER, Text("PROXY TCP4 198.51.100.7 203.0.113.1 1 2\n"), &[], None),
    forgery("balanced-v1-lower-case", Balanced, BALANCER, Text("proxy TCP4 198.51.100.7 203.0.113.1 1 2\r\n"), &[], None),
    forgery("balanced-v2-version-3", Balanced, BALANCER, Before::V2(0x31, INET, "198.51.100.7", &[]), &[], None),
    forgery("balanced-v2-no-address", Balanced, BALANCER, Before::V2(PROXIED, INET, "", &[]), &[], None),
    // Envoy does not look at the transport.
    forgery("balanced-v2-datagram", Balanced, BALANCER, Before::V2(PROXIED, 0x12, "198.51.100.7", &[]), &[], TOLD),
    forgery("balanced-v2-cut", Balanced, BALANCER, Bytes(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff\x01"), &[], None),
    // Behind proxies.
    forgery("proxied-direct", Proxied, CLIENT, Nothing, &[], CLIENT_TEXT),
    forgery("proxied-direct-lies", Proxied, CLIENT, Nothing, LIES, CLIENT_TEXT),
    forgery("proxied-direct-v1", Proxied, CLIENT, V1, &[], None),
    forgery("proxied", Proxied, PROXY, Nothing, &["x-forwarded-for: 198.51.100.7"], TOLD),
    forgery("proxied-upper-case", Proxied, PROXY, Nothing, &["X-FORWARDED-FOR: 198.51.100.7"], TOLD),
    forgery("proxied-clients-own", Proxied, PROXY, Nothing, &["x-forwarded-for: 203.0.113.66, 198.51.100.7"], TOLD),
    forgery("proxied-clients-own-proxy", Proxied, PROXY, Nothing, &["x-forwarded-for: 127.0.0.4, 198.51.100.7"], TOLD),
    forgery("proxied-two-lines", Proxied, PROXY, Nothing, &["x-forwarded-for: 203.0.113.66", "x-forwarded-for: 198.51.100.7"], TOLD),
    forgery("proxied-two-proxies", Proxied, PROXY, Nothing, &["x-forwarded-for: 203.0.113.66, 198.51.100.7, 127.0.0.4"], TOLD),
    forgery(
        "proxied-two-proxies-two-lines",
        Proxied,
        OTHER_PROXY,
        Nothing,
        &["x-forwarded-for: 198.51.100.7", "x-forwarded-for: 127.0.0.2"],
        TOLD,
    ),
    forgery(
        "proxied-lies-beside",
        Proxied,
        PROXY,
        Nothing,
        &[
            "x-forwarded-for: 198.51.100.7",
            "x-real-ip: 203.0.113.66",
            "forwarded: for=203.0.113.66",
            "x-forwarded-host: evil",
            "x-envoy-external-address: 203.0.113.66",
            "x-kubepass-source: 203.0.113.66",
        ],
        TOLD,
    ),
    forgery("proxied-ipv6", Proxied, PROXY, Nothing, &["x-forwarded-for: 203.0.113.66, 2001:db8::7"], Some("2001:db8::7")),
    // A proxy's own request, and those of which it does not say who made them.
    forgery("proxied-itself", Proxied, PROXY, Nothing, &[], Some("127.0.0.2")),
    forgery("proxied-other-itself", Proxied, PROXY, Nothing, &["x-forwarded-for: 127.0.0.4"], Some("127.0.0.4")),
    forgery(
        "proxied-other-headers-only",
        Proxied,
        PROXY,
        Nothing,
        &["x-real-ip: 203.0.113.66", "forwarded: for=203.0.113.66"],
        Some("127.0.0.2"),
    ),
    forgery("proxied-no-address", Proxied, PROXY, Nothing, &["x-forwarded-for: evil"], Some("127.0.0.2")),
    forgery("proxied-no-address-last", Proxied, PROXY, Nothing, &["x-forwarded-for: 203.0.113.66, evil"], Some("127.0.0.2")),
    forgery(
        "proxied-no-address-between",
        Proxied,
        PROXY,
        Nothing,
        &["x-forwarded-for: 203.0.113.66, unknown, 127.0.0.4"],
        Some("127.0.0.2"),
    ),
    forgery("proxied-empty", Proxied, PROXY, Nothing, &["x-forwarded-for:"], Some("127.0.0.2")),
    forgery("proxied-nominated", Proxied, PROXY, Nothing, &["x-forwarded-for: 198.51.100.7", "connection: x-forwarded-for"], None),
    forgery("proxied-underscores", Proxied, PROXY, Nothing, &["x_forwarded_for: 203.0.113.66"], None),
    // Proxies behind a load balancer.
    forgery("both", Both, BALANCER, Text("PROXY TCP4 127.0.0.2 127.0.0.1 1 2\r\n"), &["x-forwarded-for: 203.0.113.66, 198.51.100.7"], TOLD),
    forgery("both-client", Both, BALANCER, Text("PROXY TCP4 198.51.100.7 127.0.0.1 1 2\r\n"), LIES, TOLD),
    forgery("both-proxy-alone", Both, PROXY, Nothing, &["x-forwarded-for: 198.51.100.7"], None),
    forgery("both-proxy-v1", Both, PROXY, V1, &[], None),
    forgery("both-client-v1-names-a-proxy", Both, CLIENT, Text("PROXY TCP4 127.0.0.2 127.0.0.1 1 2\r\n"), LIES, None),
];
