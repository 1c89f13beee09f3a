//! What an Envoy with our configuration does to a request: it reads the very resources that kubepass pushes and treats the headers as they say
//! (as Envoy 1.40 was seen to). It understands what they use and nothing more: anything else fails the test that meets it.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::common::mutation_rules::v3::{HeaderMutation as Mutation, header_mutation::Action};
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use envoy_types::pb::envoy::config::rbac::v3::permission::Rule;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route::Action as RouteActionKind;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, Route, RouteConfiguration, ScopedRouteConfiguration, VirtualHost};
use envoy_types::pb::envoy::extensions::filters::http::credential_injector::v3::CredentialInjector;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::{ExtAuthz, ExtAuthzPerRoute, ext_authz_per_route};
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3::{HeaderMutation, HeaderMutationPerRoute};
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpConnectionManager, HttpFilter, http_filter};
use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation as EarlyMutation;
use envoy_types::pb::envoy::extensions::http::injected_credentials::generic::v3::Generic;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::r#type::matcher::v3::metadata_matcher::path_segment::Segment;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, value_matcher};
use envoy_types::pb::google::protobuf::{Any, value::Kind};
use kubepass::snapshot::Snapshot;
use kubepass::xds::resource::{ResourceSet, TypeUrl};
use kubepass::xds::resources::build;
use prost::{Message, Name};
use regex::Regex;

/// Lower-case names and raw values, in order.
pub(super) type Headers = Vec<(String, Vec<u8>)>;

/// Where the connection came from.
pub(super) const SOURCE: &str = "192.0.2.1";

/// The filters of the listener, and everything that is looked up for a request.
pub(super) struct Envoy {
    resources: ResourceSet,
    early: Vec<Mutation>,
    settable: Regex,
    late: Vec<Mutation>,
}

/// What a client sends.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) sni: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) headers: Headers,
}

/// A request that has its route: what ext_authz is asked, and what follows if it agrees.
#[derive(Debug, Clone)]
pub(super) struct Routed {
    /// The entry `target` of the context extensions.
    pub(super) target: String,
    pub(super) headers: Headers,
    pub(super) cluster: String,
    late: Vec<Mutation>,
    request: Request,
}

/// What leaves for a server.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    pub(super) cluster: String,
    pub(super) headers: Headers,
}

/// What format strings can name.
struct Context<'a> {
    request: &'a Request,
    metadata: &'a BTreeMap<String, String>,
}

impl Envoy {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let resources = build(snapshot).unwrap();
        let listener: Listener = decoded(&resources.resources(TypeUrl::Listener).next().unwrap().body.bytes());
        let filter = listener.filter_chains[0].filters.last().unwrap();
        let Some(filter::ConfigType::TypedConfig(manager)) = &filter.config_type else { panic!("{filter:?}") };
        let manager: HttpConnectionManager = opened(manager);
        let [early] = &manager.early_header_mutation_extensions[..] else { panic!("one early mutation") };
        let [ext_authz, late, router] = &manager.http_filters[..] else { panic!("three filters") };
        assert_eq!(router.name, "envoy.filters.http.router");
        let ext_authz: ExtAuthz = opened(config(ext_authz));
        assert!(!ext_authz.failure_mode_allow && ext_authz.encode_raw_headers && ext_authz.include_tls_session);
        let rules = ext_authz.decoder_header_mutation_rules.unwrap();
        assert!(rules.disallow_all.unwrap().value && rules.disallow_is_error.unwrap().value);
        let late: HeaderMutation = opened(config(late));
        assert!(!late.most_specific_header_mutations_wins);
        Self {
            early: opened::<EarlyMutation>(early.typed_config.as_ref().unwrap()).mutations,
            settable: whole(&rules.allow_expression.unwrap().regex),
            late: late.mutations.unwrap().request_mutations,
            resources,
        }
    }

    /// The early mutation, then the route; `None` when no host or route takes it.
    pub(super) fn route(&self, request: &Request) -> Option<Routed> {
        let mut headers = request.headers.clone();
        apply(&self.early, &mut headers, &Context { request, metadata: &BTreeMap::new() });
        let scope = headers.iter().find(|(name, _)| name == "x-kubepass-scope")?;
        let scope = self.resources.get(TypeUrl::ScopedRouteConfiguration, std::str::from_utf8(&scope.1).ok()?)?;
        let scope: ScopedRouteConfiguration = decoded(&scope.body.bytes());
        let routes = self.resources.get(TypeUrl::RouteConfiguration, &scope.route_configuration_name)?;
        let routes: RouteConfiguration = decoded(&routes.body.bytes());
        let host = without_port(&request.host).to_ascii_lowercase();
        let of_host = |host: &str| routes.virtual_hosts.iter().find(|virtual_host| virtual_host.domains == [host]);
        let virtual_host = of_host(&host).or_else(|| of_host("*"))?;
        let route = virtual_host.routes.iter().find(|route| takes(route, &request.path, &headers))?;
        let Some(RouteActionKind::Route(action)) = &route.action else { return None };
        let Some(ClusterSpecifier::Cluster(cluster)) = &action.cluster_specifier else { panic!("{action:?}") };
        let late = route.typed_per_filter_config.get("envoy.filters.http.header_mutation").map(opened::<HeaderMutationPerRoute>);
        Some(Routed {
            target: target(virtual_host, route),
            headers,
            cluster: cluster.clone(),
            late: late.and_then(|late| late.mutations).map(|mutations| mutations.request_mutations).unwrap_or_default(),
            request: request.clone(),
        })
    }

    /// What reaches the server with this answer; `None` when nothing does.
    pub(super) fn forward(&self, routed: &Routed, answer: &CheckResponse) -> Option<Upstream> {
        // Envoy reads the status alone; an answer that says both is judged elsewhere.
        if answer.status.as_ref().is_some_and(|status| status.code != 0) {
            return None;
        }
        let mut headers = routed.headers.clone();
        if let Some(HttpResponse::OkResponse(ok)) = &answer.http_response {
            for header in ok.headers.iter().map(|option| option.header.as_ref().unwrap()) {
                assert!(self.settable.is_match(&header.key), "Envoy answers 500 for {}", header.key);
                write(&mut headers, &header.key, header.value.as_bytes(), HeaderAppendAction::OverwriteIfExistsOrAdd);
            }
        }
        let metadata = answer.dynamic_metadata.iter().flat_map(|metadata| &metadata.fields).map(|(key, value)| match &value.kind {
            Some(Kind::StringValue(text)) => (key.clone(), text.clone()),
            other => panic!("{key}: {other:?}"),
        });
        let metadata: BTreeMap<String, String> = metadata.collect();
        let context = Context { request: &routed.request, metadata: &metadata };
        apply(&self.late, &mut headers, &context);
        apply(&routed.late, &mut headers, &context);
        self.through_cluster(&routed.cluster, headers, &context)
    }

    fn through_cluster(&self, name: &str, mut headers: Headers, context: &Context<'_>) -> Option<Upstream> {
        let Some(cluster) = self.resources.get(TypeUrl::Cluster, name) else {
            assert_eq!(name, "kubepass-web", "a cluster that is not in the bootstrap");
            return Some(Upstream { cluster: name.to_owned(), headers });
        };
        let cluster: Cluster = decoded(&cluster.body.bytes());
        let options = &cluster.typed_extension_protocol_options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
        for filter in opened::<HttpProtocolOptions>(options).http_filters {
            match filter.name.as_str() {
                "envoy.filters.http.rbac" if !permits(&opened(config(&filter)), &headers, context) => return None,
                "envoy.filters.http.rbac" | "envoy.filters.http.upstream_codec" => {}
                "envoy.filters.http.credential_injector" => self.inject(&opened(config(&filter)), &mut headers),
                "kubepass.connection_on_upgrades" => {
                    let mutation: HeaderMutation = opened(config(&filter));
                    apply(&mutation.mutations.unwrap().request_mutations, &mut headers, context);
                }
                other => panic!("{other} on a cluster"),
            }
        }
        Some(Upstream { cluster: name.to_owned(), headers })
    }

    fn inject(&self, injector: &CredentialInjector, headers: &mut Headers) {
        assert!(injector.overwrite && !injector.allow_request_without_credential);
        let generic: Generic = opened(injector.credential.as_ref().unwrap().typed_config.as_ref().unwrap());
        let value = format!("{}{}", generic.header_value_prefix, self.token(&generic.credential.unwrap().name));
        write(headers, &generic.header, value.as_bytes(), HeaderAppendAction::OverwriteIfExistsOrAdd);
    }

    /// The service account's token behind a secret's name.
    fn token(&self, name: &str) -> String {
        let secret: Secret = decoded(&self.resources.get(TypeUrl::Secret, name).unwrap().body.bytes());
        let Some(secret::Type::GenericSecret(generic)) = secret.r#type else { panic!("{name} is no token") };
        let source = generic.secret.unwrap().specifier.unwrap();
        let envoy_types::pb::envoy::config::core::v3::data_source::Specifier::InlineString(text) = source else { panic!("{name}") };
        text
    }
}

impl Context<'_> {
    /// As Envoy's formatter: one command, or a literal; empty where there is nothing.
    fn format(&self, format: &str, headers: &Headers) -> Vec<u8> {
        let command = format.strip_prefix('%').and_then(|rest| rest.strip_suffix('%'));
        let Some(command) = command else {
            assert!(!format.contains('%'), "{format}");
            return format.as_bytes().to_vec();
        };
        let (name, argument) = command.strip_suffix(')').and_then(|rest| rest.split_once('(')).unwrap_or((command, ""));
        match (name, argument) {
            ("REQUESTED_SERVER_NAME", _) => self.request.sni.to_ascii_lowercase().into_bytes(),
            ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", _) => SOURCE.as_bytes().to_vec(),
            ("REQ", ":authority") => self.request.host.clone().into_bytes(),
            ("REQ", header) => values(headers, header).first().map(|value| value.to_vec()).unwrap_or_default(),
            ("DYNAMIC_METADATA", path) => {
                let (namespace, key) = path.split_once(':').unwrap();
                assert_eq!(namespace, "envoy.filters.http.ext_authz");
                self.metadata.get(key).map(|text| text.clone().into_bytes()).unwrap_or_default()
            }
            _ => panic!("{format}"),
        }
    }
}

/// All values under a name.
pub(super) fn values<'h>(headers: &'h Headers, name: &str) -> Vec<&'h [u8]> {
    headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_slice()).collect()
}

fn apply(mutations: &[Mutation], headers: &mut Headers, context: &Context<'_>) {
    for mutation in mutations {
        match mutation.action.as_ref().unwrap() {
            Action::Remove(name) => headers.retain(|(found, _)| !found.eq_ignore_ascii_case(name)),
            Action::RemoveOnMatch(matched) => {
                let names = matched.key_matcher.as_ref().unwrap();
                headers.retain(|(found, _)| !fits(names, found.as_bytes()));
            }
            Action::Append(option) => {
                let header = option.header.as_ref().unwrap();
                assert!(!option.keep_empty_value);
                let value = context.format(&header.value, headers);
                // A value that is empty changes nothing at all.
                if !value.is_empty() {
                    write(headers, &header.key, &value, option.append_action());
                }
            }
        }
    }
}

fn write(headers: &mut Headers, name: &str, value: &[u8], action: HeaderAppendAction) {
    let there = headers.iter().any(|(found, _)| found == name);
    match action {
        HeaderAppendAction::OverwriteIfExists if !there => return,
        HeaderAppendAction::AddIfAbsent if there => return,
        HeaderAppendAction::OverwriteIfExists | HeaderAppendAction::OverwriteIfExistsOrAdd => headers.retain(|(found, _)| found != name),
        HeaderAppendAction::AddIfAbsent | HeaderAppendAction::AppendIfExistsOrAdd => {}
    }
    headers.push((name.to_owned(), value.to_vec()));
}

fn permits(rbac: &Rbac, headers: &Headers, context: &Context<'_>) -> bool {
    let policies = &rbac.rules.as_ref().unwrap().policies;
    let mut permissions = policies.values().flat_map(|policy| &policy.permissions);
    permissions.any(|permission| holds(permission.rule.as_ref().unwrap(), headers, context))
}

fn holds(rule: &Rule, headers: &Headers, context: &Context<'_>) -> bool {
    match rule {
        Rule::AndRules(all) => all.rules.iter().all(|permission| holds(permission.rule.as_ref().unwrap(), headers, context)),
        Rule::NotRule(permission) => !holds(permission.rule.as_ref().unwrap(), headers, context),
        Rule::Header(matcher) => header_fits(matcher, headers),
        Rule::SourcedMetadata(sourced) => {
            let matcher = sourced.metadata_matcher.as_ref().unwrap();
            let [segment] = &matcher.path[..] else { panic!("{matcher:?}") };
            let Some(Segment::Key(key)) = &segment.segment else { panic!("{matcher:?}") };
            let Some(value_matcher::MatchPattern::StringMatch(text)) = &matcher.value.as_ref().unwrap().match_pattern else {
                panic!("{matcher:?}")
            };
            context.metadata.get(key).is_some_and(|value| fits(text, value.as_bytes()))
        }
        other => panic!("{other:?}"),
    }
}

/// Lines of one name count as one value, joined.
fn header_fits(matcher: &HeaderMatcher, headers: &Headers) -> bool {
    let values = values(headers, &matcher.name);
    match matcher.header_match_specifier.as_ref().unwrap() {
        HeaderMatchSpecifier::PresentMatch(present) => values.is_empty() != *present,
        HeaderMatchSpecifier::StringMatch(text) => !values.is_empty() && fits(text, &values.join(&b","[..])),
        other => panic!("{other:?}"),
    }
}

fn fits(matcher: &StringMatcher, value: &[u8]) -> bool {
    let value = String::from_utf8_lossy(value);
    let folded = |text: &str| if matcher.ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
    match matcher.match_pattern.as_ref().unwrap() {
        MatchPattern::Exact(text) => folded(&value) == folded(text),
        MatchPattern::Prefix(text) => folded(&value).starts_with(&folded(text)),
        MatchPattern::SafeRegex(pattern) => whole(&pattern.regex).is_match(&value),
        other => panic!("{other:?}"),
    }
}

fn takes(route: &Route, path: &str, headers: &Headers) -> bool {
    let matched = route.r#match.as_ref().unwrap();
    let without_query = path.split('?').next().unwrap_or(path);
    let by_path = match matched.path_specifier.as_ref().unwrap() {
        PathSpecifier::Prefix(prefix) => path.starts_with(prefix),
        PathSpecifier::Path(exact) => without_query == exact,
        other => panic!("{other:?}"),
    };
    by_path && matched.headers.iter().all(|matcher| header_fits(matcher, headers))
}

/// The route's own, or the virtual host's.
fn target(virtual_host: &VirtualHost, route: &Route) -> String {
    const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
    let packed = route.typed_per_filter_config.get(EXT_AUTHZ).or_else(|| virtual_host.typed_per_filter_config.get(EXT_AUTHZ));
    let Some(ext_authz_per_route::Override::CheckSettings(settings)) = opened::<ExtAuthzPerRoute>(packed.unwrap()).r#override else {
        panic!("no settings")
    };
    settings.context_extensions["target"].clone()
}

/// Envoy matches whole texts.
fn whole(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).unwrap()
}

fn without_port(host: &str) -> &str {
    host.split(':').next().unwrap_or(host).trim_end_matches('.')
}

fn config(filter: &HttpFilter) -> &Any {
    let Some(http_filter::ConfigType::TypedConfig(config)) = &filter.config_type else { panic!("{filter:?}") };
    config
}

fn opened<M: Message + Name + Default>(any: &Any) -> M {
    assert_eq!(any.type_url, M::type_url());
    decoded(&any.value)
}

fn decoded<M: Message + Default>(bytes: &[u8]) -> M {
    M::decode(bytes).unwrap()
}
