//! The revert record: what a change does, how each step of it is taken back, and which steps were begun. What is written before
//! anything is touched, and read by whoever has to revert; the files are [`super::store`]'s.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::plan::Plan;

/// Version of the format.
pub(super) const VERSION: u32 = 1;

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

    pub(super) const fn prefix(self) -> &'static str {
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
