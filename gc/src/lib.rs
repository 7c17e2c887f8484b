//! blockhost-vm-gc: suspends and destroys what has expired.
#![forbid(unsafe_code)]
