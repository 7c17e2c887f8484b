//! `blockhost-vm-update-gecos` and `blockhost-vm-guest-exec`: inside the guest, through its agent.

use std::io::Write as _;
use std::process::ExitCode;

use blockhost_proto::value::{EthAddress, GuestCommand, Seconds, VmName};
use clap::{CommandFactory as _, Parser};

use super::{EXIT_CODES, Failure, Setup, exit, say};
use crate::lifecycle;
use crate::store::Store as _;

/// Write wallet and token into the GECOS field of the guest's user
#[derive(Debug, Parser)]
#[command(name = "blockhost-vm-update-gecos", version, after_help = format!("Examples:
  blockhost-vm-update-gecos web-1 0x52908400098527886E0F7030069857D2E4169EE7 --nft-id 7

{EXIT_CODES}"))]
struct GecosArgs {
    /// Name of the machine
    name: VmName,
    /// The owner's wallet
    wallet: EthAddress,
    /// The owner's token
    #[arg(long, value_name = "N")]
    nft_id: u64,
}

/// Run a command in the guest
///
/// The words are joined by blanks and given to the guest's shell. The exit code is the command's.
#[derive(Debug, Parser)]
#[command(name = "blockhost-vm-guest-exec", version, after_help = format!("Examples:
  blockhost-vm-guest-exec web-1 uptime
  blockhost-vm-guest-exec web-1 --timeout 300 -- 'apt-get update && apt-get -y upgrade'

Exit code: that of the command in the guest; when it could not be run, 125.
{EXIT_CODES}"))]
struct ExecArgs {
    /// Name of the machine
    name: VmName,
    /// Seconds the command may take
    #[arg(long, value_name = "S", default_value = "60")]
    timeout: Seconds,
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// The definition of `blockhost-vm-update-gecos`.
#[must_use]
pub fn update_gecos_command() -> clap::Command {
    GecosArgs::command()
}

/// The definition of `blockhost-vm-guest-exec`.
#[must_use]
pub fn exec_command() -> clap::Command {
    ExecArgs::command()
}

/// The program `blockhost-vm-update-gecos`.
#[must_use]
pub fn update_gecos_main() -> ExitCode {
    exit(update_gecos(&GecosArgs::parse()))
}

fn update_gecos(args: &GecosArgs) -> Result<ExitCode, Failure> {
    let setup = Setup::load()?;
    let record = setup.store.get(&args.name)?;
    lifecycle::update_gecos(&setup.world(), &record, args.wallet, args.nft_id)?;
    say(&format!(
        "{}: {}",
        args.name,
        crate::cloudinit::gecos(args.wallet, Some(args.nft_id))
    ));
    Ok(ExitCode::SUCCESS)
}

/// The program `blockhost-vm-guest-exec`.
#[must_use]
pub fn exec_main() -> ExitCode {
    match exec(&ExecArgs::parse()) {
        Ok(code) => code,
        Err(failure) => {
            say(&format!("error: {}", failure.message));
            // As `env`, `nohup` and container runtimes do: it was not the command that failed.
            ExitCode::from(125)
        }
    }
}

fn exec(args: &ExecArgs) -> Result<ExitCode, Failure> {
    let setup = Setup::load()?;
    let record = setup.store.get(&args.name)?;
    let command: GuestCommand = args.command.join(" ").parse().map_err(Failure::new)?;
    let output = lifecycle::guest_exec(&setup.world(), &record, command, args.timeout)?;
    let written = std::io::stdout()
        .write_all(output.stdout.as_bytes())
        .and_then(|()| std::io::stderr().write_all(output.stderr.as_bytes()));
    written.map_err(Failure::new)?;
    Ok(ExitCode::from(
        u8::try_from(output.exitcode).unwrap_or(u8::MAX),
    ))
}
