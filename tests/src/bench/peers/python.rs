//! A plain root agent in Python: `benches/peer_agent.py`.

use std::path::PathBuf;
use std::time::Duration;

use super::{PYTHON, bare, wait_for};
use crate::bench::wire::Wire;
use crate::command::command;
use crate::scenario::ScenarioError;
use crate::world::services::Service;
use crate::world::{World, repository};

/// The running agent.
pub(in crate::bench) struct Python {
    pub(in crate::bench) service: Service,
    pub(in crate::bench) socket: PathBuf,
}

impl Python {
    pub(in crate::bench) fn spawn(world: &World) -> Result<Self, ScenarioError> {
        let socket = world.layout.run().join("peer.sock");
        // A socket of an earlier one would be taken for this one's.
        let _ = std::fs::remove_file(&socket);
        let mut start = command(PYTHON);
        start
            .arg(repository().join("tests/benches/peer_agent.py"))
            .arg(&socket);
        bare(world, &mut start);
        let service = Service::start(world, "peer-python", start)?;
        Ok(Self { service, socket })
    }

    pub(in crate::bench) fn start(world: &World) -> Result<Self, ScenarioError> {
        let mut started = Self::spawn(world)?;
        wait_for(&mut started.service, &started.socket, Wire::Frames)?;
        Ok(started)
    }

    /// Its interpreter ends with a traceback when asked to; that it has ended is all that counts.
    pub(in crate::bench) fn stop(mut self) {
        let _ = self.service.stop(Duration::from_secs(5));
    }
}
