//! How long from the start of a program to its first answer, and how large ours is on the disk.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::load::Connection;
use super::times::Times;
use super::wire::{self, Wire};
use crate::scenario::ScenarioError;
use crate::world::services::Service;
use crate::world::{World, built_programs};

const STARTS: usize = 5;

/// Starts it a few times; each is stopped again.
pub(super) fn until_answering(
    mut start: impl FnMut() -> Result<(Service, PathBuf), ScenarioError>,
) -> Result<Times, ScenarioError> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let (mut service, socket) = start()?;
        let request = wire::agent_info(0);
        while Connection::open(Wire::Frames, &socket)
            .and_then(|mut connection| connection.ask_well(&request))
            .is_err()
        {
            service.check()?;
            if begun.elapsed() > Duration::from_secs(20) {
                return Err(service.failure("did not answer within 20 s").into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        times.push(begun.elapsed());
        // A peer that ends by the signal itself has ended as well.
        let _ = service.stop(Duration::from_secs(45));
    }
    Ok(Times::new(times))
}

/// Our agent, as the service manager would start it.
pub(super) fn start_ours(world: &World) -> Result<(Service, PathBuf), ScenarioError> {
    let start = world.as_root("blockhost-root-agent", &[]);
    let service = Service::start(world, "root-agent", start)?;
    Ok((service, world.layout.agent_socket()))
}

/// MiB of the root agent's binary in this build's profile, and as packages hold it where that was built.
pub(super) fn binary_sizes() -> (f64, Option<f64>) {
    let size = |path: &Path| {
        #[expect(clippy::cast_precision_loss, reason = "a file of some MiB")]
        std::fs::metadata(path)
            .map(|metadata| metadata.len() as f64 / f64::from(1 << 20))
            .ok()
    };
    let name = "blockhost-root-agent";
    let built = built_programs();
    (
        size(&built.join(name)).unwrap_or(f64::NAN),
        size(&built.join("../dist").join(name)),
    )
}
