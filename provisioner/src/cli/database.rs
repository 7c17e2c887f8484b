//! `blockhost-vm-db`: the machines' database itself. Looks at it, moves a file into a server, follows changes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use serde_json::json;

use super::{EXIT_CODES, Failure, exit, print, say};
use crate::config::Config;
use crate::record::Status;
use crate::store::{self, JsonStore, Pools, PostgresStore, Store as _};
use blockhost_proto::Layout;

/// Look at the machines' database, move it to a server, follow its changes
#[derive(Debug, Parser)]
#[command(name = "blockhost-vm-db", version, after_help = format!("Examples:
  blockhost-vm-db show
  blockhost-vm-db import /var/lib/blockhost/vms.json
  blockhost-vm-db watch | while read -r name; do blockhost-vm-status \"$name\"; done

{EXIT_CODES}"))]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say where it is and what it holds
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a file's machines, reservations and tokens over into the server that db_url names
    ///
    /// The server's database has to be empty. Stop the engine and the timers before, or what they change meanwhile stays in
    /// the file. The file is not changed; keep it as a copy.
    Import {
        /// The file [default: db_file of db.yaml]
        file: Option<PathBuf>,
    },
    /// Print the name of each machine that changes, on whichever host
    Watch,
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
        Verb::Import { file } => {
            let file = file.as_ref().unwrap_or(&config.db.db_file);
            if !file.exists() {
                return Err(Failure::new(format!("there is no file {}", file.display())));
            }
            let contents = JsonStore::new(file, Pools::of(&config)).contents()?;
            let count = server(&config)?.import(&contents)?;
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

fn server(config: &Config) -> Result<PostgresStore, Failure> {
    let address = config.db.server.clone().ok_or_else(|| {
        Failure::new("db.yaml names no server: set db_url, such as postgres:///blockhost?host=/run/postgresql")
    })?;
    Ok(PostgresStore::open(address, Pools::of(config))?)
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
