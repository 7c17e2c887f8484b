//! `blockhost net uplink|confirm|recover|status`: changes that can cut the operator off, and their end.

use std::io::{BufRead as _, IsTerminal as _};
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;
use std::time::Duration;

use blockhost_proto::layout::Layout;
use blockhost_proto::value::{InterfaceAddress, SwitchIfName, Text};
use clap::{Args, Subcommand, ValueEnum};

use super::super::{fail, runtime};
use super::change_print::{
    print_abandoned, print_confirmed, print_found, print_report, print_status, shown,
};
use crate::network::confirm::probe::Target;
use crate::network::confirm::recover::{self, Found};
use crate::network::confirm::uplink::Uplink;
use crate::network::confirm::{Change, Options, Stage, confirm, guard, run as make};

/// What `--interactive` gives where no time is given.
const INTERACTIVE: Duration = Duration::from_secs(120);
/// How long looking waits for the agent when there is something to take back.
const LEFT: Duration = Duration::from_secs(20);

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Put an uplink on a bridge of the switch, or take it off
    #[command(subcommand)]
    Uplink(UplinkVerb),
    /// Say that a change stays which waits for that
    #[command(after_help = CONFIRM)]
    Confirm {
        /// Name of the change; without it, the one that waits
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// End changes that nobody looks after any more: take them back, or finish what was decided
    #[command(after_help = RECOVER)]
    Recover {
        /// Wait also for changes that somebody looks after
        #[arg(long)]
        wait: bool,
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Leave everything as it is now, where a change cannot be taken back
    #[command(after_help = ABANDON)]
    Abandon {
        /// Name of the change
        #[arg(long, value_name = "ID")]
        id: String,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Changes that are not over, and how the last one ended
    #[command(after_help = "Examples:\n  blockhost net status\n  blockhost net status --json")]
    Status {
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
}

const CONFIRM: &str = "\
Examples:
  blockhost net confirm
  blockhost net confirm --id 3f2a9c01";

const RECOVER: &str = "\
The unit blockhost-net-recover runs this at each start of the machine. It waits for the root agent as long as it takes. What
the agent refuses to take back is tried again, and is stuck after a while: `blockhost net status` says why.

Exit code 0: nothing is left, or somebody looks after it; 3: a change is stuck.

Examples:
  blockhost net recover
  blockhost net recover --wait --json";

const ABANDON: &str = "\
For a change that is stuck: the root agent refuses to take it back, because its policy was changed meanwhile, for instance. Put
that right and run `blockhost net recover`, or look at what there is, make it as you want it, and say that it is over.

Examples:
  blockhost net status
  blockhost net abandon --id 3f2a9c01";

const UPLINK: &str = "\
Everything that the one carries goes to the other: addresses, routes, the hardware address. What would take it back is
written down and watched over by a process of its own before anything is changed; the change is judged by the switch, the
kernel and NetworkManager, the default gateways and the probes, and the ledger, and taken back unless all of them are good.
The policy (root-agent.yaml) has to name the device under allow.uplinks and allow.ovs_ports, the bridge under
allow.ovs_bridges.

Exit code 0: it stays, or waits for you; 1: nothing was changed; 2: it was taken back; 3: it could not be taken back.

Examples:
  blockhost net uplink attach --bridge ovsbr0 --uplink eth0 --dry-run
  blockhost net uplink attach --bridge ovsbr0 --uplink eth0 --probe 192.0.2.1 --probe '[2001:db8::5]:443'
  blockhost net uplink attach --bridge ovsbr0 --uplink eth0 --confirm-within 60
  blockhost net uplink detach --bridge ovsbr0 --uplink eth0 --keep 10.77.0.1/24";

#[derive(Debug, Subcommand)]
pub(super) enum UplinkVerb {
    /// Make the bridge if need be, put the uplink on it, give it what the uplink carries
    #[command(after_help = UPLINK)]
    Attach {
        #[command(flatten)]
        common: Common,
        /// How a new bridge forwards: in the kernel, or in the switch's own process
        #[arg(long, value_enum, value_name = "KIND")]
        datapath: Option<Datapath>,
    },
    /// Give the uplink what the bridge carries, and take it off the bridge
    #[command(after_help = UPLINK)]
    Detach {
        #[command(flatten)]
        common: Common,
        /// An address that stays on the bridge, with the routes into its network; as often as needed
        #[arg(long, value_name = "ADDRESS/LENGTH", value_parser = text::<InterfaceAddress>)]
        keep: Vec<InterfaceAddress>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Datapath {
    System,
    Netdev,
}

#[derive(Debug, Args)]
pub(super) struct Common {
    /// The bridge
    #[arg(long, value_name = "NAME", value_parser = text::<SwitchIfName>)]
    bridge: SwitchIfName,
    /// The device that leads out of the host
    #[arg(long, value_name = "NAME", value_parser = text::<SwitchIfName>)]
    uplink: SwitchIfName,
    /// What has to be reachable afterwards, beside the default gateways: an address (echo) or a service (TCP); as often as
    /// needed
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    probe: Vec<Target>,
    /// Keep it only if you say so within this time (`blockhost net confirm`)
    #[arg(long, value_name = "SECONDS")]
    confirm_within: Option<u64>,
    /// Ask here whether it stays
    #[arg(long, conflicts_with_all = ["no_wait", "json"])]
    interactive: bool,
    /// Do not wait here until it is confirmed or taken back
    #[arg(long, requires = "confirm_within")]
    no_wait: bool,
    /// How long it may take until everything is well again
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=40))]
    settle: u64,
    /// Show what would be done and how it would be taken back; the agent checks all of it and does nothing
    #[arg(long)]
    dry_run: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

fn text<T: Text>(given: &str) -> Result<T, String> {
    T::read(given).ok_or_else(|| format!("a {} is {}", T::KIND, T::RULE))
}

/// Runs the command.
pub(super) fn run(verb: &Verb, layout: &Layout) -> ExitCode {
    if let Err(error) = become_owner(layout) {
        return fail("blockhost", &error);
    }
    crate::failpoint::arm();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail("blockhost", &error),
    };
    match verb {
        Verb::Uplink(verb) => runtime.block_on(uplink(verb, layout)),
        Verb::Confirm { id, json } => {
            let confirmed = runtime.block_on(confirm(layout, id.as_deref()));
            print_confirmed(confirmed, *json)
        }
        Verb::Recover { wait, json } => {
            let found = runtime.block_on(recover::all(layout, *wait));
            print_found(found, *json)
        }
        Verb::Abandon { id, json } => {
            let ended = runtime.block_on(recover::abandon(layout, id));
            print_abandoned(ended, *json)
        }
        Verb::Status { json } => print_status(layout, *json),
    }
}

/// A change that everybody who looked after it left is taken back before anything is shown, if the agent is there for it.
pub(super) fn take_back_what_was_left(layout: &Layout) {
    if !recover::is_needed(layout) || become_owner(layout).is_err() {
        return;
    }
    let taken_back = runtime().map(|runtime| {
        runtime.block_on(async { tokio::time::timeout(LEFT, recover::all(layout, false)).await })
    });
    match taken_back {
        Ok(Ok(Ok(found))) => {
            for one in found {
                match one {
                    Found::Reverted(ended) => eprintln!(
                        "blockhost: {} was left half-way and has been taken back",
                        shown(&ended.what)
                    ),
                    Found::Stuck(ended) => eprintln!(
                        "blockhost: {} was left half-way and cannot be taken back; see `blockhost net status`",
                        shown(&ended.what)
                    ),
                    Found::Finished(_) | Found::LookedAfter(_) => {}
                }
            }
        }
        Ok(Ok(Err(error))) => eprintln!("blockhost: {error}"),
        _ => eprintln!(
            "blockhost: a change of the network was left half-way and could not be taken back yet; run `blockhost net recover`"
        ),
    }
}

/// What root would write in the services' directories belongs to them: root goes on as their user. On its return this is
/// that user already.
fn become_owner(layout: &Layout) -> std::io::Result<()> {
    let Ok((uid, gid)) = guard::owner(layout) else {
        return Ok(());
    };
    if !rustix::process::geteuid().is_root() || uid == 0 {
        return Ok(());
    }
    #[expect(clippy::disallowed_methods, reason = "this program itself")]
    let mut again = std::process::Command::new(std::env::current_exe()?);
    Err(again
        .args(std::env::args_os().skip(1))
        .uid(uid)
        .gid(gid)
        .exec())
}

async fn uplink(verb: &UplinkVerb, layout: &Layout) -> ExitCode {
    let (common, change) = match verb {
        UplinkVerb::Attach { common, datapath } => {
            let datapath = datapath.map(|kind| match kind {
                Datapath::System => "system".to_owned(),
                Datapath::Netdev => "netdev".to_owned(),
            });
            (common, Change::Attach(common.uplink(datapath, &[])))
        }
        UplinkVerb::Detach { common, keep } => (common, Change::Detach(common.uplink(None, keep))),
    };
    let options = Options {
        probes: common.probe.clone(),
        confirm_within: common
            .confirm_within
            .map(Duration::from_secs)
            .or(common.interactive.then_some(INTERACTIVE)),
        no_wait: common.no_wait,
        dry_run: common.dry_run,
        settle: Duration::from_secs(common.settle),
        ..Options::default()
    };
    let mut tell = |stage: Stage<'_>| common.tell(&stage, layout);
    let made = make(layout, &change, &options, &mut tell).await;
    print_report(made, common.json)
}

impl Common {
    fn uplink(&self, datapath: Option<String>, keep: &[InterfaceAddress]) -> Uplink {
        Uplink {
            bridge: self.bridge.clone(),
            uplink: self.uplink.clone(),
            datapath,
            keep: keep.to_vec(),
        }
    }

    fn tell(&self, stage: &Stage<'_>, layout: &Layout) {
        match stage {
            Stage::Begun(plan) => {
                for note in &plan.notes {
                    eprintln!("blockhost: note: {}", shown(note));
                }
            }
            Stage::Step(step) if !self.json => say!("{}\t{}", step.action, step.output),
            Stage::Step(_) => {}
            Stage::Waiting(id, time) => {
                eprintln!(
                    "blockhost: everything is well. It stays if you run `blockhost net confirm --id {id}` within {} s",
                    time.as_secs()
                );
                if self.interactive {
                    ask(layout.clone(), (*id).to_owned());
                }
            }
            Stage::Reverting(why) => {
                eprintln!("blockhost: taking it back: {}", why.escape_debug());
            }
        }
    }
}

/// Asks on the terminal, beside the waiting. Anything but yes leaves it to the time.
fn ask(layout: Layout, id: String) {
    if !std::io::stdin().is_terminal() {
        return;
    }
    eprint!("Does it stay? Type yes: ");
    std::thread::spawn(move || {
        let mut answer = String::new();
        let _ = std::io::stdin().lock().read_line(&mut answer);
        if answer.trim() != "yes" {
            eprintln!("blockhost: it is taken back when the time is over, or now with Ctrl-C");
            return;
        }
        let confirmed = runtime().map(|runtime| runtime.block_on(confirm(&layout, Some(&id))));
        if let Ok(Err(error)) = confirmed {
            eprintln!("blockhost: {error}");
        }
    });
}
