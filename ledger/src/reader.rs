//! Reading a ledger without privileges, also while it is written: records, the signed head, proofs.
//! Sees what is committed and nothing else. Checking everything is `verify`.

use crate::dir::{self, FileError, LedgerDir};
use crate::epochs::Epochs;
use crate::history::{Cache, HistoryError};
use crate::merkle::Hash;
use crate::note::{Checkpoint, NoteError, Vkey, assemble, parse_vkeys};
use crate::proof::TlogProof;
use crate::prune::{self, Range};
use crate::scan::{self, Fault, Plan, Scan, ScanError, Signatures};
use crate::writer::Head;
use std::time::Duration;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused.
    #[error("cannot {0}")]
    File(#[from] FileError),
    /// The ledger is damaged.
    #[error("the ledger is damaged: {0}; run `blockhost ledger verify` for the whole report")]
    Damaged(Box<Fault>),
    /// The key beside the ledger is not a key.
    #[error("the verifier key: {0}")]
    Key(#[from] NoteError),
    /// No key was given and none is beside the ledger.
    #[error("there is no verifier key beside this ledger; give it with --key")]
    NoKey,
    /// There is no such record.
    #[error("there is no record with index {index} (height {}): the ledger has {size} records", index + 1)]
    NoRecord {
        /// Leaf index asked for.
        index: u64,
        /// Records there are.
        size: u64,
    },
    /// Nothing was written yet.
    #[error("the ledger is empty")]
    Empty,
    /// Its payload was deleted.
    #[error(
        "the payload of record {height} was pruned, as record {by} says; its hash and proofs are there"
    )]
    Pruned {
        /// Its height.
        height: u64,
        /// Height of the record that says so.
        by: u64,
    },
    /// A record is not what its hash says, or was changed after the ledger was opened.
    #[error("record {height} cannot be believed: {why}; run `blockhost ledger verify`")]
    Changed {
        /// Its height.
        height: u64,
        /// File and reason.
        why: String,
    },
}

impl ReadError {
    pub(crate) fn of(index: u64, size: u64, error: HistoryError) -> Self {
        match error {
            HistoryError::File(error) => Self::File(error),
            HistoryError::Damaged { place, why } => Self::Changed {
                height: index + 1,
                why: format!("{place}: {why}"),
            },
            HistoryError::Missing(index) => Self::NoRecord { index, size },
            HistoryError::Pruned(by) => Self::Pruned {
                height: index + 1,
                by,
            },
        }
    }
}

/// A consistent view of what was committed when it was opened.
#[derive(Debug)]
pub struct Reader {
    scan: Scan,
    cache: Cache,
}

impl Reader {
    /// Reads the ledger in `dir`. Without `key` the verifier key beside the ledger is used, which shows consistency but
    /// not authenticity: who can rewrite the ledger can replace that file too. The key is the log's first; later ones
    /// are found in the log.
    ///
    /// # Errors
    /// The directory cannot be read or the segments are damaged.
    pub fn open(dir: impl Into<LedgerDir>, key: Option<Vkey>) -> Result<Self, ReadError> {
        let ledger = dir.into();
        let key = match key {
            Some(key) => Some(key),
            None => key_beside(&ledger)?,
        };
        let scan = steady(&ledger, || {
            let plan = &mut Plan {
                key: key.as_ref(),
                signatures: Signatures::Last,
                roots_at: Vec::new(),
                visit: &mut (),
                progress: &mut |_, _| {},
            };
            scan::scan(&ledger, plan)
        });
        match scan {
            Ok(scan) => Ok(Self {
                scan,
                cache: Cache::default(),
            }),
            Err(ScanError::File(error)) => Err(error.into()),
            Err(ScanError::Fault(fault)) => Err(ReadError::Damaged(fault)),
        }
    }

    /// Number of records.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.scan.size()
    }

    /// The signed head, as the last commit in the segments has it.
    ///
    /// # Errors
    /// Nothing was written yet, or there is no key (its name is part of what is signed).
    pub fn head(&self) -> Result<Head, ReadError> {
        let epochs = self.scan.epochs.as_ref().ok_or(ReadError::NoKey)?;
        let commit = self.scan.last_commit.ok_or(ReadError::Empty)?;
        let key = &epochs.of_size(commit.size).key;
        let body = Checkpoint {
            origin: key.name().to_owned(),
            size: commit.size,
            root: commit.root,
        }
        .body();
        Ok(Head {
            size: commit.size,
            root: commit.root,
            note: assemble(&body, key, &commit.signature),
        })
    }

    /// The keys of the log, as far as it was read.
    #[must_use]
    pub fn epochs(&self) -> Option<&Epochs> {
        self.scan.epochs.as_ref()
    }

    /// The proof that this log with `new` records only added to what it was with `old`: what a witness wants.
    ///
    /// # Errors
    /// It has fewer records than that, or `old` is larger than `new`.
    pub fn prove_growth(&self, old: u64, new: u64) -> Result<Vec<Hash>, ReadError> {
        let proof = self.scan.consistency_proof(old, new);
        proof.map_err(|error| self.error(old.max(new).saturating_sub(1), error))
    }

    /// The leaf hash of a record; `None` when there is no such record, or its segment can no longer be read.
    #[must_use]
    pub fn leaf(&self, index: u64) -> Option<Hash> {
        self.scan.leaf(index).ok()
    }

    /// The leaf hashes of the records from `from` to before `to`.
    ///
    /// # Errors
    /// There are not so many records, or a segment can no longer be read.
    pub fn leaves(&self, from: u64, to: u64) -> Result<Vec<Hash>, ReadError> {
        let leaves = self.scan.leaves(from, to);
        leaves.map_err(|error| self.error(from, error))
    }

    /// The root of the subtree over the records from `from` to before `to`: `from` has to be a multiple of the power of
    /// two that is not below their number, as in every RFC 6962 tree. Cheap where segments are sealed.
    ///
    /// # Errors
    /// There are not so many records, or a segment can no longer be read.
    pub fn root_of_range(&self, from: u64, to: u64) -> Result<Hash, ReadError> {
        let root = self.scan.root_of_range(from, to);
        root.map_err(|error| self.error(from, error))
    }

    /// The exact bytes of the record with leaf index `index` (from 0).
    ///
    /// # Errors
    /// There is no such record, it was pruned ([`ReadError::Pruned`]), or the file was changed meanwhile.
    pub fn get(&self, index: u64) -> Result<Vec<u8>, ReadError> {
        let place = self.scan.place(index).ok_or(ReadError::NoRecord {
            index,
            size: self.size(),
        })?;
        let read = place.read(&self.cache);
        let (_, bytes) = read.map_err(|error| self.error(index, error))?;
        Ok(bytes)
    }

    /// Shows the records from leaf index `from` to before `to` with their hashes, in order, and those that were pruned not
    /// at all. Faster than one by one.
    ///
    /// # Errors
    /// There are not so many records, or a file was changed meanwhile; what was right before has been shown.
    pub fn each(
        &self,
        from: u64,
        to: u64,
        see: &mut dyn FnMut(u64, &Hash, &[u8]),
    ) -> Result<(), ReadError> {
        let shown = self.scan.each((from, to), &self.cache, see);
        shown.map_err(|(index, error)| self.error(index, error))
    }

    fn error(&self, index: u64, error: HistoryError) -> ReadError {
        ReadError::of(index, self.size(), error)
    }

    /// Records in order, from leaf index `from`. Those that were pruned are left out, see [`Self::pruned`].
    pub fn records(
        &self,
        from: u64,
    ) -> impl DoubleEndedIterator<Item = Result<(u64, Vec<u8>), ReadError>> + '_ {
        (from..self.size()).filter_map(|index| {
            let record = self.get_unpruned(index).transpose()?;
            Some(record.map(|record| (index, record)))
        })
    }

    /// As [`Self::get`], but `None` where the payload was pruned.
    ///
    /// # Errors
    /// There is no such record, or the file was changed meanwhile.
    pub fn get_unpruned(&self, index: u64) -> Result<Option<Vec<u8>>, ReadError> {
        match self.get(index) {
            Ok(record) => Ok(Some(record)),
            Err(ReadError::Pruned { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Root and time of the whole block that a record is in, where its payloads were pruned.
    pub(crate) fn pruned_block(&self, index: u64) -> Result<Option<(Hash, i64)>, ReadError> {
        let found = self.scan.pruned_block(index);
        found.map_err(|error| self.error(index, error))
    }

    /// The records whose payloads were pruned, in order. Some of them may have been kept all the same.
    #[must_use]
    pub fn pruned(&self) -> Vec<Range> {
        prune::ranges(self.scan.gone())
    }

    /// A C2SP `tlog-proof` of one record against the signed head. With `with_record` the file carries the record too
    /// and is complete; without, the verifier needs the record from elsewhere.
    ///
    /// # Errors
    /// No such record, no key.
    pub fn prove(&self, index: u64, with_record: bool) -> Result<String, ReadError> {
        let record = match with_record {
            true => Some(self.get(index)?),
            false => None,
        };
        let head = self.head()?;
        let path = self.scan.inclusion_proof(index);
        let path = path.map_err(|error| self.error(index, error))?;
        let proof = TlogProof {
            extra: record,
            index,
            path,
            checkpoint: head.note,
        };
        Ok(proof.to_string())
    }
}

/// The log's first key, from the file beside the ledger.
///
/// # Errors
/// The file cannot be read or has a line that is no key.
pub fn key_beside(ledger: &LedgerDir) -> Result<Option<Vkey>, ReadError> {
    let Some(bytes) = ledger.read(dir::VKEY, 64 * 1024)? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| NoteError::Vkey("it is not text"))?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    Ok(parse_vkeys(text)?.into_iter().next())
}

/// Reading beside a writer can meet half of a write that is going on; that is over in a moment, damage is not.
pub(crate) fn steady<T>(
    ledger: &LedgerDir,
    mut scan: impl FnMut() -> Result<T, ScanError>,
) -> Result<T, ScanError> {
    for pause_ms in [5, 20, 80] {
        match scan() {
            Err(ScanError::Fault(_)) if being_written(ledger) => {
                std::thread::sleep(Duration::from_millis(pause_ms))
            }
            // A log was sealed between listing the names and opening it.
            Err(ScanError::File(error))
                if error.errno() == Some(rustix::io::Errno::NOENT) && being_written(ledger) =>
            {
                std::thread::sleep(Duration::from_millis(pause_ms))
            }
            other => return other,
        }
    }
    scan()
}

/// Did anything here change within the last seconds? What is old and wrong will not become right by waiting.
pub(crate) fn being_written(ledger: &LedgerDir) -> bool {
    let changed = |dir: &LedgerDir, name: &str| dir.modified(name).ok().flatten();
    let segments = ledger.sub(dir::SEGMENTS).ok();
    let newest = segments.as_ref().and_then(|segments| {
        let names = segments.names().ok()?;
        let log = names.iter().rfind(|name| name.ends_with(".log"))?;
        changed(segments, log)
    });
    let times = [
        changed(ledger, "."),
        changed(ledger, dir::BLOCKS),
        changed(ledger, dir::SEGMENTS),
        newest,
    ];
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let since = i64::try_from(now.as_secs()).unwrap_or(i64::MAX) - 3;
    times.into_iter().flatten().any(|seconds| seconds >= since)
}
