//! Envoy's messages as text for people: as Envoy's own YAML, defaults left out, packed messages opened, secrets redacted.
//!
//! `envoy-types` knows no JSON; its `Debug` holds every field, so that text is parsed and laid out anew.

use envoy_types::pb::envoy;
use prost::{Message, Name};

/// One value of a `Debug` text.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    /// `None`, and what a default would be.
    Absent,
    Scalar(String),
    /// A wrapped scalar: it was given on purpose, so it speaks even when it is zero or false.
    Wrapped(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    Struct(String, Vec<(String, Node)>),
    /// A member of a `oneof`.
    Variant(String, Box<Node>),
}

/// The YAML of one message.
pub(super) fn yaml(message: &impl std::fmt::Debug) -> String {
    let mut text = String::new();
    lay_out(&tidy(Parser::parse(&format!("{message:?}"))), 0, &mut text);
    text
}

/// `Debug` of what an `Any` holds. A type that is not here fails the test that meets it.
fn opened(type_url: &str, bytes: &[u8]) -> String {
    macro_rules! open {
        ($($message:ty),* $(,)?) => {
            $(if type_url == <$message>::type_url() {
                return format!("{:?}", <$message>::decode(bytes).unwrap());
            })*
        };
    }
    use envoy::extensions as x;
    open!(
        x::access_loggers::filters::cel::v3::ExpressionFilter,
        x::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig,
        x::filters::http::credential_injector::v3::CredentialInjector,
        x::filters::http::ext_authz::v3::ExtAuthz,
        x::filters::http::ext_authz::v3::ExtAuthzPerRoute,
        x::filters::http::header_mutation::v3::HeaderMutation,
        x::filters::http::header_mutation::v3::HeaderMutationPerRoute,
        x::filters::http::rbac::v3::Rbac,
        x::filters::http::router::v3::Router,
        x::filters::http::upstream_codec::v3::UpstreamCodec,
        x::filters::listener::proxy_protocol::v3::ProxyProtocol,
        x::filters::listener::tls_inspector::v3::TlsInspector,
        x::filters::network::http_connection_manager::v3::HttpConnectionManager,
        x::http::early_header_mutation::header_mutation::v3::HeaderMutation,
        x::http::injected_credentials::generic::v3::Generic,
        x::http::original_ip_detection::xff::v3::XffConfig,
        x::transport_sockets::tls::v3::DownstreamTlsContext,
        x::transport_sockets::tls::v3::UpstreamTlsContext,
        x::upstreams::http::v3::HttpProtocolOptions,
    );
    panic!("{type_url} is packed into a resource: name it in readable.rs")
}

/// Opens, redacts and leaves out what says nothing.
fn tidy(node: Node) -> Node {
    match node {
        Node::Struct(name, fields) => tidy_struct(name, fields),
        Node::Variant(name, inner) => Node::Variant(name, Box::new(tidy(*inner))),
        Node::List(items) if items.is_empty() => Node::Absent,
        Node::List(items) => Node::List(items.into_iter().map(tidy).collect()),
        Node::Map(entries) if entries.is_empty() => Node::Absent,
        Node::Map(entries) => Node::Map(entries.into_iter().map(|(key, value)| (key, tidy(value))).collect()),
        Node::Text(text) if text.contains("-----BEGIN CERTIFICATE") => {
            Node::Text(format!("({} PEM certificates)", text.matches("-----BEGIN CERTIFICATE").count()))
        }
        other => other,
    }
}

fn tidy_struct(name: String, fields: Vec<(String, Node)>) -> Node {
    match name.as_str() {
        "Any" => return open_any(&fields),
        "BoolValue" | "UInt32Value" => return Node::Wrapped(one_line(&fields[0].1)),
        "Duration" => return Node::Wrapped(duration(&fields)),
        _ => {}
    }
    let secret = |field: &str| matches!((name.as_str(), field), ("TlsCertificate", "private_key") | ("GenericSecret", "secret"));
    let tidied = fields.into_iter().filter_map(|(field, value)| {
        if secret(&field) && value != Node::Absent {
            return Some((field, Node::Text("(redacted)".to_owned())));
        }
        match tidy(value) {
            Node::Variant(member, inner) => Some((snake(&member), *inner)),
            value if says_nothing(&value) => None,
            value => Some((field, value)),
        }
    });
    Node::Struct(name.clone(), tidied.collect())
}

fn open_any(fields: &[(String, Node)]) -> Node {
    let field = |name: &str| &fields.iter().find(|(field, _)| field == name).unwrap().1;
    let (Node::Text(type_url), Node::List(bytes)) = (field("type_url"), field("value")) else { panic!("not an Any: {fields:?}") };
    let byte = |node: &Node| match node {
        Node::Scalar(number) => number.parse::<u8>().unwrap(),
        other => panic!("not a byte: {other:?}"),
    };
    let bytes: Vec<u8> = bytes.iter().map(byte).collect();
    let kind = ("@type".to_owned(), Node::Scalar(type_url.rsplit('/').next().unwrap().to_owned()));
    match tidy(Parser::parse(&opened(type_url, &bytes))) {
        Node::Struct(name, fields) => Node::Struct(name, std::iter::once(kind).chain(fields).collect()),
        other => panic!("not a message: {other:?}"),
    }
}

fn says_nothing(node: &Node) -> bool {
    match node {
        Node::Absent => true,
        Node::Text(text) => text.is_empty(),
        Node::Scalar(scalar) => scalar == "0" || scalar == "false",
        _ => false,
    }
}

fn duration(fields: &[(String, Node)]) -> String {
    let number = |name: &str| match fields.iter().find(|(field, _)| field == name) {
        Some((_, Node::Scalar(number))) => number.parse::<i64>().unwrap(),
        _ => 0,
    };
    match number("nanos") {
        0 => format!("{}s", number("seconds")),
        nanos => format!("{}.{:03}s", number("seconds"), nanos / 1_000_000),
    }
}

fn snake(name: &str) -> String {
    let mut text = String::new();
    for (index, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && index > 0 {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// Longest line for a value that is written on one line.
const WIDTH: usize = 190;

fn lay_out(node: &Node, indent: usize, text: &mut String) {
    match node {
        Node::Struct(_, fields) | Node::Map(fields) => {
            for (key, value) in fields {
                text.push_str(&" ".repeat(indent));
                text.push_str(key);
                text.push(':');
                lay_out_value(value, indent + 2, text);
            }
        }
        Node::List(items) => {
            for item in items {
                text.push_str(&format!("{}-", " ".repeat(indent)));
                let short = one_line(item);
                if short.len() + indent < WIDTH {
                    text.push_str(&format!(" {short}\n"));
                } else {
                    let mut block = String::new();
                    lay_out(item, indent + 2, &mut block);
                    text.push_str(&block[indent + 1..]);
                }
            }
        }
        other => text.push_str(&format!("{}{}\n", " ".repeat(indent), one_line(other))),
    }
}

fn lay_out_value(value: &Node, indent: usize, text: &mut String) {
    let short = one_line(value);
    if short.len() + indent < WIDTH || !matches!(value, Node::Struct(..) | Node::Map(_) | Node::List(_)) {
        text.push_str(&format!(" {short}\n"));
    } else {
        text.push('\n');
        lay_out(value, indent, text);
    }
}

fn one_line(node: &Node) -> String {
    match node {
        Node::Absent => "~".to_owned(),
        Node::Scalar(scalar) | Node::Wrapped(scalar) => scalar.clone(),
        Node::Text(content) => format!("{content:?}"),
        Node::List(items) => format!("[{}]", items.iter().map(one_line).collect::<Vec<_>>().join(", ")),
        Node::Struct(_, fields) | Node::Map(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("{key}: {}", one_line(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Node::Variant(name, inner) => format!("{{{}: {}}}", snake(name), one_line(inner)),
    }
}

/// Reads the `Debug` text of derived implementations.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn parse(text: &'a str) -> Node {
        let mut parser = Self { rest: text };
        let node = parser.value();
        assert!(parser.rest.is_empty(), "not read: {:?}", parser.rest);
        node
    }

    fn value(&mut self) -> Node {
        match self.rest.chars().next().unwrap() {
            '"' => Node::Text(self.text()),
            '[' => {
                self.take("[");
                Node::List(self.items("]", Self::value))
            }
            '{' => {
                self.take("{");
                Node::Map(self.items("}", |parser| {
                    let Node::Text(key) = parser.value() else { panic!("a key that is no text") };
                    parser.take(": ");
                    (key, parser.value())
                }))
            }
            _ => self.named(),
        }
    }

    fn named(&mut self) -> Node {
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || "_.-".contains(c))).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        if rest.starts_with(" { ") {
            self.take(" { ");
            let fields = self.items(" }", |parser| {
                let (field, rest) = parser.rest.split_once(": ").unwrap();
                parser.rest = rest;
                (field.trim_start_matches("r#").to_owned(), parser.value())
            });
            return Node::Struct(name.to_owned(), fields);
        }
        if rest.starts_with('(') {
            self.take("(");
            let inner = self.value();
            self.take(")");
            return if name == "Some" { inner } else { Node::Variant(name.to_owned(), Box::new(inner)) };
        }
        match name {
            "None" => Node::Absent,
            // A message without fields.
            name if name.chars().next().is_some_and(char::is_uppercase) && EMPTY_MESSAGES.contains(&name) => {
                Node::Struct(name.to_owned(), Vec::new())
            }
            name => Node::Scalar(name.to_owned()),
        }
    }

    fn items<T>(&mut self, end: &str, item: impl Fn(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        while !self.rest.starts_with(end) {
            items.push(item(self));
            self.rest = self.rest.strip_prefix(", ").unwrap_or(self.rest);
        }
        self.take(end);
        items
    }

    fn text(&mut self) -> String {
        let mut content = String::new();
        let mut letters = self.rest.char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return content;
                }
                '\\' => match letters.next().unwrap().1 {
                    'n' => content.push('\n'),
                    'r' => content.push('\r'),
                    't' => content.push('\t'),
                    quoted @ ('"' | '\\' | '\'') => content.push(quoted),
                    other => panic!("an escape that is not read: {other}"),
                },
                letter => content.push(letter),
            }
        }
        panic!("a text without end")
    }

    fn take(&mut self, text: &str) {
        self.rest = self.rest.strip_prefix(text).unwrap_or_else(|| panic!("expected {text:?} at {:?}", self.rest));
    }
}

const EMPTY_MESSAGES: [&str; 2] = ["AggregatedConfigSource", "UpstreamCodec"];
