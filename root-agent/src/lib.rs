//! The only privileged process of BlockHost: supervisor, front, ledger gate and compartments.
//!
//! Programs live in `bin/` and are one call into [`cli`]. Nothing here talks to clients but [`front`],
//! nothing here acts on the host but [`compartment`].

pub mod allow;
pub mod compartment;
pub mod exec;
pub mod policy;
