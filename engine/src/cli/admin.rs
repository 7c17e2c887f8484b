//! `blockhost admin`: commands for the host as an administrator sends them, in a transaction of their wallet.

use crate::admin::{commands_path, load_commands, message::Message};
use crate::config::Config;
use crate::crypto::ecies;
use crate::crypto::keys::PublicKey;
use crate::outbox::now_ms;
use blockhost_proto::layout::Layout;
use blockhost_proto::value::{Port, SourceNet};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::process::ExitCode;

/// Commands that administrators send by the chain.
#[derive(Debug, Args)]
pub struct AdminArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Seal a knock for a host: what to put into the data of a transaction from the administrator's wallet
    #[command(after_help = "\
The transaction goes from admin.wallet_address to where admin.destination_mode of the host says, within 5 minutes; any
wallet sends it. On another machine give the host's --public-key; here it is read from web3-defaults.yaml.

Exit codes: 0 done; 1 failed; 2 wrong usage.

Examples:
  blockhost admin knock let-me-in --port 22
  blockhost admin knock let-me-in --port 22 --source 192.0.2.7 --duration 600 --json
  cast send $ADMIN $(blockhost admin knock let-me-in --port 22) --private-key ...")]
    Knock {
        /// The command's name in the host's admin-commands.json
        command: String,
        /// A port to open; may be given more than once
        #[arg(long = "port", required = true)]
        ports: Vec<Port>,
        /// Seconds; without it as the host has it
        #[arg(long)]
        duration: Option<u64>,
        /// Only from this address or prefix
        #[arg(long)]
        source: Option<SourceNet>,
        /// The host's public key, hexadecimal
        #[arg(long)]
        public_key: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// The commands that this host knows
    #[command(
        after_help = "Exit codes: 0 done; 1 admin-commands.json cannot be read; 2 wrong usage.\n\nExamples:\n  blockhost admin list\n  blockhost admin list --json"
    )]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
#[must_use]
pub fn run(args: AdminArgs, layout: &Layout) -> ExitCode {
    let done = match args.verb {
        Verb::Knock {
            command,
            ports,
            duration,
            source,
            public_key,
            json,
        } => seal(layout, &command, &ports, duration, source, public_key).map(|data| {
            if json {
                say!("{}", json!({"data": data}));
            } else {
                say!("{data}");
            }
        }),
        Verb::List { json } => list(layout, json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("blockhost admin: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn seal(
    layout: &Layout,
    command: &str,
    ports: &[Port],
    duration: Option<u64>,
    source: Option<SourceNet>,
    public_key: Option<String>,
) -> Result<String, String> {
    let key = match public_key {
        Some(key) => PublicKey::from_hex(key.trim()).map_err(|e| e.to_string())?,
        None => {
            let config = Config::load(layout).map_err(|e| e.to_string())?;
            match &config.web3.server_public_key {
                Some(key) => PublicKey::from_hex(key.trim()).map_err(|e| e.to_string())?,
                None => config.server_key().map_err(|e| e.to_string())?.public_key(),
            }
        }
    };
    let mut params = Map::new();
    params.insert("ports".into(), json!(ports));
    if let Some(duration) = duration {
        params.insert("duration".into(), duration.into());
    }
    if let Some(source) = source {
        params.insert("source".into(), json!(source));
    }
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|e| format!("no randomness: {e}"))?;
    let text = json!({
        "command": command,
        "params": Value::Object(params),
        "nonce": hex::encode(nonce),
        "timestamp": now_ms() / 1000,
    })
    .to_string();
    // What the host would not even read is not sent.
    Message::parse(text.as_bytes()).map_err(|e| e.to_string())?;
    let sealed = ecies::encrypt(&key, text.as_bytes()).map_err(|e| e.to_string())?;
    Ok(format!("0x{}", hex::encode(sealed)))
}

fn list(layout: &Layout, json: bool) -> Result<(), String> {
    let commands = load_commands(layout).map_err(|e| e.to_string())?;
    if json {
        say!("{}", json!(commands));
        return Ok(());
    }
    if commands.commands.is_empty() {
        eprintln!(
            "no commands: {} is missing or empty",
            commands_path(layout).display()
        );
    }
    for (name, definition) in &commands.commands {
        let crate::admin::message::ActionKind::Knock(bounds) = &definition.action;
        let ports: Vec<String> = bounds
            .allowed_ports
            .iter()
            .map(ToString::to_string)
            .collect();
        say!(
            "{name}\tknock {} {}, {} s, at most {} s\t{}",
            bounds.proto,
            ports.join(","),
            bounds.default_duration,
            bounds.max_duration,
            definition
                .description
                .as_deref()
                .unwrap_or("")
                .escape_debug()
        );
    }
    Ok(())
}
