//! The only privileged process of BlockHost: supervisor, front, ledger gate and compartments.
//!
//! Programs live in `bin/` and are one call into [`cli`]. Nothing here talks to clients but [`front`],
//! nothing here acts on the host but [`compartment`], nothing happens that [`gate`] has not recorded first.
//! `unsafe` is confined to [`sys`] and the fork of [`exec`].

pub mod accounts;
pub mod allow;
pub mod beneath;
pub mod child;
pub mod cli;
pub mod compartment;
pub mod confine;
pub mod control;
pub mod events;
pub mod exec;
#[doc(hidden)]
pub mod failpoint;
pub mod front;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod gate;
pub mod ipc;
pub mod log;

pub mod policy;
pub mod queue;
pub mod supervisor;
pub mod sys;
