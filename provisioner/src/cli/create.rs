//! `blockhost-vm-create`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use blockhost_proto::value::{EthAddress, VmName, Vmid};
use clap::builder::RangedI64ValueParser;
use clap::{CommandFactory as _, Parser};

use super::{EXIT_CODES, Failure, Setup, exit, print, say};
use crate::cloudinit::Source;
use crate::config::sizes::{CORES, DISK_GB, MEMORY_MB};
use crate::create::{create, preview};
use crate::plan::{CreateRequest, SignedSecret};
use crate::progress::Progress;

const STEPS: usize = 7;

/// Create a virtual machine
///
/// Without --apply the plan is printed (numbers, cloud-init, actions) and nothing is changed. With it the machine is
/// made, and the last line on stdout is one line of JSON. A failure or a signal undoes what was done.
#[derive(Debug, Parser)]
#[command(name = "blockhost-vm-create", version, after_help = format!("Examples:
  blockhost-vm-create web-1 --owner-wallet 0x52908400098527886E0F7030069857D2E4169EE7
  blockhost-vm-create web-1 --owner-wallet 0x52908400098527886E0F7030069857D2E4169EE7 --expiry-days 30 --skip-mint --apply

{EXIT_CODES}"))]
struct Args {
    /// Name of the machine, also its host name
    name: VmName,
    /// Wallet of the owner
    #[arg(long, value_name = "ADDRESS")]
    owner_wallet: EthAddress,
    /// The owner's signature of the public secret, to encrypt the access details
    #[arg(long, value_name = "HEX", requires = "public_secret", value_parser = signature)]
    user_signature: Option<String>,
    /// The text that was signed
    #[arg(long, value_name = "TEXT", requires = "user_signature")]
    public_secret: Option<String>,
    /// Access token of the owner, where it exists already
    #[arg(long, value_name = "N")]
    nft_token_id: Option<u64>,
    /// Days until it expires [default: default_expiry_days of db.yaml]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36500))]
    expiry_days: Option<u32>,
    /// Virtual CPUs
    #[arg(long, value_name = "N", value_parser = within(CORES))]
    cpu: Option<u32>,
    /// Memory in MB
    #[arg(long, value_name = "MB", value_parser = within(MEMORY_MB))]
    memory: Option<u32>,
    /// Disk in GB
    #[arg(long, value_name = "GB", value_parser = within(DISK_GB))]
    disk: Option<u32>,
    /// What it is for, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    purpose: String,
    /// cloud-init template: nft-auth, devbox, webserver or one of /etc/blockhost/cloud-init
    #[arg(long, value_name = "NAME", conflicts_with = "cloud_init_content")]
    cloud_init: Option<String>,
    /// A finished cloud-config; user, host name, keys and the readiness marker are added to it
    #[arg(long, value_name = "FILE")]
    cloud_init_content: Option<PathBuf>,
    /// This IPv4 address instead of the next free one
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// This IPv6 address instead of the next free one
    #[arg(long, value_name = "ADDRESS")]
    ipv6: Option<Ipv6Addr>,
    /// This number instead of the next free one
    #[arg(long, value_name = "N")]
    vmid: Option<Vmid>,
    /// Do not mint an access token
    #[arg(long)]
    skip_mint: bool,
    /// For development: write the database only, make no machine, ask no agent
    #[arg(long)]
    mock: bool,
    /// Do it
    #[arg(long)]
    apply: bool,
    /// Print the plan as JSON
    #[arg(long, conflicts_with = "apply")]
    json: bool,
}

fn within(range: std::ops::RangeInclusive<u32>) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(*range.start())..=i64::from(*range.end()))
}

fn signature(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.len() == 130 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text.to_owned())
    } else {
        Err("a wallet signature has 65 bytes: 0x and 130 hexadecimal digits".into())
    }
}

/// The definition.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    exit(run(Args::parse()))
}

fn run(args: Args) -> Result<ExitCode, Failure> {
    let mut setup = Setup::load()?;
    let source = match args.cloud_init_content {
        Some(file) => Source::File(file),
        None => Source::Template(
            args.cloud_init
                .unwrap_or_else(|| setup.config.host.vm.cloud_init.clone()),
        ),
    };
    if args.purpose.len() > 200 || args.purpose.chars().any(char::is_control) {
        return Err(Failure {
            message: "--purpose takes one line of at most 200 bytes".into(),
            code: 2,
        });
    }
    let request = CreateRequest {
        name: args.name,
        wallet: args.owner_wallet,
        signature: args
            .user_signature
            .zip(args.public_secret)
            .map(|(signature, public_secret)| SignedSecret {
                signature,
                public_secret,
            }),
        nft_token_id: args.nft_token_id,
        expiry_days: args.expiry_days,
        cores: args.cpu,
        memory_mib: args.memory,
        disk_gib: args.disk,
        purpose: args.purpose,
        source,
        ip: args.ip,
        ipv6: args.ipv6,
        vmid: args.vmid,
        skip_mint: args.skip_mint,
        mock: args.mock,
    };
    if !args.apply {
        return plan(&setup, &request, args.json);
    }
    setup.catch_signals()?;
    let created = create(&setup.world(), &request, &mut Progress::new(STEPS))?;
    for remark in &created.remarks {
        say(&format!("note: {remark}"));
    }
    print(&created.to_json().to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn plan(setup: &Setup, request: &CreateRequest, json: bool) -> Result<ExitCode, Failure> {
    let plan = preview(&setup.world(), request)?;
    if json {
        print(
            &plan
                .to_json(&setup.config)
                .map_err(Failure::new)?
                .to_string(),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let reservation = &plan.reservation;
    let ipv6 = reservation
        .ipv6
        .map_or_else(|| "none".into(), |address| address.to_string());
    print(&format!(
        "machine     {}\nVM number   {}\nIPv4        {}\nIPv6        {ipv6}",
        reservation.name, reservation.vmid, reservation.ip
    ))?;
    print("actions")?;
    for action in plan.actions(&setup.config).map_err(Failure::new)? {
        print(&format!("  {} {}", action.name(), action.params()))?;
    }
    print(&format!("cloud-init  {}", plan.snippet))?;
    for line in plan.user_data.lines() {
        print(&format!("  {line}"))?;
    }
    say("nothing was changed; --apply does it");
    Ok(ExitCode::SUCCESS)
}
