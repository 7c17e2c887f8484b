//! Pruning the oldest segment: choosing it, reading all of it in small steps, keeping what has to stay, the record, and only
//! then the deleting. Driven by `Writer`'s owner, the gate, between appends, what waits for the disk by a thread beside it; what
//! a kill interrupts behind the record is `finish`'s.

use super::{
    Gone, MAX_KEPT_BYTES, Pruned, blocks_of, delete, kept_name, remove, say, whole_blocks,
};
use crate::blocks::{self, BLOCK_RECORDS};
use crate::dir::{self, FileError, LedgerDir, SHARED_FILE};
use crate::failpoint;
use crate::merkle::sha256;
use crate::record::Draft;
use crate::refusal::AppendError;
use crate::sealed;
use crate::sealed_file::{Check, SealedError, SealedFile};
use crate::segment;
use crate::writer::{Appended, Writer};
use std::sync::Arc;

/// What is to be pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Only records below this height.
    pub before: u64,
    /// Only segments whose last record is not younger than this, in seconds since 1970 UTC.
    pub not_after: i64,
}

/// Why nothing was pruned.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// There is no such segment.
    #[error(
        "nothing to prune below height {before}: only whole sealed segments are pruned, never the newest of them, nor one twice"
    )]
    Nothing {
        /// What was asked for.
        before: u64,
    },
    /// It has to be kept for longer.
    #[error(
        "records {first} to {last} are too young to be pruned: the last is of {timestamp} (seconds since 1970); limits.ledger_retention_days says how long they are kept"
    )]
    Young {
        /// Height of its first record.
        first: u64,
        /// Height of its last record.
        last: u64,
        /// Time of its last record.
        timestamp: i64,
    },
    /// Damage is not removed but looked at.
    #[error("seg/{0}: {1}; nothing was pruned, run `blockhost ledger verify`")]
    Damaged(String, String),
    /// Too much of it has to stay.
    #[error("{0} bytes of records {1} to {2} have to be kept, too much to be worth pruning")]
    Kept(usize, u64, u64),
    /// The record could not be written, so nothing was deleted.
    #[error(
        "the pruning cannot be recorded, so nothing was deleted (unless the record is on the disk all the same: then the next start deletes it): {0}"
    )]
    Record(#[from] AppendError),
    /// The system refused. If the record was written, the next start finishes.
    #[error("cannot {0}")]
    File(#[from] FileError),
}

impl From<SealedError> for PruneError {
    fn from(error: SealedError) -> Self {
        match error {
            SealedError::File(error) => Self::File(error),
            SealedError::Damaged { file, why, .. } => Self::Damaged(file, why),
        }
    }
}

/// A pruning before its record: the segment, how far it was looked at, and what of it has to stay. Dropped, nothing was
/// changed.
#[derive(Debug)]
pub struct Pruning {
    segments: Arc<LedgerDir>,
    file: SealedFile,
    check: Check,
    kept: Vec<u8>,
    looked_at: bool,
}

impl Pruning {
    /// Looks at the next 256 records; `true` when all were. Evidence of damage is not thrown away, and no record vouches
    /// for what was not looked at.
    ///
    /// # Errors
    /// Something is wrong with them, or too much has to stay.
    pub fn step(&mut self) -> Result<bool, PruneError> {
        if self.looked_at {
            return Ok(true);
        }
        match self.file.check_next(&mut self.check)? {
            Some((first, _, records)) => {
                self.file.keep(first, &records, &mut self.kept);
                if self.kept.len() > MAX_KEPT_BYTES {
                    let (first, last) = self.heights();
                    return Err(PruneError::Kept(self.kept.len(), first, last));
                }
            }
            None => self.looked_at = true,
        }
        Ok(self.looked_at)
    }

    /// Makes durable what of the segment has to stay, after looking at what was not looked at yet. Without the record that
    /// [`Writer::record_pruning`] writes the next opening removes it again.
    ///
    /// # Errors
    /// As [`Self::step`]; the system refused.
    pub fn keep(mut self) -> Result<Kept, PruneError> {
        while !self.step()? {}
        let Self {
            segments,
            file,
            kept,
            ..
        } = self;
        let said = say(&file.seal, &file.hashes_digest()?, &sha256(&kept));
        let Some(gone) = Gone::parse(&said) else {
            return Err(PruneError::Nothing {
                before: file.seal.first_height,
            });
        };
        segments.replace(&kept_name(file.seal.first()), &kept, SHARED_FILE, true)?;
        failpoint::reach("prune-kept", b"");
        let bytes = payload_bytes(&file);
        Ok(Kept {
            segments,
            gone,
            bytes,
        })
    }

    /// Heights of the first and the last record.
    #[must_use]
    pub fn heights(&self) -> (u64, u64) {
        let seal = &self.file.seal;
        (seal.first_height, seal.first_height + seal.records - 1)
    }
}

/// A pruning of which everything is durable but its record. Dropped, nothing was deleted.
#[derive(Debug)]
pub struct Kept {
    segments: Arc<LedgerDir>,
    gone: Gone,
    bytes: u64,
}

/// A pruning that is on record: what may be deleted now. Dropped, the next [`Writer::open`] does it.
#[derive(Debug)]
#[must_use = "nothing is deleted before it has run"]
pub struct Deletion {
    ledger: LedgerDir,
    segments: Arc<LedgerDir>,
    /// What the record says.
    pub pruned: Pruned,
    /// The record.
    pub record: Appended,
    /// Bytes that the payloads take.
    pub bytes: u64,
}

impl Deletion {
    fn blocks(&self) -> std::ops::RangeInclusive<u64> {
        self.pruned.first() / BLOCK_RECORDS + 1..=self.pruned.last_height() / BLOCK_RECORDS
    }

    /// Deletes the payloads, and the block files with them.
    ///
    /// # Errors
    /// The system refused; the next start finishes.
    pub fn run(&self) -> Result<(), PruneError> {
        delete(&self.segments, self.pruned.first())?;
        failpoint::reach("prune-deleted", b"");
        if let Some(dir) = blocks_of(&self.ledger)? {
            for id in self.blocks() {
                remove(&dir, &blocks::file_name(id))?;
                failpoint::reach("prune-block-removed", b"");
            }
        }
        Ok(())
    }
}

impl Writer {
    /// Chooses the oldest segment that `order` covers and that still has its payloads.
    ///
    /// # Errors
    /// See [`PruneError`]: there is none, or it has to be kept for longer.
    pub fn begin_pruning(&self, order: Order) -> Result<Pruning, PruneError> {
        let segments = Arc::new(self.ledger.sub(dir::SEGMENTS)?);
        let file = choose(&segments, order)?;
        Ok(Pruning {
            check: file.begin_check()?,
            segments,
            file,
            kept: Vec::new(),
            looked_at: false,
        })
    }

    /// Writes the record of a pruning, a copy of `heading` with the phase `prune`. It is durable before anything is deleted;
    /// the next [`Writer::open`] finishes what was interrupted. Nothing may be published while this is done: a block file
    /// could come that the deletion is to take.
    ///
    /// # Errors
    /// See [`PruneError`].
    pub fn record_pruning(&mut self, heading: &Draft, kept: Kept) -> Result<Deletion, PruneError> {
        let ledger = self.ledger.try_clone()?;
        let Kept {
            segments,
            gone,
            bytes,
        } = kept;
        let Some(&record) = self.append(&[gone.draft(heading)])?.first() else {
            let before = gone.pruned.first_height;
            return Err(PruneError::Nothing { before });
        };
        failpoint::reach("prune-recorded", b"");
        let deletion = Deletion {
            ledger,
            segments,
            pruned: Pruned {
                by: record.height,
                ..gone.pruned
            },
            record,
            bytes,
        };
        let blocks = deletion.blocks();
        self.unpublished.retain(|(id, _)| !blocks.contains(id));
        Ok(deletion)
    }

    /// How many segments could be pruned under `order`. Names say what there is; as times rise from segment to segment, a few
    /// files say where those begin that are too young.
    ///
    /// # Errors
    /// The directory cannot be read, or a file that was looked into is damaged.
    pub fn prunable(&self, order: Order) -> Result<u64, PruneError> {
        let segments = Arc::new(self.ledger.sub(dir::SEGMENTS)?);
        let mut firsts = candidates(&segments.names()?);
        firsts.retain(|(_, end)| *end < order.before);
        let is_old = |at: usize| -> Result<bool, PruneError> {
            let Some((first, _)) = firsts.get(at) else {
                return Ok(true);
            };
            Ok(last_timestamp(&SealedFile::open(&segments, *first)?) <= order.not_after)
        };
        // Mostly all are.
        let (mut old, mut young) = (0, firsts.len());
        let mut at = young.saturating_sub(1);
        while old < young {
            match is_old(at)? {
                true => old = at + 1,
                false => young = at,
            }
            at = old + (young - old) / 2;
        }
        Ok(old as u64)
    }

    /// The whole of it at once.
    ///
    /// # Errors
    /// See [`PruneError`].
    pub fn prune(
        &mut self,
        heading: &Draft,
        order: Order,
    ) -> Result<(Pruned, Appended), PruneError> {
        let kept = self.begin_pruning(order)?.keep()?;
        let deletion = self.record_pruning(heading, kept)?;
        deletion.run()?;
        Ok((deletion.pruned, deletion.record))
    }
}

/// The oldest segment that has its payloads, if it may be pruned.
fn choose(segments: &Arc<LedgerDir>, order: Order) -> Result<SealedFile, PruneError> {
    let file = prunable(segments)?.next().transpose()?;
    let Some(file) = file.filter(|file| last_height(file) < order.before) else {
        return Err(PruneError::Nothing {
            before: order.before,
        });
    };
    let timestamp = last_timestamp(&file);
    if timestamp > order.not_after {
        return Err(PruneError::Young {
            first: file.seal.first_height,
            last: last_height(&file),
            timestamp,
        });
    }
    Ok(file)
}

/// Where the segments begin and end that have payloads and may be pruned, oldest first, as the names in their directory say:
/// sealed, of whole blocks, none of them the newest.
fn candidates(names: &[String]) -> Vec<(u64, u64)> {
    let there = |name: &String| names.binary_search(name).is_ok();
    // While there is a log it is the truth.
    let logs = names.iter().filter_map(|name| segment::first_of(name));
    let sealed = names.iter().filter_map(|name| sealed::first_of(name));
    let sealed: Vec<u64> = sealed
        .filter(|first| !there(&segment::file_name(*first)))
        .collect();
    let mut begins: Vec<u64> = logs.chain(sealed.iter().copied()).collect();
    begins.sort_unstable();
    let Some((_, older)) = sealed.split_last() else {
        return Vec::new();
    };
    let part = |first: &u64| {
        let next = begins.partition_point(|begin| begin <= first);
        Some((*first, *begins.get(next)?))
    };
    older
        .iter()
        .filter(|first| there(&sealed::records_name(**first)))
        .filter_map(part)
        .take_while(|(first, end)| whole_blocks(*first, end - first))
        .collect()
}

/// These, each opened when it is asked for.
fn prunable(
    segments: &Arc<LedgerDir>,
) -> Result<impl Iterator<Item = Result<SealedFile, PruneError>>, FileError> {
    let parts = candidates(&segments.names()?);
    let segments = Arc::clone(segments);
    Ok(parts
        .into_iter()
        .map(move |(first, _)| Ok(SealedFile::open(&segments, first)?)))
}

fn last_height(file: &SealedFile) -> u64 {
    file.seal.first() + file.seal.records
}

fn payload_bytes(file: &SealedFile) -> u64 {
    let bundles = file.seal.bundles.iter();
    bundles.map(|bundle| u64::from(bundle.compressed)).sum()
}

fn last_timestamp(file: &SealedFile) -> i64 {
    file.seal.bundles.last().map_or(i64::MAX, |b| b.timestamp)
}

/// A segment that can be pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Prunable {
    /// Height of its first record.
    pub first: u64,
    /// Height of its last record.
    pub last: u64,
    /// Bytes that its payloads take.
    pub bytes: u64,
    /// Time of its last record, in seconds since 1970 UTC.
    pub timestamp: i64,
}

/// What could be pruned, oldest first; for whoever wants to know before asking. Nothing of it was looked at.
///
/// # Errors
/// The directory cannot be read, or the head of a sealed segment is damaged.
pub fn prunable_segments(ledger: &LedgerDir) -> Result<Vec<Prunable>, PruneError> {
    let segments = match ledger.sub(dir::SEGMENTS) {
        Ok(segments) => Arc::new(segments),
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    prunable(&segments)?
        .map(|file| {
            let file = file?;
            Ok(Prunable {
                first: file.seal.first_height,
                last: last_height(&file),
                bytes: payload_bytes(&file),
                timestamp: last_timestamp(&file),
            })
        })
        .collect()
}
