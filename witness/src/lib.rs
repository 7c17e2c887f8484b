//! The program `blockhost-witness`. As a witness it remembers, for each log it knows, the largest head it has seen, and
//! cosigns only what continues it (C2SP tlog-witness). As a client it has this host's ledger cosigned by its peers.
//!
//! What may be cosigned is decided by `blockhost_ledger::witness`; here are memory that survives a power cut ([`store`]),
//! HTTP ([`server`], [`client`]), and the way of cosignatures into the ledger ([`submit`]). No privileges.
#![forbid(unsafe_code)]

pub mod cli;
pub mod client;
pub mod config;
pub mod server;
pub mod store;
pub mod submit;
