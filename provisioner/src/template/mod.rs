//! The template that machines are cloned from: a small Debian that boots fast, built without privileges.

pub mod boot;
pub mod build;
pub mod overlay;
pub mod register;
pub mod sources;
mod workdir;
