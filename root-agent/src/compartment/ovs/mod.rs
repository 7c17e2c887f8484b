//! The `ovs` compartment: bridges, ports, flows, queues and meters, by OVSDB (RFC 7047) and OpenFlow bundles on the
//! switch's own sockets. Starts nothing, holds no capability.

use blockhost_proto::action::Action;
use blockhost_proto::response::ErrorCode;

use super::{Done, Failure, Handler, JobCtx, StartInfo};

struct Ovs;

/// Opens what is needed; called before confinement.
///
/// # Errors
/// One sentence when the compartment cannot work at all.
pub fn prepare(_start: &StartInfo<'_>) -> Result<Box<dyn Handler>, String> {
    Ok(Box::new(Ovs))
}

impl Handler for Ovs {
    fn quick(&self, _action: &Action) -> bool {
        false
    }

    fn run(&self, action: &Action, _ctx: &JobCtx<'_>) -> Result<Done, Failure> {
        Err(Failure::new(
            ErrorCode::Internal,
            format!(
                "{} was sent to the ovs compartment, which cannot do it",
                action.name()
            ),
        ))
    }
}
