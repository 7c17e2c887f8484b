//! `blockhost config check`: reads every file of the engine and says what is effective, without secrets.

use crate::broker::kept::Kept;
use crate::broker::run;
use crate::chain::plans;
use crate::config::{Config, NetworkConfig, SetupError};
use crate::crypto::keys::PrivateKey;
use crate::funds::shares;
use crate::funds::teller::FundsError;
use crate::heads;
use crate::manifest::Manifest;
use crate::wallets::Book;
use blockhost_proto::layout::Layout;
use blockhost_provisioner::config::Sizes;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How long the chain may take to say which plans there are.
const CHAIN_LIMIT: Duration = Duration::from_secs(5);

/// The configuration.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check all files and print the effective values
    #[command(
        after_help = "Exit codes: 0 all can be used; 1 something is wrong; 2 wrong usage.\n\nExamples:\n  blockhost config check\n  blockhost config check --json | jq -r '.problems[]'"
    )]
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command. Exit code 1 when something is wrong.
#[must_use]
pub fn run(args: &ConfigArgs, layout: &Layout) -> ExitCode {
    let Verb::Check { json } = args.verb;
    let mut problems = Vec::new();
    let mut values = Map::new();
    let mut warnings = Vec::new();
    match Config::load(layout) {
        Ok(config) => {
            engine(&config, &mut values, &mut problems);
            warnings.extend(config.warnings.iter().map(ToString::to_string));
        }
        Err(e) => problems.push(e.to_string()),
    }
    match Manifest::load(layout) {
        Ok(manifest) => drop(values.insert("provisioner".into(), json!(manifest.name))),
        Err(e) => problems.push(e.to_string()),
    }
    match crate::admin::load_commands(layout) {
        Ok(commands) => {
            let names: Vec<&String> = commands.commands.keys().collect();
            values.insert("admin.commands".into(), json!(names));
        }
        Err(e) => problems.push(e.to_string()),
    }
    match blockhost_provisioner::config::Config::load(layout) {
        Ok(config) => {
            let shown = config.db.shown().into_iter();
            values.extend(shown.map(|(key, value)| (format!("db.{key}"), json!(value))));
            warnings.extend(config.warnings.iter().map(ToString::to_string));
        }
        Err(e) => problems.push(e.to_string()),
    }
    match Sizes::load(layout) {
        Ok(sizes) => {
            for (id, size) in sizes.entries() {
                values.insert(format!("plans.{id}"), json!(size.to_string()));
            }
            let otherwise = json!(sizes.otherwise().to_string());
            values.insert("plans.otherwise".into(), otherwise);
            sold(layout, &sizes, &mut problems, &mut warnings);
        }
        // What is wrong with the rest of the file was said above.
        Err(e) if problems.contains(&e.to_string()) => {}
        Err(e) => problems.push(e.to_string()),
    }
    match Kept::load(layout) {
        Ok(kept) => broker(layout, kept.as_ref(), &mut values, &mut problems),
        Err(e) => problems.push(e.to_string()),
    }
    if json {
        say!(
            "{}",
            json!({"ok": problems.is_empty(), "values": values, "problems": problems, "warnings": warnings})
        );
    } else {
        for (key, value) in &values {
            say!(
                "{key}\t{}",
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            );
        }
        for warning in &warnings {
            eprintln!("blockhost: warning: {warning}");
        }
        for problem in &problems {
            eprintln!("blockhost: {problem}");
        }
    }
    ExitCode::from(u8::from(!problems.is_empty()))
}

/// Whether the plans that have a size are plans of the contract. The next one may have its size before it is offered.
fn sold(layout: &Layout, sizes: &Sizes, problems: &mut Vec<String>, warnings: &mut Vec<String>) {
    // What is wrong with the rest was said above.
    let Ok(config) = Config::load(layout) else {
        return;
    };
    let (Ok(chain), Ok(contract)) = (config.chain(), config.subscription_contract()) else {
        return;
    };
    if sizes.entries().next().is_none() {
        return;
    }
    let asked = async { tokio::time::timeout(CHAIN_LIMIT, plans::count(&chain, contract)).await };
    let counted = super::runtime().map(|runtime| runtime.block_on(asked));
    let last = match counted {
        Ok(Ok(Ok(last))) => Ok(last),
        Ok(Ok(Err(e))) => Err(e.to_string()),
        Ok(Err(_)) => Err(format!("no answer within {} s", CHAIN_LIMIT.as_secs())),
        Err(e) => Err(e.to_string()),
    };
    match last {
        Ok(last) => {
            for (id, _) in sizes.entries().filter(|(id, _)| *id > last) {
                let wrong = sizes.invalid(id, "the contract has no such plan (bw plan list)");
                if id == last + 1 {
                    warnings.push(format!("{wrong}; the next one that is offered gets it"));
                } else {
                    problems.push(wrong.to_string());
                }
            }
        }
        Err(e) => warnings.push(format!(
            "whether the contract has the plans that have a size is not known: {e}"
        )),
    }
}

/// The broker, and whether the network that it gave is still this host's.
fn broker(
    layout: &Layout,
    kept: Option<&Kept>,
    values: &mut Map<String, Value>,
    problems: &mut Vec<String>,
) {
    // What is wrong with the file itself was said above.
    let section = NetworkConfig::load(&Config::network_path(layout));
    let section = section.ok().and_then(|(config, _)| config.broker);
    let mut set = |key: &str, value: Value| drop(values.insert(key.into(), value));
    if let Some(section) = &section {
        set("broker.url", json!(section.url.as_str()));
        set("broker.lease_s", json!(section.lease_s));
    }
    let Some(kept) = kept else { return };
    set("broker.prefix", json!(kept.prefix.to_string()));
    if let Some(until) = kept.lease_until {
        set("broker.lease_until", json!(until.get()));
    }
    let lease_s = section.as_ref().map_or(0, |section| section.lease_s);
    problems.extend(kept.complaint(run::now(), lease_s));
    if kept.far_end().is_some() && section.is_none() {
        problems.push(format!(
            "{} is a broker's, and {} has no section broker: nobody renews it",
            Kept::path(layout).display(),
            Config::network_path(layout).display()
        ));
    }
}

fn engine(config: &Config, values: &mut Map<String, Value>, problems: &mut Vec<String>) {
    let mut set = |key: &str, value: Value| drop(values.insert(key.into(), value));
    let chain = &config.web3.blockchain;
    set("chain_id", json!(chain.chain_id));
    set("confirmations", json!(config.confirmations()));
    let told_by = heads::endpoints(&chain.urls()).map_or(0, |found| found.len());
    set(
        "rpc_endpoints",
        json!(chain.urls().len().saturating_sub(told_by)),
    );
    set("websocket_endpoints", json!(told_by));
    set("engine.workers", json!(config.host.engine.workers));
    set(
        "engine.max_attempts",
        json!(config.host.engine.max_attempts),
    );
    let anchor = config.host.ledger_anchor;
    set("ledger_anchor.every_records", json!(anchor.every_records));
    set("ledger_anchor.every_hours", json!(anchor.every_hours));
    set("reconcile.every_s", json!(config.host.reconcile.every_s));
    if let Some(listen) = config.host.metrics.listen {
        set("metrics.listen", json!(listen));
    }
    if let Some(wallet) = config.host.admin.wallet_address {
        set("admin.wallet_address", json!(wallet.to_string()));
        set(
            "admin.max_command_age",
            json!(config.host.admin.max_command_age),
        );
    }
    if let Some(stats) = config.network.flow_stats {
        set("flow_stats.every_s", json!(stats.every_s));
    }
    let funds = config.host.fund_manager;
    set("fund_manager.enabled", json!(funds.enabled));
    set(
        "fund_manager.fund_cycle_interval_hours",
        json!(funds.fund_cycle_interval_hours),
    );
    set(
        "fund_manager.gas_check_interval_minutes",
        json!(funds.gas_check_interval_minutes),
    );
    for (key, amount, decimals) in [
        ("min_withdrawal_usd", funds.min_withdrawal_usd, 6),
        ("hot_wallet_gas_eth", funds.hot_wallet_gas_eth, 18),
        (
            "server_stablecoin_buffer_usd",
            funds.server_stablecoin_buffer_usd,
            6,
        ),
        ("gas_low_threshold_usd", funds.gas_low_threshold_usd, 6),
        ("gas_swap_amount_usd", funds.gas_swap_amount_usd, 6),
    ] {
        let shown = crate::wallets::amount::format(&amount, decimals);
        set(&format!("fund_manager.{key}"), json!(shown));
    }
    if let Some(router) = crate::funds::look::router(config) {
        set("uniswap.router", json!(router.to_string()));
    }
    let shared = Book::load(&config.layout)
        .map_err(FundsError::from)
        .and_then(|book| {
            let shares = shares::load(&config.layout)?;
            set("revenue_share.recipients", json!(shares.len()));
            shares::recipients(&config.layout, config, &book, &shares)?;
            Ok(())
        });
    problems.extend(shared.err().map(|e| e.to_string()));
    let mut contract = |key: &str, found: Result<crate::chain::Address, SetupError>| match found {
        Ok(address) => set(key, json!(address.to_string())),
        Err(e) => problems.push(e.to_string()),
    };
    contract("nft_contract", config.nft_contract());
    contract("subscription_contract", config.subscription_contract());
    if let Some(anchor) = config.web3.blockchain.ledger_anchor_contract {
        contract("ledger_anchor_contract", Ok(anchor));
    }
    problems.extend(config.chain().err().map(|e| e.to_string()));
    let mut key = |name: &str, path: &Path| match PrivateKey::from_file(path) {
        Ok(key) => {
            values.insert(
                format!("{name}.address"),
                json!(key.public_key().address().to_string()),
            );
            Some(key)
        }
        Err(e) => {
            problems.push(e.to_string());
            None
        }
    };
    key("deployer", &config.deployer_key_path());
    let server = key("server", &config.server_key_path());
    if let (Some(server), Some(stated)) = (server, &config.web3.server_public_key) {
        let stated = stated.trim().trim_start_matches("0x").to_ascii_lowercase();
        // Buyers would encrypt to a key that nobody holds.
        if stated != server.public_key().to_hex() {
            problems.push(format!(
                "{}: server.public_key does not belong to the server's key file",
                Config::web3_path(&config.layout).display()
            ));
        }
    }
}
