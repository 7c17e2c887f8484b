//! `ab`: the address book. The root agent writes it; what has a meaning for the host is entered once and stays.

use super::{fail, runtime};
use crate::wallets::book::{self, BookLock};
use crate::wallets::party::{self, ROLES};
use crate::wallets::{Book, BookError, PartyError};
use blockhost_proto::layout::Layout;
use blockhost_proto::value::{AddressEntry, EthAddress, KeyFile, WalletName};
use clap::{Args, CommandFactory, Parser, Subcommand};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// The address book: names of wallets, for `bw`, `is` and revenue-share.json.
#[derive(Debug, Parser)]
#[command(name = "ab", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    init: Init,
}

const EXAMPLES: &str = "\
admin, server, hot, dev and broker are roles: they say where money goes and who owns the contracts.
They are entered by --init (hot is made by the engine) and are not changed or deleted here.

Exit codes: 0 done; 1 refused or failed, and nothing changed; 2 wrong usage.

Examples:
  ab list
  ab add partner 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266
  ab up partner 0x70997970C51812dc3A010C7d01b50e0d17dc79C8
  ab new savings
  ab del partner
  ab --init 0xADMIN 0xSERVER 0xDEV 0xBROKER --server-keyfile deployer.key";

#[derive(Debug, Args)]
struct Init {
    /// Enter the roles, once: admin, server and, where there are any, dev and broker
    #[arg(long, num_args = 2..=4, value_names = ["ADMIN", "SERVER", "DEV", "BROKER"])]
    init: Option<Vec<String>>,
    /// File in /etc/blockhost with the server's key
    #[arg(
        long,
        value_name = "FILE",
        requires = "init",
        default_value = "deployer.key"
    )]
    server_keyfile: String,
    /// Print a JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Enter somebody
    #[command(
        after_help = "Examples:\n  ab add partner 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    )]
    Add {
        /// A new name
        name: WalletName,
        /// The address
        address: String,
    },
    /// Delete somebody; a key file stays
    #[command(after_help = "Examples:\n  ab del partner")]
    Del {
        /// The name
        name: WalletName,
    },
    /// Change somebody's address
    #[command(after_help = "Examples:\n  ab up partner 0x70997970C51812dc3A010C7d01b50e0d17dc79C8")]
    Up {
        /// The name
        name: WalletName,
        /// The new address
        address: String,
    },
    /// Make a wallet on this host
    #[command(
        after_help = "The key is made by the root agent and stays in /etc/blockhost/<name>.key.\n\nExamples:\n  ab new savings"
    )]
    New {
        /// A new name
        name: WalletName,
    },
    /// Everybody
    #[command(after_help = "Examples:\n  ab list\n  ab list --json")]
    List,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Book(#[from] BookError),
    #[error(transparent)]
    Party(#[from] PartyError),
    #[error("cannot start: {0}")]
    Start(std::io::Error),
    #[error("{0} is a role: it says where money goes, and is entered by `ab --init` once")]
    Role(String),
    #[error("{0} is in the address book already; `ab up` changes it")]
    Exists(String),
    #[error("the address book has no {0}")]
    Missing(String),
    #[error(
        "{name} has the key file {keyfile}: with another address, that key would be another's; delete it and add it anew"
    )]
    HasKey {
        /// Who.
        name: String,
        /// Which file.
        keyfile: String,
    },
    #[error("{0} has {1} already; roles are entered once")]
    Entered(String, String),
    #[error("{0:?} is not a key file: {1}")]
    KeyFile(String, String),
    #[error("the address of nobody belongs to nobody; name another")]
    Nobody,
}

/// The command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let layout = Layout::from_env();
    let done = runtime()
        .map_err(Failure::Start)
        .and_then(|runtime| runtime.block_on(run(&cli, &layout)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail("ab", &e),
    }
}

async fn run(cli: &Cli, layout: &Layout) -> Result<(), Failure> {
    let as_json = cli.init.json;
    let Some(verb) = &cli.verb else {
        let addresses = cli.init.init.as_deref().unwrap_or_default();
        return init(layout, addresses, &cli.init.server_keyfile, as_json).await;
    };
    if let Verb::List = verb {
        list(&Book::load(layout)?, as_json);
        return Ok(());
    }
    let lock = BookLock::acquire(layout)?;
    let book = Book::load(layout)?;
    let mut entries = book.entries().clone();
    let (Verb::Add { name, .. } | Verb::Del { name } | Verb::Up { name, .. } | Verb::New { name }) =
        verb
    else {
        return Ok(());
    };
    if ROLES.contains(&name.as_str()) {
        return Err(Failure::Role(name.to_string()));
    }
    let known = entries.get(name).cloned();
    match (verb, known) {
        (Verb::Add { .. } | Verb::New { .. }, Some(_)) => {
            return Err(Failure::Exists(name.to_string()));
        }
        (Verb::Del { .. } | Verb::Up { .. }, None) => {
            return Err(Failure::Missing(name.to_string()));
        }
        (Verb::New { .. }, None) => {
            book::generate(layout, &lock, name).await?;
        }
        (Verb::Del { .. }, Some(_)) => {
            entries.remove(name);
            book::save(layout, &lock, entries).await?;
        }
        (
            Verb::Up { .. },
            Some(AddressEntry {
                keyfile: Some(file),
                ..
            }),
        ) => {
            return Err(Failure::HasKey {
                name: name.to_string(),
                keyfile: file.to_string(),
            });
        }
        (Verb::Add { address, .. } | Verb::Up { address, .. }, _) => {
            entries.insert(name.clone(), entry(address, None)?);
            book::save(layout, &lock, entries).await?;
        }
        (Verb::List, _) => {}
    }
    // As it is now: what the agent wrote, not what was meant.
    let book = Book::load(layout)?;
    match (as_json, book.get(name.as_str())) {
        (true, found) => say!(
            "{}",
            json!({"name": name.as_str(), "entry": found.map(of_entry)})
        ),
        (false, Some(found)) => say!("{name}\t{}", found.address),
        (false, None) => say!("{name} is deleted"),
    }
    Ok(())
}

fn entry(address: &str, keyfile: Option<KeyFile>) -> Result<AddressEntry, Failure> {
    let address = party::address(address)?;
    if address.is_zero() {
        return Err(Failure::Nobody);
    }
    Ok(AddressEntry {
        address: EthAddress::from(address.0.0),
        keyfile,
    })
}

async fn init(
    layout: &Layout,
    addresses: &[String],
    keyfile: &str,
    as_json: bool,
) -> Result<(), Failure> {
    let keyfile: KeyFile = keyfile
        .parse()
        .map_err(|e| Failure::KeyFile(keyfile.to_owned(), format!("{e}")))?;
    let lock = BookLock::acquire(layout)?;
    let book = Book::load(layout)?;
    let mut entries: BTreeMap<WalletName, AddressEntry> = book.entries().clone();
    let roles = ["admin", "server", "dev", "broker"];
    for (role, address) in roles.into_iter().zip(addresses) {
        let name: WalletName = role
            .parse()
            .map_err(|e| Failure::KeyFile(role.to_owned(), format!("{e}")))?;
        let new = entry(address, (role == "server").then(|| keyfile.clone()))?;
        match entries.get(&name) {
            Some(old) if *old == new => {}
            Some(old) => {
                return Err(Failure::Entered(role.to_owned(), old.address.to_string()));
            }
            None => {
                entries.insert(name, new);
            }
        }
    }
    if entries != *book.entries() {
        book::save(layout, &lock, entries).await?;
    }
    list(&Book::load(layout)?, as_json);
    Ok(())
}

fn of_entry(entry: &AddressEntry) -> Value {
    let keyfile = entry.keyfile.as_ref().map(ToString::to_string);
    json!({"address": entry.address.to_string(), "keyfile": keyfile})
}

fn list(book: &Book, as_json: bool) {
    if as_json {
        let entries: Map<String, Value> = book
            .entries()
            .iter()
            .map(|(name, entry)| (name.to_string(), of_entry(entry)))
            .collect();
        say!("{}", json!({ "entries": entries }));
        return;
    }
    for (name, entry) in book.entries() {
        match &entry.keyfile {
            Some(file) => say!("{name}\t{}\t{file}", entry.address),
            None => say!("{name}\t{}", entry.address),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
