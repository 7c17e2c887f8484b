//! The command line of `blockhost-pct`: Proxmox's `pct`, the subset that the catalog and common scripts use.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cli::parse;
use crate::config::VmConfig;
use crate::error::{IoContext, Result};
use crate::host::{Family, Host};
use crate::machine::Vmid;

use super::{exec, manage, options, power};

const EXAMPLES: &str = "\
Examples:
  blockhost-pct create 100 local:vztmpl/debian-12.tar.zst --unprivileged 1 --hostname web-1 --rootfs local:8 \\
      --memory 512 --net0 name=eth0,bridge=vmbr0,ip=10.0.0.5/24,gw=10.0.0.1 --ssh-public-keys ~/.ssh/id_ed25519.pub
  blockhost-pct start 100 && blockhost-pct exec 100 -- /bin/sh -c 'uname -a'
  blockhost-pct set 100 --memory 1024 --onboot 1
  blockhost-pct shutdown 100 --timeout 30 --forceStop 1
  blockhost-pct destroy 100

Archives of a storage lie in its template/cache; that of 'local' is /var/lib/blockhost/pct-storage/local. Containers run
in the service blockhost-containers.

Exit codes: 0 done, 1 failed, 2 no such container, 3 its state forbids it (exists, runs, does not run), 4 not in time,
6 wrong option or argument, 7 the host lacks something, 8 its configuration is damaged. exec: that of the program, 255 at most.";

/// Containers on any Debian with LXC, by the commands of Proxmox's pct.
#[derive(Debug, Parser)]
#[command(name = "blockhost-pct", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a container from an archive of a root file system
    #[command(
        after_help = "Example:\n  blockhost-pct create 100 local:vztmpl/debian-12.tar.zst --unprivileged 1 --hostname web-1 --rootfs local:8"
    )]
    Create {
        /// Number of the container
        vmid: Vmid,
        /// The archive: <storage>:vztmpl/<file>, or a path
        ostemplate: String,
        /// Options such as --rootfs local:8 --unprivileged 1
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "OPTIONS"
        )]
        options: Vec<String>,
    },
    /// Change options; limits of a running container change at once, others at its next start
    #[command(after_help = "Example:\n  blockhost-pct set 100 --memory 1024 --onboot 1")]
    Set {
        /// Number of the container
        vmid: Vmid,
        /// Options as for create, and --delete KEY,KEY
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "OPTIONS"
        )]
        options: Vec<String>,
    },
    /// Print the configuration
    #[command(after_help = "Example:\n  blockhost-pct config 100")]
    Config {
        /// Number of the container
        vmid: Vmid,
        /// Accepted for compatibility; changes are always current
        #[arg(long, num_args = 0..=1)]
        current: Option<Option<u8>>,
    },
    /// Start
    #[command(after_help = "Example:\n  blockhost-pct start 100")]
    Start {
        /// Number of the container
        vmid: Vmid,
    },
    /// End all its processes at once
    #[command(after_help = "Example:\n  blockhost-pct stop 100")]
    Stop {
        /// Number of the container
        vmid: Vmid,
    },
    /// Ask it to shut down and wait
    #[command(after_help = "Example:\n  blockhost-pct shutdown 100 --timeout 30 --forceStop 1")]
    Shutdown {
        /// Number of the container
        vmid: Vmid,
        /// Seconds to wait, a day at most
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(..=86_400))]
        timeout: u64,
        /// Stop it when it has not complied
        #[arg(long = "forceStop", num_args = 0..=1, default_missing_value = "1", default_value_t = 0)]
        force_stop: u8,
    },
    /// Remove a container and its root file system
    #[command(
        after_help = "Examples:\n  blockhost-pct destroy 100\n  blockhost-pct destroy 100 --force"
    )]
    Destroy {
        /// Number of the container
        vmid: Vmid,
        /// Stop it first where it runs
        #[arg(long, num_args = 0..=1, default_missing_value = "1", default_value_t = 0)]
        force: u8,
        /// Accepted for compatibility; nothing else refers to a container here
        #[arg(long, num_args = 0..=1)]
        purge: Option<Option<u8>>,
        /// Accepted for compatibility; all of the container is removed
        #[arg(long = "destroy-unreferenced-disks", num_args = 0..=1)]
        destroy_unreferenced_disks: Option<Option<u8>>,
    },
    /// Print whether it runs
    #[command(
        after_help = "Examples:\n  blockhost-pct status 100\n  blockhost-pct status 100 --verbose"
    )]
    Status {
        /// Number of the container
        vmid: Vmid,
        /// All there is to say
        #[arg(long, num_args = 0..=1, default_missing_value = "1", default_value_t = 0)]
        verbose: u8,
    },
    /// Table of all containers
    #[command(after_help = "Example:\n  blockhost-pct list")]
    List,
    /// Run a program inside
    #[command(after_help = "Example:\n  blockhost-pct exec 100 -- /bin/sh -c 'uname -a'")]
    Exec {
        /// Number of the container
        vmid: Vmid,
        /// Program and arguments, after --
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Turn a stopped container into a template, which does not start
    #[command(after_help = "Example:\n  blockhost-pct template 9000")]
    Template {
        /// Number of the container
        vmid: Vmid,
    },
    /// Start every container with onboot: 1
    #[command(after_help = "Example:\n  blockhost-pct autostart")]
    Autostart,
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
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut host = Host::from_env(Family::Containers);
    let checked = host.check_state();
    let done = checked.and_then(|()| match cli.verb {
        Verb::Exec { vmid, command } => exec::exec(&host, vmid, command).map(ExitCode::from),
        verb => {
            let text = run(&host, verb)?;
            std::io::stdout()
                .write_all(host.shown(&text).as_bytes())
                .at("cannot write", "stdout")?;
            Ok(ExitCode::SUCCESS)
        }
    });
    done.unwrap_or_else(|e| {
        eprintln!("{}", host.shown(&e.to_string()));
        ExitCode::from(e.exit_code())
    })
}

fn run(host: &Host, verb: Verb) -> Result<String> {
    let silent = |result: Result<()>| result.map(|()| String::new());
    let said = |result: Result<Vec<String>>| {
        result.map(|notes| notes.into_iter().map(|note| note + "\n").collect())
    };
    match verb {
        Verb::Create {
            vmid,
            ostemplate,
            options,
        } => said(manage::create(
            host,
            vmid,
            &ostemplate,
            options::read_args(&options)?,
        )),
        Verb::Set { vmid, options } => said(manage::set(host, vmid, options::read_args(&options)?)),
        Verb::Config { vmid, .. } => Ok(VmConfig::load(host, vmid)?.to_listing()),
        Verb::Start { vmid } => said(power::start(host, vmid)),
        Verb::Stop { vmid } => silent(power::stop(host, vmid)),
        Verb::Shutdown {
            vmid,
            timeout,
            force_stop,
        } => silent(power::shutdown(
            host,
            vmid,
            Duration::from_secs(timeout),
            force_stop != 0,
        )),
        Verb::Destroy { vmid, force, .. } => silent(manage::destroy(host, vmid, force != 0)),
        Verb::Status { vmid, verbose } => power::status(host, vmid, verbose != 0),
        Verb::List => power::list(host),
        Verb::Template { vmid } => silent(manage::template(host, vmid)),
        Verb::Autostart => silent(power::autostart(host)),
        Verb::Exec { .. } => Ok(String::new()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
