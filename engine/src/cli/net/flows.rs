//! `blockhost net flows` and `flow-stats`: the flows that a policy means, and what goes through the switches. Changes nothing.

use super::super::{fail, runtime};
use crate::network::accounts::{self, AccountsError};
use crate::network::analytics::between;
use crate::network::flows::{Compiled, Policy, PolicyError, compile};
use blockhost_proto::action::Action;
use blockhost_proto::layout::Layout;
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "\
Neither changes anything: `blockhost apply` does, and the engine records what the switches count when network.yaml has a
section flow_stats.

Examples:
  blockhost net flows state.json
  blockhost net flows ovsflows.json --owner net.ct.100
  blockhost net flows state.json --json | jq '.[].params.meter'
  blockhost net flow-stats --seconds 10 --json";

/// What a policy means, and what comes of it.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Compile the section ovsflows and print the flows, in the words of ovs-ofctl
    #[command(after_help = EXAMPLES)]
    Flows {
        /// The section by itself, or a state.json with it under plugins.ovsflows
        file: PathBuf,
        /// Only this owner's, such as net.ct.100
        #[arg(long, value_name = "OWNER")]
        owner: Option<String>,
        /// Print the actions for the root agent as a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Look at all counters twice and print what came in between
    #[command(after_help = EXAMPLES)]
    FlowStats {
        /// Seconds between the two looks
        #[arg(long, default_value_t = 5, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {source}", path.display())]
    Json {
        path: PathBuf,
        source: blockhost_proto::json::JsonError,
    },
    #[error("{}: there is no plugins.ovsflows and no bridges in it", path.display())]
    NoSection { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Policy { path: PathBuf, source: PolicyError },
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    #[error("cannot start: {0}")]
    Start(std::io::Error),
}

/// Runs the command.
#[must_use]
pub(super) fn run(verb: &Verb, layout: &Layout) -> ExitCode {
    let done = match verb {
        Verb::Flows { file, owner, json } => flows(file, owner.as_deref(), *json),
        Verb::FlowStats { seconds, json } => stats(*seconds, *json, layout),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("blockhost", &error),
    }
}

fn flows(path: &Path, owner: Option<&str>, json: bool) -> Result<(), Failure> {
    for compiled in compiled(path)? {
        if json {
            let actions: Vec<Value> = compiled
                .actions()
                .filter(|action| owner.is_none_or(|owner| is_of(action, owner)))
                .map(|action| json!({"action": action.name(), "params": action.params()}))
                .collect();
            say!("{}", Value::from(actions));
            continue;
        }
        for action in compiled.actions() {
            match action {
                Action::OvsSetFlows(set)
                    if owner.is_none_or(|owner| set.owner.as_str() == owner) =>
                {
                    let count = set.flows.len();
                    say!(
                        "# bridge {}, owner {}: {count} flows",
                        set.bridge,
                        set.owner
                    );
                    for flow in set.flows.iter() {
                        say!("{flow}");
                    }
                }
                Action::OvsSetFlows(_) => {}
                other if owner.is_none() => say!("# {} {}", other.name(), other.params()),
                _ => {}
            }
        }
    }
    Ok(())
}

fn is_of(action: &Action, owner: &str) -> bool {
    matches!(action, Action::OvsSetFlows(set) if set.owner.as_str() == owner)
}

fn compiled(path: &Path) -> Result<Vec<Compiled>, Failure> {
    let text = std::fs::read(path).map_err(|source| Failure::Read {
        path: path.to_owned(),
        source,
    })?;
    let document = blockhost_proto::json::parse(&text).map_err(|source| Failure::Json {
        path: path.to_owned(),
        source,
    })?;
    let whole = document.pointer("/plugins/ovsflows");
    let alone = document.get("bridges").map(|_| &document);
    let (section, place) = match (whole, alone) {
        (Some(section), _) => (section, "plugins.ovsflows"),
        (None, Some(section)) => (section, "ovsflows"),
        (None, None) => {
            return Err(Failure::NoSection {
                path: path.to_owned(),
            });
        }
    };
    Policy::read(section, place)
        .and_then(|policy| compile(&policy))
        .map_err(|source| Failure::Policy {
            path: path.to_owned(),
            source,
        })
}

fn stats(seconds: u64, json: bool, layout: &Layout) -> Result<(), Failure> {
    let (before, since, now) = runtime().map_err(Failure::Start)?.block_on(async {
        let before = accounts::look(layout).await?;
        let since = Timestamp::now();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok::<_, AccountsError>((before, since, accounts::look(layout).await?))
    })?;
    let times = (format!("{since:.0}"), format!("{:.0}", Timestamp::now()));
    let events: Vec<Value> = between(&before, &now)
        .iter()
        .flat_map(|traffic| traffic.events(&times.0, &times.1))
        .collect();
    if json {
        say!("{}", Value::from(events));
        return Ok(());
    }
    for event in &events {
        for kind in ["owners", "ports", "meters"] {
            for (name, counts) in event[kind].as_object().into_iter().flatten() {
                let counts: Vec<String> = counts
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(key, count)| format!("{key}={count}"))
                    .collect();
                let bridge = event["bridge"].as_str().unwrap_or_default();
                say!(
                    "{}\t{kind}\t{name}\t{}",
                    bridge.escape_debug(),
                    counts.join(" ")
                );
            }
        }
    }
    if events.is_empty() {
        say!("nothing moved in {seconds} s");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_found_by_itself_and_in_a_state_and_its_errors_say_where() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.json");
        let bridge = json!({"bridge": "ovsbr0", "tenants": [{"name": "a", "zone": 0}]});
        let section = json!({ "bridges": [bridge] });
        let error = |document: &Value| {
            std::fs::write(&path, document.to_string()).expect("written");
            compiled(&path).expect_err("zone 0").to_string()
        };
        let alone = error(&section);
        assert!(
            alone.contains(" ovsflows.bridges[0].tenants[0].zone: "),
            "{alone}"
        );
        let within = error(&json!({"version": 1, "plugins": {"ovsflows": section}}));
        assert!(
            within.contains("plugins.ovsflows.bridges[0].tenants[0].zone: "),
            "{within}"
        );
        let nothing = error(&json!({"version": 1, "plugins": {}}));
        assert!(nothing.contains("no plugins.ovsflows"), "{nothing}");
        std::fs::write(&path, "{\"bridges\": [], \"bridges\": []}").expect("written");
        assert!(compiled(&path).is_err(), "a key twice");
        assert!(compiled(&dir.path().join("nothing")).is_err());
        std::fs::write(
            &path,
            json!({"bridges": [{"bridge": "ovsbr0"}]}).to_string(),
        )
        .expect("written");
        assert_eq!(compiled(&path).expect("good").len(), 1);
    }
}
