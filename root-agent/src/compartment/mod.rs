//! What a compartment is: a confined process that executes catalog actions and nothing else.
//! The trait and its types live here, the process loop in [`run`], the work in `net`, `ovs`, `keys`, `vm`,
//! `image` and `attach`.

pub mod attach;
mod disk;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
pub mod image;
pub mod keys;
pub mod net;
pub mod ovs;
pub mod run;
pub mod vm;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use blockhost_proto::action::Action;
use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::policy::{Allowlists, Limits, Policy};

/// A numeric user with its primary group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

/// The system users of the product, looked up once by the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identities {
    /// `blockhost-agent`: front and net.
    pub agent: Identity,
    /// `blockhost`: the engine's user and the group that reads `/etc/blockhost`.
    pub blockhost: Identity,
    /// `blockhost-vm`: the machines.
    pub vm: Identity,
    /// `blockhost-image`: what opens disk images. Not in the group `blockhost`, so it cannot ask the agent for anything.
    pub image: Identity,
}

/// Which program stands behind `qm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Proxmox VE's own `qm`.
    Proxmox,
    /// `blockhost-qm` of this product.
    Embedded,
}

/// What a compartment knows when it prepares itself, before it is confined.
#[derive(Debug)]
pub struct StartInfo<'a> {
    /// Where everything lives.
    pub layout: &'a Layout,
    /// The policy at start; later changes arrive as [`JobCtx::allow`].
    pub policy: &'a Policy,
    /// Numeric users.
    pub identities: Identities,
    /// The backend chosen by the supervisor (`auto` is resolved already).
    pub backend: Backend,
}

/// What one job may use.
#[derive(Debug)]
pub struct JobCtx<'a> {
    /// When the job has to be over; programs are killed then.
    pub deadline: Instant,
    /// What may be named now under the rule that permits the job.
    pub allow: &'a Allowlists,
    /// Limits of the policy in force now.
    pub limits: &'a Limits,
    /// Where everything lives.
    pub layout: &'a Layout,
    /// Kernel-verified user id of the client.
    pub caller_uid: u32,
}

/// A success.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The response's `output`.
    pub output: String,
    /// Further fields of the response (`address`, `exitcode`, ...).
    pub extra: Map<String, Value>,
}

/// A refusal or failure; the message is one readable sentence for the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Wire code.
    pub code: ErrorCode,
    /// What happened, where, what to do next.
    pub message: String,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Time kept back for taking a failed change away again.
const UNDO: Duration = Duration::from_secs(2);

/// The moment up to which a change may be waited for, so that there is time left to undo it.
fn before_undo(deadline: Instant) -> Instant {
    let now = Instant::now();
    let left = deadline.saturating_duration_since(now);
    now + left.saturating_sub(UNDO.min(left / 3))
}

/// Whose threads an action has, so that it holds up only those of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// It ends when this host has done it, soon.
    Host,
    /// It ends when somebody in a machine pleases.
    Guest,
    /// It copies or unpacks a whole disk.
    Bulk,
}

/// The work of one compartment. `run` is called from several threads for actions that are not quick.
pub trait Handler: Send + Sync {
    /// Whether the action takes microseconds and may run on the thread that reads jobs.
    fn quick(&self, action: &Action) -> bool;

    /// With which others an action that is not quick waits for a thread.
    fn share(&self, _action: &Action) -> Share {
        Share::Host
    }

    /// Does it. Called for actions of this compartment only, after the intent record is durable.
    fn run(&self, action: &Action, ctx: &JobCtx<'_>) -> Result<Done, Failure>;

    /// Files this compartment executes; confinement adds an execute rule for each.
    fn programs(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_left_for_undoing_and_a_deadline_that_is_over_is_not_put_off() {
        let now = Instant::now();
        for (left, kept) in [(15_000, 2000), (3000, 1000), (0, 0)] {
            let deadline = now + Duration::from_millis(left);
            // `now` moves on in between: never earlier than from the first moment on, never less kept than said.
            let until = before_undo(deadline);
            assert!(until >= now && until <= deadline.max(Instant::now()));
            let undo = deadline.saturating_duration_since(until);
            assert!(undo <= Duration::from_millis(kept));
            assert!(left < 15_000 || !undo.is_zero(), "nothing is kept");
        }
    }
}
