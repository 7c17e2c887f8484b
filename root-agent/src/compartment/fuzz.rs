//! Fuzz targets of the compartments: each is beside what it feeds.

use blockhost_proto::fuzz::Target;

/// All of them.
pub(crate) fn targets() -> Vec<Target> {
    let mut list = super::vm::fuzz::TARGETS.to_vec();
    list.extend(super::net::fuzz::TARGETS);
    list.extend(super::ovs::fuzz::TARGETS);
    list.extend(super::disk::fuzz::TARGETS);
    list
}
