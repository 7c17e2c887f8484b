//! Why the ledger was not opened for writing, and why a batch was not appended: in words for operators, with what to do.
//! Made by `recover` and `writer`, re-exported by the latter.

use crate::dir::{self, FileError};
use crate::note::NoteError;
use crate::record::RecordError;
use crate::scan::Fault;

/// Why the ledger was not opened for writing. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process writes it.
    #[error(
        "another process is writing this ledger (it holds {}); stop it first",
        dir::WRITER_LOCK
    )]
    Locked,
    /// No crash explains what was found.
    #[error("the ledger is damaged and stays read-only: {0}. {HELP}")]
    Damaged(Box<Fault>),
    /// Fewer records than were published.
    #[error(
        "the ledger has {found} records but {published} were published: it was cut or an old copy was put back; it stays read-only. {HELP}"
    )]
    Rollback {
        /// Size of the published checkpoint.
        published: u64,
        /// Committed records now.
        found: u64,
    },
    /// The published head is of another history.
    #[error(
        "the first {published} records do not have the root that was published for them: the history was rewritten; the ledger stays read-only. {HELP}"
    )]
    Rewritten {
        /// Size of the published checkpoint.
        published: u64,
    },
    /// The private key of the epoch in force is not here.
    #[error(
        "the ledger is in epoch {epoch}, whose signing key {key} is missing: restore it from a backup of the key directory (no other key can continue this ledger)"
    )]
    NoKey {
        /// The epoch in force.
        epoch: u32,
        /// Name and id of its key.
        key: String,
    },
    /// The published checkpoint cannot be believed.
    #[error(
        "the published checkpoint cannot be verified ({0}); the ledger stays read-only. {HELP}"
    )]
    Checkpoint(NoteError),
    /// A loss was accepted and cannot be carried out.
    #[error(
        "an accepted loss cannot be carried out: {0}; see `blockhost ledger accept-loss`, which says what is intact"
    )]
    Loss(String),
    /// The system refused.
    #[error("cannot open the ledger: cannot {0}")]
    File(#[from] FileError),
    /// The first record after a recovery could not be written.
    #[error("the torn end was cut but the recovery record could not be written: {0}")]
    Append(Box<AppendError>),
}

const HELP: &str = "Copy the directory elsewhere as evidence, run `blockhost ledger verify` on it, then restore it from a backup, or move it away to start a new ledger, or keep what is intact with `blockhost ledger accept-loss`";

/// Why a batch was not appended. Unless it says otherwise, nothing of the batch counts and the next one may be tried.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// One draft cannot become a record; see [`Draft::check`].
    #[error("draft {index} of the batch: {source}")]
    Draft {
        /// Which of the drafts.
        index: usize,
        /// Why.
        source: RecordError,
    },
    /// The disk is full. What is left is kept for outcomes; try again with those alone.
    #[error(
        "no space for {wanted} more bytes of ledger ({left} are kept for outcomes of what is running): {source}"
    )]
    NoSpace {
        /// Bytes the batch needs.
        wanted: u64,
        /// Bytes preallocated and unused.
        left: u64,
        /// What extending the segment said.
        source: FileError,
    },
    /// More drafts than a segment holds.
    #[error("a batch of {drafts} drafts is more than one segment holds ({most})")]
    TooMany {
        /// How many there were.
        drafts: usize,
        /// How many are allowed.
        most: u64,
    },
    /// An earlier write or sync failed, or the files were taken away: the state on disk is unknown. Only opening the
    /// ledger again helps.
    #[error("the ledger is read-only since: {0}")]
    Poisoned(String),
}

impl AppendError {
    /// The same, for drafts that stand `before` further on in the caller's batch.
    pub(crate) fn behind(self, before: usize) -> Self {
        match self {
            Self::Draft { index, source } => Self::Draft {
                index: index + before,
                source,
            },
            other => other,
        }
    }
}
