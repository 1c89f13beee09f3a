//! Says beforehand what a change does to open connections.

use crate::xds::difference;
use crate::xds::resource::ResourceSet;

/// To be called before Envoys are told of `after`: a line for each listener of which open connections drain.
pub fn announce_drains(before: &ResourceSet, after: &ResourceSet) {
    for difference in difference::drains(before, after) {
        tracing::warn!(
            xds.listener = difference.name,
            xds.drained = %difference.drained,
            "open connections of this listener drain: they may go on until the drain time of their Envoy is over (--drain-time-s), and are closed then"
        );
    }
}
