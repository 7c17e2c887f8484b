//! The number of a machine, as the whole crate passes it around.
#![forbid(unsafe_code)]

pub use blockhost_proto::value::Vmid;
