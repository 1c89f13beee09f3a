//! Resources as one document: Envoy's `ConfigDump`, with what an Envoy is given in the place of what it has.

use serde_json::{Map, Value, json};

use super::super::resource::TypeUrl;

/// What may be seen of one resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    pub kind: TypeUrl,
    pub name: String,
    pub version: String,
    /// Its message with `@type`.
    pub message: Value,
}

/// By type, in the order of pushing; types of which there is nothing are left out.
pub fn document(shown: &[Shown]) -> Value {
    let config = |kind: TypeUrl| {
        let mut of = shown.iter().filter(|shown| shown.kind == kind).peekable();
        of.peek()?;
        let Place { config, list, .. } = place(kind);
        let mut part = Map::new();
        part.insert("@type".to_owned(), format!("type.googleapis.com/envoy.admin.v3.{config}").into());
        part.insert(list.to_owned(), of.map(entry).collect());
        Some(Value::Object(part))
    };
    json!({"configs": TypeUrl::ALL.into_iter().filter_map(config).collect::<Vec<_>>()})
}

fn entry(shown: &Shown) -> Value {
    let place = place(shown.kind);
    let message = shown.message.clone();
    let message = if place.repeated { Value::from(vec![message]) } else { message };
    let version = json!({"version_info": shown.version, (place.key): message});
    match shown.kind {
        TypeUrl::Listener => json!({"name": shown.name, "active_state": version}),
        TypeUrl::Secret | TypeUrl::ScopedRouteConfiguration => {
            let mut named = version;
            if let Some(fields) = named.as_object_mut() {
                fields.insert("name".to_owned(), shown.name.as_str().into());
            }
            named
        }
        _ => version,
    }
}

/// Where Envoy's dump has the resources of a type.
struct Place {
    config: &'static str,
    list: &'static str,
    key: &'static str,
    repeated: bool,
}

fn place(kind: TypeUrl) -> Place {
    let (config, list, key, repeated) = match kind {
        TypeUrl::Cluster => ("ClustersConfigDump", "dynamic_active_clusters", "cluster", false),
        TypeUrl::ClusterLoadAssignment => ("EndpointsConfigDump", "dynamic_endpoint_configs", "endpoint_config", false),
        TypeUrl::Listener => ("ListenersConfigDump", "dynamic_listeners", "listener", false),
        TypeUrl::ScopedRouteConfiguration => ("ScopedRoutesConfigDump", "dynamic_scoped_route_configs", "scoped_route_configs", true),
        TypeUrl::RouteConfiguration => ("RoutesConfigDump", "dynamic_route_configs", "route_config", false),
        TypeUrl::Secret => ("SecretsConfigDump", "dynamic_active_secrets", "secret", false),
        TypeUrl::ExtensionConfig => ("EcdsConfigDump", "ecds_filters", "ecds_filter", false),
    };
    Place { config, list, key, repeated }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use prost_reflect::DynamicMessage;

    use super::super::descriptors;
    use super::*;

    #[test]
    fn it_has_the_form_of_envoys_own() {
        let shown: Vec<Shown> = TypeUrl::ALL
            .into_iter()
            .rev()
            .flat_map(|kind| ["b", "a"].map(|name| (kind, name)))
            .map(|(kind, name)| Shown { kind, name: name.into(), version: "1".into(), message: json!({"@type": kind.as_str()}) })
            .collect();
        let document = document(&shown);
        let form = descriptors().unwrap().get_message_by_name("envoy.admin.v3.ConfigDump").unwrap();
        DynamicMessage::deserialize(form, &document).unwrap();
        let configs = document["configs"].as_array().unwrap();
        assert_eq!(configs.len(), TypeUrl::ALL.len());
        assert_eq!(configs[0]["dynamic_active_clusters"][1], json!({"version_info": "1", "cluster": {"@type": TypeUrl::Cluster.as_str()}}));
        assert_eq!(configs[2]["dynamic_listeners"][0]["active_state"]["listener"]["@type"], TypeUrl::Listener.as_str());
        assert_eq!(super::document(&[]), json!({"configs": []}));
    }
}
