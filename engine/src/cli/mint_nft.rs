//! `blockhost-mint-nft`: mints one credential by hand and prints its token id.

use super::{fail, runtime};
use crate::chain::bindings::AccessCredentialNFT;
use crate::chain::tx::{self, Call};
use crate::chain::{Address, Bytes, ChainError, U256};
use crate::config::{Config, SetupError};
use crate::crypto::decode_hex;
use crate::sending;
use alloy::sol_types::{SolCall, SolEvent};
use blockhost_proto::layout::Layout;
use clap::{CommandFactory, Parser};
use std::process::ExitCode;

/// Mint an access credential to a wallet and print its token id.
#[derive(Parser)]
#[command(name = "blockhost-mint-nft", version, after_help = EXAMPLES)]
struct Cli {
    /// Who gets it
    #[arg(long, value_name = "ADDRESS")]
    owner_wallet: Address,
    /// Access details, encrypted to the owner (hexadecimal)
    #[arg(long, value_name = "HEX")]
    user_encrypted: Option<String>,
    /// Check that it would work, send nothing
    #[arg(long)]
    dry_run: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Each call mints one more token. In a dry run, the id is the one that the next mint would get.

Exit codes: 0 minted; 1 failed; 2 wrong usage.

Examples:
  blockhost-mint-nft --owner-wallet 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266
  blockhost-mint-nft --owner-wallet 0xf39F... --user-encrypted 0x8a1f... --dry-run";

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Crypto(#[from] crate::crypto::CryptoError),
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
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
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail("blockhost-mint-nft", &e),
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let layout = Layout::from_env();
    let config = Config::load(&layout).map_err(SetupError::from)?;
    let details = cli
        .user_encrypted
        .as_deref()
        .map_or(Ok(Bytes::new()), |hex| {
            decode_hex("--user-encrypted", hex).map(|bytes| Bytes::from(bytes.to_vec()))
        })?;
    runtime()?.block_on(mint(cli, &config, details))
}

async fn mint(cli: &Cli, config: &Config, details: Bytes) -> Result<(), Failure> {
    let contract = config.nft_contract()?;
    let chain = config.chain()?;
    let wallet = config.deployer().map_err(SetupError::from)?;
    let mint = AccessCredentialNFT::mintCall {
        to: cli.owner_wallet,
        userEncrypted: details,
    };
    let call = Call::contract(contract, mint.abi_encode());
    if cli.dry_run {
        // The estimate executes the call against the newest state, as our account: what would revert, reverts here.
        tx::estimate_gas(&chain, wallet.address(), &call).await?;
        let answer = chain
            .call("simulating the mint", |node| {
                let contract = AccessCredentialNFT::new(contract, node);
                let mint = mint.clone();
                let from = wallet.address();
                async move {
                    contract
                        .mint(mint.to, mint.userEncrypted)
                        .from(from)
                        .call()
                        .await
                        .map_err(contract_error)
                }
            })
            .await?;
        print(cli, answer, None);
        return Ok(());
    }
    let receipt =
        sending::execute(&chain, &wallet, &config.layout.state(), "minting", &call).await?;
    let token = receipt
        .logs()
        .iter()
        .filter(|log| log.inner.address == contract)
        .find_map(|log| AccessCredentialNFT::CredentialMinted::decode_log(&log.inner).ok())
        .map(|event| event.tokenId)
        .ok_or_else(|| ChainError::Unexpected {
            what: "minting",
            detail: "the receipt holds no CredentialMinted event".into(),
        })?;
    print(cli, token, Some(receipt.transaction_hash));
    Ok(())
}

fn print(cli: &Cli, token: U256, tx: Option<crate::chain::B256>) {
    if cli.json {
        let value = serde_json::json!({
            "token_id": token.to_string(),
            "owner": cli.owner_wallet.to_string(),
            "tx": tx.map(|hash| hash.to_string()),
            "dry_run": cli.dry_run,
        });
        say!("{value}");
    } else {
        say!("{token}");
    }
}

/// The transport's part of a contract error: what [`Chain::call`](crate::chain::Chain::call) sorts.
pub(crate) fn contract_error(error: alloy::contract::Error) -> crate::chain::rpc::TransportError {
    match error {
        alloy::contract::Error::TransportError(e) => e,
        other => alloy::transports::RpcError::local_usage(other),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
