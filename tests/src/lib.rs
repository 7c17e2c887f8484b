//! End-to-end tests against real components, the demo and the benchmarks.
//!
//! [`world`] makes a private host (namespaces, users, configuration, services), [`customer`] is the buyer, who shares
//! no code with the engine, and [`scenario`] is the main job step by step: the demo prints it, the tests assert it.
#![forbid(unsafe_code)]

pub mod bench;
pub mod booted_kernel;
pub mod command;
pub mod customer;
pub mod demo;
pub mod namespace;
pub mod report;
pub mod scenario;
pub mod small_root;
pub mod switch;
pub mod systemd;
pub mod world;
