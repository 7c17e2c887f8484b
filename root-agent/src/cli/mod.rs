//! The command line: definition, dispatch, exit codes. Man page and completions are made from [`command`].
//! What `check-policy` says is in [`check`].

mod check;

use std::process::ExitCode;

use blockhost_proto::catalog;
use blockhost_proto::layout::Layout;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::confine::print;
use crate::ipc::Role;
use crate::{child, log_error, supervisor};

/// The only privileged process of BlockHost: takes requests on a socket, records them, executes them confined.
#[derive(Debug, Parser)]
#[command(
    name = "blockhost-root-agent",
    version,
    after_help = "\
Examples:
  blockhost-root-agent                         run in the foreground (systemd does this)
  blockhost-root-agent catalog                 what the agent can do, and with which privileges
  blockhost-root-agent catalog --format json   the same with the JSON Schema of every parameter
  blockhost-root-agent check-policy            check /etc/blockhost/root-agent.yaml before a reload
  blockhost-root-agent check-policy new.yaml --json
  blockhost-root-agent check-policy --as alice:operators qm-start vmid=200   would it be allowed, and by which rule

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 (check-policy --as) not allowed.
SIGHUP reloads the policy, SIGTERM stops after the running actions."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the agent in the foreground (the default).
    #[command(after_help = "Example:\n  blockhost-root-agent run")]
    Run,
    /// Print every action (parameters, compartment, capabilities, time limit), and what each process and each executed
    /// program is confined to.
    #[command(
        after_help = "Examples:\n  blockhost-root-agent catalog\n  blockhost-root-agent catalog --format json | jq '.actions[].name'"
    )]
    Catalog {
        /// How to print it.
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Check a policy file; print the policy that would be in force, and what in it may not be meant. With --as: say
    /// whether a request would be allowed.
    #[command(
        after_help = "Examples:\n  blockhost-root-agent check-policy\n  blockhost-root-agent check-policy new.yaml --json\n  blockhost-root-agent check-policy --as alice:operators --socket monitor qm-start vmid=200"
    )]
    CheckPolicy(check::Arguments),
    /// A process of the agent; started by the supervisor only.
    #[command(hide = true)]
    Internal {
        /// Its role.
        role: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs, with JSON Schema.
    Json,
}

/// The definition of the command line.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the arguments and runs.
pub fn main() -> ExitCode {
    match Cli::parse().command.unwrap_or(Verb::Run) {
        Verb::Run => match supervisor::run(Layout::from_env()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                log_error!("{error}");
                ExitCode::FAILURE
            }
        },
        Verb::Catalog { format } => {
            let text = match format {
                Format::Text => format!("{}\n{}", catalog_text(), print::to_text()),
                Format::Json => {
                    let mut catalog = catalog::to_json();
                    if let (Some(catalog), serde_json::Value::Object(tables)) =
                        (catalog.as_object_mut(), print::to_json())
                    {
                        catalog.extend(tables);
                    }
                    format!("{catalog:#}\n")
                }
            };
            print(&text)
        }
        Verb::CheckPolicy(arguments) => check::run(&arguments),
        Verb::Internal { role } => match Role::from_name(&role) {
            Some(role) => child::main(role),
            None => ExitCode::from(2),
        },
    }
}

/// Writes to standard output; a reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn catalog_text() -> String {
    let mut text = String::new();
    for spec in catalog::CATALOG {
        let params: Vec<String> = spec
            .params
            .iter()
            .map(|param| {
                if param.required {
                    param.name.to_owned()
                } else {
                    format!("{}?", param.name)
                }
            })
            .collect();
        let capabilities = if spec.capabilities.is_empty() {
            "none".to_owned()
        } else {
            spec.capabilities.join(",")
        };
        text.push_str(&format!(
            "{:<18} {}\n{:18} params: {}\n{:18} compartment: {}, capabilities: {capabilities}, at most {} s{}\n",
            spec.name,
            spec.summary.trim(),
            "",
            if params.is_empty() { "none".to_owned() } else { params.join(" ") },
            "",
            spec.compartment,
            spec.time_limit_s,
            if spec.read_only { ", reads only" } else { "" },
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_well_defined() {
        super::command().debug_assert();
    }

    #[test]
    fn every_action_is_in_the_printed_catalog() {
        let text = super::catalog_text();
        for spec in blockhost_proto::catalog::CATALOG {
            assert!(text.contains(spec.name), "{}", spec.name);
        }
    }
}
