//! The program `blockhost-vm-gc`.

use std::process::ExitCode;

use blockhost_provisioner::backend::Backend;
use blockhost_provisioner::cli::{EXIT_CODES, Failure, Setup, exit, print, say};
use blockhost_provisioner::lock;
use blockhost_provisioner::time::Time;
use clap::{CommandFactory as _, Parser};
use serde_json::json;

use crate::execute::{Outcome, execute, observe};
use crate::plan::{Phases, Plan, Rules, plan};
use crate::routes::host_routes;

/// Suspend machines that have expired, destroy those suspended for long
///
/// Without --execute nothing is changed: the counts and one line per candidate are printed. What crashed creations left
/// behind is found and, with --execute, freed; machines that the database does not know are only reported.
#[derive(Debug, Parser)]
#[command(name = "blockhost-vm-gc", version, after_help = format!("Examples:
  blockhost-vm-gc
  blockhost-vm-gc --execute --grace-days 14
  blockhost-vm-gc --at 2026-12-31T00:00:00Z --json

{EXIT_CODES}"))]
struct Args {
    /// Do it
    #[arg(long)]
    execute: bool,
    /// Days between suspension and destruction [default: gc_grace_days of db.yaml]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=3650))]
    grace_days: Option<u32>,
    /// Only suspend
    #[arg(long, conflicts_with = "destroy_only")]
    suspend_only: bool,
    /// Only destroy
    #[arg(long)]
    destroy_only: bool,
    /// For development: change the database only, ask no agent
    #[arg(long)]
    mock: bool,
    /// Destroy even more machines than gc_max_destroy_fraction of db.yaml allows in one run
    #[arg(long)]
    force: bool,
    /// Judge as of this moment instead of now, for drills
    #[arg(long, value_name = "RFC3339")]
    at: Option<Time>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The definition.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<ExitCode, Failure> {
    let setup = Setup::load()?;
    let now = args.at.unwrap_or_else(Time::now);
    let rules = Rules {
        now,
        grace_days: args.grace_days.unwrap_or(setup.config.db.gc_grace_days),
        phases: match (args.suspend_only, args.destroy_only) {
            (true, _) => Phases::Suspend,
            (_, true) => Phases::Destroy,
            _ => Phases::All,
        },
        max_destroy_fraction: setup.config.db.gc_max_destroy_fraction,
        vmids: setup.config.db.vmids.clone(),
        template: setup.config.host.template_vmid,
    };
    let backend: Option<&dyn Backend> = if args.mock {
        None
    } else {
        Some(&setup.backend)
    };
    let routes = match (&setup.config.broker, args.mock) {
        (Some(broker), false) => host_routes(setup.config.host.bridge.as_str(), broker.prefix),
        _ => Vec::new(),
    };
    let observed = observe(&setup.store, backend, routes).map_err(|e| match e {
        crate::execute::ObserveError::Store(e) => Failure::from(e),
        crate::execute::ObserveError::Backend(e) => Failure::from(e),
    })?;
    for pid in lock::running(&setup.layout) {
        say(&format!(
            "note: process {pid} is creating a machine; its reservation is left alone"
        ));
    }
    let plan = plan(&observed, &rules);
    if !args.json {
        show(&plan, now)?;
    }
    if let (Some(over), true, false) = (plan.over_limit, args.execute, args.force) {
        let message = format!(
            "{} of {} machines would be destroyed, at most {} may be in one run; nothing was done. Check the clock and the database, then use --force",
            over.wanted, over.living, over.allowed
        );
        return Err(Failure { message, code: 1 });
    }
    if !args.execute {
        if args.json {
            print(&as_json(&plan, None).to_string())?;
        } else {
            say("nothing was changed; --execute does it");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = execute(&setup.world(), &plan, now, args.mock);
    if args.json {
        print(&as_json(&plan, Some(&outcome)).to_string())?;
    } else {
        let Outcome {
            suspended,
            destroyed,
            freed,
            failed,
        } = &outcome;
        print(&format!(
            "done: {} suspended, {} destroyed, {} freed, {} failed",
            suspended.len(),
            destroyed.len(),
            freed.len(),
            failed.len()
        ))?;
    }
    for (name, reason) in &outcome.failed {
        say(&format!("failed: {name}: {reason}"));
    }
    Ok(if outcome.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn show(plan: &Plan, now: Time) -> Result<(), Failure> {
    print(&format!(
        "as of {now}: {} to suspend, {} to destroy, {} leftovers and {} routes to free, {} unknown, {} missing",
        plan.suspend.len(),
        plan.destroy.len(),
        plan.free.len(),
        plan.stray_routes.len(),
        plan.unknown.len(),
        plan.missing.len()
    ))?;
    for vm in &plan.suspend {
        print(&format!(
            "suspend\t{}\tVM {}\texpired {}",
            vm.vm_name, vm.vmid, vm.expires_at
        ))?;
    }
    for vm in &plan.destroy {
        let since = vm.suspended_at.unwrap_or(vm.expires_at);
        print(&format!(
            "destroy\t{}\tVM {}\tsuspended {since}",
            vm.vm_name, vm.vmid
        ))?;
    }
    for left in &plan.free {
        print(&format!(
            "free\t{}\tVM {}\treserved {} by process {}, which is gone",
            left.name, left.vmid, left.created_at, left.pid
        ))?;
    }
    for address in &plan.stray_routes {
        print(&format!(
            "free\troute {address}\t-\tno machine has this address"
        ))?;
    }
    for machine in &plan.unknown {
        print(&format!(
            "unknown\t{}\tVM {}\t{}, not in the database; look at it yourself",
            machine.name, machine.vmid, machine.status
        ))?;
    }
    for vm in &plan.missing {
        print(&format!(
            "missing\t{}\tVM {}\t{} in the database, not at the backend; blockhost-vm-destroy drops it",
            vm.vm_name, vm.vmid, vm.status
        ))?;
    }
    Ok(())
}

fn as_json(plan: &Plan, outcome: Option<&Outcome>) -> serde_json::Value {
    let mut value = json!({
        "suspend": plan.suspend.iter().map(|vm| &vm.vm_name).collect::<Vec<_>>(),
        "destroy": plan.destroy.iter().map(|vm| &vm.vm_name).collect::<Vec<_>>(),
        "free": plan.free.iter().map(|r| &r.name).collect::<Vec<_>>(),
        "routes": plan.stray_routes,
        "unknown": plan.unknown.iter().map(|m| m.vmid).collect::<Vec<_>>(),
        "missing": plan.missing.iter().map(|vm| &vm.vm_name).collect::<Vec<_>>(),
        "over_limit": plan.over_limit.is_some(),
        "executed": outcome.is_some(),
    });
    if let Some(outcome) = outcome {
        value["suspended"] = json!(outcome.suspended);
        value["destroyed"] = json!(outcome.destroyed);
        value["freed"] = json!(outcome.freed);
        value["failed"] = outcome
            .failed
            .iter()
            .map(|(name, reason)| json!({"name": name, "reason": reason}))
            .collect();
    }
    value
}
