//! The embedded backend: `blockhost-qm`, which drives QEMU with the command line of Proxmox's `qm`.
//! Everything the program does lives here; `src/bin` only calls [`cli::main`]. The root agent's `vm` compartment is
//! the caller, a human or a shell script written for Proxmox the other one.
//! The only unsafe code is one ioctl in [`sys`].

pub mod accel;
pub mod cgroup;
pub mod cli;
pub mod cloudinit;
pub mod config;
pub mod console;
pub mod disks;
pub mod error;
pub mod exec;
pub mod guest;
pub mod hardware;
pub mod host;
pub mod image;
pub mod launch;
pub mod launcher;
pub mod limits;
pub mod list;
pub mod machine;
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
