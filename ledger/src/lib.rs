//! The tamper-evident history: records, Merkle tree, segments, proofs.
//!
//! One writer ([`writer::Writer`], the root agent's ledger process), any number of unprivileged readers
//! ([`reader::Reader`]). The bytes on disk are public formats: RFC 8785 records, RFC 6962 tree, C2SP signed notes and
//! `tlog-proof` files. Nothing here needs a runtime or an absolute path, and nothing that writes needs a thread.
#![forbid(unsafe_code)]

mod active;
pub mod anomaly;
mod batch;
pub mod blobs;
#[cfg(feature = "age")]
pub mod blobs_age;
mod block_index;
pub mod blocks;
pub mod bundle;
pub mod claim;
#[cfg(feature = "cli")]
pub mod cli;
pub mod compact;
pub mod consistency;
pub mod cosign;
pub mod dir;
pub mod epochs;
pub mod export;
#[doc(hidden)]
pub mod failpoint;
pub mod features;
#[cfg(feature = "index")]
mod fields;
pub mod follow;
mod history;
mod hold;
#[cfg(feature = "import")]
pub mod import;
#[cfg(feature = "index")]
pub mod index;
pub mod jcs;
pub mod keys;
pub mod loss;
pub mod merkle;
pub mod note;
mod parallel;
pub mod plugin;
pub mod policy;
#[cfg(feature = "cli")]
mod prepared;
pub mod proof;
pub mod prune;
pub mod publish;
#[cfg(feature = "index")]
pub mod query;
pub mod reader;
pub mod record;
mod recover;
mod refusal;
mod scan;
mod seal;
pub mod sealed;
mod sealed_file;
pub mod segment;
#[cfg(feature = "index")]
pub mod service;
pub mod similar;
#[cfg(feature = "index")]
pub mod stats;
pub mod tiles;
pub mod trust;
pub mod verify;
pub mod witness;
pub mod writer;

pub use publish::PublishError;
pub use recover::OpenIntent;
pub use scan::Fault;
