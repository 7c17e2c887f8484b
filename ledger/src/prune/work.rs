//! Pruning the oldest segment: choosing it, reading all of it in small steps, keeping what has to stay, the record, and only
//! then the deleting. Driven by `Writer`'s owner, the gate, between appends, what waits for the disk by a thread beside it; what
//! a kill interrupts behind the record is `finish`'s.

use super::{
    Gone, MAX_KEPT_BYTES, Pruned, age, blocks_of, delete, kept_name, remove, say, whole_blocks,
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
use std::time::Duration;

/// What is to be pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Only records below this height.
    pub before: u64,
    /// Only segments behind whose last record the ledger has lived through this much time.
    pub kept: Duration,
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
        "records {first} to {last} are too young to be pruned: the ledger has seen {} days since the last of them, and limits.ledger_retention_days says how long they are kept. Days count that it was written in: none that the host was off for long, none that the clock leapt over",
        passed.as_secs() / (24 * 3600)
    )]
    Young {
        /// Height of its first record.
        first: u64,
        /// Height of its last record.
        last: u64,
        /// What the ledger has lived through since.
        passed: Duration,
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
        let file = self.choose(&segments, order)?;
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

    /// How many segments could be pruned under `order`. Names say what there is, the blocks how old it is.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn prunable(&self, order: Order) -> Result<u64, PruneError> {
        let segments = self.ledger.sub(dir::SEGMENTS)?;
        let old = age::old(self.block_times(), order.kept) * BLOCK_RECORDS;
        let parts = candidates(&segments.names()?).into_iter();
        Ok(parts
            .take_while(|(_, end)| *end < order.before && *end <= old)
            .count() as u64)
    }

    /// Times of the last record of each block, the one that is being filled, too.
    fn block_times(&self) -> impl DoubleEndedIterator<Item = i64> {
        let open = self.chain.open().map(|block| block.timestamp);
        let closed = self.chain.closed().iter();
        closed.map(|block| block.timestamp).chain(open)
    }

    /// The oldest segment that has its payloads, if it may be pruned.
    fn choose(&self, segments: &Arc<LedgerDir>, order: Order) -> Result<SealedFile, PruneError> {
        let file = prunable(segments)?.next().transpose()?;
        let Some(file) = file.filter(|file| last_height(file) < order.before) else {
            return Err(PruneError::Nothing {
                before: order.before,
            });
        };
        // A segment that may be pruned is of whole blocks: back to its last one.
        let later = self.head.size.div_ceil(BLOCK_RECORDS) - last_height(&file) / BLOCK_RECORDS;
        let blocks = usize::try_from(later)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let mut lived = age::Lived::against(order.kept);
        for time in self.block_times().rev().take(blocks) {
            lived.back(time);
        }
        if lived.passed() < order.kept {
            return Err(PruneError::Young {
                first: file.seal.first_height,
                last: last_height(&file),
                passed: lived.passed(),
            });
        }
        Ok(file)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::BlockChain;
    use crate::keys::Signer;
    use crate::record::Phase;
    use crate::writer::Options;

    const DAY: i64 = 24 * 3600;
    /// A block for each day since then.
    const BEGAN: i64 = 20_000 * DAY;
    const YEAR: Order = Order {
        before: u64::MAX,
        kept: Duration::from_secs(365 * 24 * 3600),
    };

    fn event() -> Draft {
        Draft {
            phase: Phase::Event,
            op_id: String::new(),
            plugin_id: "event".to_owned(),
            category: "compute".to_owned(),
            operation: "create".to_owned(),
            action: "done".to_owned(),
            resource: "vm:100".to_owned(),
            user: "blockhost".to_owned(),
            uid: 990,
            pid: None,
            exe: None,
            unit: None,
            metadata: serde_json::Map::new(),
        }
    }

    /// A writer of a sealed segment for each block, that was told of these times.
    fn writer_of(dir: &std::path::Path, times: &[i64]) -> Writer {
        let signer = Signer::from_bytes("h/ledger", 1, &[42; 32]).expect("key");
        let options = Options {
            segment_records: BLOCK_RECORDS,
            ..Options::default()
        };
        let ledger = LedgerDir::open(dir).expect("opens");
        let (mut writer, _) = Writer::open(ledger, signer, "h", options).expect("opens");
        let block = vec![event(); usize::try_from(BLOCK_RECORDS).expect("small")];
        for _ in 0..5 {
            writer.append(&block).expect("appended");
        }
        while writer.wants_sealing() {
            writer.seal_step().expect("sealed");
        }
        told(&mut writer, times);
        writer
    }

    /// What time it was at the end of each block.
    fn told(writer: &mut Writer, times: &[i64]) {
        writer.chain = BlockChain::default();
        for time in times {
            for _ in 0..BLOCK_RECORDS {
                writer.chain.push([0; 32], *time);
            }
        }
        writer.head.size = times.len() as u64 * BLOCK_RECORDS;
    }

    #[test]
    fn what_the_clock_says_now_or_said_then_makes_no_segment_older_or_younger_than_it_is() {
        let dir = tempfile::tempdir().expect("temp dir");
        let day = |day: i64| BEGAN + day * DAY;
        let mut days: Vec<i64> = (0..300).map(day).collect();
        let mut writer = writer_of(dir.path(), &days);
        let young = |writer: &Writer| match writer.begin_pruning(YEAR) {
            Err(PruneError::Young { passed, last, .. }) => {
                assert_eq!((last, writer.prunable(YEAR).expect("counted")), (256, 0));
                passed.as_secs() / (24 * 3600)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(young(&writer), 299);
        // A clock that is ten years ahead now, also for some days.
        let mut ahead = days.clone();
        ahead.extend([day(4000), day(4001)]);
        told(&mut writer, &ahead);
        assert_eq!(young(&writer), 300);
        // One that was ahead then, and one that began anew in 1970.
        days.extend((300..367).map(day));
        days[0] = day(9000);
        days[1] = day(-19_000);
        told(&mut writer, &days);
        assert_eq!(young(&writer), 364);
        days.push(day(367));
        told(&mut writer, &days);
        let mut pruning = writer.begin_pruning(YEAR).expect("old enough");
        assert_eq!(pruning.heights(), (1, 256));
        assert_eq!(writer.prunable(YEAR).expect("counted"), 3);
        assert!(!pruning.step().expect("as it was"));
        assert!(pruning.step().expect("as it was"));
    }
}
