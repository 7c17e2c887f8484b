//! The command line of `blockhost-vm-gc`: parses, calls, prints.

use std::process::ExitCode;

use blockhost_proto::Layout;
use blockhost_provisioner::agent::SocketAgent;
use blockhost_provisioner::backend::ActionsBackend;
use blockhost_provisioner::chain_seen::Reading;
use blockhost_provisioner::config::Config;
use blockhost_provisioner::create::World;
use blockhost_provisioner::lifecycle::LifecycleError;
use blockhost_provisioner::signals::Interrupt;
use blockhost_provisioner::store;
use blockhost_provisioner::time::Time;
use clap::{CommandFactory, Parser};
use serde_json::{Value, json};

use crate::plan::{Plan, Wishes, plan};
use crate::run::{Event, execute, observe};

/// Suspend machines past their expiry, destroy suspended ones past their grace, free what crashes left behind.
///
/// Without --execute nothing is changed: the plan is printed. A run that would suspend or destroy more than a quarter of all
/// machines (gc_max_destroy_fraction in db.yaml; three are always allowed) stops and asks for --force.
///
/// Where machines are sold on a chain, they are judged by the clock or by the time of the last block that the engine has
/// read, whichever is earlier: what was paid after it is in no record yet. What the engine has read and not entered yet counts
/// as paid. Nothing is destroyed while that reading is more than six hours old.
#[derive(Parser, Debug)]
#[command(
    name = "blockhost-vm-gc",
    version,
    after_help = "Examples:\n  \
        blockhost-vm-gc                          what would be done now\n  \
        blockhost-vm-gc --execute                do it (the nightly timer runs this)\n  \
        blockhost-vm-gc --at 2026-12-24T00:00:00Z  what would be done on Christmas Eve\n\n\
        Exit status: 0 done, 1 something failed or the guard stopped the run, 2 wrong usage."
)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
struct Args {
    /// Carry the plan out.
    #[arg(long)]
    execute: bool,
    /// Days between suspension and destruction [default: gc_grace_days of db.yaml].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=3650))]
    grace_days: Option<u32>,
    /// Leave destruction out.
    #[arg(long, conflicts_with = "destroy_only")]
    suspend_only: bool,
    /// Leave suspension out.
    #[arg(long)]
    destroy_only: bool,
    /// Suspend and destroy however many there are, and destroy although the engine has not read the chain of late.
    #[arg(long)]
    force: bool,
    /// Judge by this moment instead of the clock and the chain; for drills and tests.
    #[arg(long, value_name = "TIME")]
    at: Option<Time>,
    /// Without root agent: only records that were made with --mock.
    #[arg(long)]
    mock: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// The definition, for manuals and completions.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// Runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("blockhost-vm-gc: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, Box<dyn std::error::Error>> {
    let layout = Layout::from_env();
    let config = Config::load(&layout)?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    let store = store::open(&config)?;
    let backend = ActionsBackend::new(SocketAgent::new(&layout));
    let interrupt = Interrupt::install()?;
    let world = World {
        layout: &layout,
        config: &config,
        store: &store,
        backend: &backend,
        interrupt: &interrupt,
    };
    let wishes = Wishes {
        node: config.node(),
        shared: config.db.server.is_some(),
        now: args.at.unwrap_or_else(Time::now),
        chain: match args.at {
            Some(_) => Reading::NoChain,
            None => Reading::of(&layout),
        },
        grace_days: args.grace_days.unwrap_or(config.db.gc_grace_days),
        max_destroy_fraction: config.db.gc_max_destroy_fraction,
        suspend: !args.destroy_only,
        destroy: !args.suspend_only,
        force: args.force,
    };
    let decided = plan(&observe(&world, args.mock)?, &wishes);
    if !args.json {
        print_plan(&decided, &wishes, args.execute);
    }
    let mut events = Vec::new();
    let mut clean = true;
    if args.execute {
        clean = execute(&world, &decided, &wishes, |event| {
            if !args.json {
                print_event(event);
            }
            events.push(event.clone());
        })?;
        if interrupt.is_raised() {
            eprintln!("blockhost-vm-gc: interrupted; what is left waits for the next run");
            clean = false;
        }
    } else if let (Some(guard), false) = (&decided.too_many, args.json) {
        eprintln!("warning: {guard}");
    }
    if args.json {
        println!("{}", to_json(&decided, &wishes, args.execute, &events));
    } else if !clean {
        let failed: Vec<&str> = events
            .iter()
            .filter(|e| e.failure.is_some())
            .map(|e| e.what.as_str())
            .collect();
        if !failed.is_empty() {
            eprintln!("blockhost-vm-gc: failed: {}", failed.join(", "));
        }
    }
    Ok(clean)
}

fn print_plan(plan: &Plan, wishes: &Wishes, execute: bool) {
    let mode = if execute {
        ""
    } else {
        " (dry run, nothing is changed; --execute does it)"
    };
    match wishes.judged_by() {
        Some(moment) => println!("judged by {moment}{mode}"),
        None => println!("nothing is judged{mode}"),
    }
    if let Some(line) = reading(wishes) {
        println!("  {line}");
    }
    println!("phase 1: {} to suspend", plan.suspend.len());
    for record in &plan.suspend {
        println!(
            "  {} (VM {}) expired {}",
            record.vm_name, record.vmid, record.expires_at
        );
    }
    for record in &plan.stop {
        println!(
            "  {} (VM {}) is suspended and runs: to be stopped",
            record.vm_name, record.vmid
        );
    }
    println!(
        "phase 2: {} to destroy (grace {} days)",
        plan.destroy.len(),
        wishes.grace_days
    );
    for record in &plan.destroy {
        let since = record.suspended_at.unwrap_or(record.expires_at);
        println!(
            "  {} (VM {}) suspended {since}",
            record.vm_name, record.vmid
        );
    }
    if !plan.waiting.is_empty() {
        println!(
            "held back until the chain is read further, or what was read is entered: {}",
            plan.waiting.len()
        );
    }
    for record in &plan.waiting {
        println!(
            "  {} (VM {}, {}) expired {}",
            record.vm_name, record.vmid, record.status, record.expires_at
        );
    }
    for record in &plan.nobodys {
        println!(
            "left alone: {}",
            LifecycleError::Nobodys(record.vm_name.clone())
        );
    }
    for record in &plan.paid {
        println!(
            "paid until {} and suspended: {} (VM {}); blockhost-vm-resume starts it",
            record.expires_at, record.vm_name, record.vmid
        );
    }
    println!(
        "leftovers: {} reservations, {} routes, {} ports",
        plan.free.len(),
        plan.routes.len(),
        plan.ports.len()
    );
    for left in &plan.free {
        println!(
            "  reservation of {} (VM {}), its maker {} is gone",
            left.name, left.vmid, left.pid
        );
    }
    for route in &plan.routes {
        println!("  route {} on {}", route.address, route.device);
    }
    for port in &plan.ports {
        println!("  port {} of {} (VM {})", port.port, port.bridge, port.vmid);
    }
    for vmid in &plan.unknown {
        println!("  VM {vmid} is in our range and not in the database: look at it yourself");
    }
}

/// What is to be said of the chain, where it is behind the clock.
fn reading(wishes: &Wishes) -> Option<String> {
    match &wishes.chain {
        Reading::NoChain => None,
        Reading::Unknown(why) => Some(format!(
            "how far the chain was read is not known: {why}; see blockhost status"
        )),
        Reading::Upto(seen) if wishes.reading_is_old() => Some(format!(
            "the engine has read the chain up to block {} of {} and nothing since {}: nothing is destroyed without --force; \
             see blockhost status",
            seen.block, seen.block_time, seen.at
        )),
        Reading::Upto(seen) if seen.block_time < wishes.now => Some(format!(
            "the engine has read the chain up to block {} of {}",
            seen.block, seen.block_time
        )),
        Reading::Upto(_) => None,
    }
}

fn print_event(event: &Event) {
    match &event.failure {
        None => println!("done: {} {}", event.phase, event.what),
        Some(problem) => eprintln!("failed: {} {}: {problem}", event.phase, event.what),
    }
}

fn to_json(plan: &Plan, wishes: &Wishes, executed: bool, events: &[Event]) -> Value {
    let names = |records: &[blockhost_provisioner::record::VmRecord]| -> Vec<Value> {
        records
            .iter()
            .map(|r| json!({"name": r.vm_name, "vmid": r.vmid, "expires_at": r.expires_at, "suspended_at": r.suspended_at}))
            .collect()
    };
    json!({
        "at": wishes.now,
        "judged_by": wishes.judged_by(),
        "chain": reading(wishes),
        "grace_days": wishes.grace_days,
        "executed": executed,
        "suspend": names(&plan.suspend),
        "stop": names(&plan.stop),
        "destroy": names(&plan.destroy),
        "waiting": names(&plan.waiting),
        "paid_and_suspended": names(&plan.paid),
        "nobodys": names(&plan.nobodys),
        "reservations": plan.free.iter().map(|r| json!({"name": r.name, "vmid": r.vmid})).collect::<Vec<_>>(),
        "routes": plan.routes.iter().map(|r| json!({"address": r.address, "device": r.device})).collect::<Vec<_>>(),
        "ports": plan.ports.iter().map(|p| json!({"bridge": p.bridge, "port": p.port, "vmid": p.vmid})).collect::<Vec<_>>(),
        "unknown": plan.unknown,
        "too_many": plan.too_many.map(|guard| guard.to_string()),
        "results": events.iter().map(|e| json!({"phase": e.phase, "what": e.what, "error": e.failure})).collect::<Vec<_>>(),
    })
}
