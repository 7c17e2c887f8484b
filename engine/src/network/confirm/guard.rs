//! The process that watches over a change: in a session of its own, with nothing of its parent's open, started before
//! anything is changed. It takes the change back when its time is over, when whoever makes it has died, or when it is itself
//! asked to end. Program `blockhost-net-revert`.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use blockhost_proto::layout::{Layout, ROOT_VARIABLE};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::record::{Ended, Known, Phase, RecordError, is_id};
use super::revert::take_back;
use super::store::{Held, Store};

/// Name of the program.
pub const PROGRAM: &str = "blockhost-net-revert";
/// What it says when it watches.
const READY: &str = "watching";
/// How often it looks.
const EVERY: Duration = Duration::from_millis(50);
/// How often it tries to mark a change, and the longest pause between: for half a minute altogether.
const TAKING: u32 = 20;
const SELDOM: Duration = Duration::from_secs(2);
/// How many looks those have who decided that a change stays, to end it.
const FINISHING: u32 = 100;

/// Why nothing watches over a change.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The program could not be started.
    #[error("cannot start {}, which would take the change back: {source}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ended before it watched.
    #[error(
        "{PROGRAM}, which would take the change back, did not begin to watch; is it of this version?"
    )]
    NotReady,
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Signals.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// No such change.
    #[error("{} is not the name of a change", .0.escape_debug())]
    NoChange(String),
}

/// The watching process, as its parent sees it.
#[derive(Debug)]
pub struct Guard(Child);

impl Guard {
    /// Starts it and waits until it watches. `program` is the one beside this program where it is not given.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn start(layout: &Layout, id: &str, program: Option<PathBuf>) -> Result<Self, GuardError> {
        let path = match program {
            Some(path) => path,
            None => std::env::current_exe()
                .map_err(|source| GuardError::Start {
                    path: PROGRAM.into(),
                    source,
                })?
                .with_file_name(PROGRAM),
        };
        let start = |source| GuardError::Start {
            path: path.clone(),
            source,
        };
        let mut command = command(&path);
        command
            .arg(id)
            .env_clear()
            .env(ROOT_VARIABLE, layout.root())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(bus) = std::env::var_os("DBUS_SYSTEM_BUS_ADDRESS") {
            command.env("DBUS_SYSTEM_BUS_ADDRESS", bus);
        }
        #[cfg(feature = "fail-points")]
        if let Some(point) = std::env::var_os("BLOCKHOST_FAIL_POINT_GUARD") {
            command.env("BLOCKHOST_FAIL_POINT", point);
            command.stderr(Stdio::inherit());
        }
        let mut child = command.spawn().map_err(start)?;
        let mut said = String::new();
        if let Some(output) = child.stdout.take() {
            let _ = BufReader::new(output).read_line(&mut said);
        }
        if said.trim_end() != READY {
            let _ = child.kill();
            let _ = child.wait();
            return Err(GuardError::NotReady);
        }
        Ok(Self(child))
    }

    /// Whether it is there.
    pub fn watches(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Waits for its end, which comes with that of the change.
    pub async fn gone(mut self) {
        for _ in 0..200 {
            if !self.watches() {
                return;
            }
            tokio::time::sleep(EVERY / 5).await;
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "our own program, detached: it must not be ended with what `exec` would end"
)]
fn command(path: &std::path::Path) -> Command {
    Command::new(path)
}

/// Why the change is taken back.
enum Why {
    Over,
    MakerDied,
    Ended,
    GoneBack,
}

impl Why {
    const fn text(&self) -> &'static str {
        match self {
            Self::Over => "it was not confirmed in time",
            Self::MakerDied => "the process that made the change died",
            Self::Ended => "the process that watched over the change was asked to end",
            Self::GoneBack => "NetworkManager had gone back to its checkpoint already",
        }
    }
}

/// Watches over a change until it is over; `Some` where it was taken back here. `ready` is called when it watches.
///
/// # Errors
/// [`GuardError`].
pub async fn watch(
    layout: &Layout,
    id: &str,
    ready: impl FnOnce(&str),
) -> Result<Option<Ended>, GuardError> {
    if !is_id(id) {
        return Err(GuardError::NoChange(id.to_owned()));
    }
    let store = Store::new(layout);
    let mut ended = signal(SignalKind::terminate()).map_err(GuardError::Signals)?;
    // A terminal that closes is the rule rather than the exception here.
    let _hangup = signal(SignalKind::hangup()).map_err(GuardError::Signals)?;
    let _interrupt = signal(SignalKind::interrupt()).map_err(GuardError::Signals)?;
    let _held = store.lock_guard_soon().await?;
    let mut known = store.read(Phase::Pending, id)?;
    ready(READY);
    let (why, maker) = match until_due(&store, id, &mut known, &mut ended).await {
        Some((why, maker)) => {
            // Of those who decide at the same time, one does; the other one's decision is good as well.
            let ours = take(&store, id).await;
            (why, maker.filter(|_| ours))
        }
        None => (Why::GoneBack, None),
    };
    // If those who decided that it stays died over telling NetworkManager, it is told here. One that NetworkManager has gone
    // back from is taken back, whoever confirmed it.
    finish_after_others(layout, &store, id).await;
    let marked = store.is(Phase::Reverting, id);
    if !marked && !store.is(Phase::Pending, id) {
        return Ok(None);
    }
    match take_back(&store, layout, id, why.text(), maker.as_ref(), Some(&known)).await {
        Ok(taken_back) => Ok(Some(taken_back)),
        Err(_) if marked && !store.is(Phase::Reverting, id) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Wins the change for taking it back; `false` where it is over. A disk that does not let itself be written does not end
/// what has to be done: nobody else can decide about the change then either.
async fn take(store: &Store, id: &str) -> bool {
    let mut pause = EVERY;
    for _ in 0..TAKING {
        match store.advance(id, Phase::Pending, Phase::Reverting) {
            Ok(taken) => return taken || store.is(Phase::Reverting, id),
            Err(error) => crate::log::warn(
                "cannot mark a change as being taken back",
                &[("change", &id), ("error", &error)],
            ),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SELDOM);
    }
    true
}

/// A change that stays, and that nobody ended.
async fn finish_after_others(layout: &Layout, store: &Store, id: &str) {
    for _ in 0..FINISHING {
        if !store.is(Phase::Confirmed, id) {
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
    if let Err(error) = super::finish(layout, store, id).await {
        let why = [("change", &id as &dyn std::fmt::Display), ("error", &error)];
        crate::log::warn("a change that stays is not ended yet", &why);
    }
}

/// Waits until the change has to be taken back; `None` when it is over. `known` is its record, as it was last read: one that
/// cannot be read does not end what was promised.
async fn until_due(
    store: &Store,
    id: &str,
    known: &mut Known,
    ended: &mut Signal,
) -> Option<(Why, Option<Held>)> {
    let mut told = false;
    loop {
        tokio::select! {
            _ = ended.recv() => return Some((Why::Ended, None)),
            () = tokio::time::sleep(EVERY) => {}
        }
        match store.read(Phase::Pending, id) {
            Ok(newest) => {
                *known = newest;
                told = false;
            }
            // Confirmed, or taken back by whoever made it; if that dies over it, it is ours to end.
            Err(_) if !store.is(Phase::Pending, id) => {
                if !store.is(Phase::Reverting, id) {
                    return None;
                }
                match store.lock_maker() {
                    Ok(held) if store.is(Phase::Reverting, id) => {
                        return Some((Why::MakerDied, Some(held)));
                    }
                    _ => continue,
                }
            }
            Err(error) => {
                if !told {
                    let why = [("change", &id as &dyn std::fmt::Display), ("error", &error)];
                    crate::log::warn("the record of a change cannot be read", &why);
                    told = true;
                }
            }
        }
        if known.deadline().left().is_zero() {
            return Some((Why::Over, None));
        }
        // While it waits for the operator, nobody but the operator is needed.
        if known.waiting().is_none()
            && let Ok(held) = store.lock_maker()
            && store.is(Phase::Pending, id)
        {
            // It may have begun to wait, and its maker have gone, since the record was read.
            match store.read(Phase::Pending, id) {
                Ok(newest) if newest.waiting().is_some() => *known = newest,
                _ => return Some((Why::MakerDied, Some(held))),
            }
        }
    }
}

/// Whose the changes of this world are: what root starts here runs as that user. Where there were none yet, whose its
/// state is.
///
/// # Errors
/// Where there is no state.
pub fn owner(layout: &Layout) -> std::io::Result<(u32, u32)> {
    let changes = std::fs::symlink_metadata(Store::new(layout).directory());
    let about = changes.or_else(|_| std::fs::metadata(layout.state()))?;
    Ok((about.uid(), about.gid()))
}
