#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use envoy_types::pb::envoy::config::core::v3::address::Address as AnyAddress;
use envoy_types::pb::envoy::config::core::v3::{Address, HeaderMap, HeaderValue, Pipe, SocketAddress};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request, TlsSession};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use proptest::prelude::*;
use prost::Message as _;

use super::*;

/// The same from the message that `prost` makes: what `read` must come to.
fn by_prost(check: &CheckRequest) -> AccessRequest<'_> {
    let attributes = check.attributes.as_ref();
    let http = attributes.and_then(|attributes| attributes.request.as_ref()).and_then(|request| request.http.as_ref());
    let target = attributes.and_then(|attributes| attributes.context_extensions.get("target"));
    let address = attributes.and_then(|attributes| attributes.source.as_ref()).and_then(|peer| peer.address.as_ref());
    let connected = address.and_then(|address| address.address.as_ref());
    let map = http.and_then(|http| http.header_map.as_ref());
    let id = map.and_then(|map| map.headers.iter().find(|header| header.key == "x-request-id")).map(value);
    let request_id = request_id(id);
    let headers = map.map_or(&[][..], |map| &map.headers);
    let sent = headers.iter().find(|header| header.key == ":path").map(value);
    let is_altered = sent.is_some_and(|sent| Some(sent) != http.map(|http| http.path.as_bytes()));
    let ip = |header| from_utf8(value(header)).ok().filter(|text| text.parse::<IpAddr>().is_ok());
    let told: Vec<Option<&str>> = headers.iter().filter(|header| header.key == names::SOURCE).map(ip).collect();
    AccessRequest {
        node: NodeView::UNNAMED,
        request_id,
        target: target.map_or(RequestTarget::Unknown, |target| RequestTarget::parse(target)),
        method: http.map_or("", |http| &http.method),
        path: http.map_or("", |http| &http.path),
        host: http.map_or("", |http| &http.host),
        sni: attributes.and_then(|attributes| attributes.tls_session.as_ref()).map_or("", |session| &session.sni),
        source_ip: told.as_slice().first().filter(|_| told.len() == 1).copied().flatten().unwrap_or(match connected {
            Some(AnyAddress::SocketAddress(socket)) => &socket.address,
            _ => "",
        }),
        headers: match map {
            Some(_) if is_altered && http.is_some_and(|http| http.headers.is_empty()) && !request_id.is_empty() => {
                RequestHeaders::malformed(Malformed::NotText)
            }
            Some(map) if http.is_some_and(|http| http.headers.is_empty()) && !request_id.is_empty() => {
                RequestHeaders::read(map.headers.iter().map(|header| (header.key.as_str(), value(header))))
            }
            _ => RequestHeaders::malformed(Malformed::MissingAttributes),
        },
    }
}

fn value(header: &HeaderValue) -> &[u8] {
    if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value }
}

/// A message as its fields on the wire: number and content, so that fields can come twice, in parts and in any order.
#[derive(Debug, Clone)]
enum Part {
    Text(u32, Vec<u8>),
    Message(u32, Vec<Part>),
    Varint(u32, u64),
    Fixed(u32, bool),
    Group(u32, Vec<Part>),
    Raw(Vec<u8>),
}

fn put(parts: &[Part], out: &mut Vec<u8>) {
    let key = |out: &mut Vec<u8>, number: u32, kind: u32| prost::encoding::encode_varint(u64::from(number << 3 | kind), out);
    for part in parts {
        match part {
            Part::Text(number, bytes) => {
                key(out, *number, 2);
                prost::encoding::encode_varint(bytes.len() as u64, out);
                out.extend(bytes);
            }
            Part::Message(number, parts) => {
                let mut inner = Vec::new();
                put(parts, &mut inner);
                put(&[Part::Text(*number, inner)], out);
            }
            Part::Varint(number, value) => {
                key(out, *number, 0);
                prost::encoding::encode_varint(*value, out);
            }
            Part::Fixed(number, wide) => {
                key(out, *number, if *wide { 1 } else { 5 });
                out.extend(if *wide { &[0xff; 8][..] } else { &[0xff; 4][..] });
            }
            Part::Group(number, parts) => {
                key(out, *number, 3);
                put(parts, out);
                key(out, *number, 4);
            }
            Part::Raw(bytes) => out.extend(bytes),
        }
    }
}

fn encoded(parts: &[Part]) -> Vec<u8> {
    let mut out = Vec::new();
    put(parts, &mut out);
    out
}

fn read_unnamed(message: &[u8]) -> Result<AccessRequest<'_>, WireError> {
    read(message, NodeView::UNNAMED)
}

#[track_caller]
fn check(bytes: &[u8]) {
    match CheckRequest::decode(bytes) {
        Ok(check) => assert_eq!(read_unnamed(bytes), Ok(by_prost(&check)), "{check:?}"),
        // Where `read` takes what `prost` does not, the fault is in a field that is not read, and the known ones must be told alike without it.
        Err(_) => drop(read_unnamed(bytes)),
    }
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "(target|kubernetes:prod|web|:path|authorization|Bearer abc|x-request-id|7373a616-45b1|cookie|GET|192.0.2.7|/api/v1/pods|prod.example.com|)".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ]
}

fn numbers() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 1..14u32, 1 => Just(15), 1 => 16..3000u32, 1 => Just((1 << 29) - 1)]
}

/// Anything that may stand somewhere unread or in a place where something else must stand.
fn odd() -> impl Strategy<Value = Part> {
    let leaf = prop_oneof![
        (numbers(), any::<u64>()).prop_map(|(number, value)| Part::Varint(number, value)),
        (numbers(), any::<bool>()).prop_map(|(number, wide)| Part::Fixed(number, wide)),
        (numbers(), texts()).prop_map(|(number, text)| Part::Text(number, text)),
        prop::collection::vec(any::<u8>(), 0..4).prop_map(Part::Raw),
    ];
    leaf.prop_recursive(4, 12, 3, |inner| {
        (numbers(), prop::collection::vec(inner, 0..3)).prop_map(|(number, parts)| Part::Group(number, parts))
    })
}

fn message(number: u32, parts: impl Strategy<Value = Part> + 'static) -> BoxedStrategy<Part> {
    let odd = prop_oneof![1 => odd().boxed(), 30 => parts.boxed()];
    prop::collection::vec(odd, 0..5).prop_map(move |parts| Part::Message(number, parts)).boxed()
}

fn text(number: u32) -> BoxedStrategy<Part> {
    texts().prop_map(move |text| Part::Text(number, text)).boxed()
}

fn question() -> impl Strategy<Value = Part> {
    let pair = |number| message(number, prop_oneof![text(1), text(2)]);
    let header = message(1, prop_oneof![3 => text(1), 1 => text(2), 3 => text(3)]);
    let http = message(2, prop_oneof![1 => text(2), 1 => text(4), 1 => text(5), 4 => message(13, header), 1 => pair(3)]);
    let request = message(4, http);
    let address = message(1, prop_oneof![4 => message(1, text(2)), 1 => message(2, text(1)), 1 => message(3, text(2))]);
    let attributes =
        prop_oneof![4 => request, 1 => message(1, address), 2 => pair(10), 1 => message(12, text(1)), 1 => message(2, text(2))];
    message(1, attributes)
}

/// A usual one, as a message of the generated types.
fn usual() -> impl Strategy<Value = CheckRequest> {
    let header =
        ("(authorization|connection|impersonate-user|accept|x-request-id|x-kubepass-source)", prop::option::of("[a-z0-9 -]{0,9}"), texts());
    let headers = prop::collection::vec(header, 0..6);
    (headers, "[A-Z]{0,4}", "/.{0,9}", "(kubernetes|http):.{0,5}", "[a-z.]{0,9}", any::<bool>()).prop_map(
        |(headers, method, path, target, host, pipe)| {
            let header = |(key, value, raw_value): (String, Option<String>, Vec<u8>)| match value {
                Some(value) => HeaderValue { key, value, raw_value: Vec::new() },
                None => HeaderValue { key, value: String::new(), raw_value },
            };
            let http = HttpRequest {
                method,
                path,
                host: host.clone(),
                header_map: Some(HeaderMap { headers: headers.into_iter().map(header).collect() }),
                ..HttpRequest::default()
            };
            let address = match pipe {
                true => AnyAddress::Pipe(Pipe { path: host.clone(), mode: 7 }),
                false => AnyAddress::SocketAddress(SocketAddress { address: host.clone(), ..SocketAddress::default() }),
            };
            let attributes = AttributeContext {
                source: Some(Peer { address: Some(Address { address: Some(address) }), ..Peer::default() }),
                request: Some(Request { http: Some(http), ..Request::default() }),
                context_extensions: [("target".to_owned(), target), ("other".to_owned(), host.clone())].into(),
                tls_session: Some(TlsSession { sni: host }),
                ..AttributeContext::default()
            };
            CheckRequest { attributes: Some(attributes) }
        },
    )
}

#[test]
fn fields_that_come_again_add_or_override() {
    let text = |number, text: &str| Part::Text(number, text.as_bytes().to_vec());
    let header = |name: &str, value: &str| Part::Message(1, vec![text(1, name), text(3, value)]);
    let attributes = |parts| Part::Message(1, vec![Part::Message(4, vec![Part::Message(2, parts)])]);
    let id = header("x-request-id", "a-1");
    let parts = [
        attributes(vec![text(2, "GET"), Part::Message(13, vec![id.clone(), header("authorization", "Bearer a")])]),
        attributes(vec![text(2, "POST"), text(4, "/x"), Part::Message(13, vec![header("authorization", "Bearer b")])]),
        attributes(vec![text(4, "/y")]),
    ];
    let bytes = encoded(&parts);
    check(&bytes);
    let request = read_unnamed(&bytes).unwrap();
    assert_eq!((request.request_id, request.method, request.path), ("a-1", "POST", "/y"));
    assert_eq!(request.headers.malformed, Some(Malformed::SeveralAuthorizations), "the second part adds to the first");
    // An entry with the same key, and one whose key comes twice.
    let entry = |parts| Part::Message(1, vec![Part::Message(10, parts)]);
    for (entries, target) in [
        (vec![vec![text(1, "target"), text(2, "web")], vec![text(2, "http:a"), text(1, "target")]], RequestTarget::Http("a")),
        (vec![vec![text(1, "x"), text(2, "web"), text(1, "target")]], RequestTarget::Web),
        (vec![vec![text(1, "target"), text(2, "web")], vec![text(1, "target")]], RequestTarget::Unknown),
        (vec![vec![text(2, "web")]], RequestTarget::Unknown),
    ] {
        let bytes = encoded(&entries.into_iter().map(entry).collect::<Vec<_>>());
        check(&bytes);
        assert_eq!(read_unnamed(&bytes).unwrap().target, target);
    }
    // Envoy that joins headers hides what it must show.
    let joined = attributes(vec![Part::Message(13, vec![id]), Part::Message(3, Vec::new())]);
    let joined = encoded(&[joined]);
    check(&joined);
    assert_eq!(read_unnamed(&joined).unwrap().headers.malformed, Some(Malformed::MissingAttributes));
}

#[test]
fn the_source_is_the_connection_unless_envoy_tells_another() {
    let text = |number, text: &str| Part::Text(number, text.as_bytes().to_vec());
    let check = |told: &[&str], expected: &str| {
        let header = |value: &&str| Part::Message(1, vec![text(1, names::SOURCE), text(3, value)]);
        let map = Part::Message(13, told.iter().map(header).collect());
        let socket = Part::Message(1, vec![Part::Message(1, vec![Part::Message(1, vec![text(2, "192.0.2.1")])])]);
        let bytes = encoded(&[Part::Message(1, vec![socket, Part::Message(4, vec![Part::Message(2, vec![map])])])]);
        assert_eq!(read_unnamed(&bytes).unwrap().source_ip, expected, "{told:?}");
        self::check(&bytes);
    };
    check(&[], "192.0.2.1");
    check(&["198.51.100.7"], "198.51.100.7");
    check(&["2001:db8::7"], "2001:db8::7");
    for odd in [&[""][..], &["evil"], &["198.51.100.7, 192.0.2.9"], &["198.51.100.7:80"], &["198.51.100.7", "198.51.100.8"]] {
        check(odd, "192.0.2.1");
    }
    assert_eq!(read_unnamed(&[]).unwrap().source_ip, "");
}

/// Envoy writes `!` for bytes that are no text, and sends the path on as it came.
#[test]
fn a_path_that_is_judged_otherwise_than_it_is_sent_is_refused() {
    let check = |sent: Option<&[u8]>, expected: Option<Malformed>| {
        let header = |name: &str, value: &[u8]| Part::Message(1, vec![Part::Text(1, name.into()), Part::Text(3, value.to_vec())]);
        let mut headers = vec![header("x-request-id", b"7373a616-45b1")];
        headers.extend(sent.map(|sent| header(":path", sent)));
        let http = vec![Part::Text(4, b"/api/v1/pods?fieldSelector=metadata.name%3Da!".to_vec()), Part::Message(13, headers)];
        let bytes = encoded(&[Part::Message(1, vec![Part::Message(4, vec![Part::Message(2, http)])])]);
        assert_eq!(read_unnamed(&bytes).unwrap().headers.malformed, expected, "{sent:?}");
        self::check(&bytes);
    };
    check(None, None);
    check(Some(b"/api/v1/pods?fieldSelector=metadata.name%3Da!"), None);
    check(Some(b"/api/v1/pods?fieldSelector=metadata.name%3Da\xff"), Some(Malformed::NotText));
    check(Some(b"/api/v1/secrets"), Some(Malformed::NotText));
    check(Some(b""), Some(Malformed::NotText));
}

#[test]
fn what_is_no_message_is_an_error() {
    let nested = |depth: usize| [[0x0b].repeat(depth), [0x0c].repeat(depth)].concat();
    let cases: [(&[u8], WireError); 13] = [
        (&[0x0a], WireError::Truncated),
        (&[0x0a, 5, 0], WireError::Truncated),
        (&[0x80; 11], WireError::Varint),
        (&[0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], WireError::Varint),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 1], WireError::Key),
        (&[2, 0], WireError::Key),
        (&[0x0e], WireError::Key),
        (&[0x08, 1], WireError::Type),
        (&[0x0c], WireError::Group),
        (&[0x13, 0x1c], WireError::Group),
        (&[0x0a, 0x04, 0x62, 0x02, 0x0a, 0xff], WireError::Truncated),
        (&[0x0a, 0x05, 0x62, 0x03, 0x0a, 0x01, 0xff], WireError::NotUtf8),
        (&nested(101), WireError::Depth),
    ];
    for (bytes, error) in cases {
        assert_eq!(read_unnamed(bytes), Err(error), "{bytes:x?}");
        assert!(CheckRequest::decode(bytes).is_err(), "{bytes:x?}");
    }
    // Groups of a number that nobody reads, as deep as they may be.
    let deep = |depth: usize| [[0x13].repeat(depth), [0x14].repeat(depth)].concat();
    for depth in [98, 99, 100, 101, 102] {
        assert_eq!(read_unnamed(&deep(depth)).is_ok(), CheckRequest::decode(deep(depth).as_slice()).is_ok(), "{depth}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_usual_question_is_read_as_prost_reads_it(message in usual(), again in usual()) {
        let bytes = message.encode_to_vec();
        prop_assert_eq!(read_unnamed(&bytes), Ok(by_prost(&message)));
        check(&[bytes, again.encode_to_vec()].concat());
    }

    #[test]
    fn an_odd_question_is_read_as_prost_reads_it(parts in prop::collection::vec(question(), 0..4)) {
        let bytes = encoded(&parts);
        check(&bytes);
        prop_assert_eq!(read_unnamed(&bytes).is_ok(), read_fields::Question::decode(bytes.as_slice()).is_ok());
    }

    #[test]
    fn a_damaged_question_is_read_as_prost_reads_it(
        message in usual(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..4),
    ) {
        let mut bytes = message.encode_to_vec();
        for (index, byte, what) in damages {
            if bytes.is_empty() {
                break;
            }
            let index = index.index(bytes.len());
            match what {
                0 => bytes.truncate(index),
                1 => bytes.insert(index, byte),
                2 => drop(bytes.remove(index)),
                _ => bytes[index] = byte,
            }
        }
        check(&bytes);
        prop_assert_eq!(read_unnamed(&bytes).is_ok(), read_fields::Question::decode(bytes.as_slice()).is_ok());
    }
}

/// The message with nothing but the fields that are read: `prost` refuses bytes as this exactly when `read` refuses them.
mod read_fields {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Question {
        #[prost(message, optional, tag = "1")]
        attributes: Option<Attributes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Attributes {
        #[prost(message, optional, tag = "1")]
        source: Option<Peer>,
        #[prost(message, optional, tag = "4")]
        request: Option<Request>,
        #[prost(message, repeated, tag = "10")]
        context_extensions: Vec<Entry>,
        #[prost(message, optional, tag = "12")]
        tls_session: Option<TlsSession>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Peer {
        #[prost(message, optional, tag = "1")]
        address: Option<Address>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Address {
        #[prost(message, optional, tag = "1")]
        socket_address: Option<SocketAddress>,
        #[prost(bytes = "vec", tag = "2")]
        pipe: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")]
        internal: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct SocketAddress {
        #[prost(string, tag = "2")]
        address: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct TlsSession {
        #[prost(string, tag = "1")]
        sni: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Request {
        #[prost(message, optional, tag = "2")]
        http: Option<HttpRequest>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct HttpRequest {
        #[prost(string, tag = "2")]
        method: String,
        #[prost(message, repeated, tag = "3")]
        headers: Vec<Entry>,
        #[prost(string, tag = "4")]
        path: String,
        #[prost(string, tag = "5")]
        host: String,
        #[prost(message, optional, tag = "13")]
        header_map: Option<HeaderMap>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct HeaderMap {
        #[prost(message, repeated, tag = "1")]
        headers: Vec<HeaderValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct HeaderValue {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(string, tag = "2")]
        value: String,
        #[prost(bytes = "vec", tag = "3")]
        raw_value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Entry {
        #[prost(string, tag = "1")]
        key: String,
        #[prost(string, tag = "2")]
        value: String,
    }
}
