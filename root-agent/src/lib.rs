//! The only privileged process of BlockHost.
#![forbid(unsafe_code)]
