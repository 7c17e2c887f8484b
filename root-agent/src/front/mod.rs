//! The front: the only process that sees clients' bytes, with no privilege and no file to abuse.
//! One thread, one epoll loop: accept, frame, decode, authorise, queue, hand to the gate, answer in order.

pub mod conn;
pub mod info;
mod listeners;
pub mod meter;
mod neighbours;
pub mod requests;
mod share;
mod waiting;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use blockhost_proto::action::ResourceKey;
use blockhost_proto::response::{ErrorCode, Response};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use self::conn::{Conn, Flushed};
use self::info::Counters;
use self::meter::Meter;
use self::share::Shares;
use self::waiting::Crowds;
use crate::compartment::Failure;
use crate::control::ControlSocket;
use crate::ipc::{Caller, Channel, ChannelError, Start};
use crate::policy::Policy;
use crate::policy::authority::Authority;
use crate::policy::rates::Class;
use crate::policy::sockets::{MAX_SOCKETS, SocketName};
use crate::queue::ResourceQueues;
use crate::{events, log_warning};

const CONTROL: u64 = 1;
const GATE: u64 = 2;
const FIRST_LISTENER: u64 = 16;
const FIRST_CONNECTION: u64 = 1024;
const LAST_LISTENER: u64 = FIRST_CONNECTION - 1;
/// Listeners at once: those of the policy, those of systemd, the main one.
const MAX_LISTENERS: usize = 2 * MAX_SOCKETS + 1;

/// Bytes read from a socket at once.
const READ_BUFFER: usize = 64 << 10;

/// A request that is on its way through queue, gate and compartment.
#[derive(Debug)]
pub struct Job {
    connection: u64,
    slot: u64,
    id: Option<String>,
    caller: Caller,
    /// Of its frame.
    bytes: usize,
    action: &'static str,
    params: serde_json::Value,
    limit_ms: u64,
    /// Given up when it has not had its turn by then.
    until: Instant,
    /// Its turn on all resources.
    runnable: bool,
    /// Until then, what it is counted at.
    waits_for: Vec<ResourceKey>,
    sent: bool,
}

/// The front's state.
pub struct Front {
    epoll: OwnedFd,
    /// By their place, which is their token in the loop.
    listeners: Vec<Option<(SocketName, OwnedFd)>>,
    control: ControlSocket,
    gate: Channel,
    start: Start,
    policy: Policy,
    authority: Authority,
    landlock_abi: u32,
    began: Instant,
    connections: BTreeMap<u64, Conn>,
    per_uid: HashMap<u32, usize>,
    /// To the supervisor, who is behind a connection: those that wait for an answer, and those that are not asked yet.
    questions: usize,
    unasked: VecDeque<u64>,
    next_connection: u64,
    jobs: BTreeMap<u64, Job>,
    next_job: u64,
    shares: Shares,
    crowds: Crowds,
    /// Jobs that the gate did not take, and why.
    not_taken: Vec<(u64, Failure)>,
    queues: ResourceQueues<ResourceKey>,
    refusals: Meter<u32>,
    /// By user, class and, for a rule with rates of its own, rule.
    rates: Meter<(u32, Class, Option<usize>)>,
    counters: Counters,
    head: (u64, String),
    sweep_at: Option<Instant>,
    stopping: Option<Instant>,
    buffer: Vec<u8>,
}

/// Why the front ends.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The gate is gone or broken: nothing can be recorded, so nothing can be done.
    #[error("ledger: {0}")]
    Gate(ChannelError),
    /// The supervisor is gone or broken.
    #[error("supervisor: {0}")]
    Control(ChannelError),
    /// The kernel's error.
    #[error("event loop: {0}")]
    Poll(#[from] Errno),
}

impl Front {
    /// Takes over the descriptors. Call after confinement.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(
        start: Start,
        control: ControlSocket,
        gate: Channel,
        landlock_abi: u32,
    ) -> Result<Self, FrontError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &control,
            EventData::new_u64(CONTROL),
            EventFlags::IN,
        )?;
        epoll::add(&epoll, &gate, EventData::new_u64(GATE), EventFlags::IN)?;
        Ok(Self {
            epoll,
            listeners: Vec::new(),
            control,
            gate,
            policy: start.policy.clone(),
            authority: start.authority(),
            start,
            landlock_abi,
            began: Instant::now(),
            connections: BTreeMap::new(),
            per_uid: HashMap::new(),
            questions: 0,
            unasked: VecDeque::new(),
            next_connection: FIRST_CONNECTION,
            jobs: BTreeMap::new(),
            next_job: 1,
            shares: Shares::default(),
            crowds: Crowds::default(),
            not_taken: Vec::new(),
            queues: ResourceQueues::default(),
            refusals: Meter::default(),
            rates: Meter::default(),
            counters: Counters::default(),
            head: (0, String::new()),
            sweep_at: None,
            stopping: None,
            buffer: vec![0; READ_BUFFER],
        })
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// [`FrontError`] when a process it cannot do without is gone.
    pub fn run(&mut self) -> Result<(), FrontError> {
        let mut events = Vec::with_capacity(64);
        let mut gate_writes = false;
        loop {
            let now = Instant::now();
            if self.sweep_at.is_some_and(|at| at <= now) {
                self.sweep(now);
            }
            if self.stopped(now) {
                return Ok(());
            }
            events::wait(&self.epoll, &mut events, self.wait_time(now))?;
            let now = Instant::now();
            for event in events.drain(..) {
                match event.data.u64() {
                    CONTROL => self.hear_control(now)?,
                    GATE => self.hear_gate(now)?,
                    listener @ FIRST_LISTENER..=LAST_LISTENER => self.accept(listener, now),
                    connection => self.serve(connection, event.flags, now),
                }
            }
            while let Some((job, failure)) = self.not_taken.pop() {
                self.job_done(job, Err(failure), None, now);
            }
            let drained = self.gate.flush().map_err(FrontError::Gate)?;
            if drained == gate_writes {
                gate_writes = !drained;
                let wanted = if gate_writes {
                    EventFlags::IN | EventFlags::OUT
                } else {
                    EventFlags::IN
                };
                epoll::modify(&self.epoll, &self.gate, EventData::new_u64(GATE), wanted)?;
            }
        }
    }

    fn wait_time(&self, now: Instant) -> Option<Duration> {
        let stop = self.stopping.map(|_| Duration::from_millis(20));
        let sweep = self
            .sweep_at
            .map(|at| at.saturating_duration_since(now) + Duration::from_millis(1));
        stop.into_iter().chain(sweep).min()
    }

    /// Everything answered, or no more time.
    fn stopped(&mut self, now: Instant) -> bool {
        let Some(until) = self.stopping else {
            return false;
        };
        let idle = self.jobs.is_empty() && self.connections.values().all(|conn| conn.unsent() == 0);
        if !idle && now >= until {
            log_warning!(
                "stopping with {} requests unfinished; their outcome will be in the ledger",
                self.jobs.len()
            );
        }
        idle || now >= until
    }

    fn serve(&mut self, number: u64, flags: EventFlags, now: Instant) {
        if flags.contains(EventFlags::IN) {
            self.read(number, now);
        }
        // Gone for good and everything it sent is read: nobody is left to answer.
        let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        let read_out = !flags.contains(EventFlags::IN)
            || self
                .connections
                .get(&number)
                .is_none_or(|conn| conn.closing);
        if gone && read_out {
            self.drop_connection(number, now);
            return;
        }
        self.settle(number, now);
    }

    fn read(&mut self, number: u64, now: Instant) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let Some(conn) = self.connections.get_mut(&number) else {
            self.buffer = buffer;
            return;
        };
        match rustix::io::read(&*conn, &mut buffer) {
            Ok(0) => self.end_of_stream(number, now),
            Ok(n) => {
                conn.feed(&buffer[..n], now);
                self.frames(number, now);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.drop_connection(number, now),
        }
        self.buffer = buffer;
    }

    fn end_of_stream(&mut self, number: u64, now: Instant) {
        let Some(conn) = self.connections.get_mut(&number) else {
            return;
        };
        conn.closing = true;
        if conn.decoder.mid_frame() {
            let message = "the connection ended inside a frame; nothing of it was executed";
            self.refuse_stream(number, ErrorCode::BadFrame, message, now);
        }
    }

    fn frames(&mut self, number: u64, now: Instant) {
        loop {
            let in_flight_limit = self.policy.limits.in_flight;
            let Some(conn) = self.connections.get_mut(&number) else {
                return;
            };
            match conn.next_frame(now) {
                Ok(Some(frame)) if conn.in_flight() >= in_flight_limit => {
                    drop(frame);
                    let message =
                        format!("more than {in_flight_limit} requests in flight on one connection");
                    self.refuse_stream(number, ErrorCode::Busy, &message, now);
                    return;
                }
                Ok(Some(frame)) => self.request(number, &frame, now),
                Ok(None) => {
                    if let Some(since) = conn.frame_since {
                        let at = since + self.policy.limits.frame_time();
                        self.sweep_before(at);
                    }
                    return;
                }
                Err(error) => {
                    self.refuse_stream(number, ErrorCode::BadFrame, &error.to_string(), now);
                    return;
                }
            }
        }
    }

    /// Answers with an error and reads no further.
    fn refuse_stream(&mut self, number: u64, code: ErrorCode, message: &str, now: Instant) {
        let limit = self.policy.limits.response_bytes as usize;
        let Some(conn) = self.connections.get_mut(&number) else {
            return;
        };
        conn.closing = true;
        conn.frame_since = None;
        let slot = conn.open_slot();
        conn.answer(slot, &Response::refusal(None, code, message), limit);
        let caller = conn.caller.clone();
        self.record_refusal(caller, "", code, message, now);
    }

    /// Writes, watches for the right readiness, closes what is finished.
    fn settle(&mut self, number: u64, now: Instant) {
        let Some(conn) = self.connections.get_mut(&number) else {
            return;
        };
        let flushed = if conn.unsent() > 0 {
            conn.flush(now)
        } else {
            Flushed::All
        };
        if flushed == Flushed::Gone || conn.finished() {
            self.drop_connection(number, now);
            return;
        }
        self.charge(number, now);
        let Some(conn) = self.connections.get_mut(&number) else {
            return;
        };
        let wanted = conn.wanted();
        if wanted != conn.interest {
            conn.interest = wanted;
            if epoll::modify(&self.epoll, &*conn, EventData::new_u64(number), wanted).is_err() {
                self.drop_connection(number, now);
                return;
            }
        }
        if flushed == Flushed::Partly {
            self.sweep_before(now + Duration::from_secs(self.policy.limits.write_stall_s));
        }
    }

    /// Puts what the connection has of unwritten answers on its user's account. Whoever has too much loses the connection
    /// that holds most of it: every other one, of the same user too, is left in peace.
    fn charge(&mut self, number: u64, now: Instant) {
        let Some(conn) = self.connections.get_mut(&number) else {
            return;
        };
        let (uid, held) = (conn.caller.uid, conn.backlog());
        let charged = std::mem::replace(&mut conn.charged, held);
        self.shares.charge(uid, charged, held);
        while let Some((debtor, bytes)) = self.shares.debtor(uid) {
            let theirs = self.connections.iter();
            let worst = theirs
                .filter(|(_, conn)| conn.caller.uid == debtor)
                .max_by_key(|(_, conn)| conn.charged);
            let Some((&worst, conn)) = worst else {
                return;
            };
            let message = format!(
                "unread answers of yours hold {} KiB: closed the connection that most of them are for; what became of its requests is in the ledger",
                bytes >> 10
            );
            let caller = conn.caller.clone();
            self.drop_connection(worst, now);
            self.record_refusal(caller, "", ErrorCode::Busy, &message, now);
        }
    }

    fn drop_connection(&mut self, number: u64, now: Instant) {
        // Closing the descriptor takes it out of epoll; jobs that are under way finish without a listener.
        let Some(conn) = self.connections.remove(&number) else {
            return;
        };
        let uid = conn.caller.uid;
        self.shares.charge(uid, conn.charged, 0);
        if let Some(count) = self.per_uid.get_mut(&uid) {
            *count -= 1;
            if *count == 0 {
                self.per_uid.remove(&uid);
            }
        }
        self.abandon(number, now);
    }

    fn sweep_before(&mut self, at: Instant) {
        self.sweep_at = Some(self.sweep_at.map_or(at, |current| current.min(at)));
    }

    /// Closes what is late and finds out when to look again.
    fn sweep(&mut self, now: Instant) {
        self.sweep_at = None;
        let waiting = self.expire(now);
        let limits = self.policy.limits;
        let stall = Duration::from_secs(limits.write_stall_s);
        let mut late_frames = Vec::new();
        let mut idle = Vec::new();
        let mut next = waiting;
        for (&number, conn) in &self.connections {
            // A frame that we do not read any further ourselves is not late.
            let frame = conn.frame_since.filter(|_| conn.reads());
            let frame = frame.map(|since| since + limits.frame_time());
            let close = match conn.stalled {
                Some(since) => Some(since + stall),
                None if frame.is_some() => None,
                // Idle time begins when it is answered.
                None if conn.in_flight() > 0 => Some(now + limits.idle_time()),
                None => Some(conn.active + limits.idle_time()),
            };
            if close.is_some_and(|at| at <= now) {
                idle.push(number);
            } else if frame.is_some_and(|at| at <= now) {
                late_frames.push(number);
            } else {
                next = next.into_iter().chain(close).chain(frame).min();
            }
        }
        if let Some(next) = next {
            self.sweep_before(next);
        }
        for number in late_frames {
            let message = format!("the frame did not arrive whole within {} s", limits.frame_s);
            self.refuse_stream(number, ErrorCode::BadFrame, &message, now);
            self.settle(number, now);
        }
        for number in idle {
            self.drop_connection(number, now);
        }
    }
}
