//! `blockhost-vm-db`: the machines' database itself. Looks at it, moves a file into a server, follows changes; what it does
//! about hosts is in `hosts`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use serde_json::json;

use super::{EXIT_CODES, Failure, exit, hosts, print, say};
use crate::config::Config;
use crate::record::Status;
use crate::store::postgres::Address;
use crate::store::{self, Identity, JsonStore, Pools, PostgresStore, Store as _};
use blockhost_proto::Layout;

/// Look at the machines' database, move it to a server, follow its changes, give up a host that is gone
#[derive(Debug, Parser)]
#[command(name = "blockhost-vm-db", version, after_help = format!("Examples:
  blockhost-vm-db show
  blockhost-vm-db import /var/lib/blockhost/vms.json
  blockhost-vm-db give-up host-2
  blockhost-vm-db watch | while read -r name; do blockhost-vm-status \"$name\"; done

{EXIT_CODES}"))]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say where it is and what it holds
    #[command(after_help = "Examples:\n  blockhost-vm-db show\n  blockhost-vm-db show --json")]
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a file's machines, reservations and tokens over into the server that db_url names
    ///
    /// The server's database has to be empty. Stop the engine and the timers before, or what they change meanwhile stays in
    /// the file. The file is not changed; keep it as a copy.
    #[command(after_help = "Example:\n  blockhost-vm-db import /var/lib/blockhost/vms.json")]
    Import {
        /// The file [default: db_file of db.yaml]
        file: Option<PathBuf>,
    },
    /// Print the name of each machine that changes, on whichever host
    #[command(
        after_help = "Example:\n  blockhost-vm-db watch | while read -r name; do blockhost-vm-status \"$name\"; done"
    )]
    Watch,
    /// List the hosts that share the server
    #[command(after_help = "Examples:\n  blockhost-vm-db hosts\n  blockhost-vm-db hosts --json")]
    Hosts {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give up a host that is gone for good: what was in the making there is free again
    ///
    /// Says what it would free; does it with --yes. Make sure before that the host is off and stays off, or two machines may
    /// come to have one address. Refused while the host is connected or was heard of within the last hour. Afterwards the server
    /// does not serve it any more; how it comes back says blockhost-vm-db return. A new host may have its name.
    #[command(
        after_help = "Examples:\n  blockhost-vm-db give-up host-2\n  blockhost-vm-db give-up host-2 --with-machines --yes"
    )]
    GiveUp {
        /// Its name, as `blockhost-vm-db hosts` lists it
        node: String,
        /// Its machines are lost, too: they count as destroyed from now on, and their addresses are free
        #[arg(long)]
        with_machines: bool,
        /// Do it
        #[arg(long)]
        yes: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let this host in again after it was given up
    ///
    /// Refused while there are machines here, inside vmid_range, that the database does not say are this host's: their numbers
    /// and addresses may be others' by now. Destroy them first (qm list, qm destroy).
    #[command(after_help = "Example:\n  blockhost-vm-db return")]
    Return,
}

/// The definition.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<ExitCode, Failure> {
    let config = Config::load(&Layout::from_env())?;
    for warning in &config.warnings {
        say(&format!("warning: {warning}"));
    }
    match &args.verb {
        Verb::Show { json } => show(&config, *json)?,
        Verb::Hosts { json } => hosts::list(&config, &server(&config)?, *json)?,
        Verb::GiveUp {
            node,
            with_machines,
            yes,
            json,
        } => hosts::give_up(
            &config,
            &stranger(&config)?,
            node,
            *with_machines,
            *yes,
            *json,
        )?,
        Verb::Return => hosts::come_back(&config, &stranger(&config)?)?,
        Verb::Import { file } => {
            let file = file.as_ref().unwrap_or(&config.db.db_file);
            if !file.exists() {
                return Err(Failure::new(format!("there is no file {}", file.display())));
            }
            let contents = JsonStore::new(file, Pools::of(&config)).contents()?;
            let count = server(&config)?.import(&contents, &Identity::of(&config)?)?;
            say(&format!(
                "{count} machines were taken over from {}",
                file.display()
            ));
        }
        Verb::Watch => {
            let server = server(&config)?;
            let mut lost = None;
            server.watch(None, |name| match name.map(print) {
                None => {
                    say(&format!("following {}", server.shown()));
                    true
                }
                Some(Ok(())) => true,
                Some(Err(failure)) => {
                    lost = Some(failure);
                    false
                }
            })?;
            return lost.map_or(Ok(ExitCode::SUCCESS), Err);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn address(config: &Config) -> Result<Address, Failure> {
    config.db.server.clone().ok_or_else(|| {
        Failure::new("db.yaml names no server: set db_url, such as postgres:///blockhost?host=/run/postgresql")
    })
}

fn server(config: &Config) -> Result<PostgresStore, Failure> {
    let own = Identity::of(config)?;
    Ok(PostgresStore::open_as(
        own,
        address(config)?,
        Pools::of(config),
    )?)
}

/// The server, for what concerns hosts only: also one that was given up may speak of it.
fn stranger(config: &Config) -> Result<PostgresStore, Failure> {
    Ok(PostgresStore::open(address(config)?, Pools::of(config))?)
}

fn show(config: &Config, json: bool) -> Result<(), Failure> {
    let store = store::open(config)?;
    let (records, reservations) = store.everything()?;
    let count = |status| records.iter().filter(|r| r.status == status).count();
    let place = match &config.db.server {
        Some(address) => address.shown().to_owned(),
        None => config.db.db_file.display().to_string(),
    };
    let here = records
        .iter()
        .filter(|r| r.status != Status::Destroyed && config.is_here(r.node.as_deref()))
        .count();
    let counts = [
        ("active", count(Status::Active)),
        ("suspended", count(Status::Suspended)),
        ("destroyed", count(Status::Destroyed)),
        ("reservations", reservations.len()),
        ("on_this_host", here),
    ];
    if json {
        let mut value = json!({"database": place, "node": config.node()});
        for (key, number) in counts {
            value[key] = json!(number);
        }
        return print(&value.to_string());
    }
    print(&format!("database\t{place}"))?;
    print(&format!("node\t{}", config.node()))?;
    for (key, number) in counts {
        print(&format!("{key}\t{number}"))?;
    }
    Ok(())
}
