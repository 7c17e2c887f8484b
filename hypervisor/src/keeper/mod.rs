//! `blockhost-containers`: the service that has the containers. It runs as an ordinary user and holds no privilege: ids for
//! containers come from `newuidmap`, what it makes lies in directories of its own, interfaces are plugged in by whoever asks.
//! `blockhost-pct` is its only client. Containers are not its children: they go on when it ends, and are found again.

mod ending;
pub mod hook;
pub mod inside;
pub mod lxc;
pub mod names;
pub mod processes;
pub mod program;
pub mod rootfs;
mod serve;
pub mod slots;
mod start;
pub mod unpack;
pub mod wire;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use blockhost_proto::layout::Layout;
use clap::{CommandFactory, Parser, Subcommand};
use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::cgroup::Delegated;
use crate::cli::parse;
use crate::error::{Error, IoContext, Result};
use crate::exec;
use crate::host::Ids;
use crate::sys;
use lxc::Lxc;
use rootfs::RootFileSystems;
pub(crate) use serve::not_in_force;
use slots::Pool;
use wire::Line;

/// Name of the unprivileged user that containers belong to.
pub const USER: &str = "blockhost-ct";

const EXAMPLES: &str = "\
Examples:
  systemctl start blockhost-containers                          the ordinary way
  systemctl reload blockhost-containers                         blockhost-containers renew: the program as it is installed now
  setpriv --reuid blockhost-ct --regid blockhost-ct --clear-groups blockhost-containers run     where there is no systemd

It listens on /run/blockhost-ct/keeper.sock for blockhost-pct, run by root, and keeps containers in /var/lib/blockhost-ct.
Both directories belong to its user. Ending it ends no container.

Exit codes: 0 ended by a signal, 1 failed, 6 wrong usage, 7 the host lacks something.";

/// Runs containers for blockhost-pct, without privileges.
#[derive(Debug, Parser)]
#[command(name = "blockhost-containers", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve until a signal ends it
    #[command(after_help = EXAMPLES)]
    Run,
    /// Have the service that runs become the program that is installed now
    ///
    /// Containers and their limits stay, requests under way have a minute to end. An upgrade does this: while containers
    /// live, systemd before version 254 cannot start the service in a process of its own again.
    #[command(after_help = EXAMPLES)]
    Renew,
    /// Gives a starting container its addresses; run by LXC
    #[command(hide = true, name = hook::COMMAND)]
    Hook {
        /// LXC's own words
        words: Vec<String>,
    },
    /// Works on a root file system as its root; started by run
    #[command(hide = true, name = inside::COMMAND)]
    Inside,
    /// Enters a control group and becomes LXC; started by run
    #[command(hide = true, name = start::COMMAND)]
    Launch {
        /// Group, program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<String>,
    },
}

/// The command line, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli: Cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli.verb {
        Verb::Hook { .. } => hook::run(),
        Verb::Inside => inside::run(),
        Verb::Launch { words } => start::launch(&words),
        Verb::Run => ended(run()),
        Verb::Renew => ended(renew()),
    }
}

fn ended(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("blockhost-containers: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}

/// How long the program that a service has become may take until it serves.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// Asks the service that runs, and waits until the program that it becomes serves.
fn renew() -> Result<()> {
    let socket = wire::socket_path(&Layout::from_env());
    let line = Line::connect(&socket).at("cannot connect to", &socket)?;
    line.send(&wire::Ask::Renew, &[])
        .at("cannot ask", &socket)?;
    loop {
        match line.receive() {
            // What versions before said just in front of it.
            Ok((wire::Answer::Done { .. }, _)) => {}
            Ok((wire::Answer::Refused { message, .. }, _)) => return Err(Error::Failed(message)),
            Ok(_) => return Err(Error::Failed("an answer to something else".to_owned())),
            // The connection has ended with the program.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(e) => return Err(e).at("no answer from", &socket),
        }
    }
    let end = Instant::now() + BACK_WITHIN;
    loop {
        match Line::connect(&socket) {
            Ok(_) => return Ok(()),
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            Err(e) => {
                return Err(Error::Failed(format!(
                    "the service has ended and does not serve at {} ({e}): see journalctl -u blockhost-containers",
                    socket.display()
                )));
            }
        }
    }
}

/// How long what a service that was killed was just starting may have its lock.
const LEAVING: Duration = Duration::from_secs(2);

/// What every request needs.
pub(crate) struct Keeper {
    roots: RootFileSystems,
    groups: Delegated,
    program: std::path::PathBuf,
    socket: std::path::PathBuf,
    desk: serve::Desk,
}

fn run() -> Result<()> {
    // Whatever whoever started this had open must not turn up in a container.
    sys::keep_from_children().at("cannot close", "inherited descriptors")?;
    let own = Ids {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    };
    if own.uid == 0 {
        return Err(Error::Environment(format!(
            "this service needs no privileges and must have none: run it as the user '{USER}'"
        )));
    }
    let name = sys::user_name(own.uid)
        .at("cannot read", "/etc/passwd")?
        .ok_or_else(|| Error::Environment(format!("uid {} has no name", own.uid)))?;
    let pool = Pool::of(&name)?;
    for tool in [
        "lxc-start",
        "lxc-stop",
        "lxc-info",
        "lxc-attach",
        "lxc-usernsexec",
    ] {
        exec::find(tool, "lxc")?;
    }
    exec::find("newuidmap", "uidmap")?;
    exec::find("ip", "iproute2")?;
    let layout = Layout::from_env();
    // Containers inherit the mask; what is private gets its mode said.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let containers = own_directory(&layout.containers(), 0o711)?;
    let run_dir = own_directory(&layout.containers_run(), 0o700)?;
    let socket = wire::socket_path(&layout);
    let exclusive = FlockOperation::NonBlockingLockExclusive;
    if !sys::lock_within(&containers, exclusive, LEAVING).at("cannot lock", layout.containers())? {
        return Err(Error::Conflict(format!(
            "another service has {}",
            layout.containers().display()
        )));
    }
    // Whoever listened there held the lock.
    let _ = std::fs::remove_file(&socket);
    let listener = Line::listen(&socket).at("cannot listen on", &socket)?;
    let keeper = Keeper {
        roots: RootFileSystems {
            lxc: Lxc {
                containers: layout.containers(),
                run: layout.containers_run(),
            },
            pool,
            own,
        },
        groups: Delegated::take_over(),
        program: program::installed()?,
        socket,
        desk: serve::Desk::default(),
    };
    drop(run_dir);
    serve::serve(&std::sync::Arc::new(keeper), &listener)
}

/// Opens a directory of ours and sets its mode.
fn own_directory(path: &Path, mode: u32) -> Result<OwnedFd> {
    let missing = |e: std::io::Error| {
        Error::Environment(format!(
            "{} must be a directory of this service's user: {e}",
            path.display()
        ))
    };
    let fd = rustix::fs::open(
        path,
        OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| missing(e.into()))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(|e| missing(e.into()))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
