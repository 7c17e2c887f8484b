//! `blockhost net restore`: ports and mapped addresses as the ledger says, then what was applied last, after a start of the
//! machine or whenever somebody changed it by hand. The work is done in [`crate::network::restore`] and [`crate::state::restore`].

use std::process::ExitCode;
use std::time::Duration;

use blockhost_proto::layout::Layout;
use blockhost_provisioner::host::unit_tries::UnitTries;
use clap::Args;
use serde_json::{Value, json};

use crate::cli::state::show::{self, Paint};
use crate::cli::{fail, runtime};
use crate::network::restore::{RestoreError, Restored, restore};
use crate::state::engine::Event;
use crate::state::{self, ApplyReport, DiffReport, Fate, StateError};

/// What `restore` takes.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// Only say what would be made so again; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) const HELP: &str = "\
What a start of the machine takes is made so again, through the root agent: first ports and mapped addresses, which are what the
ledger says and no others; then what `blockhost apply` applied last: bridges and addresses, tunnels, forwarding and routes,
containers that are to run, announcements, flows. What is as it should be is left alone; a second run does nothing.
blockhost-net-restore.service runs it at each start.

Examples:
  blockhost net restore --dry-run
  blockhost net restore
  blockhost net restore --json | jq '.state.outcomes[] | select(.fate != \"done\")'

Exit codes: 0 everything is as it should be; 1 something failed, which another run may mend; 2 something cannot be known, is not
permitted any more, or takes an operator (a container that is gone, an apply that was interrupted, in the unit also what failed for
15 minutes). Both say what.";

/// All that could be restored is, and something takes an operator.
const INCOMPLETE: u8 = 2;
/// How long the unit tries again what failed.
const TRIED: Duration = Duration::from_mins(15);

/// Runs the command.
pub(super) fn run(args: &RestoreArgs, layout: &Layout) -> ExitCode {
    crate::failpoint::arm();
    // One does not wait for the other to succeed.
    let firewall = restore(layout, args.dry_run);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail("blockhost", &error),
    };
    if args.dry_run {
        let state = runtime.block_on(state::look_at_restoration(layout));
        return looked(args, &firewall, state);
    }
    let (json, paint) = (args.json, Paint::for_stdout());
    if !json {
        print_firewall(&firewall);
    }
    let state = runtime.block_on(state::restore(layout, move |event| {
        if !json && let Event::Ended(outcome) = event {
            show::outcome(outcome, paint);
        }
    }));
    if json {
        print_json(&firewall, &state);
    } else if let Ok(report) = &state {
        show::applied(report);
    }
    complain(&firewall, state.as_ref().err());
    for port in state.iter().flat_map(|report| &report.awaited) {
        eprintln!("blockhost: port {port} is not there yet, so it has no flows");
    }
    let failed = firewall.is_err() || state.as_ref().is_ok_and(may_pass) || state.is_err();
    let given_up = end_of_try(&UnitTries::of_unit(), failed);
    let incomplete = firewall.as_ref().is_ok_and(is_incomplete)
        || state.as_ref().is_ok_and(|report| !report.is_good());
    code(failed && !given_up, incomplete || given_up)
}

/// Whether what fails has failed for so long that its unit is not to try again: what it takes is perhaps gone for good, or a
/// machine that nobody starts.
fn end_of_try(unit: &UnitTries, failed: bool) -> bool {
    if !failed {
        unit.ended();
        return false;
    }
    let given_up = unit.failed(unit.before().as_ref(), &[], TRIED);
    if given_up {
        eprintln!(
            "blockhost: it is not tried again; when what is missing is there: systemctl restart blockhost-net-restore"
        );
    }
    given_up
}

fn looked(
    args: &RestoreArgs,
    firewall: &Result<Restored, RestoreError>,
    state: Result<DiffReport, StateError>,
) -> ExitCode {
    if args.json {
        print_json(firewall, &state);
    } else {
        print_firewall(firewall);
        if let Ok(report) = &state {
            show::plan(report, Paint::for_stdout(), "What was applied last");
        }
    }
    complain(firewall, state.as_ref().err());
    let failed = firewall.is_err() || !state.is_ok_and(|report| report.errors.is_empty());
    code(failed, firewall.as_ref().is_ok_and(is_incomplete))
}

fn code(failed: bool, incomplete: bool) -> ExitCode {
    match (failed, incomplete) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(INCOMPLETE),
        (false, false) => ExitCode::SUCCESS,
    }
}

/// Whether something failed that may succeed another time: what it takes may come up later.
fn may_pass(report: &ApplyReport) -> bool {
    let failed = |fate: Fate| matches!(fate, Fate::Failed | Fate::RolledBack);
    !(report.errors.is_empty() && report.awaited.is_empty())
        || report.outcomes.iter().any(|outcome| failed(outcome.fate))
}

fn is_incomplete(firewall: &Restored) -> bool {
    !(firewall.gaps.is_empty() && firewall.left_out.is_empty())
}

fn print_json(
    firewall: &Result<Restored, RestoreError>,
    state: &Result<impl serde::Serialize, StateError>,
) {
    let mut shown = match firewall {
        Ok(done) => json!(done),
        Err(error) => json!({"error": error.to_string()}),
    };
    shown["state"] = match state {
        Ok(report) => json!(report),
        Err(error) => json!({"error": error.to_string()}),
    };
    say!("{}", pretty(&shown));
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

fn print_firewall(firewall: &Result<Restored, RestoreError>) {
    let Ok(done) = firewall else {
        return;
    };
    for port in &done.ports {
        say!("open\t{port}");
    }
    for pair in &done.pairs {
        say!("mapped\t{pair}");
    }
    for said in &done.said {
        say!("{said}");
    }
}

fn complain(firewall: &Result<Restored, RestoreError>, state: Option<&StateError>) {
    match firewall {
        Ok(done) => {
            for one in &done.left_out {
                eprintln!(
                    "blockhost: {one} stands by the ledger, but the agent's policy does not permit it any more"
                );
            }
            for gap in &done.gaps {
                eprintln!("blockhost: {gap}");
            }
        }
        Err(error) => eprintln!("blockhost: open ports and mapped addresses: {error}"),
    }
    if let Some(error) = state {
        eprintln!("blockhost: what was applied last: {error}");
    }
}
