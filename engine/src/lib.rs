//! The engine: from events on the chain to machines, and the operator's commands. Unprivileged: everything that
//! needs privileges goes through the provisioner's commands or the root agent's socket.
#![forbid(unsafe_code)]

pub mod admin;
pub mod agent;
pub mod alone;
pub mod anchor;
pub mod broker;
pub mod bus;
pub mod chain;
pub mod cli;
pub mod config;
pub mod crypto;
pub mod daemon;
pub mod exec;
pub mod failpoint;
pub mod funds;
pub mod handler;
pub mod heads;
pub mod holds;
mod locked;
pub mod log;
pub mod machines;
pub mod manifest;
pub mod monitor;
pub mod network;
pub mod notify;
pub mod outbox;
pub mod reconcile;
pub mod seen;
pub mod sending;
pub mod shared;
pub mod signup;
pub mod sqlite;
pub mod state;
pub mod status;
pub mod told;
pub mod wallets;
