//! `blockhost-net-revert`: the process that watches over a change of the network. Started by the one that makes it.

use std::process::ExitCode;

use blockhost_proto::layout::Layout;
use clap::{CommandFactory, Parser};

use super::{fail, runtime};
use crate::network::confirm::guard::{PROGRAM, watch};

/// Watch over a change of the network and take it back when its time is over.
#[derive(Parser)]
#[command(name = PROGRAM, version, after_help = EXAMPLES)]
struct Cli {
    /// Name of the change
    #[arg(value_name = "ID")]
    id: String,
}

const EXAMPLES: &str = "\
Started by `blockhost net uplink` and whatever else changes the network, not by hand. It has no descriptors of its parent's,
takes the change back through the root agent when it is not confirmed in time, when whoever makes it dies, and on SIGTERM, and
ends with the change. `blockhost net status` shows what it watches over, `blockhost net recover` does its work if it is killed.

Exit codes: 0 the change is over; 1 it could not be ended; 2 wrong usage.

Example:
  blockhost net uplink attach --bridge ovsbr0 --uplink eth0 --confirm-within 60    # starts one for the time of the change";

/// The command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // A session of its own: no terminal ends it. It leads none yet, unless somebody started it by hand.
    let _ = rustix::process::setsid();
    crate::failpoint::arm();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(PROGRAM, &error),
    };
    match runtime.block_on(watch(&Layout::from_env(), &cli.id, ready)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => fail(PROGRAM, &error),
    }
}

/// Tells the parent, and lets go of the pipe to it.
fn ready(word: &str) {
    say!("{word}");
    if let Ok(nowhere) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&nowhere);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
