//! `blockhost`: the operator's command. Each subcommand has a module of its own.

use super::admin::AdminArgs;
use super::agent::AgentArgs;
use super::anchors::AnchorsArgs;
use super::broker::BrokerArgs;
use super::config::ConfigArgs;
use super::funds::FundsArgs;
use super::jobs::JobsArgs;
use super::ledger::LedgerArgs;
use super::net::NetArgs;
use super::reconcile::ReconcileArgs;
use super::state::{ApplyArgs, DiffArgs, QueryArgs, ShowDiffArgs};
use super::status::StatusArgs;
use super::{
    admin, agent, anchors, broker, config, funds, jobs, ledger, net, reconcile, state, status,
};
use blockhost_proto::layout::Layout;
use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// Look after a BlockHost.
#[derive(Parser)]
#[command(name = "blockhost", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  blockhost status
  blockhost config check
  blockhost jobs
  blockhost jobs list --state parked --json
  blockhost jobs retry 17
  blockhost reconcile
  blockhost admin knock let-me-in --port 22
  blockhost ledger verify
  blockhost anchors verify
  blockhost funds run --dry-run
  blockhost net show
  blockhost broker status
  blockhost agent info
  blockhost agent call qm-status vmid=100
  blockhost net flows state.json
  blockhost diff state.yaml
  blockhost apply state.yaml
  blockhost query --plugin lxc

Exit codes: 0 done; 1 failed; 2 wrong usage. Where a command tells more by its code, its own help says so.";

#[derive(Subcommand)]
enum Command {
    /// Everything at a glance: chain, agent, jobs, machines, pools, ledger, and what needs you
    Status(StatusArgs),
    /// The tamper-evident history of everything privileged
    Ledger(Box<LedgerArgs>),
    /// What is anchored of the ledger on the chain
    Anchors(AnchorsArgs),
    /// What the engine has done, does and gave up
    Jobs(JobsArgs),
    /// What of machines and chain does not fit together
    Reconcile(ReconcileArgs),
    /// Commands that administrators send by the chain
    Admin(AdminArgs),
    /// The host's money: what was moved, and what would be
    Funds(FundsArgs),
    /// The configuration
    Config(ConfigArgs),
    /// The root agent: what it can do, and asking it to
    Agent(AgentArgs),
    /// The host's network: bridges, ports, whose they are, which flows a policy means
    Net(NetArgs),
    /// The host's IPv6 network: asked of a broker, renewed, and brought up
    Broker(BrokerArgs),
    /// What would have to be done so that this host is as a document says
    Diff(DiffArgs),
    /// Make this host as a document says: containers, bridges, flows, tunnels, public addresses
    Apply(ApplyArgs),
    /// What there is of what documents speak of
    Query(QueryArgs),
    /// What has become different since the last apply
    ShowDiff(ShowDiffArgs),
}

/// The command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let layout = Layout::from_env();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    match cli.command {
        Command::Status(args) => status::run(&args, &layout),
        Command::Ledger(args) => ledger::run(*args, &layout),
        Command::Anchors(args) => anchors::run(&args, &layout),
        Command::Reconcile(args) => reconcile::run(&args, &layout),
        Command::Admin(args) => admin::run(args, &layout),
        Command::Funds(args) => funds::run(&args, &layout),
        Command::Config(args) => config::run(&args, &layout),
        Command::Agent(args) => agent::run(args, &layout),
        Command::Net(args) => net::run(&args, &layout),
        Command::Broker(args) => broker::run(&args, &layout),
        Command::Diff(args) => state::diff(&args, &layout),
        Command::Apply(args) => state::apply(&args, &layout),
        Command::Query(args) => state::query(&args, &layout),
        Command::ShowDiff(args) => state::show_diff(&args, &layout),
        Command::Jobs(args) => jobs::run(args, &layout),
    }
}

/// Wrong usage is 2, as everywhere, but for the verbs of the state: there 2 says that something differs.
fn refused(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    let verb = std::env::args_os().nth(1);
    let of_state = ["diff", "apply", "query", "show-diff"];
    let is_state = of_state
        .iter()
        .any(|name| verb.as_deref() == Some((*name).as_ref()));
    match error.exit_code() {
        2 if is_state => ExitCode::from(state::USAGE),
        code => ExitCode::from(u8::try_from(code).unwrap_or(1)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
