//! `blockhost net`: the host's network for people (`text`), for programs (JSON) and as a drawing (`dot`), which looks and
//! changes nothing; what changes it is in `change` and `restore`. Needs no privileges beyond asking the root agent.

mod change;
mod change_print;
mod containers;
mod dot;
mod flows;
mod restore;
mod text;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use blockhost_proto::layout::Layout;
use clap::{Args, Subcommand};

use super::{fail, runtime};
use crate::network::observe::observe;
use crate::network::picture::picture;

/// The host's network.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct NetArgs {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  blockhost net show
  blockhost net show --bridge ovsbr0 --watch
  blockhost net show --json | jq '.bridges[].ports[] | select(.vmid == 100)'
  blockhost net show --dot | dot -Tsvg > network.svg
  blockhost net containers --watch
  blockhost net flows state.json
  blockhost net flow-stats --seconds 10
  blockhost net uplink attach --bridge ovsbr0 --uplink eth0 --confirm-within 60
  blockhost net confirm
  blockhost net status
  blockhost net restore --dry-run";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bridges, what hangs on them and whose it is, traffic, drops, tunnels
    #[command(after_help = EXAMPLES)]
    Show(ShowArgs),
    /// Containers of Docker, Podman or the like: which have a network of ours, and why not
    #[command(after_help = containers::EXAMPLES)]
    Containers(containers::ContainersArgs),
    #[command(flatten)]
    Flows(flows::Verb),
    /// Make so again what a start of the machine takes: ports, mapped addresses and what was applied last
    #[command(after_help = restore::HELP)]
    Restore(restore::RestoreArgs),
    #[command(flatten)]
    Change(change::Verb),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Only this bridge
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,
    /// Print a JSON object
    #[arg(long, conflicts_with_all = ["dot", "watch"])]
    json: bool,
    /// Print a drawing for graphviz
    #[arg(long, conflicts_with = "watch")]
    dot: bool,
    /// Show it anew every two seconds, with rates, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(2);

/// Runs the command.
#[must_use]
pub fn run(args: &NetArgs, layout: &Layout) -> ExitCode {
    let args = match &args.verb {
        Verb::Show(args) => args,
        Verb::Containers(args) => return containers::run(args, layout),
        Verb::Flows(verb) => return flows::run(verb, layout),
        Verb::Restore(args) => return restore::run(args, layout),
        Verb::Change(verb) => return change::run(verb, layout),
    };
    change::take_back_what_was_left(layout);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail("blockhost", &error),
    };
    runtime.block_on(show(args, layout))
}

async fn show(args: &ShowArgs, layout: &Layout) -> ExitCode {
    let colour = text::Colour::new(
        std::io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()),
    );
    let mut before = None;
    loop {
        let mut seen = picture(&observe(layout, None).await);
        if let Some(name) = &args.bridge {
            seen.bridges.retain(|bridge| bridge.name == *name);
            if seen.bridges.is_empty() && !args.watch {
                for problem in &seen.problems {
                    eprintln!("blockhost: {}: {}", problem.part, text::safe(&problem.what));
                }
                eprintln!(
                    "blockhost: there is no bridge \"{}\"; `blockhost net show` lists those there are",
                    text::safe(name)
                );
                return ExitCode::FAILURE;
            }
        }
        let drawn = if args.json {
            match serde_json::to_string_pretty(&seen) {
                Ok(text) => text + "\n",
                Err(error) => return fail("blockhost", &error),
            }
        } else if args.dot {
            dot::draw(&seen)
        } else {
            text::draw(&seen, before.as_ref(), colour)
        };
        let clear = if args.watch && colour.is_on() {
            "\x1b[H\x1b[J"
        } else {
            ""
        };
        // A reader that leaves early, as `head` does, is no error.
        let mut out = std::io::stdout().lock();
        if write!(out, "{clear}{drawn}")
            .and_then(|()| out.flush())
            .is_err()
            || !args.watch
        {
            return ExitCode::SUCCESS;
        }
        drop(out);
        before = Some((std::time::Instant::now(), seen));
        tokio::time::sleep(EVERY).await;
    }
}
