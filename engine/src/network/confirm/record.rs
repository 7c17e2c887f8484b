//! The revert record: what a change does, how each step of it is taken back, and which steps were begun. One file per
//! change, durable before anything is touched; its name is its state, and a rename moves it on, so that of two processes
//! that decide at the same time exactly one does. Written by [`super::run`], read by whoever has to revert.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use blockhost_ledger::failpoint;
use blockhost_proto::layout::Layout;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::plan::Plan;

/// Version of the format.
const VERSION: u32 = 1;

/// A record longer than this is nobody's.
const MAX_RECORD: u64 = 4 << 20;

/// What could not be done with the files of a change.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not a record of this version.
    #[error("{} is not a revert record of this version: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What about it.
        reason: String,
    },
    /// Somebody else could have written it.
    #[error(
        "{} belongs to user {uid} with mode {mode:o}, so others could have written what would be carried out; look at it, and give it to this user alone (`systemd-tmpfiles --create` makes the directory as it should be)",
        path.display()
    )]
    Trust {
        /// The directory or file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permissions.
        mode: u32,
    },
    /// The way back does not fit.
    #[error(
        "what it takes to take it back are {bytes} bytes, and a revert record has at most {most}; make it in smaller parts, or without --confirm-within and --probe"
    )]
    Large {
        /// Its length.
        bytes: usize,
        /// What fits.
        most: u64,
    },
    /// Another change is under way.
    #[error(
        "another change of the network is under way; see `blockhost net status`, and try again when it has ended"
    )]
    Busy,
    /// The kernel gives no random number.
    #[error("cannot name the change: {0}")]
    Name(getrandom::Error),
}

/// Nobody but this user could have written it.
fn is_ours_alone(about: &std::fs::Metadata) -> bool {
    about.uid() == rustix::process::geteuid().as_raw() && about.mode() & 0o022 == 0
}

/// What is written before anything is changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Of the format.
    pub version: u32,
    /// Name of the change.
    pub id: String,
    /// When it began, for people.
    pub begun: String,
    /// Process that makes it, for people.
    pub pid: u32,
    /// What it does, and how that is taken back.
    pub plan: Plan,
    /// Until when, if nothing else is noted.
    pub deadline: Deadline,
}

/// A moment that a change of the clock does not move, in one start of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// The kernel's name for this start; empty where a service may not see it.
    pub boot_id: String,
    /// Milliseconds since then, times of sleep counted.
    pub at_ms: u64,
}

/// Something that happened meanwhile; a line of the record's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Note {
    /// NetworkManager made a checkpoint.
    Checkpoint(String),
    /// A step is about to be carried out.
    Started(usize),
    /// It was, and the ledger has it there.
    Done(usize, Option<u64>),
    /// Everything is well; the operator has until then to say that it stays.
    Waiting(Deadline),
    /// It stays, and NetworkManager has given its checkpoint up.
    Kept,
}

/// A record with everything that was noted since.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The record.
    pub record: Record,
    /// Its notes, in order.
    pub notes: Vec<Note>,
}

impl Known {
    /// Whether this step may have been carried out.
    #[must_use]
    pub fn started(&self, step: usize) -> bool {
        self.notes.contains(&Note::Started(step))
    }

    /// NetworkManager's checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&str> {
        self.notes.iter().rev().find_map(|note| match note {
            Note::Checkpoint(path) => Some(path.as_str()),
            _ => None,
        })
    }

    /// Until when it may stay unconfirmed.
    #[must_use]
    pub fn deadline(&self) -> &Deadline {
        self.waiting().unwrap_or(&self.record.deadline)
    }

    /// Whether NetworkManager, too, knows that it stays.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.notes.contains(&Note::Kept)
    }

    /// The same where nobody knows any more what was begun: all of it may have been.
    #[must_use]
    pub fn all_begun(mut self) -> Self {
        let steps = 0..self.record.plan.steps.len();
        self.notes.extend(steps.map(Note::Started));
        self
    }

    /// Set when it waits for the operator.
    #[must_use]
    pub fn waiting(&self) -> Option<&Deadline> {
        self.notes.iter().rev().find_map(|note| match note {
            Note::Waiting(deadline) => Some(deadline),
            _ => None,
        })
    }
}

impl Deadline {
    /// So long from now.
    #[must_use]
    pub fn within(time: Duration) -> Self {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2);
        Self {
            boot_id: boot_id(),
            at_ms: since_boot_ms().saturating_add(time),
        }
    }

    /// What is left of it; nothing after another start of the machine.
    #[must_use]
    pub fn left(&self) -> Duration {
        let now = boot_id();
        // A service that may not see it and a command that may have to agree about the time that is left.
        let unknown = now.is_empty() || self.boot_id.is_empty();
        if unknown || now == self.boot_id {
            Duration::from_millis(self.at_ms.saturating_sub(since_boot_ms()))
        } else {
            Duration::ZERO
        }
    }
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.unwrap_or_default().trim().to_owned()
}

fn since_boot_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let rest = u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000;
    seconds.saturating_mul(1000).saturating_add(rest)
}

/// Where a change stands; the first part of its file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is carried out, or waits to be confirmed.
    Pending,
    /// It is being taken back.
    Reverting,
    /// It stays, whatever happens now; NetworkManager is told, then the file goes.
    Confirmed,
    /// The root agent refused to take it back. It is tried again when somebody asks, until somebody says how it ended.
    Stuck,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Reverting, Self::Confirmed, Self::Stuck];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Pending => "pending-",
            Self::Reverting => "reverting-",
            Self::Confirmed => "confirmed-",
            Self::Stuck => "stuck-",
        }
    }
}

/// How the last change ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The change.
    pub id: String,
    /// What it did.
    pub what: String,
    /// Whether it stayed.
    pub confirmed: bool,
    /// Why it did not.
    pub reason: Option<String>,
    /// When, for people.
    pub at: String,
    /// What could not be done on the way, one sentence each.
    pub problems: Vec<String>,
    /// It did not stay, and something of it is still there.
    #[serde(default)]
    pub stuck: bool,
}

/// The directory of the records.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
}

/// A lock that ends with whoever holds it. Never inherited.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "closing it gives the lock back")] File);

impl Store {
    /// `/var/lib/blockhost/net-change` of this world; need not exist.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self {
            directory: layout.state().join("net-change"),
        }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.join(name)
    }

    fn file(&self, phase: Phase, id: &str) -> PathBuf {
        self.path(format!("{}{id}.json", phase.prefix()))
    }

    /// Makes the directory, for its owner alone.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn create(&self) -> Result<(), RecordError> {
        match std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.directory)
        {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(failed("create", &self.directory)(error))
            }
            Err(_) => self.check_directory(),
            Ok(()) => Ok(()),
        }
    }

    /// Where the records are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is in there is carried out in this user's name: nobody else may have put it there.
    fn check_directory(&self) -> Result<(), RecordError> {
        let about = std::fs::symlink_metadata(&self.directory);
        let about = about.map_err(failed("look at", &self.directory))?;
        if about.is_dir() && is_ours_alone(&about) {
            return Ok(());
        }
        Err(RecordError::Trust {
            path: self.directory.clone(),
            uid: about.uid(),
            mode: about.mode() & 0o7777,
        })
    }

    /// The lock of whoever makes a change.
    ///
    /// # Errors
    /// [`RecordError::Busy`] while somebody does.
    pub fn lock_maker(&self) -> Result<Held, RecordError> {
        self.lock("maker.lock")
    }

    /// The lock of the process that would revert.
    ///
    /// # Errors
    /// [`RecordError::Busy`] while there is one.
    pub fn lock_guard(&self) -> Result<Held, RecordError> {
        self.lock("guard.lock")
    }

    fn lock(&self, name: &str) -> Result<Held, RecordError> {
        let path = self.path(name);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(nofollow())
            .open(&path)
            .map_err(failed("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Held(file)),
            Err(Errno::WOULDBLOCK) => Err(RecordError::Busy),
            Err(error) => Err(failed("lock", &path)(error.into())),
        }
    }

    /// Every change that is not over.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn open_changes(&self) -> Result<Vec<(Phase, String)>, RecordError> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed("read", &self.directory))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed("read", &self.directory))?.file_name();
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            for phase in Phase::ALL {
                if let Some(id) = stem.strip_prefix(phase.prefix()).filter(|id| is_id(id)) {
                    found.push((phase, id.to_owned()));
                }
            }
        }
        found.sort_by(|a, b| a.1.cmp(&b.1));
        Ok(found)
    }

    /// Whether the change is in that phase now. Where nobody can look, it may be.
    #[must_use]
    pub fn is(&self, phase: Phase, id: &str) -> bool {
        match self.file(phase, id).symlink_metadata() {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Writes a record, so that it is there whatever happens next. On an error there is none.
    ///
    /// # Errors
    /// [`RecordError::File`], as where the disk is full.
    pub fn write(&self, record: &Record) -> Result<Journal, RecordError> {
        let place = self.file(Phase::Pending, &record.id);
        let draft = self.path(format!("draft-{}", record.id));
        let written = self.write_draft(record, &draft).and_then(|file| {
            failpoint::reach("net-change", b"record-drafted");
            std::fs::rename(&draft, &place).map_err(failed("rename", &draft))?;
            self.sync()?;
            Ok(Journal { file, path: place })
        });
        if written.is_err() {
            // Whatever of it is there must not be found and taken for a change.
            let _ = std::fs::remove_file(&draft);
            let _ = std::fs::remove_file(self.file(Phase::Pending, &record.id));
        }
        written
    }

    fn write_draft(&self, record: &Record, draft: &Path) -> Result<File, RecordError> {
        let mut file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .mode(0o600)
            .custom_flags(nofollow())
            .open(draft)
            .map_err(failed("create", draft))?;
        let line = line(record, draft)?;
        // Half of it for the notes: whoever has to take it back reads no more.
        if line.len() as u64 > MAX_RECORD / 2 {
            return Err(RecordError::Large {
                bytes: line.len(),
                most: MAX_RECORD / 2,
            });
        }
        file.write_all(&line).map_err(failed("write", draft))?;
        file.sync_all().map_err(failed("sync", draft))?;
        Ok(file)
    }

    /// Reads a record with its notes. A last line that is not whole was cut off by a crash before what it announces.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn read(&self, phase: Phase, id: &str) -> Result<Known, RecordError> {
        self.check_directory()?;
        let path = self.file(phase, id);
        let mut text = String::new();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nofollow())
            .open(&path)
            .map_err(failed("read", &path))?;
        let about = file.metadata().map_err(failed("look at", &path))?;
        if !about.is_file() || !is_ours_alone(&about) {
            return Err(RecordError::Trust {
                path,
                uid: about.uid(),
                mode: about.mode() & 0o7777,
            });
        }
        file.take(MAX_RECORD)
            .read_to_string(&mut text)
            .map_err(failed("read", &path))?;
        let content = |reason: String| RecordError::Content {
            path: path.clone(),
            reason,
        };
        let mut lines = text.split_inclusive('\n');
        let first = lines.next().unwrap_or_default();
        let record: Record = serde_json::from_str(first).map_err(|e| content(e.to_string()))?;
        if record.version != VERSION || record.id != id {
            return Err(content(format!(
                "version {}, change {}",
                record.version,
                record.id.escape_debug()
            )));
        }
        let mut notes = Vec::new();
        for line in lines.filter(|line| line.ends_with('\n')) {
            notes.push(serde_json::from_str(line).map_err(|e| content(e.to_string()))?);
        }
        Ok(Known { record, notes })
    }

    /// Notes something in a record that somebody else began.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn note(&self, phase: Phase, id: &str, note: &Note) -> Result<(), RecordError> {
        let path = self.file(phase, id);
        let file = OpenOptions::new()
            .append(true)
            .custom_flags(nofollow())
            .open(&path)
            .map_err(failed("open", &path))?;
        Journal { file, path }.note(note)
    }

    /// Moves a change on; `false` where it is not, or no longer, in that phase.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn advance(&self, id: &str, from: Phase, to: Phase) -> Result<bool, RecordError> {
        let path = self.file(from, id);
        match std::fs::rename(&path, self.file(to, id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("rename", &path)(error)),
            Ok(()) => self.sync().map(|()| true),
        }
    }

    /// Removes the file of a change that is over and keeps how it ended.
    ///
    /// # Errors
    /// [`RecordError::File`] where the file stays; the rest is for people and may fail.
    pub fn close(&self, phase: Phase, ended: &Ended) -> Result<(), RecordError> {
        self.remember(ended);
        let path = self.file(phase, &ended.id);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => self.sync(),
        }
    }

    /// Keeps how a change ended; for people, so it may fail.
    pub fn remember(&self, ended: &Ended) {
        let draft = self.path("last.new");
        let _ = std::fs::remove_file(&draft);
        let kept = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .custom_flags(nofollow())
            .open(&draft)
            .and_then(|mut file| file.write_all(serde_json::json!(ended).to_string().as_bytes()))
            .and_then(|()| std::fs::rename(&draft, self.path("last.json")));
        if kept.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
    }

    /// How the last change ended, where that is known.
    #[must_use]
    pub fn last(&self) -> Option<Ended> {
        serde_json::from_slice(&std::fs::read(self.path("last.json")).ok()?).ok()
    }

    /// Removes the drafts that a crash left, which are no changes.
    pub fn tidy(&self) {
        for entry in std::fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b"draft-") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn sync(&self) -> Result<(), RecordError> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("sync", &self.directory))
    }
}

/// The open end of a record, for notes. Follows the file when it is renamed.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Notes something, durably, before it happens.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn note(&mut self, note: &Note) -> Result<(), RecordError> {
        let line = line(note, &self.path)?;
        self.file
            .write_all(&line)
            .and_then(|()| self.file.sync_data())
            .map_err(failed("write", &self.path))
    }
}

impl Record {
    /// A new one, of this process.
    ///
    /// # Errors
    /// [`RecordError::Name`].
    pub fn new(plan: Plan, time: Duration) -> Result<Self, RecordError> {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(RecordError::Name)?;
        Ok(Self {
            version: VERSION,
            id: hex::encode(random),
            begun: now(),
            pid: std::process::id(),
            plan,
            deadline: Deadline::within(time),
        })
    }
}

/// Now, for people.
#[must_use]
pub fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}

/// Whether this can be the name of a change: nothing else becomes part of a path.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 8
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn line(value: &impl Serialize, path: &Path) -> Result<Vec<u8>, RecordError> {
    let mut line = serde_json::to_vec(value).map_err(|error| RecordError::Content {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    line.push(b'\n');
    Ok(line)
}

fn nofollow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordError {
    let path = path.to_owned();
    move |source| RecordError::File { what, path, source }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
