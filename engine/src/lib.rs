//! From chain events to machines: the daemon and the operator's commands.
#![forbid(unsafe_code)]
