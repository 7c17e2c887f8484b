//! `blockhost net containers`: which containers of Docker, Podman or the like have a network of ours, and why those do not that
//! want one. Looks; `--apply` and `--watch` change.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use blockhost_proto::layout::Layout;
use clap::Args;
use serde_json::json;

use super::super::{fail, runtime};
use super::text::safe;
use crate::config::{Config, ContainersSection, NetworkConfig};
use crate::network::discovery::follow::{News, follow};
use crate::network::discovery::manager::Manager;
use crate::network::discovery::plan::Plan;
use crate::network::discovery::run::{DiscoveryError, Outcome, Status, carry_out, look, outcomes};

pub(super) const EXAMPLES: &str = "\
A container is found by its label blockhost.network (or netmaker.network), whose value is the name of a network in the
section containers of network.yaml; the label blockhost.address asks for addresses. The root agent does the work, where its
policy has containers: {attach: true}.

Examples:
  blockhost net containers
  blockhost net containers --json | jq '.containers[] | select(.status != \"attached\")'
  blockhost net containers --apply --dry-run
  blockhost net containers --apply
  blockhost net containers --watch";

#[derive(Debug, Args)]
pub(super) struct ContainersArgs {
    /// Attach what should be attached, detach what should not
    #[arg(long, conflicts_with = "watch")]
    apply: bool,
    /// The same, and again whenever a container starts or stops, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// With --apply: say what would be done, and do nothing
    #[arg(long, requires = "apply")]
    dry_run: bool,
    /// Print a JSON object; with --watch one on each line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{} has no section containers; see docs/network.md for one", path.display())]
struct NoSection {
    path: std::path::PathBuf,
}

pub(super) fn run(args: &ContainersArgs, layout: &Layout) -> ExitCode {
    let path = Config::network_path(layout);
    let section = match NetworkConfig::load(&path) {
        Err(error) => return fail("blockhost", &error),
        Ok((config, _)) => match config.containers {
            Some(section) => section,
            None => return fail("blockhost", &NoSection { path }),
        },
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail("blockhost", &error),
    };
    match runtime.block_on(work(args, layout, &section)) {
        Ok(code) => code,
        Err(error) => fail("blockhost", &error),
    }
}

async fn work(
    args: &ContainersArgs,
    layout: &Layout,
    section: &ContainersSection,
) -> Result<ExitCode, DiscoveryError> {
    let manager = Manager::new(&section.socket)?;
    if args.watch {
        let mut last = None;
        follow(layout, section, &manager, |news| {
            let (outcomes, problems) = match news {
                News::Trouble(error) => {
                    eprintln!("blockhost: {error}; trying again");
                    return true;
                }
                News::Now(outcomes, problems) => (outcomes, problems),
            };
            // What is as before is not said again.
            if last.as_ref() == Some(&(outcomes.clone(), problems.clone())) {
                return true;
            }
            let going_on = print(args, &outcomes, &[], &problems);
            last = Some((outcomes, problems));
            going_on
        })
        .await;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = look(layout, section, &manager).await?;
    let (outcomes, problems) = if args.apply && !args.dry_run {
        carry_out(layout, &plan).await?
    } else {
        (outcomes(&plan), Vec::new())
    };
    let pending = if args.apply && !args.dry_run {
        Vec::new()
    } else {
        removed(&plan)
    };
    print(args, &outcomes, &pending, &problems);
    let failed = outcomes.iter().any(|one| one.status == Status::Failed);
    Ok(if failed || !problems.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Names of the ports that would go.
fn removed(plan: &Plan) -> Vec<String> {
    let name = |removal: &crate::network::discovery::plan::Removal| {
        let port = removal.port.as_ref().map(|port| port.port.to_string());
        port.or_else(|| removal.wire.as_ref().map(|wire| wire.port.to_string()))
    };
    plan.removals.iter().filter_map(name).collect()
}

/// Whether somebody still reads.
fn print(
    args: &ContainersArgs,
    outcomes: &[Outcome],
    pending: &[String],
    problems: &[String],
) -> bool {
    let text = if args.json {
        let whole = json!({"containers": outcomes, "to_remove": pending, "problems": problems});
        format!("{whole}\n")
    } else {
        drawn(outcomes, pending, problems)
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}

fn drawn(outcomes: &[Outcome], pending: &[String], problems: &[String]) -> String {
    let mut out = String::new();
    if outcomes.is_empty() {
        out.push_str("no running container has a label of a network\n");
    }
    for one in outcomes {
        let status = match one.status {
            Status::Attached => "attached",
            Status::WouldAttach => "to be attached",
            Status::NotAttached => "not attached",
            Status::Unknown => "left as it is",
            Status::Failed => "failed",
        };
        let _ = write!(
            out,
            "{:.12}  {:<20} {:<16} {status}",
            one.id,
            safe(&one.name),
            safe(&one.network)
        );
        if let Some(reason) = &one.reason {
            let _ = write!(out, ": {}", safe(reason));
        } else {
            let _ = write!(out, "  {} {}", one.port, one.addresses.join(" "));
        }
        out.push('\n');
    }
    for port in pending {
        let _ = writeln!(out, "{port} is to be removed");
    }
    for problem in problems {
        let _ = writeln!(out, "problem: {}", safe(problem));
    }
    out
}
