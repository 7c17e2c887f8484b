//! The embedded backend: blockhost-qm.
#![forbid(unsafe_code)]
