//! `blockhost anchors`: what is anchored of the ledger, and whether this ledger, or a copy of it, is what was anchored.
//! Reads files and asks nodes; needs no privileges and no agent, and `verify` needs no configuration either.

use super::{fail, runtime};
use crate::anchor::local::{History, LocalError};
use crate::anchor::onchain::{self, Anchored, Kept, LogId};
use crate::chain::{Address, Chain, ChainError};
use crate::config::{Config, SetupError};
use blockhost_ledger::merkle::{Hash, hex};
use blockhost_proto::layout::Layout;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const RPC_TIMEOUT: Duration = Duration::from_secs(20);

/// What is anchored of the ledger on the chain.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AnchorsArgs {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Exit code 0: all is well; 1: this ledger is not the one that was anchored; 2: it could not be found out.

Examples:
  blockhost anchors status
  blockhost anchors verify --json
  blockhost anchors verify --dir ./copy --rpc-url https://rpc.example.org --chain-id 1 \\
      --contract 0x5FbDB2315678afecb367f032d93F642f64180aa3 --owner 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

#[derive(Debug, Subcommand)]
enum Verb {
    /// The newest anchor, and how much of the ledger is newer
    #[command(after_help = EXAMPLES)]
    Status(Place),
    /// Compare the ledger with every anchor there is
    #[command(after_help = EXAMPLES)]
    Verify(Place),
}

#[derive(Debug, Args)]
struct Place {
    /// The ledger's directory, or a copy of it; without it, this host's
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Ask this node; without it, those of web3-defaults.yaml
    #[arg(long, value_name = "URL", requires = "chain_id")]
    rpc_url: Option<String>,
    /// The chain that the node has to be on
    #[arg(long, value_name = "N", requires = "rpc_url")]
    chain_id: Option<u64>,
    /// Address of LedgerAnchor; without it, that of web3-defaults.yaml
    #[arg(long, value_name = "ADDRESS")]
    contract: Option<Address>,
    /// The account that anchors; without it, that of the deployer's key
    #[arg(long, value_name = "ADDRESS")]
    owner: Option<Address>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Local(#[from] LocalError),
    #[error("cannot start: {0}")]
    Start(std::io::Error),
}

/// Runs the command.
#[must_use]
pub fn run(args: &AnchorsArgs, layout: &Layout) -> ExitCode {
    let (place, all) = match &args.verb {
        Verb::Status(place) => (place, false),
        Verb::Verify(place) => (place, true),
    };
    let report = runtime()
        .map_err(Failure::Start)
        .and_then(|runtime| runtime.block_on(look(place, all, layout)));
    match report {
        Ok(report) => {
            report.print(place.json);
            ExitCode::from(u8::from(!report.wrong.is_empty()))
        }
        Err(e) => {
            fail("blockhost", &e);
            ExitCode::from(2)
        }
    }
}

/// What was found.
#[derive(Debug)]
struct Report {
    log: LogId,
    origin: String,
    size: u64,
    newest: Kept,
    checked: usize,
    /// What is wrong, one sentence each.
    wrong: Vec<String>,
}

async fn look(place: &Place, all: bool, layout: &Layout) -> Result<Report, Failure> {
    // Whoever names everything needs no configuration, which a judge of somebody else's ledger does not have.
    let config = || Config::load(layout).map_err(SetupError::from);
    let chain = match (&place.rpc_url, place.chain_id) {
        (Some(url), Some(id)) => Chain::new(id, std::slice::from_ref(url), RPC_TIMEOUT)?,
        _ => config()?.chain()?,
    };
    let contract = match place.contract {
        Some(contract) => contract,
        None => config()?.ledger_anchor_contract()?,
    };
    let owner = match place.owner {
        Some(owner) => owner,
        None => config()?.deployer().map_err(SetupError::from)?.address(),
    };
    let path = place.dir.clone().unwrap_or_else(|| layout.ledger());
    let history = History::read(&path)?;
    let log = LogId::new(contract, owner, &history.origin);
    chain.select().await?;
    let newest = onchain::latest(&chain, log, None).await?;
    let anchors = if all && newest.count > 0 {
        onchain::history(&chain, log, newest).await?
    } else {
        Vec::new()
    };
    let claimed: Vec<(Kept, String)> = if all {
        let place = |anchor: &Anchored| format!(" (transaction {})", anchor.tx);
        anchors.iter().map(|a| (a.kept, place(a))).collect()
    } else if newest.count > 0 {
        vec![(newest, String::new())]
    } else {
        Vec::new()
    };
    let roots = history.roots_at(claimed.iter().map(|(kept, _)| kept.size))?;
    let wrong = claimed
        .iter()
        .filter_map(|(kept, place)| {
            let found = roots.get(&kept.size).copied();
            contradiction(kept, place, found, history.size())
        })
        .collect();
    Ok(Report {
        log,
        origin: history.origin.clone(),
        size: history.size(),
        newest,
        checked: claimed.len(),
        wrong,
    })
}

fn contradiction(kept: &Kept, place: &str, found: Option<Hash>, size: u64) -> Option<String> {
    match found {
        Some(root) if root == kept.root => None,
        Some(root) => Some(format!(
            "{0} records were anchored with root {1}{place}; the first {0} records here have root {2}",
            kept.size,
            hex(&kept.root),
            hex(&root)
        )),
        None => Some(format!(
            "{} records were anchored{place}; there are {size} here",
            kept.size
        )),
    }
}

impl Report {
    fn print(&self, as_json: bool) {
        if as_json {
            say!("{}", self.json());
            return;
        }
        say!("log\t{}", self.origin.escape_debug());
        say!("records\t{}", self.size);
        say!("contract\t{}", self.log.contract);
        say!("owner\t{}", self.log.owner);
        if self.newest.count == 0 {
            say!("anchored\tnothing yet");
        } else {
            let kept = &self.newest;
            let time = i64::try_from(kept.time_s)
                .ok()
                .and_then(|s| jiff::Timestamp::from_second(s).ok())
                .map_or_else(|| kept.time_s.to_string(), |time| time.to_string());
            say!(
                "anchored\t{} records, {time}, block {}",
                kept.size,
                kept.block
            );
            say!("root\t{}", hex(&kept.root));
            say!("newer\t{}", self.size.saturating_sub(kept.size));
        }
        say!("checked\t{} of {} anchors", self.checked, self.newest.count);
        for wrong in &self.wrong {
            eprintln!("blockhost: {wrong}");
        }
        if !self.wrong.is_empty() {
            eprintln!(
                "blockhost: this is not the ledger that was anchored: it was cut off, replaced by an old copy, or rewritten"
            );
        }
    }

    fn json(&self) -> Value {
        let kept = &self.newest;
        let newest = (kept.count > 0).then(|| {
            json!({"size": kept.size, "root": hex(&kept.root), "time": kept.time_s, "block": kept.block, "count": kept.count})
        });
        json!({
            "ok": self.wrong.is_empty(), "log": self.origin, "records": self.size,
            "contract": self.log.contract.to_string(), "owner": self.log.owner.to_string(),
            "newest": newest, "checked": self.checked, "wrong": self.wrong,
        })
    }
}
