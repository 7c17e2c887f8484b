//! The command line of `blockhost-witness`: parses, calls, prints.

use crate::config::Config;
use crate::server;
use crate::store::{Store, make_key, read_key};
use crate::submit::{Round, submit};
use blockhost_ledger::policy::{MAX_POLICY_BYTES, Policy};
use blockhost_proto::action::Action;
use blockhost_proto::client::blocking::call_once;
use blockhost_proto::layout::Layout;
use clap::{CommandFactory as _, Parser, Subcommand};
use serde_json::{Value, json};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Witness other hosts' ledgers, and have this host's ledger witnessed.
///
/// A witness remembers the largest head it has seen of each log and signs only what continues it, so a log that was cut,
/// rolled back, rewritten, or shown differently to others cannot get its signature again. The protocol is C2SP
/// tlog-witness; any log and any witness that speak it work together.
#[derive(Parser, Debug)]
#[command(
    name = "blockhost-witness",
    version,
    after_help = "Examples:\n  \
        blockhost-witness keygen witness.example/w1    make this witness's key, print the public one\n  \
        blockhost-witness run                          serve (the unit blockhost-witness.service does)\n  \
        blockhost-witness status --json                what was cosigned last of each log\n  \
        blockhost-witness submit --every 60            have our own ledger cosigned by the witnesses of the policy\n\n\
        Exit status: 0 done, 1 failed or not enough cosignatures, 2 wrong usage, 4 a witness has seen another history."
)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Make the key of this witness; an existing one is never replaced
    #[command(after_help = "Example:\n  blockhost-witness keygen witness.example/w1")]
    Keygen {
        /// Its name, such as a host name and a path without a scheme
        name: String,
        /// The key file [default: <state>/witness.key]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Directory of the key and of what was cosigned
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
    /// Print the public key, for the policies of those who trust this witness
    #[command(after_help = "Example:\n  blockhost-witness vkey")]
    Vkey(Places),
    /// Check the configuration and the memory without serving
    #[command(after_help = "Example:\n  blockhost-witness check --config witness.yaml")]
    Check(Places),
    /// Serve
    #[command(after_help = "Example:\n  blockhost-witness run")]
    Run(Places),
    /// Show what was cosigned last of each log
    #[command(
        after_help = "Examples:\n  blockhost-witness status\n  blockhost-witness status --json"
    )]
    Status {
        #[command(flatten)]
        places: Places,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Have this host's ledger cosigned by the witnesses of its policy, and hand the cosignatures to the root agent
    #[command(
        after_help = "Examples:\n  blockhost-witness submit\n  blockhost-witness submit --every 60\n  blockhost-witness submit --print > cosigned.txt"
    )]
    Submit {
        /// The policy (C2SP tlog-policy) [default: /etc/blockhost/ledger-witnesses]
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Another ledger directory
        #[arg(long, value_name = "DIR")]
        ledger: Option<PathBuf>,
        /// Go on, every so many seconds
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
        every: Option<u64>,
        /// Print the cosigned checkpoint instead of handing it to the root agent
        #[arg(long, conflicts_with = "every")]
        print: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args, Debug)]
struct Places {
    /// The configuration [default: /etc/blockhost/witness.yaml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The key file [default: witness.key in $CREDENTIALS_DIRECTORY if it is there, otherwise in the state directory]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Directory of what was cosigned [default: /var/lib/blockhost-witness]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

impl Places {
    fn state(&self, layout: &Layout) -> PathBuf {
        state(self.state.as_deref(), layout)
    }

    fn key(&self, layout: &Layout) -> PathBuf {
        if let Some(key) = &self.key {
            return key.clone();
        }
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let credential = credentials.map(|dir| dir.join("witness.key"));
        credential
            .filter(|file| file.is_file())
            .unwrap_or_else(|| self.state(layout).join("witness.key"))
    }

    fn config(&self, layout: &Layout) -> Result<Config, Box<dyn Error>> {
        let default = || layout.join("/etc/blockhost/witness.yaml");
        Ok(Config::read(&self.config.clone().unwrap_or_else(default))?)
    }

    fn store(&self, layout: &Layout, config: &Config) -> Result<Store, Box<dyn Error>> {
        let cosigner = read_key(&self.key(layout))?;
        Ok(Store::open(&self.state(layout), cosigner, &config.logs)?)
    }
}

fn state(given: Option<&Path>, layout: &Layout) -> PathBuf {
    given.map_or_else(|| layout.join("/var/lib/blockhost-witness"), Path::to_owned)
}

/// The definition, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let layout = Layout::from_env();
    match run(Args::parse().verb, &layout) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("blockhost-witness: {error}");
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    use std::io::Write as _;
    // A reader that leaves early, as `head` does, is no error.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// To the journal with its level (syslog's), to people with the program's name.
fn complain(level: u8, text: &str) {
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        eprintln!("<{level}>{text}");
    } else {
        eprintln!("blockhost-witness: {text}");
    }
}

fn run(verb: Verb, layout: &Layout) -> Result<ExitCode, Box<dyn Error>> {
    match verb {
        Verb::Keygen {
            name,
            key,
            state: given,
        } => {
            let file = key.unwrap_or_else(|| state(given.as_deref(), layout).join("witness.key"));
            say(&make_key(&file, &name)?.key().to_string());
        }
        Verb::Vkey(places) => say(&read_key(&places.key(layout))?.key().to_string()),
        Verb::Check(places) => {
            let config = places.config(layout)?;
            let key = read_key(&places.key(layout))?;
            crate::store::look(&places.state(layout), &key, &config.logs)?;
            say(&format!(
                "good: {} logs, would listen on {}",
                config.logs.len(),
                config.listen
            ));
        }
        Verb::Run(places) => serve(&places, layout)?,
        Verb::Status { places, json } => status(&places, layout, json)?,
        Verb::Submit {
            policy,
            ledger,
            every,
            print,
            json,
        } => {
            let policy = policy.unwrap_or_else(|| layout.join(POLICY));
            let ledger = ledger.unwrap_or_else(|| layout.ledger());
            return submit_all(layout, &policy, &ledger, every, print, json);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Which witnesses this host's ledger has.
const POLICY: &str = "/etc/blockhost/ledger-witnesses";

fn serve(places: &Places, layout: &Layout) -> Result<(), Box<dyn Error>> {
    let config = places.config(layout)?;
    let store = Arc::new(places.store(layout, &config)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(config.listen)
            .await
            .map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
        eprintln!(
            "<6>{} witnesses {} logs on {}",
            store.key(),
            config.logs.len(),
            listener.local_addr()?
        );
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        server::serve(listener, store, stop).await;
        Ok(())
    })
}

fn status(places: &Places, layout: &Layout, as_json: bool) -> Result<(), Box<dyn Error>> {
    let config = places.config(layout)?;
    let key = read_key(&places.key(layout))?;
    let states = crate::store::look(&places.state(layout), &key, &config.logs)?;
    if as_json {
        say(&json!({"witness": key.key().to_string(), "logs": states}).to_string());
        return Ok(());
    }
    say(&format!("{}", key.key()));
    for log in states {
        match (log.size, log.time_s) {
            (Some(size), Some(time_s)) => {
                say(&format!("{:>10}  {time_s}  {}", size, log.origin));
            }
            _ => say(&format!("     never              {}", log.origin)),
        }
    }
    Ok(())
}

fn read_policy(file: &Path) -> Result<Policy, Box<dyn Error>> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", file.display());
    let mut text = String::new();
    std::fs::File::open(file)
        .map_err(failed)?
        .take(MAX_POLICY_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(Policy::parse(&text).map_err(|error| format!("{}: {error}", file.display()))?)
}

fn submit_all(
    layout: &Layout,
    policy: &Path,
    ledger: &Path,
    every: Option<u64>,
    print: bool,
    as_json: bool,
) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    loop {
        // Read each time: a witness that is added is asked in the next round.
        let round =
            read_policy(policy).and_then(|policy| Ok(runtime.block_on(submit(ledger, &policy))?));
        let (code, failed) = match &round {
            Ok(round) => {
                // Told first: an agent that is down, or worse, must not be able to hide an alarm.
                report(round, print, as_json);
                let handed = if !print && round.any() {
                    hand_over(layout, round)
                } else {
                    Ok(())
                };
                (
                    round_code(round).max(u8::from(handed.is_err())),
                    handed.err(),
                )
            }
            Err(error) => (1, Some(error.to_string().into())),
        };
        if let Some(error) = failed {
            complain(3, &error.to_string());
        }
        match every {
            Some(seconds) => std::thread::sleep(Duration::from_secs(seconds)),
            None => return Ok(ExitCode::from(code)),
        }
    }
}

fn round_code(round: &Round) -> u8 {
    let alarm = round
        .outcomes
        .iter()
        .any(|outcome| outcome.result.as_ref().is_err_and(|error| error.is_alarm()));
    match (alarm, round.enough) {
        (true, _) => 4,
        (false, true) => 0,
        (false, false) => 1,
    }
}

fn hand_over(layout: &Layout, round: &Round) -> Result<(), Box<dyn Error>> {
    let action = Action::from_parts("ledger-cosign", &json!({"checkpoint": round.note}))?;
    call_once(layout, &action)
        .map_err(|error| format!("the root agent did not take the cosignatures: {error}"))?;
    Ok(())
}

fn report(round: &Round, print: bool, as_json: bool) {
    if print {
        say(round.note.trim_end_matches('\n'));
    }
    if as_json {
        let witnesses: Vec<Value> = round
            .outcomes
            .iter()
            .map(|outcome| match &outcome.result {
                Ok(found) => json!({"name": outcome.name, "ok": true, "time_s": found.time_s}),
                Err(error) => json!({
                    "name": outcome.name, "ok": false, "error": error.to_string(), "alarm": error.is_alarm(),
                }),
            })
            .collect();
        let line = json!({"size": round.head.size, "enough": round.enough, "witnesses": witnesses});
        say(&line.to_string());
    }
    for outcome in &round.outcomes {
        if let Err(error) = &outcome.result {
            let level = if error.is_alarm() { 1 } else { 4 };
            complain(level, &format!("witness {}: {error}", outcome.name));
        }
    }
    if !round.enough {
        let size = round.head.size;
        complain(
            4,
            &format!("not enough witnesses cosigned the head of {size} records"),
        );
    }
}
