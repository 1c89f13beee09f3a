//! What an Envoy is given, for the operator: node by node as xDS does, without secrets. One resource at a time, so that it costs little memory
//! however many there are.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tonic::Status;

use crate::server::admin::v1::{DumpResourcesRequest, DumpedResource};
use crate::server::ads::AdsState;
use crate::xds::dump::Dumper;
use crate::xds::resource::{Resource, ResourceSet, TypeUrl};
use crate::xds::resources::NodeResources;

/// Reads what is in force.
pub type ResourcesReader = dyn Fn() -> Arc<NodeResources> + Send + Sync;

/// The resources in force, and which Envoys there are.
#[derive(Clone)]
pub struct GivenResources {
    resources: Arc<ResourcesReader>,
    ads: AdsState,
}

impl std::fmt::Debug for GivenResources {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("GivenResources").finish_non_exhaustive()
    }
}

/// Nothing is given to anybody.
impl Default for GivenResources {
    fn default() -> Self {
        Self::new(Arc::new(Arc::default), AdsState::default())
    }
}

impl GivenResources {
    pub fn new(resources: Arc<ResourcesReader>, ads: AdsState) -> Self {
        Self { resources, ads }
    }

    /// # Errors
    /// There is no such node, or no such type.
    pub fn shown(&self, request: &DumpResourcesRequest) -> Result<BoxStream<'static, Result<DumpedResource, Status>>, Status> {
        let types = types(&request.r#type)?;
        let set = self.of(&request.node)?;
        let dumper = Dumper::new().map_err(|error| Status::internal(error.to_string()))?;
        let wanted = |kind: &TypeUrl| -> Vec<(TypeUrl, Arc<Resource>)> {
            set.resources(*kind)
                .filter(|resource| resource.name.contains(&request.name))
                .map(|resource| (*kind, Arc::clone(resource)))
                .collect()
        };
        let resources: Vec<_> = types.iter().flat_map(wanted).collect();
        Ok(stream::iter(resources).map(move |(kind, resource)| dumped(&dumper, kind, &resource)).boxed())
    }

    fn of(&self, node: &str) -> Result<ResourceSet, Status> {
        let resources = (self.resources)();
        let nodes = resources.nodes();
        if resources.claimed(node).name().is_some() || self.ads.streams().iter().any(|stream| !node.is_empty() && stream.node == node) {
            return Ok(resources.of_claimed(node));
        }
        let mut names: Vec<&str> = nodes.iter().filter_map(|node| node.name().map(|name| &**name)).collect();
        names.sort_unstable();
        match (names.as_slice(), node) {
            ([], "") => Ok(resources.of_claimed(node)),
            ([], node) => Err(Status::not_found(format!(
                "no Envoy is connected as {node:?}; the configuration has no nodes, so that all are given the same: ask without --node"
            ))),
            (names, "") => Err(Status::invalid_argument(format!("which node? There are: {}", names.join(", ")))),
            (names, node) => Err(Status::not_found(format!("there is no node {node:?}; there are: {}", names.join(", ")))),
        }
    }
}

fn types(short_name: &str) -> Result<Vec<TypeUrl>, Status> {
    let types: Vec<TypeUrl> = TypeUrl::ALL.into_iter().filter(|kind| short_name.is_empty() || kind.short_name() == short_name).collect();
    if types.is_empty() {
        let names = TypeUrl::ALL.map(TypeUrl::short_name).join(", ");
        return Err(Status::invalid_argument(format!("there is no type {short_name:?}; there are: {names}")));
    }
    Ok(types)
}

fn dumped(dumper: &Dumper, kind: TypeUrl, resource: &Resource) -> Result<DumpedResource, Status> {
    let shown = dumper.show(kind, resource).map_err(|error| Status::internal(error.to_string()))?;
    Ok(DumpedResource { type_url: kind.as_str().to_owned(), name: shown.name, version: shown.version, json: shown.message.to_string() })
}
