//! Machines: database, pools, cloud-init, the blockhost-vm-* commands.
#![forbid(unsafe_code)]
