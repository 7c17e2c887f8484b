//! The messages that travel between our own processes. A message that does not decode is a protocol violation; whoever reads
//! one drops the sender. The pipes themselves are in `channel`.

mod channel;

use blockhost_proto::catalog::Compartment;
use blockhost_proto::response::Receipt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::channel::{Channel, ChannelError, MAX_MESSAGE, pair};
use crate::compartment::{Backend, Done, Failure, Identities};
use crate::policy::Policy;
use crate::policy::authority::{Authority, ResolvedRule, Subject};
use crate::policy::sockets::SocketName;

/// The processes below the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Talks to clients.
    Front,
    /// Records, and lets through what is recorded.
    Ledger,
    /// Routes, links, firewall, WireGuard.
    Net,
    /// Open vSwitch.
    Ovs,
    /// Wallets and address book.
    Keys,
    /// Machines.
    Vm,
    /// What is inside disk images.
    Image,
    /// Wires into other managers' containers.
    Attach,
}

impl Role {
    /// Every role, in start order.
    pub const ALL: [Self; 8] = [
        Self::Ledger,
        Self::Net,
        Self::Ovs,
        Self::Keys,
        Self::Vm,
        Self::Image,
        Self::Attach,
        Self::Front,
    ];
    /// The roles that execute actions.
    pub const COMPARTMENTS: [Self; 6] = [
        Self::Net,
        Self::Ovs,
        Self::Keys,
        Self::Vm,
        Self::Image,
        Self::Attach,
    ];

    /// The name in process titles, logs and policy.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Ledger => "ledger",
            Self::Net => "net",
            Self::Ovs => "ovs",
            Self::Keys => "keys",
            Self::Vm => "vm",
            Self::Image => "image",
            Self::Attach => "attach",
        }
    }

    /// The role that carries out what the catalog gives to a compartment; `None` for what front and gate do themselves.
    pub const fn of(compartment: Compartment) -> Option<Self> {
        match compartment {
            Compartment::Front | Compartment::Ledger => None,
            Compartment::Net => Some(Self::Net),
            Compartment::Ovs => Some(Self::Ovs),
            Compartment::Keys => Some(Self::Keys),
            Compartment::Vm => Some(Self::Vm),
            Compartment::Image => Some(Self::Image),
            Compartment::Attach => Some(Self::Attach),
        }
    }

    /// The role of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// What every child is told first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// `BLOCKHOST_ROOT`.
    pub root: std::path::PathBuf,
    /// Name of this host in ledger records and log origin.
    pub hostname: String,
    /// The chosen backend.
    pub backend: Backend,
    /// Numeric users.
    pub identities: Identities,
    /// The policy in force.
    pub policy: Policy,
    /// Rules with names resolved.
    pub rules: Vec<ResolvedRule>,
    /// Names of users, for ledger records.
    pub users: Vec<(u32, String)>,
    /// Whether standard error is the journal (priority prefixes wanted).
    pub journal: bool,
    /// When the agent started, seconds since 1970.
    pub started_s: u64,
    /// Verifier keys of the witnesses whose cosignatures the ledger takes.
    pub witnesses: Vec<String>,
}

/// Supervisor to child, on the control socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Control {
    /// First message: everything the child needs to know.
    Start(Box<Start>),
    /// A new policy is in force.
    Policy {
        /// The policy.
        policy: Box<Policy>,
        /// Its rules, resolved.
        rules: Vec<ResolvedRule>,
        /// Names of users, for records.
        users: Vec<(u32, String)>,
    },
    /// To the ledger only: the key it asked for, durable, or why there is none.
    NextKey {
        /// Of this epoch.
        epoch: u32,
        /// The key.
        key: Result<KeySeed, String>,
    },
    /// To the ledger only: a changed policy was not taken.
    PolicyRefused {
        /// Why, one sentence.
        reason: String,
    },
    /// To the front only, with one descriptor: one more socket to listen on.
    Listen {
        /// Its name.
        socket: SocketName,
    },
    /// To the front only: listen there no longer.
    Unlisten {
        /// Its name.
        socket: SocketName,
    },
    /// To the ledger only, with one descriptor: a fresh channel to that role.
    Channel {
        /// Whose channel it is.
        role: Role,
    },
    /// Finish what runs, take nothing new, exit 0.
    Stop,
    /// To the front: who the process behind a connection is.
    Who {
        /// Connection it was asked for.
        connection: u64,
        /// Executable, escaped.
        exe: Option<String>,
        /// systemd unit.
        unit: Option<String>,
    },
}

/// A signing key on its way to the process that signs. `Debug` does not show it.
#[derive(Clone, Serialize, Deserialize)]
pub struct KeySeed(Vec<u8>);

impl KeySeed {
    /// Takes a key.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(seed.to_vec())
    }

    /// The key.
    pub fn bytes(&self) -> Option<[u8; 32]> {
        self.0.as_slice().try_into().ok()
    }
}

impl Drop for KeySeed {
    fn drop(&mut self) {
        self.0.fill(0);
    }
}

impl std::fmt::Debug for KeySeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeySeed")
    }
}

/// Child to supervisor, on the control socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Report {
    /// Confined and listening.
    Ready {
        /// Landlock ABI in force; 0 without.
        landlock_abi: u32,
    },
    /// From the ledger: make the signing key of that epoch, or find it.
    NextKey {
        /// The epoch.
        epoch: u32,
    },
    /// From the ledger: signing with that epoch's key now; those before it are to be erased.
    KeyInUse {
        /// The epoch.
        epoch: u32,
    },
    /// From the ledger: that compartment exceeded its time; kill it.
    Hung {
        /// The compartment.
        role: Role,
    },
    /// From the front, with a pidfd where there is one.
    Who {
        /// Connection asked for.
        connection: u64,
        /// Process id as seen at connect.
        pid: i32,
        /// Its user then.
        uid: u32,
        /// And primary group.
        gid: u32,
    },
}

/// Who asks, as the kernel said at connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Those of the supplementary groups that a rule names.
    pub groups: Vec<u32>,
    /// Name of the socket it came by.
    pub socket: SocketName,
    /// Process, decoration only.
    pub pid: Option<i32>,
    /// Its executable, escaped.
    pub exe: Option<String>,
    /// Its systemd unit.
    pub unit: Option<String>,
}

impl Caller {
    /// What decides.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            uid: self.uid,
            gid: self.gid,
            groups: &self.groups,
            socket: self.socket.as_str(),
        }
    }
}

impl Start {
    /// The rules in force, ready to be asked.
    pub fn authority(&self) -> Authority {
        Authority::new(&self.policy.allow, &self.rules, self.identities)
    }
}

/// Front to ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToGate {
    /// Record it, have it executed, answer.
    Job {
        /// Number of the front's choosing.
        id: u64,
        /// Who asks.
        caller: Caller,
        /// Catalog name.
        action: String,
        /// Canonical parameters.
        params: Value,
        /// Time limit of the execution, milliseconds.
        limit_ms: u64,
    },
    /// A refusal to put on record; not answered.
    Refusal {
        /// Who asked.
        caller: Caller,
        /// What was asked for, escaped.
        action: String,
        /// Wire code of the answer.
        code: String,
        /// The answer's sentence.
        message: String,
        /// Refusals of that user not recorded since the last record.
        suppressed: u64,
    },
}

/// Ledger to front.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromGate {
    /// How a job ended.
    Answer {
        /// The front's number.
        id: u64,
        /// Result of the action.
        result: Result<Done, Failure>,
        /// Where the outcome is; missing only when nothing could be recorded.
        receipt: Option<Receipt>,
    },
    /// The head moved.
    Head {
        /// Number of records.
        size: u64,
        /// Merkle root, hex.
        root: String,
    },
}

/// Ledger to compartment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// Number of the operation.
    pub op: u64,
    /// Catalog name.
    pub action: String,
    /// Canonical parameters.
    pub params: Value,
    /// Time limit, milliseconds.
    pub limit_ms: u64,
    /// Who asks, for the compartment to judge again.
    pub caller: Caller,
}

/// Compartment to ledger.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromCompartment {
    /// Every thread is busy: its time limit does not run yet.
    Waiting {
        /// Number of the operation.
        op: u64,
    },
    /// One that waited begins.
    Begun {
        /// Number of the operation.
        op: u64,
    },
    /// It is over.
    Finished(Finished),
}

/// How an operation ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finished {
    /// Number of the operation.
    pub op: u64,
    /// How it ended.
    pub result: Result<Done, Failure>,
}

/// `extra` fields of a record or answer.
pub type Fields = Map<String, Value>;
