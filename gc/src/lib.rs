//! `blockhost-vm-gc`: suspends and destroys what has expired, and finds what crashes left behind. [`plan`] decides,
//! [`routes`] reads the kernel's table; carrying out is the provisioner's library.
#![forbid(unsafe_code)]

pub mod cli;
pub mod plan;
pub mod routes;
pub mod run;
