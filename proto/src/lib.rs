//! The root agent's protocol: validated types, the catalog of actions, wire framing, clients.
//! What lives here is pure (no I/O but the client's socket) and is used by both ends, so that a rule exists once.
//! The root agent, the hypervisor, the provisioner and the engine all depend on it; it depends on none of them.
#![forbid(unsafe_code)]

pub mod action;
pub mod catalog;
pub mod client;
#[cfg(feature = "test-corpus")]
pub mod corpus;
pub mod escape;
pub mod flow;
#[cfg(feature = "test-corpus")]
pub mod fuzz;
pub mod json;
pub mod layout;
pub mod options;
pub mod pct;
pub mod qm;
pub mod request;
pub mod response;
pub mod routing;
pub mod value;
pub mod wire;

pub use action::Action;
pub use layout::Layout;
pub use response::ErrorCode;

/// Version of this build, the same for all programs of it: that of the packages with the commit that they were built from,
/// where `packaging/build-deb.sh` built them, else that of the crates.
pub const VERSION: &str = match option_env!("BLOCKHOST_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
