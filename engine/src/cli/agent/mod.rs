//! `blockhost agent`: a human's client of the root agent. Arguments are read by the catalog's schemas and checked by its
//! types before anything is sent; what is printed comes from there, too.

mod params;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use blockhost_proto::action::{Action, AgentInfo};
use blockhost_proto::catalog::{self, ActionSpec, CATALOG};
use blockhost_proto::client::blocking::Client;
use blockhost_proto::client::{CallError, Reply, default_timeout};
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// The root agent.
#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Ask the agent to do something
    #[command(after_help = CALL_HELP)]
    Call(CallArgs),
    /// What the agent can do: all actions, or one with its parameters
    #[command(
        after_help = "Examples:\n  blockhost agent catalog\n  blockhost agent catalog qm-create\n  blockhost agent catalog --json | jq '.actions[].name'"
    )]
    Catalog {
        /// Only this action, in full
        #[arg(value_parser = ActionName, value_name = "ACTION", hide_possible_values = true)]
        action: Option<&'static ActionSpec>,
        /// Print JSON, with the JSON Schema of every parameter
        #[arg(long)]
        json: bool,
    },
    /// What the agent says about itself: version, load, ledger head
    #[command(after_help = "Examples:\n  blockhost agent info\n  blockhost agent info --json")]
    Info {
        #[command(flatten)]
        how: How,
    },
}

const CALL_HELP: &str = "\
Examples:
  blockhost agent call qm-status vmid=100
  blockhost agent call iptables-open port=443 comment=web source=192.0.2.0/24
  blockhost agent call qm-destroy vmid=100 --dry-run
  blockhost agent call qm-set '{\"vmid\": 100, \"options\": {\"memory\": 4096}}' --json
  blockhost agent call qm-guest-exec - <secret-request.json

Values are read by the type of their parameter: integers, true and false, lists and objects as
JSON, all else as it stands. `blockhost agent catalog ACTION` shows what an action takes. What is
secret comes on standard input: words of a command line can be read by others.

Exit codes:
  0  done (with --dry-run: it would be)
  1  failed, internal: it was tried and failed
  2  unknown_action, bad_params, wrong usage: nothing was tried
  3  the agent cannot be reached or the connection broke: the ledger tells whether it happened
  4  forbidden
  5  not_found
  6  conflict
  7  busy: try again later
  8  timeout: the action's, or that of --timeout";

#[derive(Debug, Args)]
struct CallArgs {
    /// What to do; see `blockhost agent catalog`
    #[arg(value_parser = ActionName, value_name = "ACTION", hide_possible_values = true)]
    action: &'static ActionSpec,
    /// Parameters: name=value each, or one JSON object, or - for a JSON object on standard input
    #[arg(value_name = "NAME=VALUE|JSON|-")]
    params: Vec<String>,
    /// Have it checked and authorised, and not done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct How {
    /// Wait at most so many seconds for the answer; without it what the action may take, and a minute for queues
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    timeout: Option<u32>,
    /// The agent's socket, where it is not that of this host
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print the answer as JSON, a refusal too
    #[arg(long)]
    json: bool,
}

/// The name of an action on the command line. Shells offer all of them; a wrong one is answered with the nearest.
#[derive(Debug, Clone)]
struct ActionName;

impl TypedValueParser for ActionName {
    type Value = &'static ActionSpec;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let given = value.to_string_lossy();
        catalog::find(&given).ok_or_else(|| {
            let names = CATALOG
                .iter()
                .flat_map(|spec| spec.aliases.iter().copied().chain([spec.name]));
            let hint = params::nearest(&given, names)
                .map_or_else(String::new, |name| format!(" did you mean {name}?"));
            let message = format!(
                "there is no action \"{}\";{hint} `blockhost agent catalog` lists them\n",
                given.escape_debug()
            );
            clap::Error::raw(ErrorKind::InvalidValue, message).with_cmd(command)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(CATALOG.iter().map(|spec| {
            PossibleValue::new(spec.name).help(show::first_sentence(spec.summary))
        })))
    }
}

/// Runs the command; the exit codes are those of `blockhost agent call --help`.
#[must_use]
pub fn run(args: AgentArgs, layout: &Layout) -> ExitCode {
    match args.verb {
        Verb::Catalog { action, json } => {
            match (action, json) {
                (None, true) => say!("{:#}", catalog::to_json()),
                (None, false) => say!("{}", show::catalog()),
                (Some(spec), true) => say!("{:#}", show::as_json(spec)),
                (Some(spec), false) => say!("{}", show::action(spec)),
            }
            ExitCode::SUCCESS
        }
        Verb::Info { how } => {
            let action = Action::AgentInfo(AgentInfo {});
            report(ask(&action, false, &how, layout), how.json, show::info)
        }
        Verb::Call(args) => call(&args, layout),
    }
}

fn call(args: &CallArgs, layout: &Layout) -> ExitCode {
    let spec = args.action;
    let action = params::read(spec, &args.params, &mut std::io::stdin())
        .and_then(|params| Action::from_parts(spec.name, &params).map_err(|e| e.to_string()));
    match action {
        Ok(action) => report(
            ask(&action, args.dry_run, &args.how, layout),
            args.how.json,
            show::reply,
        ),
        Err(message) => {
            if args.how.json {
                refusal("bad_params", &message);
            } else {
                eprintln!("blockhost: {message}\n\n{}", show::usage(spec));
            }
            ExitCode::from(2)
        }
    }
}

fn ask(action: &Action, dry_run: bool, how: &How, layout: &Layout) -> Result<Reply, CallError> {
    let timeout = how.timeout.map_or_else(
        || default_timeout(action),
        |s| Duration::from_secs(s.into()),
    );
    let mut client = match &how.socket {
        Some(path) => Client::connect(path)?,
        None => Client::connect_layout(layout)?,
    };
    client.ask(action, dry_run, timeout)
}

fn report(result: Result<Reply, CallError>, as_json: bool, print: fn(&Reply)) -> ExitCode {
    match result {
        Ok(reply) if as_json => {
            say!("{}", whole(reply));
            ExitCode::SUCCESS
        }
        Ok(reply) => {
            print(&reply);
            ExitCode::SUCCESS
        }
        Err(error) => {
            if as_json {
                match &error {
                    CallError::Refused { code, message } => refusal(code.as_str(), message),
                    CallError::Timeout { .. } => refusal("timeout", &error.to_string()),
                    _ => refusal("connection", &error.to_string()),
                }
            } else {
                eprintln!("blockhost: {}", show::printable(&error.to_string()));
            }
            exit_code(&error)
        }
    }
}

/// The answer as it came, in one object.
fn whole(reply: Reply) -> Value {
    let mut answer = reply.extra;
    answer.insert("ok".into(), true.into());
    answer.insert("output".into(), reply.output.into());
    if let Some(receipt) = reply.receipt {
        answer.insert("receipt".into(), json!(receipt));
    }
    Value::Object(answer)
}

fn refusal(code: &str, message: &str) {
    say!("{}", json!({"ok": false, "code": code, "error": message}));
}

fn exit_code(error: &CallError) -> ExitCode {
    ExitCode::from(match error {
        CallError::Connect { .. } | CallError::Protocol { .. } => 3,
        CallError::Timeout { .. } => 8,
        CallError::Refused { code, .. } => match code {
            ErrorCode::Failed | ErrorCode::Internal => 1,
            ErrorCode::BadFrame
            | ErrorCode::BadJson
            | ErrorCode::UnknownAction
            | ErrorCode::BadParams => 2,
            ErrorCode::Forbidden => 4,
            ErrorCode::NotFound => 5,
            ErrorCode::Conflict => 6,
            ErrorCode::Busy => 7,
            ErrorCode::Timeout => 8,
        },
    })
}
