//! The supervisor: root, and deaf to everyone but signals and its own children. It opens the socket, starts the
//! processes, restarts what dies, and stops them in order.

mod children;
pub mod config;
pub mod notify;
mod signals;
pub mod socket;
pub mod who;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use blockhost_proto::layout::Layout;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_dumpable_behavior,
};

use self::children::{End, Running};
use self::config::{ConfigError, gather, make_directories, read_policy};
use self::notify::Notifier;
use self::socket::{SocketError, Sockets};
use crate::control::ControlSocket;
use crate::ipc::{self, ChannelError, Control, Role, Start};
use crate::policy::sockets::SocketName;
use crate::sys::{self, spawn};
use crate::{log_error, log_info};

/// How long all children together may take to become ready at start.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long the process that stopped a start gets to say why, when another ended because of it first; and how long one that
/// closed its control socket gets to end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Time the ledger gets to write its last records.
const LEDGER_STOP: Duration = Duration::from_secs(10);
/// Time from "stop" to "kill" for a compartment.
const COMPARTMENT_STOP: Duration = Duration::from_secs(1);
/// Shortest and longest pause before a restart.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// Descriptors below this are kept busy, so that placing a child's descriptors cannot hit one that is in use.
const RESERVED_BELOW: i32 = 16;

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Policy, users, directories.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Not root.
    #[error("the root agent has to be started as root")]
    NotRoot,
    /// A process could not be started or did not become ready; its own message is in the log.
    #[error("{role} did not start: {detail}")]
    Child {
        /// Which.
        role: &'static str,
        /// What is known.
        detail: String,
    },
    /// The system refused.
    #[error("{step}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// The answer.
        source: std::io::Error,
    },
}

/// The supervisor's state.
struct Supervisor {
    layout: Layout,
    start: Start,
    sockets: Sockets,
    signals: OwnedFd,
    running: HashMap<Role, Running>,
    back_off: HashMap<Role, Duration>,
    restarts: HashMap<Role, Instant>,
    notifier: Notifier,
    _reserved: Vec<OwnedFd>,
}

fn did_not_start(role: Role, detail: String) -> SupervisorError {
    SupervisorError::Child {
        role: role.as_str(),
        detail,
    }
}

/// What woke the supervisor.
enum Event {
    Signal(i32),
    Died(Role),
    Told(Role),
    Time,
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// [`SupervisorError`]; nothing is left running or lying about then.
pub fn run(layout: Layout) -> Result<(), SupervisorError> {
    if !rustix::process::geteuid().is_root() {
        return Err(SupervisorError::NotRoot);
    }
    let notifier = Notifier::from_env();
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    crate::log::init("supervisor", journal);
    sys::tame_allocator();
    let passed = socket::activated()?;
    let names: Vec<SocketName> = passed.keys().cloned().collect();
    let policy = read_policy(&layout.agent_policy())?;
    let (start, wanted) = gather(&layout, policy, &names, journal)?;
    make_directories(&layout, &start.identities)?;
    let sockets = Sockets::open(passed, &wanted)?;
    let mut supervisor = match Supervisor::new(layout, start, sockets, notifier) {
        Ok(supervisor) => supervisor,
        Err((sockets, error)) => {
            sockets.remove();
            return Err(error);
        }
    };
    let result = supervisor.bring_up().map(|wish| match wish {
        Some(libc::SIGHUP) => {
            supervisor.reload();
            supervisor.watch();
        }
        Some(_) => supervisor.stop(),
        None => supervisor.watch(),
    });
    supervisor.sockets.remove();
    supervisor.kill_all();
    result
}

fn system(step: &'static str) -> impl Fn(std::io::Error) -> SupervisorError {
    move |source| SupervisorError::System { step, source }
}

impl Supervisor {
    fn new(
        layout: Layout,
        start: Start,
        sockets: Sockets,
        notifier: Notifier,
    ) -> Result<Self, (Sockets, SupervisorError)> {
        let prepared = (|| {
            let reserved = reserve_descriptors().map_err(system("/dev/null"))?;
            let signals = sys::signal_descriptor(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP]);
            let signals = signals.map_err(system("signals"))?;
            rustix::thread::set_no_new_privs(true).map_err(|e| system("no_new_privs")(e.into()))?;
            set_dumpable_behavior(DumpableBehavior::NotDumpable)
                .map_err(|e| system("dumpable")(e.into()))?;
            Ok((reserved, signals))
        })();
        match prepared {
            Err(error) => Err((sockets, error)),
            Ok((reserved, signals)) => Ok(Self {
                layout,
                start,
                sockets,
                signals,
                running: HashMap::new(),
                back_off: HashMap::new(),
                restarts: HashMap::new(),
                notifier,
                _reserved: reserved,
            }),
        }
    }

    /// Starts everything and waits until everything is ready. Gives the signal that came meanwhile, if one did.
    fn bring_up(&mut self) -> Result<Option<i32>, SupervisorError> {
        self.start_all()?;
        let mut wish = None;
        let mut suspect: Option<(Role, End)> = None;
        let mut until = Instant::now() + START_LIMIT;
        while let Some(role) = Role::ALL
            .into_iter()
            .find(|role| !self.running.get(role).is_some_and(|r| r.ready))
        {
            if Instant::now() >= until {
                return Err(match suspect {
                    Some((role, end)) => did_not_start(role, end.detail()),
                    None => did_not_start(role, "it is not ready after 30 s".to_owned()),
                });
            }
            for event in self.wait(Some(until)) {
                match event {
                    Event::Told(role) => self.hear(role),
                    Event::Died(role) => {
                        let Some(end) = self.bury(role) else { continue };
                        if role == Role::Ledger && end.failed {
                            return Err(did_not_start(role, end.detail()));
                        }
                        // Everyone else may have ended, in peace or with an error, only because the gate is going, and that
                        // one is about to say why.
                        if suspect
                            .as_ref()
                            .is_none_or(|(_, first)| end.failed && !first.failed)
                        {
                            suspect = Some((role, end));
                        }
                        until = until.min(Instant::now() + LAST_WORDS);
                    }
                    Event::Signal(signal) => {
                        // A stop is not forgotten for a reload.
                        if wish.is_none_or(|earlier| earlier == libc::SIGHUP) {
                            wish = Some(signal);
                        }
                    }
                    Event::Time => {}
                }
            }
        }
        let source = if self.sockets.passed().contains(&SocketName::main()) {
            "systemd's socket".to_owned()
        } else {
            self.layout.agent_socket().display().to_string()
        };
        log_info!(
            "ready on {source}, backend {:?}, landlock ABI {}",
            self.start.backend,
            sys::landlock::abi()
        );
        self.notifier.tell("READY=1");
        Ok(wish)
    }

    /// Ledger and compartments with a channel each, then the front.
    fn start_all(&mut self) -> Result<(), SupervisorError> {
        let pairs = || ipc::pair().map_err(system("socket pair"));
        let (front_gate, gate_front) = pairs()?;
        let mut gate_ends = vec![gate_front];
        let mut child_ends = Vec::new();
        for role in Role::COMPARTMENTS {
            let (theirs, gates) = pairs()?;
            gate_ends.push(gates);
            child_ends.push((role, theirs));
        }
        self.restarts.clear();
        self.spawn(Role::Ledger, gate_ends)?;
        for (role, channel) in child_ends {
            self.spawn(role, vec![channel])?;
        }
        self.spawn_front(front_gate)
    }

    fn spawn_front(&mut self, gate: OwnedFd) -> Result<(), SupervisorError> {
        self.spawn(Role::Front, vec![gate])?;
        self.hand_over_sockets(self.sockets.iter().map(|(name, _)| name))
    }

    /// Gives the front those sockets to listen on.
    fn hand_over_sockets<'a>(
        &self,
        names: impl Iterator<Item = &'a SocketName>,
    ) -> Result<(), SupervisorError> {
        let Some(front) = self.running.get(&Role::Front) else {
            return Ok(());
        };
        for name in names {
            let Some(listener) = self.sockets.get(name) else {
                continue;
            };
            let message = Control::Listen {
                socket: name.clone(),
            };
            match front.control.send(&message, Some(listener.fd.as_fd())) {
                // It is gone already, and is buried in its turn: why, somebody else may be about to say.
                Ok(()) | Err(ChannelError::Closed) => {}
                Err(e) => return Err(did_not_start(Role::Front, e.to_string())),
            }
        }
        Ok(())
    }

    fn spawn(&mut self, role: Role, descriptors: Vec<OwnedFd>) -> Result<(), SupervisorError> {
        let failed = |detail: String| SupervisorError::Child {
            role: role.as_str(),
            detail,
        };
        let (control, theirs) = ControlSocket::pair().map_err(system("socket pair"))?;
        let mut all = vec![theirs];
        all.extend(descriptors);
        let child = spawn::respawn(role.as_str(), &all).map_err(|e| failed(e.to_string()))?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| failed("no pid".to_owned()))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| failed(e.to_string()))?;
        let start = Control::Start(Box::new(self.start.clone()));
        control
            .send(&start, None)
            .map_err(|e| failed(e.to_string()))?;
        let running = Running {
            child,
            pidfd,
            control,
            started: Instant::now(),
            ready: false,
            hung_up: None,
        };
        self.running.insert(role, running);
        Ok(())
    }

    /// The normal life; returns when it is over.
    fn watch(&mut self) {
        loop {
            let next = self.restarts.values().min().copied();
            for event in self.wait(next) {
                match event {
                    Event::Signal(libc::SIGHUP) => self.reload(),
                    Event::Signal(_) => return self.stop(),
                    Event::Told(role) => self.hear(role),
                    Event::Died(role) => self.died(role),
                    Event::Time => {}
                }
            }
            self.restart_due();
        }
    }

    fn wait(&mut self, until: Option<Instant>) -> Vec<Event> {
        self.end_silent(Instant::now());
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let mut of = Vec::new();
        for (&role, running) in &self.running {
            if running.hung_up.is_none() {
                fds.push(PollFd::new(&running.control, PollFlags::IN));
                of.push(Event::Told(role));
            }
            fds.push(PollFd::new(&running.pidfd, PollFlags::IN));
            of.push(Event::Died(role));
        }
        let silent = self.running.values().filter_map(|running| running.hung_up);
        let timeout = silent.chain(until).min().and_then(|at| {
            let wait = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec::try_from(wait).ok()
        });
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return vec![Event::Time];
        }
        let mut events = Vec::new();
        if !fds[0].revents().is_empty() {
            events.extend(
                sys::read_signals(self.signals.as_fd())
                    .into_iter()
                    .map(Event::Signal),
            );
        }
        for (fd, event) in fds[1..].iter().zip(of) {
            if !fd.revents().is_empty() {
                events.push(event);
            }
        }
        if events.is_empty() {
            events.push(Event::Time);
        }
        events
    }

    fn died(&mut self, role: Role) {
        let Some(End { how, .. }) = self.bury(role) else {
            return;
        };
        let pause = self.back_off.get(&role).copied().unwrap_or(BACK_OFF.0);
        self.back_off.insert(role, (pause * 2).min(BACK_OFF.1));
        log_error!(
            "{} ended ({how}); restart in {} ms",
            role.as_str(),
            pause.as_millis()
        );
        if role == Role::Ledger {
            // Without the gate nothing can be done and everything the others hold is stale.
            self.kill_all();
        }
        self.restarts.insert(role, Instant::now() + pause);
    }

    fn restart_due(&mut self) {
        let now = Instant::now();
        let due: Vec<Role> = self
            .restarts
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(&role, _)| role)
            .collect();
        for role in due {
            let Some(_) = self.restarts.remove(&role) else {
                continue;
            };
            let result = if role == Role::Ledger {
                self.start_all()
            } else {
                self.restart(role)
            };
            if let Err(error) = result {
                log_error!("{error}");
                let pause = self.back_off.get(&role).copied().unwrap_or(BACK_OFF.1);
                if role == Role::Ledger {
                    self.kill_all();
                }
                self.restarts.insert(role, now + pause);
            }
        }
    }

    fn restart(&mut self, role: Role) -> Result<(), SupervisorError> {
        let (theirs, gates) = ipc::pair().map_err(system("socket pair"))?;
        let Some(ledger) = self.running.get(&Role::Ledger) else {
            return Ok(());
        };
        let message = Control::Channel { role };
        ledger
            .control
            .send(&message, Some(gates.as_fd()))
            .map_err(|e| SupervisorError::Child {
                role: Role::Ledger.as_str(),
                detail: e.to_string(),
            })?;
        if role == Role::Front {
            self.spawn_front(theirs)
        } else {
            self.spawn(role, vec![theirs])
        }
    }

    fn kill_all(&mut self) {
        for running in self.running.values() {
            let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
        }
        let roles: Vec<Role> = self.running.keys().copied().collect();
        for role in roles {
            self.bury(role);
        }
    }
}

fn reserve_descriptors() -> std::io::Result<Vec<OwnedFd>> {
    use std::os::fd::AsRawFd;
    let mut reserved = Vec::new();
    loop {
        let fd = OwnedFd::from(std::fs::File::open("/dev/null")?);
        let enough = fd.as_raw_fd() >= RESERVED_BELOW;
        reserved.push(fd);
        if enough {
            return Ok(reserved);
        }
    }
}

fn monotonic_us() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec
        .saturating_mul(1_000_000)
        .saturating_add(now.tv_nsec / 1000)
}
