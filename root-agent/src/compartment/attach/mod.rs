//! The `attach` compartment: wires from the host into containers that another manager runs. The one process that may enter
//! network namespaces, and it does nothing else; how it gets into one and out again is in [`enter`], what it does with the two
//! ends in [`wire`]. Where the policy does not switch it on it holds no capability and refuses everything.

mod enter;
mod plan;
mod wire;

use blockhost_proto::action::Action;
use blockhost_proto::response::ErrorCode;
use rustix::thread::capabilities;
use serde_json::Map;

use super::{Done, Failure, Handler, JobCtx, StartInfo};
use crate::confine::profile::ATTACHING;
use enter::Door;
use wire::Wires;

struct Attach {
    door: Door,
    wires: Wires,
}

/// The handler where the policy leaves it off.
struct Off;

/// Opens the way back and the socket for the host's ends; called before confinement.
///
/// # Errors
/// One sentence when the service lacks what this takes.
pub fn prepare(start: &StartInfo<'_>) -> Result<Box<dyn Handler>, String> {
    if !start.policy.containers.attach {
        return Ok(Box::new(Off));
    }
    let cannot =
        |error: &dyn std::fmt::Display| format!("the attach compartment cannot start: {error}");
    let held = capabilities(None).map_err(|error| cannot(&error))?;
    if !held.permitted.contains(ATTACHING) {
        return Err(cannot(
            &"containers.attach of root-agent.yaml needs CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_NET_ADMIN; install the \
              drop-in containers.conf, or switch it off",
        ));
    }
    Ok(Box::new(Attach {
        door: Door::open().map_err(|error| cannot(&error))?,
        wires: Wires::open().map_err(|error| cannot(&error))?,
    }))
}

impl Handler for Attach {
    /// Everything, so that there is one thread: where it is, the process is.
    fn quick(&self, _action: &Action) -> bool {
        true
    }

    fn run(&self, action: &Action, _ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        match action {
            Action::ContainerLook(look) => {
                let inside = self.door.enter(look.pid)?;
                let mut extra = Map::new();
                extra.insert("netns".to_owned(), inside.number.into());
                Ok(Done {
                    output: format!("{} is in the network namespace {}", look.pid, inside.number),
                    extra,
                })
            }
            Action::ContainerAttach(wire) => {
                let inside = self.door.enter(wire.pid)?;
                if inside.number != u64::from(wire.netns.get()) {
                    let message = format!(
                        "process {} is in the network namespace {}, not in {}; nothing was done: ask the container's manager \
                         for its process again",
                        wire.pid, inside.number, wire.netns
                    );
                    return Err(Failure::new(ErrorCode::Conflict, message));
                }
                self.wires.attach(wire, inside)
            }
            Action::ContainerDetach(wire) => self.wires.detach(wire),
            other => Err(Failure::new(
                ErrorCode::Internal,
                format!(
                    "{} was sent to the attach compartment, which cannot do it",
                    other.name()
                ),
            )),
        }
    }
}

impl Handler for Off {
    fn quick(&self, _action: &Action) -> bool {
        true
    }

    fn run(&self, action: &Action, _ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        let message = format!(
            "{} is switched off on this host (containers.attach of root-agent.yaml)",
            action.name()
        );
        Err(Failure::new(ErrorCode::Forbidden, message))
    }
}
