//! Says beforehand what a change does to open connections.

use crate::snapshot::NodeView;
use crate::xds::difference;
use crate::xds::resource::ResourceSet;
use crate::xds::resources::NodeResources;

/// To be called before Envoys are told of `after`: a line for each listener of which open connections drain.
pub fn announce_drains(before: &NodeResources, after: &NodeResources) {
    announce("", &before.of(NodeView::UNNAMED), &after.of(NodeView::UNNAMED));
    for node in before.nodes().iter() {
        announce(node.name().map_or("", |name| name), &before.of(node), &after.of(node));
    }
}

fn announce(node: &str, before: &ResourceSet, after: &ResourceSet) {
    for difference in difference::drains(before, after) {
        tracing::warn!(
            xds.node = node,
            xds.listener = difference.name,
            xds.drained = %difference.drained,
            "open connections of this listener drain: they may go on until the drain time of their Envoy is over (--drain-time-s), and are closed then"
        );
    }
}
