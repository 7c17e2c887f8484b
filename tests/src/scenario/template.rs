//! The base template: built once by `blockhost-build-template` and kept beside the world, so that a second run finds it.

use std::time::Duration;

use super::ScenarioError;
use crate::command::{command, run};
use crate::namespace::host_network_prefix;
use crate::report::Report;
use crate::world::World;

/// Long enough for a slow mirror; the build itself takes one to two minutes.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs the template builder as `blockhost`. It needs the package mirror, so it is the one program that runs in the
/// host's network; the agent's socket is a path and reachable from there as well.
pub(crate) fn ready(world: &World, report: &mut Report) -> Result<(), ScenarioError> {
    let [nsenter, net, end] = host_network_prefix();
    let mut build = command(nsenter);
    build.args([net, end]);
    let inner = world.as_blockhost("blockhost-build-template", &[]);
    build.arg(inner.get_program()).args(inner.get_args());
    world.environment(&mut build);
    // A mirror may be reachable through a proxy only.
    for name in ["http_proxy", "https_proxy", "no_proxy"] {
        if let Some(value) = std::env::var_os(name) {
            build.env(name, value);
        }
    }
    let output = report.step(
        "template",
        "base template is there (built the first time)",
        || world.keep_log("blockhost-build-template", run(build, LIMIT)),
    )?;
    for line in output.stdout.lines().filter(|line| !line.trim().is_empty()) {
        report.note(line);
    }
    Ok(())
}
