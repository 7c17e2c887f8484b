//! `is`: yes or no, for scripts. The answer is the exit code.

use super::mint_nft::contract_error;
use super::{fail, runtime};
use crate::chain::bindings::AccessCredentialNFT;
use crate::chain::{ChainError, U256};
use crate::config::{Config, SetupError};
use crate::wallets::{Book, BookError, Party};
use alloy::providers::Provider;
use blockhost_proto::layout::Layout;
use clap::{CommandFactory, Parser};
use serde_json::json;
use std::process::ExitCode;

/// Ask the chain a question whose answer is yes or no.
#[derive(Debug, Parser)]
#[command(name = "is", version, after_help = EXAMPLES)]
struct Cli {
    /// A wallet (a name of the address book or an address), or `contract`
    #[arg(value_name = "WALLET|contract")]
    subject: String,
    /// The id of a credential that the wallet has; after `contract`, an address that has code
    #[arg(value_name = "NFT_ID|ADDRESS")]
    object: String,
    /// Print a JSON object; the exit code is the same
    #[arg(long)]
    json: bool,
    /// Print nothing
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

const EXAMPLES: &str = "\
Exit codes: 0 yes; 1 no; 2 wrong usage; 3 it could not be found out.

Examples:
  is 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266 17
  is admin 0 --quiet && echo welcome
  is contract 0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48 --json";

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Book(#[from] BookError),
    #[error("cannot start: {0}")]
    Start(std::io::Error),
    #[error("{0}")]
    Usage(String),
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
    let answer = runtime()
        .map_err(Failure::Start)
        .and_then(|runtime| runtime.block_on(ask(&cli)));
    match answer {
        Ok(yes) => {
            if cli.json {
                say!(
                    "{}",
                    json!({"subject": cli.subject, "object": cli.object, "answer": yes})
                );
            } else if !cli.quiet {
                say!("{}", if yes { "yes" } else { "no" });
            }
            ExitCode::from(u8::from(!yes))
        }
        Err(e) => {
            fail("is", &e);
            ExitCode::from(if matches!(e, Failure::Usage(_)) { 2 } else { 3 })
        }
    }
}

async fn ask(cli: &Cli) -> Result<bool, Failure> {
    let usage = |e: &dyn std::fmt::Display| Failure::Usage(e.to_string());
    let layout = Layout::from_env();
    if cli.subject == "contract" {
        let address = crate::wallets::party::address(&cli.object).map_err(|e| usage(&e))?;
        let chain = Config::load(&layout).map_err(SetupError::from)?.chain()?;
        let code = chain
            .call("reading an account's code", |node| async move {
                node.get_code_at(address).await
            })
            .await?;
        return Ok(!code.is_empty());
    }
    let who: Party = cli.subject.parse().map_err(|e| usage(&e))?;
    let plain = !cli.object.is_empty() && cli.object.bytes().all(|b| b.is_ascii_digit());
    let id = plain
        .then(|| U256::from_str_radix(&cli.object, 10).ok())
        .flatten()
        .ok_or_else(|| {
            usage(&format_args!(
                "{:?} is not the id of a credential",
                cli.object
            ))
        })?;
    let config = Config::load(&layout).map_err(SetupError::from)?;
    let wallet = Book::load(&layout)?.address(&config, &who)?;
    let contract = config.nft_contract()?;
    let owner = config
        .chain()?
        .call("asking whose a credential is", |node| async move {
            AccessCredentialNFT::new(contract, node)
                .ownerOf(id)
                .call()
                .await
                .map_err(contract_error)
        })
        .await;
    match owner {
        Ok(owner) => Ok(owner == wallet),
        // There is no such credential: then it is nobody's.
        Err(ChainError::Refused { message, .. }) if message.contains("ERC721NonexistentToken") => {
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
