//! The `ovs` compartment: bridges, ports, flows, queues and meters, by OVSDB (RFC 7047) and OpenFlow bundles on the
//! switch's own sockets. Starts nothing, holds no capability, and confined sees only the directory of those sockets.

mod bridges;
mod carried;
mod error;
mod flows;
pub mod framer;
#[cfg(any(test, feature = "fuzz"))]
pub(super) mod fuzz;
mod kept;
mod line;
mod list;
mod meters;
pub mod openflow;
mod ovsdb;
mod ports;
mod qos;
pub mod rows;
mod switch;

use std::os::unix::fs::DirBuilderExt;

use blockhost_proto::action::Action;
use blockhost_proto::response::ErrorCode;
use serde_json::Value;

use super::{Done, Failure, Handler, JobCtx, StartInfo};
use carried::Carried;
use switch::Switch;

struct Ovs {
    switch: Switch,
    carried: Carried,
}

/// Remembers where the switch's sockets are, and opens one to the kernel to look by; called before confinement. Whether a switch runs is seen when it is needed.
///
/// # Errors
/// None; a host without a switch has a compartment that says so.
pub fn prepare(start: &StartInfo<'_>) -> Result<Box<dyn Handler>, String> {
    let sockets = start.layout.switch_sockets();
    // Confined, this process has to be told to look elsewhere by being started again; a directory that is there already
    // when the switch comes later spares it that. Where it cannot be made, paths stay what they are.
    let _ = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&sockets);
    let switch = Switch::new(sockets);
    let carried = Carried::open();
    Ok(Box::new(Ovs { switch, carried }))
}

impl Handler for Ovs {
    fn quick(&self, _action: &Action) -> bool {
        false
    }

    fn run(&self, action: &Action, ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        let switch = &self.switch;
        match action {
            Action::OvsAddBr(action) => bridges::add(switch, action, ctx),
            Action::OvsDelBr(action) => bridges::delete(switch, &self.carried, action, ctx),
            Action::OvsAddPort(action) => ports::add(switch, action, ctx),
            Action::OvsDelPort(action) => ports::delete(switch, &self.carried, action, ctx),
            Action::OvsSetFlows(action) => flows::set_flows(switch, &self.carried, action, ctx),
            Action::OvsSetQos(action) => qos::set_qos(switch, action, ctx),
            Action::OvsSetMeter(action) => meters::set_meter(switch, action, ctx),
            Action::OvsList(action) => list::list(switch, action, ctx),
            other => Err(Failure::new(
                ErrorCode::Internal,
                format!(
                    "{} was sent to the ovs compartment, which cannot do it",
                    other.name()
                ),
            )),
        }
    }
}

/// A success with its extra fields.
fn done<const N: usize>(output: String, extra: [(&str, Value); N]) -> Done {
    Done {
        output,
        extra: extra
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    }
}
