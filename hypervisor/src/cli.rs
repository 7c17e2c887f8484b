//! The command line of `blockhost-qm`: Proxmox's `qm`, the subset that the catalog and common scripts use.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::VmConfig;
use crate::error::{Error, IoContext, Result};
use crate::host::{Family, Host};
use crate::image::Format;
use crate::machine::Vmid;
use crate::{console, disks, guest, launcher, list, metrics, options, power};

const EXAMPLES: &str = "\
Examples:
  blockhost-qm create 100 --name web --memory 1024 --cores 2 --net0 virtio,bridge=vmbr0 --agent 1
  blockhost-qm importdisk 100 debian.qcow2 local
  blockhost-qm set 100 --scsi0 local:100/vm-100-disk-0.qcow2 --boot order=scsi0 --ide2 local:cloudinit
  blockhost-qm set 100 --ipconfig0 ip=10.0.0.5/24,gw=10.0.0.1 --sshkeys ~/.ssh/id_ed25519.pub
  blockhost-qm start 100 && blockhost-qm guest cmd 100 ping
  blockhost-qm guest exec 100 --timeout 60 -- /bin/sh -c 'uname -a'
  blockhost-qm template 9000 && blockhost-qm clone 9000 101 --name copy

Exit codes: 0 done, 1 failed, 2 no such machine, 3 its state forbids it (exists, runs, is in use), 4 not in time,
5 not running or guest agent silent, 6 wrong option or argument, 7 the host lacks something,
8 its configuration is damaged.";

/// Virtual machines on any Debian with QEMU, by the commands of Proxmox's qm.
#[derive(Debug, Parser)]
#[command(name = "blockhost-qm", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a machine
    #[command(
        after_help = "Example:\n  blockhost-qm create 100 --name web --memory 1024 --cores 2 --net0 virtio,bridge=vmbr0 --agent 1"
    )]
    Create {
        /// Number of the machine
        vmid: Vmid,
        /// Options such as --memory 2048 --net0 virtio,bridge=vmbr0
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "OPTIONS"
        )]
        options: Vec<String>,
    },
    /// Change options; a running machine takes limits (cpulimit, cpuunits, iops) at once, others at its next start
    #[command(
        after_help = "Examples:\n  blockhost-qm set 100 --memory 2048 --onboot 1\n  blockhost-qm set 100 --delete description,tags"
    )]
    Set {
        /// Number of the machine
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
    #[command(after_help = "Example:\n  blockhost-qm config 100")]
    Config {
        /// Number of the machine
        vmid: Vmid,
        /// Accepted for compatibility; changes are always current
        #[arg(long, num_args = 0..=1)]
        current: Option<Option<u8>>,
    },
    /// Start
    #[command(after_help = "Example:\n  blockhost-qm start 100")]
    Start {
        /// Number of the machine
        vmid: Vmid,
    },
    /// Pull the plug
    #[command(after_help = "Example:\n  blockhost-qm stop 100")]
    Stop {
        /// Number of the machine
        vmid: Vmid,
        /// Accepted for compatibility
        #[arg(long)]
        timeout: Option<u64>,
    },
    /// Ask the guest to shut down and wait
    #[command(after_help = "Example:\n  blockhost-qm shutdown 100 --timeout 120 --forceStop 1")]
    Shutdown {
        /// Number of the machine
        vmid: Vmid,
        /// Seconds to wait
        #[arg(long, default_value_t = 60)]
        timeout: u64,
        /// Stop it when it has not complied
        #[arg(long = "forceStop", num_args = 0..=1, default_missing_value = "1", default_value_t = 0)]
        force_stop: u8,
    },
    /// Press the reset button
    #[command(after_help = "Example:\n  blockhost-qm reset 100")]
    Reset {
        /// Number of the machine
        vmid: Vmid,
    },
    /// Remove a machine and its disks
    #[command(after_help = "Example:\n  blockhost-qm destroy 100")]
    Destroy {
        /// Number of the machine
        vmid: Vmid,
        /// Accepted for compatibility; nothing else refers to a machine here
        #[arg(long, num_args = 0..=1)]
        purge: Option<Option<u8>>,
        /// Accepted for compatibility; all disks of the machine are removed
        #[arg(long = "destroy-unreferenced-disks", num_args = 0..=1)]
        destroy_unreferenced_disks: Option<Option<u8>>,
        /// Also a template whose configuration is damaged or gone
        #[arg(long)]
        template: bool,
    },
    /// Print whether it runs
    #[command(
        after_help = "Examples:\n  blockhost-qm status 100\n  blockhost-qm status 100 --verbose"
    )]
    Status {
        /// Number of the machine
        vmid: Vmid,
        /// All there is to say
        #[arg(long, num_args = 0..=1, default_missing_value = "1", default_value_t = 0)]
        verbose: u8,
    },
    /// Table of all machines
    #[command(after_help = "Example:\n  blockhost-qm list")]
    List,
    /// What machines have used so far, as a JSON array of counters
    #[command(
        after_help = "Examples:\n  blockhost-qm metrics\n  blockhost-qm metrics 100 | jq '.[0]'"
    )]
    Metrics {
        /// Only this machine; without it all that are no templates
        vmid: Option<Vmid>,
    },
    /// Bring a disk image in as an unused disk
    #[command(visible_alias = "disk-import")]
    #[command(after_help = "Example:\n  blockhost-qm importdisk 100 debian.qcow2 local")]
    Importdisk {
        /// Number of the machine
        vmid: Vmid,
        /// The image
        source: PathBuf,
        /// Storage for the disk
        storage: String,
        /// Format of the image; without it the name decides (.qcow2, .raw, .img)
        #[arg(long = "source-format")]
        source_format: Option<Format>,
        /// Format of the disk; always qcow2
        #[arg(long, value_parser = ["qcow2"])]
        format: Option<String>,
    },
    /// Turn a machine into a template
    #[command(after_help = "Example:\n  blockhost-qm template 9000")]
    Template {
        /// Number of the machine
        vmid: Vmid,
    },
    /// Copy a machine or template
    #[command(
        after_help = "Examples:\n  blockhost-qm clone 9000 101 --name copy\n  blockhost-qm clone 9000 102 --name apart --full 1"
    )]
    Clone {
        /// Number of the source
        vmid: Vmid,
        /// Number of the copy
        newid: Vmid,
        /// Name of the copy
        #[arg(long)]
        name: Option<String>,
        /// Copy the disks whole (1) or build on the template's (0)
        #[arg(long, num_args = 0..=1, default_missing_value = "1")]
        full: Option<u8>,
        /// Description of the copy
        #[arg(long)]
        description: Option<String>,
    },
    /// Grow a disk
    #[command(after_help = "Example:\n  blockhost-qm resize 100 scsi0 +10G")]
    Resize {
        /// Number of the machine
        vmid: Vmid,
        /// Which disk, such as scsi0
        disk: String,
        /// New size (20G) or how much more (+10G)
        size: String,
    },
    /// Ask the agent in the guest
    Guest {
        #[command(subcommand)]
        verb: GuestVerb,
    },
    /// Print QEMU's command line
    #[command(after_help = "Example:\n  blockhost-qm showcmd 100 --verbose")]
    Showcmd {
        /// Number of the machine
        vmid: Vmid,
        /// Also the accelerator and why
        #[arg(long)]
        verbose: bool,
    },
    /// Start every machine with onboot: 1
    #[command(after_help = "Example:\n  blockhost-qm autostart")]
    Autostart,
    /// Writes the console log; started by start
    #[command(hide = true, name = console::COMMAND)]
    ConsoleLogWriter,
    /// Becomes QEMU; started by start
    #[command(hide = true, name = launcher::COMMAND)]
    MachineLauncher {
        /// Program and arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum GuestVerb {
    /// Run an agent command such as ping or network-get-interfaces
    #[command(after_help = "Example:\n  blockhost-qm guest cmd 100 ping")]
    Cmd {
        /// Number of the machine
        vmid: Vmid,
        /// Which command
        command: String,
    },
    /// Run a program in the guest
    #[command(
        after_help = "Example:\n  blockhost-qm guest exec 100 --timeout 60 -- /bin/sh -c 'uname -a'"
    )]
    Exec {
        /// Number of the machine
        vmid: Vmid,
        /// Seconds to wait for its end; 0: without a limit
        #[arg(long, default_value_t = 30)]
        timeout: u64,
        /// Whether to wait (1) or to print its pid at once (0)
        #[arg(long, default_value_t = 1)]
        synchronous: u8,
        /// Give it our standard input, at most 1 MiB
        #[arg(long = "pass-stdin", num_args = 0..=1, default_missing_value = "1", default_value_t = 0)]
        pass_stdin: u8,
        /// Program and arguments, after --
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Look after a program started with --synchronous 0
    #[command(
        after_help = "Examples:\n  blockhost-qm guest exec 100 --synchronous 0 -- /bin/sleep 10\n  blockhost-qm guest exec-status 100 4711"
    )]
    ExecStatus {
        /// Number of the machine
        vmid: Vmid,
        /// Its pid in the guest
        pid: i64,
    },
}

/// The command line, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The command line of this process; or what to exit with, when that is said: wrong usage is 6, as in [`Error::exit_code`].
pub(crate) fn parse<C: Parser>() -> std::result::Result<C, ExitCode> {
    C::try_parse().map_err(|e| {
        let _ = e.print();
        if e.use_stderr() {
            ExitCode::from(6)
        } else {
            ExitCode::SUCCESS
        }
    })
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli: Cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match &cli.verb {
        Verb::ConsoleLogWriter => return console::run(),
        Verb::MachineLauncher { words } => return launcher::run(words),
        _ => {}
    }
    // Machines enter their directories as another user; a caller's stricter mask (a unit's UMask=) must not shut them out.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut host = Host::from_env(Family::Machines);
    let checked = host.check_state();
    let done = checked
        .and_then(|()| run(&host, cli.verb))
        .and_then(|text| {
            std::io::stdout()
                .write_all(host.shown(&text).as_bytes())
                .at("cannot write", "stdout")
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{}", host.shown(&e.to_string()));
            ExitCode::from(e.exit_code())
        }
    }
}

fn run(host: &Host, verb: Verb) -> Result<String> {
    let silent = |result: Result<()>| result.map(|()| String::new());
    match verb {
        Verb::Create { vmid, options } => {
            silent(disks::create(host, vmid, options::read_args(&options)?))
        }
        Verb::Set { vmid, options } => {
            silent(disks::set(host, vmid, options::read_args(&options)?))
        }
        Verb::Config { vmid, .. } => Ok(VmConfig::load(host, vmid)?.to_listing()),
        Verb::Start { vmid } => silent(power::start(host, vmid)),
        Verb::Stop { vmid, .. } => silent(power::stop(host, vmid)),
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
        Verb::Reset { vmid } => silent(power::reset(host, vmid)),
        Verb::Destroy { vmid, template, .. } => silent(disks::destroy(host, vmid, template)),
        Verb::Status { vmid, verbose } => power::status(host, vmid, verbose != 0),
        Verb::List => list::table(host),
        Verb::Metrics { vmid } => metrics::counters(host, vmid),
        Verb::Importdisk {
            vmid,
            source,
            storage,
            source_format,
            ..
        } => silent(disks::importdisk(
            host,
            vmid,
            &source,
            &storage,
            source_format,
        )),
        Verb::Template { vmid } => silent(disks::template(host, vmid)),
        Verb::Clone {
            vmid,
            newid,
            name,
            full,
            description,
        } => {
            let checked = |key: &str, value: Option<String>| -> Result<Option<String>> {
                let Some(value) = value else { return Ok(None) };
                let option = blockhost_proto::qm::QmOption::parse(key, &value)
                    .map_err(|e| Error::option(key, e.to_string()))?;
                Ok(Some(option.value()))
            };
            let request = disks::Clone {
                name: checked("name", name)?,
                full: full.map(|full| full != 0),
                description: checked("description", description)?,
            };
            silent(disks::clone(host, vmid, newid, &request))
        }
        Verb::Resize { vmid, disk, size } => silent(disks::resize(host, vmid, &disk, &size)),
        Verb::Guest { verb } => run_guest(host, verb),
        Verb::Showcmd { vmid, verbose } => power::showcmd(host, vmid, verbose),
        Verb::Autostart => silent(power::autostart(host)),
        Verb::ConsoleLogWriter | Verb::MachineLauncher { .. } => Ok(String::new()),
    }
}

fn run_guest(host: &Host, verb: GuestVerb) -> Result<String> {
    match verb {
        GuestVerb::Cmd { vmid, command } => guest::cmd(host, vmid, &command),
        GuestVerb::ExecStatus { vmid, pid } => guest::exec_status(host, vmid, pid),
        GuestVerb::Exec {
            vmid,
            timeout,
            synchronous,
            pass_stdin,
            command,
        } => {
            let input = if pass_stdin == 0 {
                None
            } else {
                Some(read_stdin()?)
            };
            let timeout = (timeout > 0).then(|| Duration::from_secs(timeout));
            guest::exec(
                host,
                vmid,
                guest::Exec {
                    command,
                    timeout,
                    synchronous: synchronous != 0,
                    input,
                },
            )
        }
    }
}

fn read_stdin() -> Result<Vec<u8>> {
    let mut input = Vec::new();
    std::io::stdin()
        .take((1 << 20) + 1)
        .read_to_end(&mut input)
        .at("cannot read", "stdin")?;
    if input.len() > 1 << 20 {
        return Err(Error::option(
            "pass-stdin",
            "'input-data' (STDIN) is limited to 1 MiB, aborting",
        ));
    }
    Ok(input)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
