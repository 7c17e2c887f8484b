//! Services of a world: the local chain, the root agent, the engine. Each logs to a file, is asked to end before it is
//! killed, and never outlives the namespace it was started in.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use blockhost_proto::action::{Action, AgentInfo};
use blockhost_proto::client::blocking::Client;
use rustix::process::{Pid, Signal, kill_process};

use super::config::CHAIN_ID;
use super::{World, WorldError, at, repository};
use crate::command::{BUSY, RunError, command, install, tail_of_file};

/// One running program of the world.
pub struct Service {
    name: String,
    log: PathBuf,
    child: Child,
    stopped: bool,
}

impl Service {
    /// Starts a program with its output in `<logs>/<name>.log`.
    ///
    /// # Errors
    /// [`WorldError`] when the log or the program cannot be opened.
    pub fn start(world: &World, name: &str, mut command: Command) -> Result<Self, WorldError> {
        let log = world.logs.join(format!("{name}.log"));
        let opened = fs::OpenOptions::new().create(true).append(true).open(&log);
        let out = at("opening the log", &log, opened)?;
        let err = at("opening the log", &log, out.try_clone())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|source| RunError::Start {
                program: name.to_owned(),
                source,
            })?;
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
            stopped: false,
        })
    }

    /// Its process id inside the world.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output is.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// An error that shows the end of the log.
    #[must_use]
    pub fn failure(&self, reason: impl Into<String>) -> WorldError {
        WorldError::Service {
            service: self.name.clone(),
            reason: reason.into(),
            log: self.log.clone(),
            tail: tail_of_file(&self.log, 3000),
        }
    }

    /// An error when it has ended by itself.
    ///
    /// # Errors
    /// [`WorldError::Service`].
    pub fn check(&mut self) -> Result<(), WorldError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failure(format!("ended by itself with {status}"))),
            Err(error) => Err(self.failure(format!("cannot be watched: {error}"))),
        }
    }

    /// Waits until `ready` says so. The limit is for a machine with nothing else to do ([`BUSY`]).
    ///
    /// # Errors
    /// [`WorldError::Service`] when it ends or the time is over.
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), WorldError> {
        let limit = limit * BUSY;
        let end = Instant::now() + limit;
        while !ready() {
            self.check()?;
            if Instant::now() >= end {
                return Err(self.failure(format!(
                    "{what} did not happen within {} s",
                    limit.as_secs()
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Gone already is what we want anyway.
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks it to end, waits, kills after `limit`.
    ///
    /// # Errors
    /// [`WorldError::Service`] when it had to be killed.
    pub fn stop(&mut self, limit: Duration) -> Result<Option<ExitStatus>, WorldError> {
        if self.stopped {
            return Ok(None);
        }
        self.stopped = true;
        self.signal(Signal::TERM);
        let limit = limit * BUSY;
        let end = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(Some(status)),
                Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(10)),
                _ => break,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        Err(self.failure(format!(
            "did not end within {} s of SIGTERM and was killed",
            limit.as_secs()
        )))
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) {
        self.stopped = true;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !self.stopped {
            self.kill();
        }
    }
}

/// Starts the local chain as `nobody`; ready when it listens.
///
/// # Errors
/// [`WorldError::NoAnvil`] and those of [`Service`].
pub fn start_chain(world: &World) -> Result<Service, WorldError> {
    start_anvil(world, &["--no-cors"])
}

/// The same for pages in a browser, whose requests it answers wherever they come from.
///
/// # Errors
/// Those of [`start_chain`].
pub fn start_chain_for_browsers(world: &World) -> Result<Service, WorldError> {
    start_anvil(world, &[])
}

/// The same with more arguments.
///
/// # Errors
/// Those of [`start_chain`].
pub fn start_anvil(world: &World, more: &[&str]) -> Result<Service, WorldError> {
    let anvil = repository().join("engine/contracts/node_modules/.bin/anvil");
    if !anvil.is_file() {
        return Err(WorldError::NoAnvil);
    }
    // Copied, because a clone in a home directory is not readable for the user it runs as.
    let program = world.bin.join("anvil");
    at("installing", &program, install(&anvil, &program))?;
    let mut start = command("setpriv");
    start
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
            "--",
        ])
        .arg(&program)
        .args([
            "--host",
            "127.0.0.1",
            "--port",
            "8545",
            "--chain-id",
            &CHAIN_ID.to_string(),
            "--quiet",
        ])
        .args(more)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .current_dir("/");
    let mut service = Service::start(world, "anvil", start)?;
    service.wait_until("listening on port 8545", Duration::from_secs(20), || {
        TcpStream::connect(("127.0.0.1", 8545)).is_ok()
    })?;
    Ok(service)
}

/// Starts the root agent as root; ready when it answers `agent-info`.
///
/// # Errors
/// Those of [`Service`].
pub fn start_agent(world: &World) -> Result<Service, WorldError> {
    let mut service = Service::start(
        world,
        "root-agent",
        world.as_root("blockhost-root-agent", &[]),
    )?;
    service.wait_until("answering agent-info", Duration::from_secs(20), || {
        Client::connect_layout(&world.layout)
            .is_ok_and(|mut client| client.call(&Action::AgentInfo(AgentInfo {})).is_ok())
    })?;
    Ok(service)
}

/// Starts the engine as `blockhost`, with `no_new_privs` as its unit has it.
///
/// # Errors
/// Those of [`Service`].
pub fn start_engine(world: &World) -> Result<Service, WorldError> {
    let mut start = command("setpriv");
    start
        .args([
            "--reuid=blockhost",
            "--regid=blockhost",
            "--init-groups",
            "--no-new-privs",
            "--",
        ])
        .arg(world.bin.join("blockhost-engine"));
    world.environment(&mut start);
    Service::start(world, "engine", start)
}

/// Starts the containers' service as its own user, with nothing; ready when it listens.
///
/// # Errors
/// Those of [`Service`].
pub fn start_containers(world: &World) -> Result<Service, WorldError> {
    let mut start = command("setpriv");
    start
        .args([
            "--reuid=blockhost-ct",
            "--regid=blockhost-ct",
            "--clear-groups",
            "--",
        ])
        .arg(world.bin.join("blockhost-containers"))
        .arg("run");
    world.environment(&mut start);
    let socket = world.layout.containers_run().join("keeper.sock");
    // One that was killed has left its name.
    let _ = fs::remove_file(&socket);
    let mut service = Service::start(world, "containers", start)?;
    service.wait_until(
        "listening for blockhost-pct",
        Duration::from_secs(20),
        || socket.exists(),
    )?;
    Ok(service)
}
