//! End-to-end tests against real components, the demo and the benchmarks.
#![forbid(unsafe_code)]
