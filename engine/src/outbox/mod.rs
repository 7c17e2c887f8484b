//! The outbox: every event of the chain becomes one durable job, every step of a job is remembered, every transaction
//! is stored before the network sees it. What is here decides what may run; doing it is [`crate::handler`]'s.
//!
//! Invariants, each with a test: an event is one job however often it is seen; jobs of one subscription run in order;
//! a step that was recorded is never done again; a parked job stays until somebody retries or supersedes it; what was closed by hand comes back with its event.

mod ingest;
mod jobs;
mod journal;
mod orders;
mod overview;
#[cfg(test)]
mod tests;
mod young;

pub use ingest::{Cursor, Ingested, RolledBack};
pub use jobs::{CREATED, FORMER_SIZE, Job, JobState, JobView, Retry, SIZE};
pub use journal::{JournalTx, TxState};
pub use orders::{Order, OrderState, StepRow, StepState};
pub use overview::{Counts, Purchase};
pub use young::{StepKey, Young};

use crate::locked::Locked;
use crate::sqlite::{self, Unusable};
use rusqlite::Connection;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why the outbox could not be used.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The database.
    #[error("the outbox {path}: {source}", path = .path.display())]
    Database {
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Something stored cannot be read back.
    #[error("the outbox {path}: job {job}: {reason}", path = .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// Which job.
        job: i64,
        /// What is wrong.
        reason: String,
    },
    /// Another engine works on it.
    #[error("another engine is running: {path} is locked", path = .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The lock file.
    #[error("cannot lock {path}: {source}", path = .path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Written by a newer program.
    #[error("the outbox {path} has format {found}, this program knows {known}; use the newer program", path = .path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// There is no such job.
    #[error("there is no job {0}")]
    NoJob(i64),
    /// It is not parked.
    #[error(
        "job {id} is {state}; only a parked job can be closed, and only one that is parked or was closed by hand be retried"
    )]
    NotParked {
        /// Which job.
        id: i64,
        /// Its state.
        state: JobState,
    },
}

/// What leads to each format.
const FORMATS: [&str; 5] = [SCHEMA, SCHEMA_2, SCHEMA_3, SCHEMA_4, SCHEMA_5];

const SCHEMA: &str = "
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    chain_id INTEGER NOT NULL,
    contract TEXT NOT NULL,
    subscription_id INTEGER NOT NULL,
    event TEXT NOT NULL,
    block_number INTEGER NOT NULL,
    block_hash TEXT NOT NULL,
    log_index INTEGER NOT NULL,
    tx_hash TEXT NOT NULL,
    payload TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'running', 'done', 'parked', 'superseded')),
    started INTEGER NOT NULL DEFAULT 0,
    orphaned INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    not_before_ms INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    UNIQUE (chain_id, contract, subscription_id, event, block_hash, log_index)
) STRICT;
CREATE INDEX jobs_by_subscription ON jobs (chain_id, contract, subscription_id, id);
CREATE INDEX jobs_open ON jobs (state, not_before_ms) WHERE state IN ('pending', 'running');
CREATE TABLE steps (
    job_id INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    result TEXT NOT NULL,
    done_ms INTEGER NOT NULL,
    PRIMARY KEY (job_id, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE blocks (
    chain_id INTEGER NOT NULL,
    contract TEXT NOT NULL,
    number INTEGER NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (chain_id, contract, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE txs (
    hash TEXT PRIMARY KEY,
    job_id INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    chain_id INTEGER NOT NULL,
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    data BLOB NOT NULL,
    nonce INTEGER NOT NULL,
    gas_limit INTEGER NOT NULL,
    fees TEXT NOT NULL,
    raw BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('live', 'mined', 'reverted', 'dead')),
    signed_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX txs_by_job ON txs (job_id, purpose);
CREATE INDEX txs_live ON txs (chain_id, sender, nonce) WHERE state = 'live';
";

/// What format 2 has more: money that goes along with a transaction, and orders of several transactions.
const SCHEMA_2: &str = "
ALTER TABLE txs ADD COLUMN value TEXT NOT NULL DEFAULT '0';
CREATE TABLE orders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    chain_id INTEGER NOT NULL,
    kind TEXT NOT NULL,
    stage TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'done', 'abandoned')),
    not_before_ms INTEGER NOT NULL DEFAULT 0,
    detail TEXT,
    created_ms INTEGER NOT NULL,
    ended_ms INTEGER
) STRICT;
CREATE INDEX orders_open ON orders (chain_id, id) WHERE state = 'open';
CREATE TABLE order_steps (
    order_id INTEGER NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('planned', 'done', 'failed')),
    attempt INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    outcome TEXT,
    recorded INTEGER NOT NULL DEFAULT 0,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (order_id, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX order_steps_unrecorded ON order_steps (order_id) WHERE state = 'done' AND recorded = 0;
";

/// What format 3 has more: the block that a transaction is in, as long as a reorganisation may take it back. What was mined
/// before is taken to be deep enough.
const SCHEMA_3: &str = "ALTER TABLE txs ADD COLUMN block INTEGER;";

/// What format 4 has more: how many of a job's attempts failed for a reason that was not the job's.
const SCHEMA_4: &str = "ALTER TABLE jobs ADD COLUMN waits INTEGER NOT NULL DEFAULT 0;";

/// What format 5 has more: what is asked for each event and each job costs the same, however many there were before. SQLite
/// takes a partial index only where a query has its condition word for word.
const SCHEMA_5: &str = "
CREATE INDEX jobs_orphaned ON jobs (chain_id, contract, subscription_id, event, tx_hash) WHERE orphaned = 1;
CREATE INDEX jobs_waiting ON jobs (chain_id, contract, subscription_id, id) WHERE state IN ('pending', 'running', 'parked');
CREATE INDEX txs_by_nonce ON txs (chain_id, sender, nonce);
";

/// The open database. Operations are short; one lock serves the whole process.
#[derive(Debug)]
pub struct Outbox {
    path: PathBuf,
    connection: Mutex<Connection>,
    _lock: Option<Locked>,
}

impl Outbox {
    /// Opens it for the daemon, creating it where needed; at most one process does so at a time. Jobs that an earlier
    /// process left running become pending again.
    ///
    /// # Errors
    /// [`OutboxError::Locked`] while another engine runs; [`OutboxError::Database`].
    pub fn open(path: &Path) -> Result<Self, OutboxError> {
        let lock = lock(&path.with_extension("lock"))?;
        let outbox = Self::connect(path, Some(lock))?;
        outbox.recover()?;
        Ok(outbox)
    }

    /// Opens it beside a running daemon, to look and to retry.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn open_beside(path: &Path) -> Result<Self, OutboxError> {
        Self::connect(path, None)
    }

    /// Opens it beside a running daemon or before there ever was one, to send from one of the host's accounts.
    ///
    /// # Errors
    /// [`OutboxError::Database`], [`OutboxError::Lock`].
    pub fn open_to_send(path: &Path) -> Result<Self, OutboxError> {
        let fail = |source| OutboxError::Lock {
            path: path.to_owned(),
            source,
        };
        drop(crate::shared::open(path).map_err(fail)?);
        Self::connect(path, None)
    }

    /// One that is gone with the program, for commands before there is a place for it.
    ///
    /// # Errors
    /// [`OutboxError::Database`].
    pub fn in_memory() -> Result<Self, OutboxError> {
        let path = Path::new(":memory:");
        let fail = |source| OutboxError::Database {
            path: path.to_owned(),
            source,
        };
        Self::prepare(path, Connection::open_in_memory().map_err(fail)?, None)
    }

    fn connect(path: &Path, lock: Option<Locked>) -> Result<Self, OutboxError> {
        let flags =
            rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let create = if lock.is_some() {
            rusqlite::OpenFlags::SQLITE_OPEN_CREATE
        } else {
            rusqlite::OpenFlags::empty()
        };
        let connection = Connection::open_with_flags(path, flags | create).map_err(|source| {
            OutboxError::Database {
                path: path.to_owned(),
                source,
            }
        })?;
        Self::prepare(path, connection, lock)
    }

    fn prepare(
        path: &Path,
        connection: Connection,
        lock: Option<Locked>,
    ) -> Result<Self, OutboxError> {
        let connection = sqlite::prepare(connection, &FORMATS).map_err(|e| match e {
            Unusable::Database(source) => OutboxError::Database {
                path: path.to_owned(),
                source,
            },
            Unusable::Newer(found) => OutboxError::Newer {
                path: path.to_owned(),
                found,
                known: sqlite::newest(&FORMATS),
            },
        })?;
        Ok(Self {
            path: path.to_owned(),
            connection: Mutex::new(connection),
            _lock: lock,
        })
    }

    /// Whether a daemon works on it.
    ///
    /// # Errors
    /// [`OutboxError::Lock`].
    pub fn is_in_use(path: &Path) -> Result<bool, OutboxError> {
        let path = path.with_extension("lock");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(OutboxError::Lock { path, source }),
        };
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                // Closing may be too late, for a daemon that starts now: see `crate::locked`.
                let _ = rustix::fs::flock(&file, rustix::fs::FlockOperation::Unlock);
                Ok(false)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(e) => Err(OutboxError::Lock {
                path,
                source: e.into(),
            }),
        }
    }

    /// `/var/lib/blockhost/outbox.db`.
    #[must_use]
    pub fn path(layout: &blockhost_proto::layout::Layout) -> PathBuf {
        layout.state().join("outbox.db")
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // Every change is one transaction: a panic in between left nothing half done.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in one transaction that takes the write lock at once.
    fn write<T>(
        &self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, OutboxError> {
        let mut connection = self.connection();
        let done = (|| {
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        done.map_err(|source| self.fail(source))
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, OutboxError> {
        work(&self.connection()).map_err(|source| self.fail(source))
    }

    fn fail(&self, source: rusqlite::Error) -> OutboxError {
        OutboxError::Database {
            path: self.path.clone(),
            source,
        }
    }

    fn bad(&self, job: i64, reason: impl std::fmt::Display) -> OutboxError {
        OutboxError::Content {
            path: self.path.clone(),
            job,
            reason: reason.to_string(),
        }
    }
}

fn lock(path: &Path) -> Result<Locked, OutboxError> {
    let fail = |source| OutboxError::Lock {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(fail)?;
    // Perhaps somebody only looks whether it is in use.
    let locked = Locked::soon(file).map_err(fail)?;
    locked.map_err(|_| OutboxError::Locked {
        path: path.to_owned(),
    })
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// SQLite's integers are signed; block numbers and ids never come near the difference.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
