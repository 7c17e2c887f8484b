//! `blockhost-pct`: Proxmox's `pct` for the embedded backend. It keeps the configurations and the host's ends of the
//! interfaces; the containers themselves belong to an unprivileged service, see [`crate::keeper`].

pub mod cli;
pub mod client;
pub mod exec;
pub mod manage;
pub mod options;
pub mod power;
pub mod veth;
