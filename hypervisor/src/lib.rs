//! The embedded backend: `blockhost-qm`, which drives QEMU with the command line of Proxmox's `qm`, and `blockhost-pct`
//! ([`container`]), which does the same for containers through a service of its own without privileges ([`keeper`]).
//! Everything the programs do lives here; `src/bin` only calls their `main`. The root agent's `vm` compartment is
//! the caller, a human or a shell script written for Proxmox the other one.
//! The only unsafe code is one ioctl and some calls that rustix lacks, in [`sys`].

pub mod accel;
pub mod beside;
pub mod cgroup;
pub mod cli;
pub mod cloudinit;
pub mod config;
pub mod console;
pub mod container;
pub mod disks;
pub mod error;
pub mod exec;
pub mod guard;
pub mod guest;
pub mod hardware;
pub mod host;
pub mod image;
pub mod keeper;
pub mod launch;
pub mod launcher;
pub mod limits;
pub mod list;
pub mod machine;
pub mod metrics;
pub mod monitor;
pub mod net;
pub mod options;
pub mod power;
pub mod runtime;
pub mod start;
pub mod storage;
pub mod sys;
#[cfg(feature = "test-guest")]
pub mod testguest;
