//! `blockhost-vm-start`, `-stop`, `-kill`, `-resume`, `-destroy`: one machine, one verb.

use std::process::ExitCode;

use blockhost_proto::value::VmName;
use clap::{CommandFactory as _, Parser};

use super::{EXIT_CODES, Failure, Setup, exit, say};
use crate::lifecycle;
use crate::record::Status;
use crate::store::Store as _;
use crate::time::Time;

macro_rules! verb {
    ($Args:ident, $main:ident, $program:literal, $run:path, $(#[doc = $doc:literal])+) => {
        $(#[doc = $doc])+
        #[derive(Debug, Parser)]
        #[command(name = $program, version, after_help = format!("Examples:\n  {} web-1\n\n{EXIT_CODES}", $program))]
        struct $Args {
            /// Name of the machine
            name: VmName,
        }

        #[doc = concat!("The program `", $program, "`.")]
        #[must_use]
        pub fn $main() -> ExitCode {
            exit($run(&$Args::parse().name))
        }
    };
}

verb!(
    StartArgs, start_main, "blockhost-vm-start", start,
    /// Start a machine
    ///
    /// A running one is fine. A suspended one is resumed with blockhost-vm-resume instead.
);
verb!(
    StopArgs, stop_main, "blockhost-vm-stop", stop,
    /// Shut a machine down
    ///
    /// The guest is asked to power off; after a minute the plug is pulled. A stopped one is fine.
);
verb!(
    KillArgs, kill_main, "blockhost-vm-kill", kill,
    /// Pull a machine's plug
    ///
    /// The guest is not asked. A stopped one is fine.
);
verb!(
    DestroyArgs, destroy_main, "blockhost-vm-destroy", destroy,
    /// Destroy a machine with its disks, route, addresses and cloud-init file
    ///
    /// The record stays as history. What is gone already is fine, and so is a name that nothing has.
);

/// Resume a suspended machine
///
/// It is started and gets its route back.
#[derive(Debug, Parser)]
#[command(name = "blockhost-vm-resume", version, after_help = format!("Examples:
  blockhost-vm-resume web-1 --extend-days 30
  blockhost-vm-resume web-1 --dry-run

{EXIT_CODES}"))]
struct ResumeArgs {
    /// Name of the machine
    name: VmName,
    /// Days from its expiry, or from now when that is past
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36500))]
    extend_days: Option<u32>,
    /// Say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// The definitions.
#[must_use]
pub fn commands() -> Vec<clap::Command> {
    vec![
        StartArgs::command(),
        StopArgs::command(),
        KillArgs::command(),
        DestroyArgs::command(),
        ResumeArgs::command(),
    ]
}

fn start(name: &VmName) -> Result<ExitCode, Failure> {
    let setup = Setup::load()?;
    lifecycle::start(&setup.world(), &setup.store.get(name)?)?;
    say(&format!("{name} is running"));
    Ok(ExitCode::SUCCESS)
}

fn stop(name: &VmName) -> Result<ExitCode, Failure> {
    let setup = Setup::load()?;
    lifecycle::stop(&setup.world(), &setup.store.get(name)?)?;
    say(&format!("{name} is stopped"));
    Ok(ExitCode::SUCCESS)
}

fn kill(name: &VmName) -> Result<ExitCode, Failure> {
    let setup = Setup::load()?;
    lifecycle::kill(&setup.world(), &setup.store.get(name)?)?;
    say(&format!("{name} is stopped"));
    Ok(ExitCode::SUCCESS)
}

fn destroy(name: &VmName) -> Result<ExitCode, Failure> {
    let setup = Setup::load()?;
    let done = lifecycle::destroy(&setup.world(), name)?;
    if done.is_empty() {
        say(&format!("there is nothing named {name}; nothing was done"));
    }
    for line in done {
        say(&format!("{name}: {line}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The program `blockhost-vm-resume`.
#[must_use]
pub fn resume_main() -> ExitCode {
    exit(resume(&ResumeArgs::parse()))
}

fn resume(args: &ResumeArgs) -> Result<ExitCode, Failure> {
    let setup = Setup::load()?;
    let record = setup.store.get(&args.name)?;
    if args.dry_run {
        let route = record
            .ipv6_address
            .map_or_else(String::new, |address| format!(", route to {address}"));
        let expiry = args
            .extend_days
            .map_or_else(String::new, |days| format!(", {days} days longer"));
        say(&format!(
            "would resume {} ({}): start VM {}{route}{expiry}",
            args.name, record.status, record.vmid
        ));
        let code = if record.status == Status::Destroyed {
            5
        } else {
            0
        };
        return Ok(ExitCode::from(code));
    }
    let record = lifecycle::resume(&setup.world(), &record, args.extend_days)?;
    say(&format!(
        "{} is active until {}",
        args.name, record.expires_at
    ));
    if record.expires_at <= Time::now() {
        say(
            "warning: that is past: the garbage collector will suspend it again; give --extend-days",
        );
    }
    Ok(ExitCode::SUCCESS)
}
