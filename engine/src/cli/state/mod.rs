//! `blockhost diff`, `apply`, `query`, `show-diff`: the declarative state at a terminal. Reading, asking and printing; what
//! is to be done is decided in `crate::state`.

pub(super) mod show;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use blockhost_proto::layout::Layout;
use clap::Args;
use serde::Serialize;

use super::{fail, runtime};
use crate::network::confirm::Stage;
use crate::network::confirm::probe::Target;
use crate::state::engine::Event;
use crate::state::{self, ApplyReport, Care, DiffReport, Document, Options, StateError};
use show::Paint;

/// What `diff` takes.
#[derive(Debug, Args)]
#[command(after_help = DIFF_HELP)]
pub struct DiffArgs {
    /// The document, JSON or YAML; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also show what apply --prune would delete
    #[arg(long)]
    prune: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const DIFF_HELP: &str = "\
Examples:
  blockhost diff state.json
  blockhost diff --prune state.yaml
  blockhost diff --json - <state.json | jq '.changes[].resource'

Exit codes: 0 nothing to do, 2 there are changes, 1 error, 64 wrong usage.";

/// What `apply` takes.
#[derive(Debug, Args)]
#[command(after_help = APPLY_HELP)]
pub struct ApplyArgs {
    /// The document, JSON or YAML; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Show what would be done, and do nothing
    #[arg(long, conflicts_with = "yes")]
    plan: bool,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Delete what was made by an apply and is in the document no longer
    #[arg(long)]
    prune: bool,
    /// Keep a change of what this host is reached by only if you say so within this time (`blockhost net confirm`)
    #[arg(long, value_name = "SECONDS", conflicts_with = "plan", value_parser = clap::value_parser!(u64).range(5..=3600))]
    confirm_within: Option<u64>,
    /// What has to be reachable after such a change, beside the default gateways: an address (echo) or a service (TCP); as
    /// often as needed
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    probe: Vec<Target>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const APPLY_HELP: &str = "\
Examples:
  blockhost apply state.json
  blockhost apply --plan --prune state.yaml
  blockhost apply --yes state.json
  blockhost apply --yes --confirm-within 60 state.json

A change that could cut you off (an uplink, addresses of a bridge that this host is reached by) stays only if the default
gateways and every --probe answer afterwards, and is taken back otherwise, also when this command is killed.

Tunnels, routes, forwarding, containers and public addresses are not watched over, whatever is asked for: each that is changed
with --confirm-within or --probe is named before.

Plugins that the document does not name are not touched. What fails is taken back, resource by resource; what does not need
it goes on. Interrupted, run it again: it completes what was begun.

Exit codes: 0 everything is as it should be, 1 error or something failed (the report says what), 2 with --plan: there are
changes, 64 wrong usage.";

/// What `query` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  blockhost query\n  blockhost query --plugin lxc\n  blockhost query --plugin net --json | jq '.plugins.net | keys'"
)]
pub struct QueryArgs {
    /// Only this plugin: net, wireguard, mesh, lxc, publicip or ovsflows
    #[arg(long, value_name = "PLUGIN")]
    plugin: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `show-diff` takes.
#[derive(Debug, Args)]
#[command(after_help = SHOW_DIFF_HELP)]
pub struct ShowDiffArgs {
    /// Only this plugin
    #[arg(long, value_name = "PLUGIN")]
    plugin: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const SHOW_DIFF_HELP: &str = "\
What has become different since the last apply: reality beside what was applied last, without any document.

Examples:
  blockhost show-diff
  blockhost show-diff --plugin lxc --json

Exit codes: 0 nothing, 2 there are differences, 1 error, 64 wrong usage.";

/// Wrong usage: 2 says that there are changes.
pub const USAGE: u8 = 64;
const CHANGES: u8 = 2;
const PROGRAM: &str = "blockhost";

fn failed(error: &StateError, json: bool) -> ExitCode {
    if json {
        print_json(&serde_json::json!({"error": error.to_string()}));
        return ExitCode::FAILURE;
    }
    fail(PROGRAM, error)
}

fn print_json(value: &impl Serialize) {
    say!("{}", serde_json::json!(value));
}

fn on_runtime<T>(work: impl Future<Output = Result<T, StateError>>) -> Result<T, StateError> {
    match runtime() {
        Ok(runtime) => runtime.block_on(work),
        Err(_) => Err(StateError::Broken),
    }
}

fn code_of(report: &DiffReport) -> ExitCode {
    if !report.errors.is_empty() {
        ExitCode::FAILURE
    } else if report.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(CHANGES)
    }
}

/// Runs `blockhost diff`.
#[must_use]
pub fn diff(args: &DiffArgs, layout: &Layout) -> ExitCode {
    let document = Document::load(&args.file).map_err(StateError::from);
    let report =
        document.and_then(|document| on_runtime(state::diff(layout, document, args.prune)));
    print_diff(report, args.json, "The document")
}

/// Runs `blockhost show-diff`.
#[must_use]
pub fn show_diff(args: &ShowDiffArgs, layout: &Layout) -> ExitCode {
    let report = on_runtime(state::drift(layout, args.plugin.as_deref()));
    print_diff(report, args.json, "What was applied last")
}

fn print_diff(report: Result<DiffReport, StateError>, json: bool, what: &str) -> ExitCode {
    match report {
        Ok(report) if json => {
            print_json(&report);
            code_of(&report)
        }
        Ok(report) => {
            show::plan(&report, Paint::for_stdout(), what);
            code_of(&report)
        }
        Err(error) => failed(&error, json),
    }
}

/// Runs `blockhost query`.
#[must_use]
pub fn query(args: &QueryArgs, layout: &Layout) -> ExitCode {
    match on_runtime(state::query(layout, args.plugin.as_deref())) {
        Ok(report) => {
            if args.json {
                print_json(&report);
            } else {
                show::query(&report);
            }
            ExitCode::from(u8::from(!report.errors.is_empty()))
        }
        Err(error) => failed(&error, args.json),
    }
}

/// Runs `blockhost apply`.
#[must_use]
pub fn apply(args: &ApplyArgs, layout: &Layout) -> ExitCode {
    match try_apply(args, layout) {
        Ok(code) => code,
        Err(error) => failed(&error, args.json),
    }
}

fn try_apply(args: &ApplyArgs, layout: &Layout) -> Result<ExitCode, StateError> {
    crate::failpoint::arm();
    let text = Document::load(&args.file)?;
    if args.plan {
        let report = on_runtime(state::diff(layout, text, args.prune));
        return Ok(print_diff(report, args.json, "The document"));
    }
    if !args.yes {
        if args.json || !std::io::stdin().is_terminal() || args.file.as_os_str() == "-" {
            eprintln!(
                "{PROGRAM}: nobody can be asked here; say --yes to apply, or --plan to look first"
            );
            return Ok(ExitCode::from(USAGE));
        }
        let report = on_runtime(state::diff(layout, text.clone(), args.prune))?;
        show::plan(&report, Paint::for_stdout(), "The document");
        if report.is_empty()
            || !report
                .changes
                .iter()
                .any(|c| c.is_pending() && c.blocked.is_none())
        {
            return Ok(code_after(&report));
        }
        if !confirmed() {
            eprintln!("{PROGRAM}: nothing was done");
            return Ok(ExitCode::FAILURE);
        }
    }
    let options = Options { prune: args.prune };
    let (json, paint) = (args.json, Paint::for_stdout());
    let care = Care {
        confirm_within: args.confirm_within.map(Duration::from_secs),
        probes: args.probe.clone(),
        tell: Some(Arc::new(tell_stage)),
    };
    let asked = care.confirm_within.is_some() || !care.probes.is_empty();
    let report = on_runtime(state::apply(
        layout,
        text,
        options,
        care,
        move |event| match event {
            Event::Begun(change) if asked && !change.watched => eprintln!(
                "{PROGRAM}: {} is not watched over: --confirm-within and --probe do not take it back",
                change.resource
            ),
            Event::Ended(outcome) if !json => show::outcome(outcome, paint),
            _ => {}
        },
    ))?;
    if args.json {
        print_json(&report);
    } else {
        show::applied(&report);
    }
    Ok(code_of_apply(&report))
}

/// What an operator has to know while a change that could cut them off is made.
fn tell_stage(stage: &Stage<'_>) {
    match stage {
        Stage::Waiting(id, time) => eprintln!(
            "{PROGRAM}: everything is well. It stays if you run `blockhost net confirm --id {id}` within {} s",
            time.as_secs()
        ),
        Stage::Reverting(why) => eprintln!("{PROGRAM}: taking it back: {}", why.escape_debug()),
        Stage::Begun(_) | Stage::Step(_) => {}
    }
}

/// After a plan that an apply could do nothing about.
fn code_after(report: &DiffReport) -> ExitCode {
    if report.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn code_of_apply(report: &ApplyReport) -> ExitCode {
    if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn confirmed() -> bool {
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "Apply these changes? Only \"yes\" does: ");
    let _ = out.flush();
    let mut line = String::new();
    let _ = std::io::stdin().lock().read_line(&mut line);
    line.trim() == "yes"
}
