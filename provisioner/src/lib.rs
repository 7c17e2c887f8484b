//! Machines: their database, the pools they draw from, cloud-init, the `blockhost-vm-*` commands, template building.
//! Unprivileged: everything privileged is asked of the root agent over its socket. `gc` and `engine` use the library;
//! the programs in `src/bin` are one-call shims over [`cli`].
#![forbid(unsafe_code)]

pub mod agent;
pub mod backend;
pub mod chain_seen;
pub mod cli;
pub mod cloudinit;
pub mod config;
pub mod create;
pub mod exec;
pub mod host;
pub mod lifecycle;
pub mod lock;
pub mod manifest;
pub mod metrics;
pub mod mint;
pub mod plan;
pub mod progress;
mod ready;
pub mod record;
pub mod signals;
pub mod store;
pub mod template;
pub mod terraform;
pub mod throttle;
pub mod time;
pub mod undo;
