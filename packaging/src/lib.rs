//! Packages, units, generated man pages and references.
#![forbid(unsafe_code)]
