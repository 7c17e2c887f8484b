//! Why something could not be done to a machine.

use blockhost_proto::qm::QmError;
use blockhost_proto::value::{ValueError, VmName};

use crate::backend::BackendError;
use crate::lock::LockError;
use crate::store::StoreError;

/// Something that could not be done to a machine.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The root agent or the backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The lock on the machine.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A value that the agent would refuse.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// An option that the agent would refuse.
    #[error(transparent)]
    Option(#[from] QmError),
    /// The record was made with `--mock`.
    #[error("{0} was made with --mock: there is no machine behind it")]
    Mock(VmName),
    /// Under the record's number lives somebody else's machine.
    #[error("VM {vmid} is called \"{found}\", not {name}: it was left alone; look at it yourself")]
    Foreign {
        /// The name in the record.
        name: VmName,
        /// The number.
        vmid: u32,
        /// The name at the backend.
        found: String,
    },
    /// Some parts of a destruction failed; what is left will be tried again next time.
    #[error("{name} is not wholly destroyed: {}", problems.join("; "))]
    Partly {
        /// The machine.
        name: VmName,
        /// What failed.
        problems: Vec<String>,
        /// Whether some of it failed for want of the agent.
        agent_away: bool,
    },
    /// A command in the guest failed.
    #[error("in the guest of {name}: {what} ended with {exitcode}: {stderr}")]
    Guest {
        /// The machine.
        name: VmName,
        /// What was run.
        what: &'static str,
        /// Its exit code.
        exitcode: i64,
        /// What it complained.
        stderr: String,
    },
    /// It was started, but what it may use is not limited as its record says.
    #[error(
        "{name} runs, but without the limits of its record: {source}; run blockhost-vm-throttle or stop it"
    )]
    Unlimited {
        /// The machine.
        name: VmName,
        /// Why not.
        source: BackendError,
    },
    /// The destruction of a machine whose creation runs.
    #[error("{name} is being created by {maker}; wait for it or end it")]
    Busy {
        /// The machine.
        name: VmName,
        /// The creator.
        maker: String,
    },
    /// The machine was destroyed and another one made since its record was read.
    #[error("{0} is another machine by now; look at it and run the command again")]
    Replaced(VmName),
    /// The database that hosts share does not say whose the machine is.
    #[error(
        "the record of {0} names no host, so none acts on it; how to name its host says configure.md, at \"Several hosts\""
    )]
    Nobodys(VmName),
    /// The machine is on another of the hosts that share the database.
    #[error("{name} is on the host {node}, this is {here}: run the command there")]
    Elsewhere {
        /// The machine.
        name: VmName,
        /// Its host.
        node: String,
        /// This host.
        here: String,
    },
}

impl LifecycleError {
    /// Whether it failed for want of the agent, see [`BackendError::is_agent_away`].
    #[must_use]
    pub fn is_agent_away(&self) -> bool {
        match self {
            Self::Backend(source) | Self::Unlimited { source, .. } => source.is_agent_away(),
            Self::Partly { agent_away, .. } => *agent_away,
            _ => false,
        }
    }
}
