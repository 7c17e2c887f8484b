//! What ours is measured beside. Each peer runs in the same private world; one that cannot run here is left out, with
//! the reason in the results.

mod dbus;
mod privsep;
mod programs;
mod python;
mod varlink;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) use dbus::{Bus, greet};
pub(super) use privsep::Privsep;
pub(super) use programs::{Ip, Sudo};
pub(super) use python::Python;
pub(super) use varlink::Varlink;

use super::load::Connection;
use super::wire::Wire;
use crate::command::{run, with_args};
use crate::scenario::ScenarioError;
use crate::world::services::Service;
use crate::world::{World, built_programs};

/// The interpreter that Debian's Python packages belong to.
const PYTHON: &str = "/usr/bin/python3";

/// Where `scripts/setup.sh peers` puts packages from PyPI: beside the built programs' profile directories.
fn pypi_python() -> PathBuf {
    built_programs().join("../peers/venv/bin/python3")
}

/// A peer, or why it is not there.
pub(super) type Found<T> = Result<T, String>;

/// Keeps a peer that came up; writes down why another did not.
pub(super) fn or_note<T>(found: Found<T>, name: &str, not_run: &mut Vec<String>) -> Option<T> {
    found
        .map_err(|reason| not_run.push(format!("{name}: {reason}")))
        .ok()
}

/// Whether a Python of this machine has these modules; the reason for the table if not.
fn has_modules(python: &Path, modules: &str) -> Found<()> {
    let program = python.display().to_string();
    let import = format!("import {modules}");
    run(
        with_args(&program, &["-c", &import]),
        Duration::from_secs(30),
    )
    .map(|_| ())
    .map_err(|_| format!("{program} has no {modules}; run: bash scripts/setup.sh peers"))
}

/// Waits for a socket that takes connections.
fn wait_for(service: &mut Service, socket: &Path, wire: Wire) -> Result<(), ScenarioError> {
    let ready = || Connection::open(wire, socket).is_ok();
    Ok(service.wait_until("listening", Duration::from_secs(20), ready)?)
}

/// An environment without anything of ours.
fn bare(world: &World, command: &mut std::process::Command) {
    world.environment(command);
}
