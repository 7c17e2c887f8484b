//! A D-Bus service in Python behind a bus of its own, asked over the wire by the same client as everything else.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Found, PYTHON, bare, has_modules};
use crate::bench::load::Connection;
use crate::bench::wire::{self, Wire};
use crate::command::command;
use crate::scenario::ScenarioError;
use crate::world::services::Service;
use crate::world::{World, repository};

const DAEMON: &str = "/usr/bin/dbus-daemon";

/// The bus and the service.
pub(in crate::bench) struct Bus {
    bus: Service,
    pub(in crate::bench) service: Service,
    pub(in crate::bench) connection: Connection,
}

impl Bus {
    pub(in crate::bench) fn start(world: &World) -> Found<Self> {
        if !Path::new(DAEMON).is_file() {
            return Err(format!(
                "{DAEMON} is not installed; run: bash scripts/setup.sh peers"
            ));
        }
        has_modules(Path::new(PYTHON), "dbus, gi")?;
        Self::try_start(world).map_err(|error| error.to_string())
    }

    fn try_start(world: &World) -> Result<Self, ScenarioError> {
        let socket = world.layout.run().join("peer-bus.sock");
        let config = world.dir.join("peer-bus.conf");
        let text = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\"/><allow receive_sender=\"*\"/><allow own=\"*\"/></policy></busconfig>\n",
            socket.display()
        );
        let wrong = |error: std::io::Error| ScenarioError::Wrong(error.to_string());
        std::fs::write(&config, text).map_err(wrong)?;
        let mut start = command(DAEMON);
        start
            .args(["--nofork", "--nopidfile", "--config-file"])
            .arg(&config);
        bare(world, &mut start);
        let mut bus = Service::start(world, "peer-bus", start)?;
        bus.wait_until("listening", Duration::from_secs(10), || {
            UnixStream::connect(&socket).is_ok()
        })?;
        let mut start = command(PYTHON);
        start
            .arg(repository().join("tests/benches/peer_dbus.py"))
            .arg(format!("unix:path={}", socket.display()));
        bare(world, &mut start);
        let mut service = Service::start(world, "peer-dbus", start)?;
        let mut connection = greet(&socket)?;
        // Until the service has its name, the bus answers with an error.
        let end = Instant::now() + Duration::from_secs(10);
        while connection.ask_well(&wire::dbus_info(1)).is_err() {
            service.check()?;
            if Instant::now() > end {
                return Err(service.failure("has no name on the bus after 10 s").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            bus,
            service,
            connection,
        })
    }

    pub(in crate::bench) fn stop(mut self) {
        let _ = self.service.stop(Duration::from_secs(5));
        let _ = self.bus.stop(Duration::from_secs(5));
    }
}

/// Authenticates as root, says hello and takes what the bus says to that: an answer and the signal of the new name.
pub(in crate::bench) fn greet(socket: &Path) -> Result<Connection, ScenarioError> {
    let wrong = |error: std::io::Error| ScenarioError::Wrong(format!("greeting the bus: {error}"));
    let mut stream = UnixStream::connect(socket).map_err(wrong)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .map_err(wrong)?;
    // The decimal uid 0, in hex.
    stream.write_all(b"\0AUTH EXTERNAL 30\r\n").map_err(wrong)?;
    let mut line = [0; 256];
    let length = stream.read(&mut line).map_err(wrong)?;
    if !line[..length].starts_with(b"OK ") {
        let said = line[..length].escape_ascii();
        return Err(ScenarioError::Wrong(format!("the bus refuses us: {said}")));
    }
    stream.write_all(b"BEGIN\r\n").map_err(wrong)?;
    let bus = "org.freedesktop.DBus";
    let hello = wire::dbus_call(1, bus, "/org/freedesktop/DBus", bus, "Hello");
    stream.write_all(&hello).map_err(wrong)?;
    let mut received = Vec::new();
    for _ in 0..2 {
        let length = loop {
            if let Some(length) = Wire::Dbus.whole(&received) {
                break length;
            }
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).map_err(wrong)?;
            if length == 0 {
                return Err(ScenarioError::Wrong("the bus hung up".to_owned()));
            }
            received.extend_from_slice(&buffer[..length]);
        };
        received.drain(..length);
    }
    Connection::over(Wire::Dbus, stream)
}
