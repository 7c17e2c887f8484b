//! `blockhost-vm-gc`: suspends machines that have expired, destroys those suspended for long, frees what crashes left.
//! [`plan`] decides and is pure; [`execute`] does, through the provisioner's library. Run daily by a timer, or by hand.
#![forbid(unsafe_code)]

pub mod cli;
pub mod execute;
pub mod plan;
pub mod routes;
