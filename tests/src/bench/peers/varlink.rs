//! systemd's varlink server as its journal runs it: the one daemon of systemd that every Debian has, that starts
//! without systemd as pid 1, and that answers on a socket of its own. It stores nothing here.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Found, bare, wait_for};
use crate::bench::wire::Wire;
use crate::command::{command, run, with_args};
use crate::world::World;
use crate::world::services::Service;

const DAEMON: &str = "/lib/systemd/systemd-journald";
const SOCKET: &str = "/run/systemd/journal/io.systemd.journal";

/// Nothing is read or kept but what the socket brings.
const SETTINGS: &str = "[Journal]\nStorage=none\nReadKMsg=no\nAudit=\nForwardToSyslog=no\nForwardToKMsg=no\n\
                        ForwardToConsole=no\nForwardToWall=no\n";

/// The running daemon.
pub(in crate::bench) struct Varlink {
    pub(in crate::bench) service: Service,
    pub(in crate::bench) socket: PathBuf,
}

impl Varlink {
    /// `/run` has to be this world's own already.
    pub(in crate::bench) fn start(world: &World) -> Found<Self> {
        if !Path::new(DAEMON).is_file() {
            return Err(format!("{DAEMON} is not installed"));
        }
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let settings = Path::new("/run/systemd/journald.conf.d");
        for directory in [settings, Path::new("/run/systemd/journal")] {
            fs::create_dir_all(directory).map_err(|error| said(&error))?;
        }
        // It looks up who asks in the control groups, which the world's own /sys does not show.
        let words = ["-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"];
        run(with_args("mount", &words), Duration::from_secs(10)).map_err(|error| said(&error))?;
        fs::write(settings.join("bench.conf"), SETTINGS).map_err(|error| said(&error))?;
        let mut start = command(DAEMON);
        bare(world, &mut start);
        // Where it says why it ends; by default that would be the kernel's log.
        start.env("SYSTEMD_LOG_TARGET", "console");
        let mut service =
            Service::start(world, "peer-journald", start).map_err(|error| said(&error))?;
        let socket = PathBuf::from(SOCKET);
        wait_for(&mut service, &socket, Wire::Varlink).map_err(|error| said(&error))?;
        Ok(Self { service, socket })
    }

    pub(in crate::bench) fn stop(mut self) {
        let _ = self.service.stop(Duration::from_secs(5));
    }
}
