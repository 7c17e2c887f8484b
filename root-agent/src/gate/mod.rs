//! The gate: the ledger's only writer and the only way from the front to a compartment. A job passes after its intent is
//! durable; its answer passes after its outcome is. One thread, one loop; whatever waits is appended in one batch. Threads
//! beside it wait for the disk where nobody else has to (`desk`).

mod desk;
mod heads;
mod heard;
mod jobs;
mod lanes;
mod payloads;
mod pruning;
pub mod records;
mod seldom;
#[cfg(test)]
mod tests;
mod times;
mod trust;

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use blockhost_ledger::blobs::{Quota, Store};
use blockhost_ledger::cosign::WitnessKey;
use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::keys::Signers;
use blockhost_ledger::loss::Loss;
use blockhost_ledger::merkle::Hash;
use blockhost_ledger::record::Draft;
use blockhost_ledger::writer::{Options, Recovery, Writer};
use blockhost_proto::action::{Action, ResourceKey};
use blockhost_proto::escape::hex;
use blockhost_proto::response::ErrorCode;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use serde_json::Map;

use self::desk::Desk;
use self::heads::Heads;
use self::lanes::Lane;
use self::records::{Heading, Names};
use self::seldom::Seldom;
use crate::compartment::{Done, Failure, Identities};
use crate::control::ControlSocket;
use crate::ipc::{Caller, ChannelError, FromGate, Role, Start};
use crate::policy::authority::Authority;
use crate::policy::sockets::SocketName;
use crate::queue::ResourceQueues;
use crate::{events, log_info, log_warning};

/// Time between publications of derived files.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// How long after its time limit an action may still answer before its compartment counts as hung.
const GRACE: Duration = Duration::from_secs(20);
/// How long a job waits for a compartment that is being restarted.
const RESTART_PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to record outcomes that found no space.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Longest time limit that is believed: beyond it an intent would stay open for as long as the agent lives.
const LONGEST_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Jobs under way at once; a working front cannot reach it (connections times requests in flight).
const MAX_JOBS: usize = 1 << 15;
/// Drafts in one append.
const MAX_BATCH: usize = 1024;

const CONTROL: u64 = 1;
const FIRST_ROLE: u64 = 2;

/// The gate's state.
pub struct Gate {
    writer: Writer,
    /// To check claims about earlier heads by.
    heads: Heads,
    /// Confidential payloads, and how much of them there may be.
    store: Store,
    quota: Quota,
    desk: Desk,
    /// How long the payloads of records are kept, and what is being pruned.
    retention: Duration,
    pruning: Option<pruning::Work>,
    /// Whose cosignatures count.
    witnesses: Vec<WitnessKey>,
    /// Who waits for cosignatures to be published.
    cosigned: Vec<trust::Cosigned>,
    /// Who asked for a new key that is being made.
    rotating: Option<Pending>,
    names: Names,
    authority: Authority,
    identities: Identities,
    epoll: OwnedFd,
    control: ControlSocket,
    lanes: HashMap<Role, Lane>,
    /// Which life of the front an answer belongs to.
    front_life: u64,
    ops: HashMap<u64, Op>,
    /// Who may touch what now. A front keeps the order by itself; this holds for one that was restarted and does not
    /// know what its predecessor's jobs hold, and for one that was taken over.
    turns: ResourceQueues<ResourceKey>,
    next_turn: u64,
    /// Jobs that wait for their turn, and until when.
    held: HashMap<u64, (Instant, Pending)>,
    /// Those whose turn has come, while [`Gate::leave`] is at work.
    released: VecDeque<u64>,
    releasing: bool,
    next_op: u64,
    nonce: u64,
    batch: Vec<Entry>,
    /// Outcomes that found no space, and when to try again.
    unrecorded: Vec<Draft>,
    retry_at: Option<Instant>,
    /// Complaints about a ledger that takes no more.
    full: Seldom,
    publish_at: Option<Instant>,
    published_last: Option<Instant>,
    /// Complaints about derived files.
    unpublished: Seldom,
    /// When the next step of sealing is due, where there is something to seal.
    seal_at: Option<Instant>,
    stopping: bool,
    buffer: Vec<u8>,
}

/// A job on its way in.
struct Pending {
    id: u64,
    life: u64,
    caller: Caller,
    action: Action,
    limit: Duration,
    /// The rule that permits it, by its place in the list.
    rule: usize,
    turn: u64,
}

/// A job whose intent is durable.
struct Op {
    id: u64,
    life: u64,
    caller: Caller,
    heading: Heading,
    role: Role,
    turn: u64,
    began: Instant,
    limit: Duration,
    /// When its compartment counts as hung (again).
    deadline: Instant,
}

/// What the next append holds, and what follows it.
enum Entry {
    Intent(Box<Pending>, Heading, Draft),
    Outcome(Box<Op>, Result<Done, Failure>, Draft),
    Event {
        id: u64,
        life: u64,
        draft: Draft,
        /// The payload that it commits to.
        payload: Option<Hash>,
    },
    Note(Draft),
    /// An outcome whose answer is given already.
    Late(Draft),
}

impl Entry {
    /// About what has begun already: it may use the room that is kept for that on a full disk.
    fn is_about_what_ran(&self) -> bool {
        matches!(self, Self::Outcome(..) | Self::Late(_))
    }

    fn draft(&self) -> &Draft {
        match self {
            Self::Intent(_, _, draft)
            | Self::Outcome(_, _, draft)
            | Self::Event { draft, .. }
            | Self::Note(draft)
            | Self::Late(draft) => draft,
        }
    }
}

/// Why the gate ends.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The supervisor is gone or broken.
    #[error("supervisor: {0}")]
    Control(ChannelError),
    /// The kernel's error.
    #[error("event loop: {0}")]
    Poll(#[from] Errno),
}

fn token(role: Role) -> u64 {
    FIRST_ROLE + role as u64
}

impl Gate {
    /// Opens the ledger and closes what the last life left open. Call after confinement.
    ///
    /// # Errors
    /// One sentence; the agent does not start without its ledger.
    pub fn open(
        start: &Start,
        directory: LedgerDir,
        signers: impl Into<Signers>,
        loss: Option<&Loss>,
        control: ControlSocket,
        front: OwnedFd,
        compartments: [OwnedFd; Role::COMPARTMENTS.len()],
    ) -> Result<Self, String> {
        let beside = directory.try_clone().map_err(|error| error.to_string())?;
        let (writer, mut recovery) = Writer::open_accepting(
            directory,
            signers,
            &start.hostname,
            Options::default(),
            loss,
        )
        .map_err(|error| error.to_string())?;
        let store = payloads::open(beside, std::mem::take(&mut recovery.blobs))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| e.to_string())?;
        let watch = epoll::add(
            &epoll,
            &control,
            EventData::new_u64(CONTROL),
            EventFlags::IN,
        );
        watch.map_err(|e| e.to_string())?;
        let mut nonce = [0u8; 8];
        rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| e.to_string())?;
        let mut gate = Self {
            writer,
            heads: Heads::default(),
            store,
            desk: Desk::open()?,
            quota: payloads::quota(&start.policy.limits),
            retention: pruning::retention(&start.policy.limits),
            pruning: None,
            witnesses: start
                .witnesses
                .iter()
                .filter_map(|key| WitnessKey::parse(key).ok())
                .collect(),
            cosigned: Vec::new(),
            rotating: None,
            names: Names::new(&start.users),
            authority: start.authority(),
            identities: start.identities,
            epoll,
            control,
            lanes: HashMap::new(),
            front_life: 0,
            ops: HashMap::new(),
            turns: ResourceQueues::default(),
            next_turn: 1,
            held: HashMap::new(),
            released: VecDeque::new(),
            releasing: false,
            next_op: 1,
            nonce: u64::from_ne_bytes(nonce),
            batch: Vec::new(),
            unrecorded: Vec::new(),
            retry_at: None,
            full: Seldom::default(),
            // What the last life did not get to, what was lost, and what opening recorded.
            publish_at: Some(Instant::now()),
            published_last: None,
            unpublished: Seldom::default(),
            seal_at: None,
            stopping: false,
            buffer: vec![0; 64 << 10],
        };
        gate.close_open_intents(recovery)?;
        gate.remember_head();
        gate.retire_keys();
        gate.connect(Role::Front, front)?;
        for (role, socket) in Role::COMPARTMENTS.into_iter().zip(compartments) {
            gate.connect(role, socket)?;
        }
        Ok(gate)
    }

    /// Works until told to stop.
    ///
    /// # Errors
    /// [`GateError`] when the supervisor is gone.
    pub fn run(mut self) -> Result<(), GateError> {
        let mut events = Vec::with_capacity(16);
        loop {
            self.payloads_written();
            self.published(false);
            self.commit();
            self.flush_lanes();
            let now = Instant::now();
            self.watch_time(now);
            if self.stopping {
                self.finish();
                return Ok(());
            }
            if !self.batch.is_empty() {
                continue;
            }
            events::wait(&self.epoll, &mut events, self.wait_time(now))?;
            // First of all: a job that comes with a new policy is judged by it.
            if events.iter().any(|event| event.data.u64() == CONTROL) {
                self.hear_control()?;
            }
            for event in events.drain(..) {
                if let Some(role) = Role::ALL
                    .into_iter()
                    .find(|&role| token(role) == event.data.u64())
                {
                    self.hear_lane(role);
                }
            }
        }
    }

    fn close_open_intents(&mut self, recovery: Recovery) -> Result<(), String> {
        if recovery.torn_bytes > 0 {
            log_warning!(
                "the ledger ended in an interrupted append; {} bytes were cut",
                recovery.torn_bytes
            );
        }
        for chunk in recovery.open_intents.chunks(MAX_BATCH) {
            let mut drafts: Vec<Draft> = Vec::with_capacity(chunk.len());
            let mut unknown = 0;
            for open in chunk {
                let mut draft = payloads::of_open(open);
                if let Some(finished) = payloads::finish(&mut self.store, open, &draft) {
                    drafts.extend(finished);
                    log_info!("{} was finished: the last run had begun it", open.action);
                    continue;
                }
                if let Some(facts) = pruning::outcome_of_open(open, &recovery.prunes) {
                    draft.metadata = facts;
                    drafts.push(draft);
                    continue;
                }
                unknown += 1;
                let metadata = &mut draft.metadata;
                metadata.insert("result".to_owned(), "unknown".into());
                metadata.insert("intent_index".to_owned(), open.index.into());
                drafts.push(draft);
            }
            self.writer
                .append(&drafts)
                .map_err(|error| format!("closing what the last run left open: {error}"))?;
            if unknown > 0 {
                log_warning!(
                    "{unknown} actions were under way when the agent ended; their outcome is unknown"
                );
            }
        }
        Ok(())
    }

    /// An event of the agent's own, for the next append.
    fn note(&mut self, action: &str, resource: &str, metadata: Map<String, serde_json::Value>) {
        let draft = records::agent_event(action, resource, metadata, &ourselves(), &self.names);
        self.batch.push(Entry::Note(draft));
    }

    /// Jobs between their arrival and their answer.
    fn jobs(&self) -> usize {
        let waiting: usize = self.lanes.values().map(|lane| lane.waiting.len()).sum();
        let pruning = usize::from(self.pruning.is_some());
        self.ops.len()
            + self.batch.len()
            + self.held.len()
            + pruning
            + self.cosigned.len()
            + self.desk.payloads()
            + waiting
    }

    fn remember_head(&mut self) {
        let head = self.writer.head();
        self.heads.remember(head.size, head.root);
    }

    fn tell_head(&mut self) {
        let head = self.writer.head();
        let message = FromGate::Head {
            size: head.size,
            root: hex(&head.root),
        };
        self.tell_front(&message);
    }

    /// The last act: what still runs is closed as unfinished, everything is published.
    fn finish(&mut self) {
        // What waits for something that ends now does not begin any more.
        self.held.clear();
        self.drop_pruning();
        self.last_payloads();
        let running: Vec<u64> = self.ops.keys().copied().collect();
        for number in running {
            let message = "the agent stopped before this ended; whether it took effect is unknown";
            self.close(number, Err(Failure::new(ErrorCode::Internal, message)));
        }
        let late = std::mem::take(&mut self.unrecorded);
        self.batch.extend(late.into_iter().map(Entry::Late));
        self.commit();
        self.flush_lanes();
        self.publish_all();
        self.flush_lanes();
        log_info!("closed at {} records", self.writer.head().size);
    }
}

/// The agent as the caller of its own events.
fn ourselves() -> Caller {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    Caller {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        socket: SocketName::main(),
        pid: Some(pid),
        exe: None,
        unit: None,
    }
}
