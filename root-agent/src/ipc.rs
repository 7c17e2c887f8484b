//! The pipes between our own processes: framed JSON over socket pairs, and the messages that travel on them.
//! A message that does not decode is a protocol violation; whoever reads one drops the sender.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use blockhost_proto::catalog::Compartment;
use blockhost_proto::response::Receipt;
use blockhost_proto::wire::{FrameDecoder, encode_frame};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::compartment::{Backend, Done, Failure, Identities};
use crate::policy::Policy;
use crate::policy::authority::{Authority, ResolvedRule, Subject};
use crate::policy::sockets::SocketName;

/// Longest internal message, bytes: a response frame with room for escaping and the envelope.
pub const MAX_MESSAGE: usize = 8 << 20;

/// Bytes that may wait for the other side. Whoever lets more pile up has stopped reading.
const MAX_BACKLOG: usize = 64 << 20;

/// Bytes taken in one go, so that a side that never stops sending cannot keep the other from everything else.
const MAX_INTAKE: usize = 4 << 20;

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

/// Why a channel is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side is gone.
    #[error("the other side closed the channel")]
    Closed,
    /// The other side sent what no working process of ours sends.
    #[error("protocol violation: {0}")]
    Violation(String),
    /// A message of ours that does not fit; nothing was sent and the channel is as before.
    #[error("a message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// The kernel's error.
    #[error("channel: {0}")]
    Io(#[from] Errno),
}

/// One end of a socket pair: framed JSON, never blocking, with a buffer for what the other side has not taken yet.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    decoder: FrameDecoder,
    out: Vec<u8>,
    written: usize,
}

impl Channel {
    /// Wraps a connected stream socket; makes it non-blocking.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&socket)?;
        rustix::fs::fcntl_setfl(&socket, flags | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self {
            socket,
            decoder: FrameDecoder::new(MAX_MESSAGE),
            out: Vec::new(),
            written: 0,
        })
    }

    /// Queues a message; [`Self::flush`] sends it.
    ///
    /// # Errors
    /// [`ChannelError::TooLong`] above [`MAX_MESSAGE`]; [`ChannelError::Violation`] when the other side has stopped
    /// reading.
    pub fn queue<M: Serialize>(&mut self, message: &M) -> Result<(), ChannelError> {
        let body =
            serde_json::to_vec(message).map_err(|e| ChannelError::Violation(e.to_string()))?;
        let frame = encode_frame(&body, MAX_MESSAGE).map_err(|_| ChannelError::TooLong)?;
        if self.backlog() > MAX_BACKLOG {
            let text = format!("{} bytes were not read", self.backlog());
            return Err(ChannelError::Violation(text));
        }
        if self.out.is_empty() {
            self.out = frame;
        } else {
            self.out.extend_from_slice(&frame);
        }
        Ok(())
    }

    /// Sends as much as the other side takes. True when nothing is left.
    ///
    /// # Errors
    /// [`ChannelError`] when the channel is dead.
    pub fn flush(&mut self) -> Result<bool, ChannelError> {
        while self.written < self.out.len() {
            match rustix::net::send(
                &self.socket,
                &self.out[self.written..],
                rustix::net::SendFlags::NOSIGNAL,
            ) {
                Ok(n) => self.written += n,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Closed),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.out.shrink_to(64 << 10);
        self.written = 0;
        Ok(true)
    }

    /// Bytes waiting for the other side.
    pub fn backlog(&self) -> usize {
        self.out.len() - self.written
    }

    /// Reads what is there, up to a bound, and gives the whole messages. With `Closed` only once nothing is left to read.
    ///
    /// # Errors
    /// [`ChannelError`] when the channel is dead or the other side misbehaves.
    pub fn receive<M: DeserializeOwned>(
        &mut self,
        buffer: &mut [u8],
    ) -> Result<Vec<M>, ChannelError> {
        let mut messages = Vec::new();
        let mut taken = 0;
        loop {
            let n = match rustix::net::recv(
                &self.socket,
                &mut *buffer,
                rustix::net::RecvFlags::empty(),
            ) {
                Ok((0, _)) | Err(Errno::CONNRESET) if messages.is_empty() => {
                    return Err(ChannelError::Closed);
                }
                Ok((0, _)) | Err(Errno::AGAIN | Errno::CONNRESET) => return Ok(messages),
                Ok((n, _)) => n,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            self.decoder.feed(&buffer[..n]);
            while let Some(frame) = self
                .decoder
                .next_frame()
                .map_err(|e| ChannelError::Violation(e.to_string()))?
            {
                messages.push(
                    serde_json::from_slice(&frame)
                        .map_err(|e| ChannelError::Violation(e.to_string()))?,
                );
            }
            taken += n;
            if n < buffer.len() || taken >= MAX_INTAKE {
                return Ok(messages);
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A pair of connected stream sockets for a [`Channel`].
///
/// # Errors
/// The kernel's.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}
