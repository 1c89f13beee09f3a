//! The mistakes. Each changes the example in one respect; the words are all that is found then.

use serde_json::{Value, json};

use super::at;

pub(super) const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const CLUSTER: &str = "/static_resources/clusters/0";
const OPTIONS: &str =
    "/static_resources/clusters/0/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const TLS: &str = "/static_resources/clusters/0/transport_socket/typed_config";
const LISTENER: &str = "/static_resources/listeners/0";
const LOG: &str = "/access_log/0/typed_config";
const LOGGED: &str = "/access_log/0/typed_config/attributes/values";
const LOGGED_GRANT: &str = "/access_log/0/typed_config/attributes/values/2/value";

pub(super) struct Row {
    pub(super) what: &'static str,
    pub(super) plant: Box<dyn Fn(&mut Value)>,
    /// Sorted.
    pub(super) codes: &'static [&'static str],
}

fn row(what: &'static str, codes: &'static [&'static str], plant: impl Fn(&mut Value) + 'static) -> Row {
    Row { what, plant: Box::new(plant), codes }
}

/// Sets a field below a place of the example.
fn set(base: &'static str, path: &'static str, field: &'static str, value: Value) -> impl Fn(&mut Value) {
    move |document| at(document, &format!("{base}{path}"))[field] = value.clone()
}

fn drop_field(base: &'static str, path: &'static str, field: &'static str) -> impl Fn(&mut Value) {
    move |document| {
        let removed = at(document, &format!("{base}{path}")).as_object_mut().unwrap().remove(field);
        assert!(removed.is_some(), "{path}/{field} is not in the example");
    }
}

fn edit(base: &'static str, path: &'static str, change: impl Fn(&mut Vec<Value>) + 'static) -> impl Fn(&mut Value) {
    move |document| change(at(document, &format!("{base}{path}")).as_array_mut().unwrap())
}

pub(super) fn rows() -> Vec<Row> {
    [checks(), headers(), clients(), routes(), clusters(), ways_around(), process()].into_iter().flatten().collect()
}

const EXT_AUTHZ: &str = "/http_filters/0/typed_config";

fn checks() -> Vec<Row> {
    let ext_authz = |field, value| set(MANAGER, EXT_AUTHZ, field, value);
    vec![
        row("no check in the chain", &["ext-authz-missing"], edit(MANAGER, "/http_filters", |filters| drop(filters.remove(0)))),
        row("the check behind the header mutation", &["filters-order"], edit(MANAGER, "/http_filters", |filters| filters.swap(0, 1))),
        row("the check off by default", &["filter-disabled"], set(MANAGER, "/http_filters/0", "disabled", json!(true))),
        row("an optional check", &["filter-optional"], set(MANAGER, "/http_filters/0", "is_optional", json!(true))),
        row("the check under another name", &["filter-name"], set(MANAGER, "/http_filters/0", "name", json!("authz"))),
        row("failures allow", &["failure-mode-allow"], ext_authz("failure_mode_allow", json!(true))),
        row("failures allow, as YAML 1.1 says yes", &["failure-mode-allow"], ext_authz("failure_mode_allow", json!("yes"))),
        row(
            "a check without end",
            &["ext-authz-timeout"],
            set(MANAGER, "/http_filters/0/typed_config/grpc_service", "timeout", json!("0s")),
        ),
        row(
            "half of the requests checked",
            &["ext-authz-sometimes"],
            ext_authz("filter_enabled", json!({"default_value": {"numerator": 50}})),
        ),
        row("off at run time allows", &["deny-at-disable"], drop_field(MANAGER, EXT_AUTHZ, "deny_at_disable")),
        row("refusals that do not refuse", &["ext-authz-shadow"], ext_authz("shadow_mode", json!(true))),
        row("joined headers", &["encode-raw-headers"], drop_field(MANAGER, EXT_AUTHZ, "encode_raw_headers")),
        row("some headers only", &["headers-withheld"], ext_authz("allowed_headers", json!({"patterns": [{"exact": "authorization"}]}))),
        row("answers may set anything", &["mutation-rules"], drop_field(MANAGER, EXT_AUTHZ, "decoder_header_mutation_rules")),
        row(
            "answers may set the user",
            &["mutation-rules"],
            set(
                MANAGER,
                "/http_filters/0/typed_config/decoder_header_mutation_rules/allow_expression",
                "regex",
                json!("(audit-id|x-envoy-upstream-stream-duration-ms|impersonate-user)"),
            ),
        ),
        row("another route after the check", &["route-moved"], ext_authz("clear_route_cache", json!(true))),
        row("a failure as a refusal", &["status-on-error"], drop_field(MANAGER, EXT_AUTHZ, "status_on_error")),
        row("bodies waited for", &["request-body"], ext_authz("with_request_body", json!({"max_request_bytes": 1}))),
        row("a check by HTTP", &["not-understood"], |document| {
            let check = at(document, &format!("{MANAGER}{EXT_AUTHZ}")).as_object_mut().unwrap();
            check.remove("grpc_service");
            check.insert("http_service".to_owned(), json!({"server_uri": {"uri": "http://x", "cluster": "kubepass-ext-authz"}}));
        }),
        row("checks over the network in the clear", &["link-in-the-clear"], |document| {
            at(document, "/static_resources/clusters/1/load_assignment/endpoints/0/lb_endpoints/0/endpoint")["address"] =
                json!({"socket_address": {"address": "10.0.0.2", "port_value": 18001}});
        }),
    ]
}

const EARLY: &str = "/early_header_mutation_extensions/0/typed_config/mutations";
const LATE: &str = "/http_filters/1/typed_config/mutations/request_mutations";

fn headers() -> Vec<Row> {
    vec![
        row("no early removal", &["early-strip"], drop_field(MANAGER, "", "early_header_mutation_extensions")),
        row("x-remote-* stays", &["early-strip"], edit(MANAGER, EARLY, |list| drop(list.remove(1)))),
        row(
            "the client's request id stays",
            &["early-strip"],
            edit(MANAGER, EARLY, |list| list.retain(|item| item["remove"] != "x-request-id")),
        ),
        row(
            "something written before the check",
            &["not-understood"],
            edit(MANAGER, EARLY, |list| {
                list.push(json!({"append": {"header": {"key": "x-kubepass-cookie", "value": "%REQ(cookie)%"}}}));
            }),
        ),
        row(
            "--as not seen",
            &["early-impersonate"],
            edit(MANAGER, EARLY, |list| {
                list.push(json!({"remove_on_match": {"key_matcher": {"prefix": "impersonate-"}}}));
            }),
        ),
        row("no late mutation", &["late-strip-missing"], edit(MANAGER, "/http_filters", |filters| drop(filters.remove(1)))),
        row("impersonate-* stays", &["late-strip-missing"], edit(MANAGER, LATE, |list| drop(list.remove(0)))),
        row(
            "only impersonate-user goes",
            &["late-strip-missing"],
            edit(MANAGER, LATE, |list| list[0] = json!({"remove": "impersonate-user"})),
        ),
        row("trailers stay", &["trailers"], drop_field(MANAGER, "/http_filters/1/typed_config/mutations", "request_trailers_mutations")),
        row(
            "a trailer written",
            &["not-understood"],
            edit(MANAGER, "/http_filters/1/typed_config/mutations/request_trailers_mutations", |list| {
                list.push(json!({"append": {"header": {"key": "impersonate-user", "value": "x"}}}));
            }),
        ),
        row("the identity removed again", &["late-strip-order"], edit(MANAGER, LATE, |list| list.rotate_left(1))),
        row(
            "the user from a header",
            &["identity-from-elsewhere", "identity-slots"],
            edit(MANAGER, LATE, |list| {
                list[1]["append"]["header"]["value"] = json!("%REQ(x-user)%");
            }),
        ),
        row("a blank user kept", &["blank-identity"], edit(MANAGER, LATE, |list| list[1]["append"]["keep_empty_value"] = json!(true))),
        row(
            "kubepass's limit for the stream removed",
            &["answer-removed"],
            edit(MANAGER, LATE, |list| list.push(json!({"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}}))),
        ),
        row(
            "the audit id chosen by the client",
            &["identity-from-elsewhere"],
            edit(MANAGER, LATE, |list| list.push(json!({"append": {"header": {"key": "audit-id", "value": "%REQ(x-my-id)%"}}}))),
        ),
        row(
            "the source from a header",
            &["identity-from-elsewhere"],
            edit(MANAGER, LATE, |list| list.last_mut().unwrap()["append"]["header"]["value"] = json!("%REQ(cf-connecting-ip)%")),
        ),
        row(
            "the service account's token told to everybody",
            &["credential-in-answer"],
            set(MANAGER, ROUTE, "response_headers_to_add", json!([{"header": {"key": "x-debug", "value": "%REQ(Authorization)%"}}])),
        ),
        row(
            "the same by the header mutation",
            &["credential-in-answer"],
            set(
                MANAGER,
                "/http_filters/1/typed_config/mutations",
                "response_mutations",
                json!([{"append": {"header": {"key": "x-debug", "value": "%REQ(authorization)%"}}}]),
            ),
        ),
        row(
            "the same in Envoy's own answers",
            &["credential-in-answer"],
            set(
                MANAGER,
                "",
                "local_reply_config",
                json!({"body_format": {"text_format_source": {"inline_string": "%REQ(:PATH)% %REQ(AUTHORIZATION)%"}}}),
            ),
        ),
        row(
            "tokens in the router's log",
            &["credential-in-log"],
            set(
                MANAGER,
                "/http_filters/2/typed_config",
                "upstream_log",
                json!([{"name": "x", "typed_config": {"log_format": {"json_format": {"token": "%CEL(request.headers['authorization'])%"}}}}]),
            ),
        ),
        row(
            "tokens in traces",
            &["credential-in-log"],
            set(MANAGER, "", "tracing", json!({"custom_tags": [{"tag": "who", "request_header": {"name": "authorization"}}]})),
        ),
        row("ten groups", &["identity-slots"], edit(MANAGER, LATE, |list| list.truncate(13))),
        row(
            "one group over the other",
            &["identity-slots"],
            edit(MANAGER, LATE, |list| {
                list[5]["append"]["append_action"] = json!("OVERWRITE_IF_EXISTS_OR_ADD");
            }),
        ),
        row(
            "a script between check and router",
            &["not-understood"],
            edit(MANAGER, "/http_filters", |filters| {
                let lua = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
                filters.insert(2, json!({"name": "lua", "typed_config": {"@type": lua, "default_source_code": {"inline_string": ""}}}));
            }),
        ),
        row(
            "metadata from headers",
            &["not-understood"],
            edit(MANAGER, "/http_filters", |filters| {
                let kind = "type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config";
                filters.insert(0, json!({"name": "grants", "typed_config": {"@type": kind}}));
            }),
        ),
        row(
            "a limit behind the check",
            &["filters-order"],
            edit(MANAGER, "/http_filters", |filters| {
                let kind = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
                filters.insert(1, json!({"name": "limit", "typed_config": {"@type": kind}}));
            }),
        ),
        row(
            "a limit before the check",
            &[],
            edit(MANAGER, "/http_filters", |filters| {
                let kind = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
                filters.insert(0, json!({"name": "limit", "typed_config": {"@type": kind}}));
            }),
        ),
        row("no line of how it went on", &["no-access-log"], drop_field(MANAGER, "", "access_log")),
        row("a log by the protocol that is not read any more", &["no-access-log"], |document| {
            let kind = "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig";
            let service = json!({"envoy_grpc": {"cluster_name": "kubepass-access-log"}});
            let log =
                json!({"@type": kind, "common_config": {"log_name": "kubepass", "transport_api_version": "V3", "grpc_service": service}});
            at(document, MANAGER)["access_log"] = json!([{"name": "grpc", "typed_config": log}]);
        }),
        row("a log that goes elsewhere", &["no-access-log"], drop_field(MANAGER, "/access_log/0/typed_config", "grpc_service")),
        row("another name for where the log goes", &[], |document| {
            let log = at(document, &format!("{MANAGER}/access_log/0/typed_config"));
            let service = log.as_object_mut().unwrap().remove("grpc_service").unwrap();
            log["common_config"] = json!({"log_name": "kubepass", "transport_api_version": "V3", "grpc_service": service});
        }),
        row("a log without a word", &["access-log-untold"], edit(MANAGER, LOGGED, |values| drop(values.remove(1)))),
        row("a log in messages that are too large", &["access-log-too-much"], set(MANAGER, LOG, "buffer_size_bytes", json!(61_441))),
        row("a log in as large messages as may be", &[], set(MANAGER, LOG, "buffer_size_bytes", json!(61_440))),
        row("a word twice", &["access-log-untold"], edit(MANAGER, LOGGED, |values| values.push(values[0].clone()))),
        row("a word that says something else", &["access-log-untold"], set(MANAGER, LOGGED_GRANT, "string_value", json!("%ROUTE_NAME%"))),
        row(
            "more words than are read",
            &[],
            edit(MANAGER, LOGGED, |values| {
                values.push(json!({"key": "protocol", "value": {"string_value": "%PROTOCOL%"}}));
            }),
        ),
        row(
            "the token in that log",
            &["credential-in-log"],
            edit(MANAGER, LOGGED, |values| {
                values.push(json!({"key": "token", "value": {"string_value": "%REQ(AUTHORIZATION)%"}}));
            }),
        ),
        row(
            "tokens in a log",
            &["credential-in-log"],
            edit(MANAGER, "/access_log", |logs| {
                let kind = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
                let format = json!({"text_format_source": {"inline_string": "%REQ(:PATH)% %REQ(Authorization?x):50%\n"}});
                logs.push(json!({"name": "stdout", "typed_config": {"@type": kind, "log_format": format}}));
            }),
        ),
    ]
}

fn clients() -> Vec<Row> {
    let manager = |field, value| set(MANAGER, "", field, value);
    vec![
        row("the client says where it is", &["remote-address"], drop_field(MANAGER, "", "use_remote_address")),
        row("a forwarded address believed", &["trusted-hops"], manager("xff_num_trusted_hops", json!(1))),
        row("the client chooses the id", &["request-id"], manager("preserve_external_request_id", json!(true))),
        row("paths as they come", &["path-not-normalised"], drop_field(MANAGER, "", "normalize_path")),
        row("escaped slashes unescaped", &["escaped-slashes"], manager("path_with_escaped_slashes_action", json!("UNESCAPE_AND_FORWARD"))),
        row(
            "underscores",
            &["underscores"],
            set(MANAGER, "/common_http_protocol_options", "headers_with_underscores_action", json!("ALLOW")),
        ),
        row("headers without end", &["slow-headers"], drop_field(MANAGER, "", "request_headers_timeout")),
        row("no SPDY", &["upgrades"], edit(MANAGER, "/upgrade_configs", |list| drop(list.pop()))),
        row("CONNECT", &["connect"], edit(MANAGER, "/upgrade_configs", |list| list.push(json!({"upgrade_type": "CONNECT"})))),
        row(
            "upgrades past the check",
            &["upgrade-filters"],
            edit(MANAGER, "/upgrade_configs", |list| list[0]["filters"] = json!([{"name": "router"}])),
        ),
        row("the PROXY protocol of the load balancer alone", &[], |document| {
            let kind = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
            let listener = at(document, LISTENER);
            listener["listener_filters"] = json!([{"name": "proxy", "typed_config": {"@type": kind}}]);
            listener["filter_chains"][0]["filter_chain_match"] =
                json!({"direct_source_prefix_ranges": [{"address_prefix": "10.1.0.0", "prefix_len": 16}]});
        }),
        row(
            "chains that are not chosen by what they say",
            &["not-understood"],
            set(
                LISTENER,
                "",
                "filter_chain_matcher",
                json!({"on_no_match": {"action": {"name": "one", "typed_config": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue", "value": "one"
                }}}}),
            ),
        ),
        row("forwarded addresses of trusted proxies, on their own chain", &[], |document| forwarded(document, "10.1.0.0")),
        row("the same, for whoever connects", &["early-strip", "remote-address", "trusted-hops"], |document| {
            forwarded(document, "0.0.0.0")
        }),
        row(
            "forwarded addresses of a network without a length, which is everybody",
            &["early-strip", "remote-address", "trusted-hops"],
            |document| {
                forwarded(document, "10.1.0.0");
                let chain = at(document, &format!("{LISTENER}/filter_chains/0"));
                chain["filter_chain_match"]["source_prefix_ranges"][0].as_object_mut().unwrap().remove("prefix_len");
                let xff = at(document, &format!("{MANAGER}/original_ip_detection_extensions/0/typed_config/xff_trusted_cidrs/cidrs/0"));
                xff.as_object_mut().unwrap().remove("prefix_len");
            },
        ),
        row("the PROXY protocol of a network without a length", &["proxy-protocol"], |document| {
            let kind = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
            let listener = at(document, LISTENER);
            listener["listener_filters"] = json!([{"name": "proxy", "typed_config": {"@type": kind}}]);
            listener["filter_chains"][0]["filter_chain_match"] = json!({"direct_source_prefix_ranges": [{"address_prefix": "10.1.0.0"}]});
        }),
        row("of what proxies forward a name kept besides", &["early-strip"], |document| {
            forwarded(document, "10.1.0.0");
            let mutations = at(document, &format!("{MANAGER}{EARLY}"));
            mutations[0] =
                json!({"remove_on_match": {"key_matcher": {"safe_regex": {"regex": "x-forwarded-(host|proto|port|client-cert|prefix)"}}}});
        }),
        row("HTTP/2 alone", &["no-http1"], manager("codec_type", json!("HTTP2"))),
        row("no TLS", &["listener-without-tls"], drop_field(LISTENER, "/filter_chains/0", "transport_socket")),
        row(
            "TLS 1.0",
            &["old-tls"],
            set(
                LISTENER,
                "/filter_chains/0/transport_socket/typed_config/common_tls_context",
                "tls_params",
                json!({"tls_minimum_protocol_version": "TLSv1_0"}),
            ),
        ),
        row("no SNI", &["no-sni"], drop_field(LISTENER, "/filter_chains/0/transport_socket/typed_config", "require_sni")),
        row(
            "anybody's PROXY protocol",
            &["proxy-protocol"],
            set(
                LISTENER,
                "",
                "listener_filters",
                json!([
                    {"name": "proxy", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}}
                ]),
            ),
        ),
    ]
}

/// `x-forwarded-for` counts when a proxy of 10.1.0.0/16 wrote it. `from`: whose connections come to the chain.
fn forwarded(document: &mut Value, from: &str) {
    let ranges = |prefix: &str| json!([{"address_prefix": prefix, "prefix_len": 16}]);
    let xff = "type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig";
    at(document, LISTENER)["filter_chains"][0]["filter_chain_match"] = json!({"source_prefix_ranges": ranges(from)});
    let manager = at(document, MANAGER);
    manager["use_remote_address"] = json!(false);
    manager["original_ip_detection_extensions"] = json!([{"name": "xff", "typed_config": {
        "@type": xff, "xff_trusted_cidrs": {"cidrs": ranges("10.1.0.0")}, "skip_xff_append": true
    }}]);
    manager["early_header_mutation_extensions"][0]["typed_config"]["mutations"][0] =
        json!({"remove_on_match": {"key_matcher": {"safe_regex": {"regex": "x-forwarded-(.{0,2}|[^f]..|f[^o].|fo[^r]|.{4,})"}}}});
    let mutation = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
    let source = json!({"append": {"header": {"key": "x-kubepass-source", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}});
    manager["http_filters"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({"name": "kubepass.source", "typed_config": {"@type": mutation, "mutations": {"request_mutations": [source]}}}));
}

const HOST: &str = "/route_config/virtual_hosts/1";
const ROUTE: &str = "/route_config/virtual_hosts/1/routes/1";
const ACTION: &str = "/route_config/virtual_hosts/1/routes/1/route";
const PER_ROUTE: &str = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute";

fn routes() -> Vec<Row> {
    let action = |field, value| set(MANAGER, ACTION, field, value);
    let own = |key: &'static str, value: Value| {
        move |document: &mut Value| at(document, &format!("{MANAGER}{ROUTE}/typed_per_filter_config"))[key] = value.clone()
    };
    vec![
        row(
            "a route without a check",
            &["ext-authz-disabled"],
            own("envoy.filters.http.ext_authz", json!({"@type": PER_ROUTE, "disabled": true})),
        ),
        row("a host without a check", &["ext-authz-disabled", "no-target"], |document| {
            let wrapped = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true, "config": {"@type": PER_ROUTE}});
            at(document, &format!("{MANAGER}{HOST}/typed_per_filter_config"))["envoy.filters.http.ext_authz"] = wrapped;
        }),
        row(
            "somebody else decides",
            &["ext-authz-elsewhere"],
            own(
                "envoy.filters.http.ext_authz",
                json!({
                    "@type": PER_ROUTE, "check_settings": {"grpc_service": {"envoy_grpc": {"cluster_name": "kubepass-ext-authz"}}}
                }),
            ),
        ),
        row(
            "the guard replaced by a route",
            &["guard-overridden"],
            own(
                "envoy.filters.http.rbac",
                json!({
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute"
                }),
            ),
        ),
        row("no target", &["no-target"], drop_field(MANAGER, HOST, "typed_per_filter_config")),
        row("another target", &["target-not-grant"], |document| {
            let check = at(document, &format!("{MANAGER}{HOST}/typed_per_filter_config/envoy.filters.http.ext_authz"));
            check["check_settings"]["context_extensions"]["target"] = json!("kubernetes:staging@10.0.0.7:6443/10.0.0.7");
        }),
        row("any host", &["wildcard-host"], set(MANAGER, HOST, "domains", json!(["*"]))),
        row("any host, to several clusters", &["wildcard-host"], |document| {
            at(document, &format!("{MANAGER}{HOST}"))["domains"] = json!(["*"]);
            let action = at(document, &format!("{MANAGER}{ACTION}")).as_object_mut().unwrap();
            let cluster = action.remove("cluster").unwrap();
            action.insert("weighted_clusters".to_owned(), json!({"clusters": [{"name": cluster, "weight": 1}]}));
        }),
        row("cookies go upstream", &["credentials-upstream"], drop_field(MANAGER, ROUTE, "typed_per_filter_config")),
        row(
            "a user written by the route",
            &["identity-from-elsewhere"],
            set(
                MANAGER,
                ROUTE,
                "request_headers_to_add",
                json!([
                    {"header": {"key": "Impersonate-User", "value": "admin"}}
                ]),
            ),
        ),
        row(
            "a token written by the route",
            &["identity-from-elsewhere"],
            set(
                MANAGER,
                HOST,
                "request_headers_to_add",
                json!([
                    {"header": {"key": "Authorization", "value": "Bearer x"}}
                ]),
            ),
        ),
        row(
            "the groups removed by the route",
            &["identity-removed"],
            set(MANAGER, ROUTE, "request_headers_to_remove", json!(["impersonate-group"])),
        ),
        row("the cluster by a header", &["cluster-by-request"], |document| {
            let action = at(document, &format!("{MANAGER}{HOST}/routes/0/route")).as_object_mut().unwrap();
            action.remove("cluster");
            action.insert("cluster_header".to_owned(), json!("x-cluster"));
        }),
        row("a copy elsewhere", &["mirrored"], action("request_mirror_policies", json!([{"cluster": "kubepass-web"}]))),
        row("another path", &["path-rewritten"], action("prefix_rewrite", json!("/api"))),
        row("tried again", &["retries"], action("retry_policy", json!({"retry_on": "5xx"}))),
        row("cut after 15 s", &["stream-cut"], drop_field(MANAGER, ACTION, "timeout")),
        row(
            "an end that the client chooses",
            &["not-understood"],
            set(MANAGER, "/route_config/virtual_hosts/1/routes/1/route/max_stream_duration", "grpc_timeout_header_max", json!("0s")),
        ),
        row("no end at all", &["no-ceiling"], drop_field(MANAGER, ACTION, "max_stream_duration")),
        row(
            "no cluster of that name",
            &["not-understood"],
            set(MANAGER, "/route_config/virtual_hosts/1/routes/0/route", "cluster", json!("other")),
        ),
        row(
            "clients reach the checks",
            &["control-plane-exposed"],
            set(MANAGER, "/route_config/virtual_hosts/1/routes/0/route", "cluster", json!("kubepass-ext-authz")),
        ),
    ]
}

const FILTERS: &str = "/http_filters";

fn clusters() -> Vec<Row> {
    const RULES: &str = "/http_filters/0/typed_config/rules/policies/granted/permissions/0/and_rules";
    vec![
        row(
            "no guard",
            &["credential-before-guard", "credential-without-guard"],
            edit(OPTIONS, FILTERS, |filters| drop(filters.remove(0))),
        ),
        row("the credential before the guard", &["credential-before-guard"], edit(OPTIONS, FILTERS, |filters| filters.swap(0, 1))),
        row("a guard that asks for the grant or a user", &["guard-grant", "guard-identity"], |document| {
            let permissions = at(document, &format!("{OPTIONS}/http_filters/0/typed_config/rules/policies/granted/permissions/0"));
            let rules = permissions["and_rules"].take();
            *permissions = json!({"or_rules": rules});
        }),
        row(
            "a guard that denies what it should allow",
            &["guard-grant", "guard-identity"],
            set(OPTIONS, "/http_filters/0/typed_config/rules", "action", json!("DENY")),
        ),
        row("a second policy that lets all through", &["guard-grant", "guard-identity"], |document| {
            at(document, &format!("{OPTIONS}/http_filters/0/typed_config/rules/policies"))["more"] =
                json!({"permissions": [{"any": true}], "principals": [{"any": true}]});
        }),
        row("a guard for the web pages' grant", &["guard-grant", "target-not-grant"], |document| {
            at(document, &format!("{OPTIONS}{RULES}/rules/0/sourced_metadata/metadata_matcher"))["value"] =
                json!({"string_match": {"exact": "web"}});
        }),
        row("a blank user passes", &["guard-identity"], |document| {
            at(document, &format!("{OPTIONS}{RULES}/rules/1/header"))["string_match"] = json!({"safe_regex": {"regex": ".*"}});
        }),
        row("the client's token stays", &["credential-not-overwritten"], drop_field(OPTIONS, "/http_filters/1/typed_config", "overwrite")),
        row(
            "no credential will do",
            &["credential-optional"],
            set(OPTIONS, "/http_filters/1/typed_config", "allow_request_without_credential", json!(true)),
        ),
        row("the client's connection header", &["connection-on-upgrades"], edit(OPTIONS, FILTERS, |filters| drop(filters.remove(2)))),
        row(
            "the identity written twice",
            &["filter-name-shared"],
            set(OPTIONS, "/http_filters/2", "name", json!("envoy.filters.http.header_mutation")),
        ),
        row(
            "a user written behind the guard",
            &["not-understood"],
            edit(OPTIONS, "/http_filters/2/typed_config/mutations/request_mutations", |list| {
                list.push(json!({"append": {"header": {"key": "impersonate-user", "value": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:user)%"}}}));
            }),
        ),
        row("HTTP/2 alone", &["upstream-http2-only"], |document| {
            let options = at(document, OPTIONS).as_object_mut().unwrap();
            options.remove("use_downstream_protocol_config");
            options.insert("explicit_http_config".to_owned(), json!({"http2_protocol_options": {}}));
        }),
        row("what ALPN gives", &["upstream-auto-http"], |document| {
            let options = at(document, OPTIONS).as_object_mut().unwrap();
            options.remove("use_downstream_protocol_config");
            options.insert("auto_config".to_owned(), json!({}));
        }),
        row("no TLS to the API server", &["upstream-without-tls"], drop_field(CLUSTER, "", "transport_socket")),
        row("no CA", &["upstream-not-verified"], drop_field(TLS, "/common_tls_context/validation_context", "trusted_ca")),
        row(
            "any certificate will do",
            &["upstream-not-verified"],
            set(TLS, "/common_tls_context/validation_context", "trust_chain_verification", json!("ACCEPT_UNTRUSTED")),
        ),
        row(
            "any name will do",
            &["upstream-name"],
            drop_field(TLS, "/common_tls_context/validation_context", "match_typed_subject_alt_names"),
        ),
        row(
            "another server's name",
            &["upstream-other-server"],
            set(
                TLS,
                "/common_tls_context/validation_context",
                "match_typed_subject_alt_names",
                json!([
                    {"san_type": "IP_ADDRESS", "matcher": {"exact": "10.0.0.7"}}
                ]),
            ),
        ),
        row("a guard for two servers", &["guard-other-server"], |document| {
            let rule = at(document, &format!("{OPTIONS}{RULES}/rules/0"));
            let mut other = rule.clone();
            other["sourced_metadata"]["metadata_matcher"]["value"] =
                json!({"string_match": {"exact": "kubernetes:staging@10.0.0.7:6443/10.0.0.1"}});
            *rule = json!({"or_rules": {"rules": [rule.clone(), other]}});
        }),
        row("the grant of another server", &["upstream-other-server"], |document| {
            at(document, &format!("{CLUSTER}/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address"))["address"] =
                json!("10.0.0.7");
        }),
        row("a copied cluster with the grant of the first", &["guard-other-server"], |document| {
            let mut copy = at(document, CLUSTER).clone();
            copy["name"] = json!("staging");
            copy["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"] =
                json!("staging.example.com");
            at(document, "/static_resources/clusters").as_array_mut().unwrap().push(copy);
        }),
        row("a client certificate instead of a token", &["credential-of-the-client", "guard-identity"], |document| {
            edit(OPTIONS, FILTERS, |filters| drop(filters.remove(1)))(document);
            at(document, &format!("{TLS}/common_tls_context"))["tls_certificates"] = json!([{"certificate_chain": {"filename": "/x"}}]);
            at(document, &format!("{OPTIONS}{RULES}"))["rules"].as_array_mut().unwrap().pop();
        }),
        row(
            "neither token nor certificate",
            &["credential-of-the-client", "guard-identity"],
            edit(OPTIONS, FILTERS, |filters| drop(filters.remove(1))),
        ),
        row("endpoints from elsewhere", &["not-understood"], |document| {
            let cluster = at(document, CLUSTER).as_object_mut().unwrap();
            cluster.remove("load_assignment");
            cluster.insert("type".to_owned(), json!("EDS"));
        }),
    ]
}

const TCP_PROXY: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// A second listener, with one network filter.
fn listener(filter: Value) -> impl Fn(&mut Value) {
    move |document| {
        let address = json!({"socket_address": {"address": "0.0.0.0", "port_value": 8443}});
        let listener = json!({"name": "second", "address": address, "filter_chains": [{"filters": [filter]}]});
        at(document, "/static_resources/listeners").as_array_mut().unwrap().push(listener);
    }
}

fn tcp_proxy(cluster: &str) -> Value {
    json!({"name": "tcp", "typed_config": {"@type": TCP_PROXY, "stat_prefix": "tcp", "cluster": cluster}})
}

/// A cluster without a guard, at an address.
fn plain_cluster(document: &mut Value, address: &str, port: u16) {
    let endpoint = json!({"endpoint": {"address": {"socket_address": {"address": address, "port_value": port}}}});
    let assignment = json!({"cluster_name": "direct", "endpoints": [{"lb_endpoints": [endpoint]}]});
    let tls = at(document, &format!("{CLUSTER}/transport_socket")).clone();
    let cluster = json!({"name": "direct", "load_assignment": assignment, "transport_socket": tls});
    at(document, "/static_resources/clusters").as_array_mut().unwrap().push(cluster);
}

/// The same, on a Unix socket.
fn pipe_cluster(document: &mut Value, path: &str) {
    plain_cluster(document, "127.0.0.1", 1);
    let cluster = at(document, "/static_resources/clusters").as_array_mut().unwrap().last_mut().unwrap();
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] = json!({"pipe": {"path": path}});
}

fn ways_around() -> Vec<Row> {
    /// A connection manager without any check that leads to a cluster.
    fn bare(cluster: &str) -> Value {
        let kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        let router =
            json!({"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
        let host = json!({"name": "any", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]});
        json!({"name": "http", "typed_config": {
            "@type": kind, "stat_prefix": "second", "http_filters": [router], "route_config": {"virtual_hosts": [host]}
        }})
    }
    vec![
        row("TCP straight to the API server", &["bypass"], listener(tcp_proxy("prod"))),
        row(
            "TCP to the same address by another cluster",
            &["bypass", "connection-on-upgrades", "guard-missing", "upstream-http1-only"],
            |document| {
                plain_cluster(document, "10.0.0.1", 6443);
                listener(tcp_proxy("direct"))(document);
            },
        ),
        row(
            "TCP to the same address in another spelling",
            &["bypass", "connection-on-upgrades", "guard-missing", "upstream-http1-only"],
            |document| {
                plain_cluster(document, "::FFFF:10.0.0.1", 6443);
                listener(tcp_proxy("direct"))(document);
            },
        ),
        row("the admin interface behind a route", &["admin-exposed"], |document| {
            pipe_cluster(document, "/run/kubepass/envoy-own-admin.sock");
            listener(bare("direct"))(document);
        }),
        row("the admin interface behind TCP", &["admin-exposed"], |document| {
            pipe_cluster(document, "/run/kubepass/envoy-own-admin.sock");
            listener(tcp_proxy("direct"))(document);
        }),
        row("figures of the admin interface behind a route", &[], |document| {
            pipe_cluster(document, "/run/kubepass/envoy-own-admin.sock");
            let mut manager = bare("direct");
            let host = &mut manager["typed_config"]["route_config"]["virtual_hosts"][0];
            host["routes"] = json!([
                {"match": {"path": "/metrics"}, "route": {"cluster": "direct", "prefix_rewrite": "/stats/prometheus"}},
                {"match": {"prefix": "/ready"}, "route": {"cluster": "direct"}}
            ]);
            listener(manager)(document);
        }),
        row("the checks under another name", &["control-plane-exposed"], |document| {
            pipe_cluster(document, "/run/kubepass/ext_authz.sock");
            listener(bare("direct"))(document);
        }),
        row("the pages' cluster at the socket of the checks", &["control-plane-exposed"], |document| {
            at(document, "/static_resources/clusters/3/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/pipe")["path"] =
                json!("/run/kubepass/ext_authz.sock");
        }),
        row("TCP to another server", &[], |document| {
            plain_cluster(document, "10.0.0.9", 5432);
            listener(tcp_proxy("direct"))(document);
        }),
        row("TCP to the checks", &["control-plane-exposed"], listener(tcp_proxy("kubepass-ext-authz"))),
        row("TCP to wherever the client wanted", &["not-understood"], |document| {
            at(document, "/static_resources/clusters")
                .as_array_mut()
                .unwrap()
                .push(json!({"name": "anywhere", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}));
            listener(tcp_proxy("anywhere"))(document);
        }),
        row(
            "a second listener without the header path",
            &[
                "credentials-upstream",
                "early-strip",
                "escaped-slashes",
                "ext-authz-missing",
                "late-strip-missing",
                "listener-without-tls",
                "no-access-log",
                "no-ceiling",
                "no-target",
                "path-not-normalised",
                "remote-address",
                "slow-headers",
                "stream-cut",
                "underscores",
                "upgrades",
                "wildcard-host",
            ],
            listener(bare("prod")),
        ),
        row("a second listener to another server", &[], |document| {
            plain_cluster(document, "10.0.0.9", 8080);
            listener(bare("direct"))(document);
        }),
        row(
            "a filter that is not known",
            &["not-understood"],
            listener(json!({"name": "redis", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy"
            }})),
        ),
        row("the default chain", &["bypass"], set(LISTENER, "", "default_filter_chain", json!({"filters": [tcp_proxy("prod")]}))),
        row("a listener in UDP", &["not-understood"], set(LISTENER, "", "udp_listener_config", json!({"quic_options": {}}))),
        row("routes from elsewhere", &["elsewhere"], |document| {
            let manager = at(document, MANAGER).as_object_mut().unwrap();
            manager.remove("route_config");
            manager.insert("rds".to_owned(), json!({"route_config_name": "x", "config_source": {"ads": {}}}));
        }),
        row("nothing of kubepass", &["nothing-protected"], |document| {
            *document = json!({"static_resources": {"listeners": [], "clusters": []}});
        }),
    ]
}

fn process() -> Vec<Row> {
    vec![
        row(
            "the admin interface for all",
            &["admin-exposed"],
            set("", "/admin", "address", json!({"socket_address": {"address": "0.0.0.0", "port_value": 9901}})),
        ),
        row(
            "the admin interface on loopback",
            &[],
            set("", "/admin", "address", json!({"socket_address": {"address": "127.0.0.1", "port_value": 9901}})),
        ),
        row(
            "runtime from elsewhere",
            &["not-understood"],
            edit("", "/layered_runtime/layers", |layers| {
                layers.push(json!({"name": "rtds", "rtds_layer": {"name": "x"}}));
            }),
        ),
        row(
            "a protection switched off by a runtime value",
            &["not-understood"],
            set(
                "",
                "/layered_runtime/layers/0",
                "static_layer",
                json!({
                    "envoy.reloadable_features.reject_empty_trusted_ca_file": false
                }),
            ),
        ),
        row("Envoy's own headers under other names", &["header-prefix"], set("", "", "header_prefix", json!("x-edge"))),
        row("code in the process", &["not-understood"], set("", "", "bootstrap_extensions", json!([{"name": "wasm"}]))),
        row(
            "listeners from a control plane",
            &["elsewhere"],
            set("", "", "dynamic_resources", json!({"lds_config": {"path_config_source": {"path": "/x"}}})),
        ),
    ]
}
