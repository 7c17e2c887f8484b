//! Requests: who may ask, one at a time per container where that matters, and what each becomes.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::processes::{self, Process};
use super::wire::{Answer, Ask, Limits, Line, Refusal, State};
use super::{Keeper, names, program, slots};
use crate::beside::side_by_side;
use crate::cgroup::{self, Processor};
use crate::error::{Error, IoContext, Result};
use crate::exec::{self, kill_group};

/// Requests at one time; root needs no more, and a mistake of its scripts shall not end in thousands of threads.
const MOST_AT_ONCE: usize = 128;
/// How long the question of one who is refused is waited for; nobody else is let in meanwhile.
const PATIENCE: Duration = Duration::from_millis(200);
/// Monitors asked at one time.
const ASKED_AT_ONCE: usize = 16;
/// Processes and threads of one container.
const PROCESSES: u32 = 8192;
/// How long requests may hold up the program's renewal; those that take longer are cut off.
const RENEWED_WITHIN: Duration = Duration::from_secs(60);
/// What a program inside finds in its environment.
const PATH_INSIDE: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who is being served, and what they wait for.
#[derive(Default)]
pub(super) struct Desk {
    busy: Mutex<HashMap<u32, Arc<Mutex<()>>>>,
    allocating: Mutex<()>,
    at_once: AtomicUsize,
    /// Somebody has asked for the program's renewal, and it waits for those who are served.
    renewing: AtomicBool,
    /// Starts that wait for their hook, by the word that each was given: the monitor of an earlier start may be on its
    /// way out still, or start its container again.
    pub(super) hooks: Mutex<HashMap<String, Sender<(Line, OwnedFd)>>>,
}

impl Desk {
    fn lock_of(&self, vmid: u32) -> Arc<Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for are not kept for ever.
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        busy.entry(vmid).or_default().clone()
    }
}

/// Serves for ever.
///
/// # Errors
/// When the socket fails.
pub(super) fn serve(keeper: &Arc<Keeper>, listener: &OwnedFd) -> Result<()> {
    loop {
        let accepted = rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC);
        let line = match accepted {
            Ok(fd) => Line::new(fd),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
            // Out of descriptors: those that are served give some back.
            Err(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            Err(e) => return Err(e).at("cannot accept on", &keeper.socket),
        };
        let counted = Counted::new(keeper);
        if counted.before >= MOST_AT_ONCE {
            too_many(&line);
            continue;
        }
        std::thread::spawn(move || {
            // The whole of it, so that it is counted until then.
            let counted = counted;
            one(&counted.keeper, line);
        });
    }
}

/// One request that is being served, until this is dropped: also by one that panics.
struct Counted {
    keeper: Arc<Keeper>,
    before: usize,
}

impl Counted {
    fn new(keeper: &Arc<Keeper>) -> Self {
        Self {
            before: keeper.desk.at_once.fetch_add(1, Ordering::SeqCst),
            keeper: Arc::clone(keeper),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.keeper.desk.at_once.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Says so to root, who speaks first.
fn too_many(line: &Line) {
    if !matches!(line.peer(), Ok(0)) {
        return;
    }
    let mut fds = [PollFd::from_borrowed_fd(line.as_fd(), PollFlags::IN)];
    let wait = Timespec::try_from(PATIENCE).ok();
    // An end with words unheard would be all that it hears.
    if matches!(poll(&mut fds, wait.as_ref()), Ok(1)) {
        let _ = line.receive::<Ask>();
    }
    let busy = Error::Failed(format!(
        "the containers' service serves {MOST_AT_ONCE} requests already; try again later"
    ));
    let _ = line.send(&refused(busy), &[]);
}

fn one(keeper: &Keeper, line: Line) {
    let own = keeper.roots.own.uid;
    let Ok(peer) = line.peer() else { return };
    if peer != 0 && peer != own {
        return;
    }
    let Ok((ask, mut descriptors)) = line.receive::<Ask>() else {
        return;
    };
    if let Ask::Hook { start } = ask {
        let waiting = keeper
            .desk
            .hooks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&start);
        if let (Some(waiting), Some(space)) = (waiting, descriptors.pop()) {
            let _ = waiting.send((line, space));
        }
        return;
    }
    // Its unit asks as its user; whoever else runs as that user could as well end the service.
    if let Ask::Renew = ask {
        renew(keeper, &line);
        return;
    }
    // Its own user is who containers' monitors run as, and those have a hook and nothing else.
    if peer != 0 {
        return;
    }
    let answer = keeper
        .answer(ask, descriptors, &line)
        .unwrap_or_else(refused);
    let _ = line.send(&answer, &[]);
}

/// Becomes the program that is installed now. A new process would not do: the unit's control group hands controllers on to
/// containers, and systemd before version 254 cannot put the first process of a unit into such a group (no processes beside
/// groups, cgroups(7)) while a container lives there.
///
/// Who asks hears nothing when that has happened: its connection ends with this program. It hears why it has not.
fn renew(keeper: &Keeper, line: &Line) {
    // Two would wait for each other.
    if keeper.desk.renewing.swap(true, Ordering::SeqCst) {
        let why = "somebody else has asked for that already, and it waits for requests under way";
        let _ = line.send(&refused(Error::Conflict(why.to_owned())), &[]);
        return;
    }
    let error = renewed(keeper);
    keeper.desk.renewing.store(false, Ordering::SeqCst);
    let why = format!("{error}; the program of before serves on");
    eprintln!("<3>blockhost-containers: {why}");
    let _ = line.send(&refused(Error::Environment(why)), &[]);
}

/// Returns only the reason why that failed.
fn renewed(keeper: &Keeper) -> Error {
    if let Err(error) = program::check(&keeper.program) {
        return error;
    }
    // Who is served now is served to the end, if that is not too far away. One is this request.
    let end = Instant::now() + RENEWED_WITHIN;
    while keeper.desk.at_once.load(Ordering::SeqCst) > 1 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    let name = keeper.program.display().to_string();
    let error = exec::become_program(&name, &["run".to_owned()]);
    Error::Environment(format!("cannot become {name}: {error}"))
}

fn refused(error: Error) -> Answer {
    let refusal = match &error {
        Error::Conflict(_) => Refusal::Conflict,
        Error::Timeout(_) => Refusal::Timeout,
        Error::Image { .. } => Refusal::Archive,
        Error::Environment(_) => Refusal::Environment,
        _ => Refusal::Failed,
    };
    let message = match error {
        Error::Image { problem, .. } => problem,
        other => other.to_string(),
    };
    Answer::Refused { refusal, message }
}

/// What a container does.
enum Found {
    Stopped,
    Running(i32),
    /// Without its monitor.
    LeftOver(i32),
}

fn left_over(vmid: u32, pid: i32) -> String {
    format!(
        "CT {vmid} is left over: process {pid} of it runs without LXC's monitor; stop it (blockhost-pct stop {vmid})"
    )
}

pub(super) fn done(notes: Vec<String>) -> Answer {
    Answer::Done { notes }
}

impl Keeper {
    fn answer(&self, ask: Ask, descriptors: Vec<OwnedFd>, line: &Line) -> Result<Answer> {
        match ask {
            Ask::Create {
                vmid,
                packing,
                bytes,
                settings,
            } => {
                let [archive] = exactly(descriptors)?;
                let lock = self.desk.lock_of(vmid);
                let _busy = lock.lock();
                self.refuse_running(vmid)?;
                self.end_all(vmid, true)?;
                names::forget(&self.roots.lxc, vmid);
                self.roots.remove(vmid)?;
                let first_id = {
                    let _allocating = self.desk.allocating.lock();
                    slots::take(&self.roots.pool, &self.roots.lxc.containers, vmid)?
                };
                let made =
                    self.roots
                        .create(vmid, first_id, &archive, (packing, bytes, settings), line);
                if made.is_err() && self.end_all(vmid, true).is_ok() {
                    let _ = self.roots.remove(vmid);
                }
                made.map(done)
            }
            Ask::Remove { vmid } => {
                let lock = self.desk.lock_of(vmid);
                let _busy = lock.lock();
                self.refuse_running(vmid)?;
                // Its ids go to another afterwards.
                self.end_all(vmid, true)?;
                self.remove_group(vmid);
                names::forget(&self.roots.lxc, vmid);
                self.roots.remove(vmid)?;
                Ok(done(Vec::new()))
            }
            Ask::Start { vmid, spec } => {
                let lock = self.desk.lock_of(vmid);
                let _busy = lock.lock();
                self.refuse_running(vmid)?;
                self.start(vmid, &spec, line).map(done)
            }
            Ask::Shutdown { vmid, timeout_s } => self.shutdown(vmid, timeout_s, line),
            Ask::Kill { vmid } => self.kill(vmid),
            Ask::States { vmids } => Ok(Answer::States {
                states: self.states(&vmids)?,
            }),
            Ask::Exec { vmid, words } => self.exec(vmid, &words, descriptors, line),
            Ask::Limit { vmid, limits } => Ok(done(match self.groups.limited(vmid) {
                Ok(group) => self.limit(&group, limits),
                Err(why) => vec![not_in_force(vmid, &why)],
            })),
            Ask::Plugged { .. } | Ask::Renew | Ask::Hook { .. } | Ask::HookFailed { .. } => {
                Err(Error::Failed("not asked for".to_owned()))
            }
        }
    }

    pub(super) fn pid(&self, vmid: u32) -> Result<Option<i32>> {
        match self.roots.first_id(vmid)? {
            None => Ok(None),
            Some(first_id) => self.roots.lxc.pid(vmid, first_id, self.roots.own),
        }
    }

    /// What containers do. One that cannot be asked hides nothing of the others.
    fn states(&self, vmids: &[u32]) -> Result<Vec<State>> {
        let all = processes::all()?;
        let lost = || State {
            problem: Some("the service failed".to_owned()),
            ..State::default()
        };
        // Somebody may have seen to it that each takes as long as it may.
        Ok(side_by_side(
            vmids,
            ASKED_AT_ONCE,
            |vmid| self.state(vmid, &all),
            lost,
        ))
    }

    fn state(&self, vmid: u32, all: &[Process]) -> State {
        let cgroup = self
            .groups
            .limited(vmid)
            .map_or_else(|why| why, |group| group.display().to_string());
        let (pid, left_over, problem) = match self.found(vmid, all) {
            Ok(Found::Stopped) => (None, false, None),
            Ok(Found::Running(pid)) => (Some(pid), false, None),
            Ok(Found::LeftOver(pid)) => (Some(pid), true, None),
            Err(e) => (None, false, Some(e.to_string())),
        };
        State {
            pid,
            left_over,
            problem,
            cgroup,
        }
    }

    fn found(&self, vmid: u32, all: &[Process]) -> Result<Found> {
        let first_id = self.roots.first_id(vmid)?;
        // Whatever anybody says who listens where its monitor did.
        if first_id
            .and_then(|first| processes::left_over(all, first))
            .is_none()
        {
            return Ok(Found::Stopped);
        }
        if let Some(pid) = self.pid(vmid)? {
            return Ok(Found::Running(pid));
        }
        // It may have ended between the looking and the asking.
        let now = processes::all()?;
        Ok(first_id
            .and_then(|first| processes::left_over(&now, first))
            .map_or(Found::Stopped, Found::LeftOver))
    }

    fn refuse_running(&self, vmid: u32) -> Result<()> {
        match self.found(vmid, &processes::all()?)? {
            Found::Stopped => Ok(()),
            Found::Running(_) => Err(Error::Conflict(format!("CT {vmid} already running"))),
            Found::LeftOver(pid) => Err(Error::Conflict(left_over(vmid, pid))),
        }
    }

    fn running(&self, vmid: u32) -> Result<i32> {
        match self.found(vmid, &processes::all()?)? {
            Found::Stopped => Err(Error::Conflict(format!("CT {vmid} not running"))),
            Found::Running(pid) => Ok(pid),
            Found::LeftOver(pid) => Err(Error::Conflict(left_over(vmid, pid))),
        }
    }

    fn shutdown(&self, vmid: u32, timeout_s: u64, line: &Line) -> Result<Answer> {
        match self.found(vmid, &processes::all()?)? {
            Found::Stopped => return Ok(done(Vec::new())),
            // Nobody is there to pass the wish on.
            Found::LeftOver(pid) => return Err(Error::Conflict(left_over(vmid, pid))),
            Found::Running(_) => {}
        }
        let timeout = timeout_s.to_string();
        let tool = self
            .roots
            .lxc
            .tool("lxc-stop", vmid, &["--nokill", "--timeout", &timeout])?;
        self.wait(tool.own_group().spawn()?, line)?;
        if self.pid(vmid)?.is_some() {
            return Err(Error::Timeout(format!(
                "CT {vmid}: shutdown failed - got timeout"
            )));
        }
        self.end_all(vmid, false)?;
        self.remove_group(vmid);
        names::forget(&self.roots.lxc, vmid);
        Ok(done(Vec::new()))
    }

    fn exec(
        &self,
        vmid: u32,
        words: &[String],
        descriptors: Vec<OwnedFd>,
        line: &Line,
    ) -> Result<Answer> {
        let [input, output, errors] = exactly(descriptors)?;
        self.running(vmid)?;
        let mut args = vec!["--clear-env", "-v", PATH_INSIDE, "-v", "HOME=/root", "--"];
        args.extend(words.iter().map(String::as_str));
        let run = self
            .roots
            .lxc
            .tool("lxc-attach", vmid, &args)?
            .own_group()
            .stdin(File::from(input))
            .stdout(File::from(output))
            .stderr(File::from(errors));
        let status = self.wait(run.spawn()?, line)?;
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(Answer::Exited { code })
    }

    /// Waits for a tool, as long as somebody waits for it.
    fn wait(&self, mut child: Child, asker: &Line) -> Result<ExitStatus> {
        loop {
            if let Some(status) = child.try_wait().at("cannot wait for", "a tool of LXC")? {
                return Ok(status);
            }
            if gone(asker, Duration::from_millis(10)) {
                kill_group(&child);
                let _ = child.wait();
                return Err(Error::Failed("nobody waits for it any more".to_owned()));
            }
        }
    }

    /// Puts limits in force; what is not is said.
    pub(super) fn limit(&self, group: &std::path::Path, limits: Limits) -> Vec<String> {
        let memory = cgroup::Memory {
            bytes: limits.memory_mib << 20,
            swap_bytes: limits.swap_mib << 20,
            processes: PROCESSES,
        };
        let processor = Processor {
            hundredths: u16::try_from(limits.cpu_hundredths).unwrap_or(u16::MAX),
            units: limits.cpu_units,
        };
        let name = group.display().to_string();
        let tried = [
            ("memory", cgroup::limit_memory(group, memory)),
            ("processor", cgroup::limit(&name, processor)),
        ];
        tried
            .into_iter()
            .filter_map(|(what, result)| {
                Some(format!(
                    "limits on the {what} are stored but not in force: {}",
                    result.err()?
                ))
            })
            .collect()
    }
}

pub(crate) fn not_in_force(vmid: u32, why: &str) -> String {
    format!("limits of CT {vmid} are stored but not in force: {why}")
}

/// Whether the asker went away, waiting for that a little.
pub(super) fn gone(asker: &Line, wait: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(asker.as_fd(), PollFlags::RDHUP)];
    let wait = Timespec::try_from(wait).ok();
    let _ = poll(&mut fds, wait.as_ref());
    !fds[0].revents().is_empty()
}

fn exactly<const N: usize>(descriptors: Vec<OwnedFd>) -> Result<[OwnedFd; N]> {
    descriptors.try_into().map_err(|list: Vec<OwnedFd>| {
        Error::Failed(format!("{} descriptors where {N} belong", list.len()))
    })
}
