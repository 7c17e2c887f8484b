//! `blockhost-deploy-contracts`: puts the contracts on the chain and, where asked, enters them in the configuration.

use super::{fail, replace, runtime};
use crate::chain::bindings::BlockhostSubscriptions;
use crate::chain::deploy::{self, Deployed};
use crate::chain::{Address, Chain, ChainError};
use crate::config::{Config, LOCAL_CHAIN_ID, SetupError};
use blockhost_proto::layout::Layout;
use clap::{CommandFactory, Parser, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Deploy the contracts with the deployer's key and print their addresses.
#[derive(Parser)]
#[command(name = "blockhost-deploy-contracts", version, after_help = EXAMPLES)]
struct Cli {
    /// Only this one; without it, nft and pos
    #[arg(value_enum)]
    which: Option<Which>,
    /// Enter the addresses in web3-defaults.yaml
    #[arg(long)]
    write_config: bool,
    /// On a local chain only: also deploy a token that anyone may print, and make it the primary stablecoin
    #[arg(long)]
    dev_stablecoin: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// AccessCredentialNFT
    Nft,
    /// BlockhostSubscriptions
    Pos,
    /// LedgerAnchor, which keeps the ledger's heads
    Anchor,
}

const EXAMPLES: &str = "\
Every run deploys anew. The key's account pays and owns what is deployed.

Exit codes: 0 deployed; 1 failed; 2 wrong usage.

Examples:
  blockhost-deploy-contracts
  blockhost-deploy-contracts nft --json
  blockhost-deploy-contracts anchor --write-config
  blockhost-deploy-contracts --write-config --dev-stablecoin    (chain id 31337)";

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(
        "--dev-stablecoin is for local chains (chain id {LOCAL_CHAIN_ID}); this is chain id {0}, use its own stablecoin"
    )]
    NotLocal(u64),
    #[error("--dev-stablecoin needs the subscription contract: leave out `nft` and `anchor`")]
    NoPos,
    #[error("cannot start: {0}")]
    Start(std::io::Error),
    #[error("the contracts are deployed, but {path} could not be written: {source}; enter the addresses above by hand", path = .path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
}

#[derive(Default)]
struct Addresses {
    nft: Option<Deployed>,
    pos: Option<Deployed>,
    anchor: Option<Deployed>,
    stablecoin: Option<Deployed>,
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
        Err(e) => fail("blockhost-deploy-contracts", &e),
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let layout = Layout::from_env();
    let config = Config::load(&layout).map_err(SetupError::from)?;
    let chain_id = config.web3.blockchain.chain_id;
    if cli.dev_stablecoin && chain_id != LOCAL_CHAIN_ID {
        return Err(Failure::NotLocal(chain_id));
    }
    if cli.dev_stablecoin && matches!(cli.which, Some(Which::Nft | Which::Anchor)) {
        return Err(Failure::NoPos);
    }
    let addresses = runtime()
        .map_err(Failure::Start)?
        .block_on(deploy_all(cli, &config))?;
    print(cli, chain_id, &addresses);
    if cli.write_config {
        write_config(&Config::web3_path(&layout), &addresses)?;
    }
    Ok(())
}

async fn deploy_all(cli: &Cli, config: &Config) -> Result<Addresses, Failure> {
    let chain: Chain = config.chain()?;
    let wallet = config.deployer().map_err(SetupError::from)?;
    let state = config.layout.state();
    let mut addresses = Addresses::default();
    if matches!(cli.which, None | Some(Which::Nft)) {
        eprintln!("deploying AccessCredentialNFT as {} ...", wallet.address());
        addresses.nft = Some(deploy::deploy_nft(&chain, &wallet, &state).await?);
    }
    if matches!(cli.which, None | Some(Which::Pos)) {
        eprintln!(
            "deploying BlockhostSubscriptions as {} ...",
            wallet.address()
        );
        addresses.pos = Some(deploy::deploy_subscriptions(&chain, &wallet, &state).await?);
    }
    if cli.which == Some(Which::Anchor) {
        eprintln!("deploying LedgerAnchor as {} ...", wallet.address());
        addresses.anchor = Some(deploy::deploy_ledger_anchor(&chain, &wallet, &state).await?);
    }
    if let (true, Some(pos)) = (cli.dev_stablecoin, addresses.pos) {
        eprintln!("deploying MockUSD and making it the primary stablecoin ...");
        let coin = deploy::deploy_mock_usd(&chain, &wallet, &state).await?;
        let set = BlockhostSubscriptions::setPrimaryStablecoinCall {
            stablecoin: coin.address,
        };
        deploy::send(
            &chain,
            &wallet,
            &state,
            "setting the primary stablecoin",
            pos.address,
            &set,
        )
        .await?;
        addresses.stablecoin = Some(coin);
    }
    Ok(addresses)
}

fn print(cli: &Cli, chain_id: u64, addresses: &Addresses) {
    let named = [
        ("nft_contract", addresses.nft),
        ("subscription_contract", addresses.pos),
        ("usdc_address", addresses.stablecoin),
        ("ledger_anchor_contract", addresses.anchor),
    ];
    if cli.json {
        let mut object = serde_json::Map::new();
        object.insert("chain_id".into(), chain_id.into());
        for (name, deployed) in named {
            object.insert(name.into(), deployed.map(|d| d.address.to_string()).into());
        }
        object.insert("block".into(), first_block(addresses).into());
        say!("{}", serde_json::Value::Object(object));
    } else {
        for (name, deployed) in named {
            if let Some(deployed) = deployed {
                say!("{name} {}", deployed.address);
            }
        }
    }
}

/// The block before which no event of ours can be.
fn first_block(addresses: &Addresses) -> Option<u64> {
    [addresses.nft, addresses.pos, addresses.anchor]
        .into_iter()
        .flatten()
        .map(|d| d.block)
        .min()
}

fn write_config(path: &Path, addresses: &Addresses) -> Result<(), Failure> {
    let fail = |source| Failure::Write {
        path: path.to_owned(),
        source,
    };
    let text = std::fs::read_to_string(path).map_err(fail)?;
    let mut changes: Vec<(&str, String)> = Vec::new();
    let quoted = |address: Address| format!("'{address}'");
    if let Some(nft) = addresses.nft {
        changes.push(("nft_contract", quoted(nft.address)));
    }
    if let Some(pos) = addresses.pos {
        changes.push(("subscription_contract", quoted(pos.address)));
        changes.push(("start_block", pos.block.to_string()));
    }
    if let Some(coin) = addresses.stablecoin {
        changes.push(("usdc_address", quoted(coin.address)));
    }
    if let Some(anchor) = addresses.anchor {
        changes.push(("ledger_anchor_contract", quoted(anchor.address)));
    }
    let new = changes
        .iter()
        .try_fold(text, |text, (key, value)| {
            set_blockchain_key(&text, key, value)
        })
        .ok_or_else(|| {
            fail(std::io::Error::other(
                "it has no `blockchain:` section in block form to enter them in",
            ))
        })?;
    replace(path, &new).map_err(fail)
}

/// Sets one key of the section `blockchain` in YAML text and leaves every other byte alone, comments too. `None` when
/// the section is neither in block form (one key a line) nor in flow form on one line.
fn set_blockchain_key(text: &str, key: &str, value: &str) -> Option<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let start = lines
        .iter()
        .position(|line| line.starts_with("blockchain:"))?;
    let rest = lines[start]["blockchain:".len()..].trim().to_owned();
    if rest.starts_with('{') {
        let body = rest.strip_prefix('{')?.strip_suffix('}')?.trim();
        // Only keys that this program writes are replaced here, and their values hold no comma.
        let mut pairs: Vec<String> = body
            .split(", ")
            .filter(|p| !p.is_empty())
            .map(str::to_owned)
            .collect();
        pairs.retain(|pair| pair.split(':').next().map(str::trim) != Some(key));
        pairs.push(format!("{key}: {value}"));
        lines[start] = format!("blockchain: {{{}}}", pairs.join(", "));
    } else if rest.is_empty() || rest.starts_with('#') {
        let belongs = |line: &String| line.trim().is_empty() || line.starts_with([' ', '\t', '#']);
        let end = lines[start + 1..]
            .iter()
            .position(|line| !belongs(line))
            .map_or(lines.len(), |n| start + 1 + n);
        let indent_of = |line: &str| line.len() - line.trim_start().len();
        let indent = lines[start + 1..end]
            .iter()
            .find(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'))
            .map_or(2, |l| indent_of(l));
        let new = format!("{}{key}: {value}", " ".repeat(indent));
        let found = lines[start + 1..end].iter().position(|line| {
            indent_of(line) == indent && line.trim_start().split(':').next() == Some(key)
        });
        match found {
            Some(n) => lines[start + 1 + n] = new,
            None => lines.insert(start + 1, new),
        }
    } else {
        return None;
    }
    Some(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_section_in_another_form_is_left_alone() {
        assert_eq!(
            set_blockchain_key("blockchain: &anchor\n  chain_id: 1\n", "k", "1"),
            None
        );
        assert_eq!(set_blockchain_key("other: 1\n", "k", "1"), None);
    }

    #[test]
    fn only_the_named_key_changes_and_comments_stay() {
        let text = "# mine\nblockchain:\n    chain_id: 1 # one\n    nft_contract: ''\n\nserver: {nft_contract: x}\n";
        let new = set_blockchain_key(text, "nft_contract", "'0xA'").unwrap();
        assert_eq!(
            new,
            "# mine\nblockchain:\n    chain_id: 1 # one\n    nft_contract: '0xA'\n\nserver: {nft_contract: x}\n"
        );
        let new = set_blockchain_key(&new, "start_block", "5").unwrap();
        assert!(new.contains("blockchain:\n    start_block: 5\n    chain_id: 1 # one\n"));
    }

    #[test]
    fn the_seeds_one_line_form_is_understood() {
        let text =
            "blockchain: {chain_id: 1, rpc_url: 'https://x/y', nft_contract: '0x'}\nserver: {}\n";
        let new = set_blockchain_key(text, "nft_contract", "'0xA'").unwrap();
        assert_eq!(
            new,
            "blockchain: {chain_id: 1, rpc_url: 'https://x/y', nft_contract: '0xA'}\nserver: {}\n"
        );
    }
}
