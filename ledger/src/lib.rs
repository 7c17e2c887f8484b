//! The tamper-evident history: records, Merkle tree, segments, proofs.
#![forbid(unsafe_code)]
