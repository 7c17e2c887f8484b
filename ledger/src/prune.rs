//! Pruning: the payloads of a whole sealed segment are deleted, its hashes and every proof stay. What a start needs of
//! them goes into `.kept`, and a `prune` record says so before it is done. The root agent's ledger process prunes.

use crate::blocks::{self, BLOCK_RECORDS};
use crate::dir::{self, FileError, LedgerDir, SHARED_FILE, on};
use crate::failpoint;
use crate::merkle::{Hash, hex, sha256};
use crate::record::{Draft, PHASE_KEY, Phase, late_text};
use crate::refusal::AppendError;
use crate::scan::{Body, Scan};
use crate::sealed::{self, BUNDLE_RECORDS};
use crate::sealed_file::{SealedError, SealedFile};
use crate::writer::{Appended, Writer};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Action of the records about pruning.
pub const PRUNE: &str = "ledger-prune";
/// Most bytes of a `.kept`: a segment of which more has to stay is not worth pruning.
pub const MAX_KEPT_BYTES: usize = 64 << 20;

/// What a `prune` record says: these payloads may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Height of the first record of the segment.
    pub first_height: u64,
    /// Number of its records.
    pub records: u64,
    /// SHA-256 of its `.hsh`.
    pub hashes: Hash,
    /// SHA-256 of its `.kept`.
    pub kept: Hash,
    /// Height of the record that says so.
    pub by: u64,
}

impl Pruned {
    /// What a record says, if it is one about a pruning. `index` is its leaf index.
    #[must_use]
    pub fn read(index: u64, record: &[u8]) -> Option<Self> {
        if !concerns_pruning(record) {
            return None;
        }
        let record: Value = serde_json::from_slice(record).ok()?;
        // What a client calls so is its own event; of this phase only the gate writes.
        if record["plugin_id"] != crate::blobs::PLUGIN || record["phase"] != "prune" {
            return None;
        }
        let said = &record["metadata"];
        let hash = |key: &str| crate::blobs::parse_hash(said[key].as_str()?);
        let pruned = Self {
            first_height: said["first_height"].as_u64()?,
            records: said["records"].as_u64()?,
            hashes: hash("hashes_sha256")?,
            kept: hash("kept_sha256")?,
            by: index + 1,
        };
        // Only what stands before it can have been pruned.
        let end = pruned.first_height.checked_add(pruned.records)?;
        (pruned.first_height > 0 && pruned.records > 0 && end <= pruned.by).then_some(pruned)
    }

    /// Height of the last record of the segment.
    #[must_use]
    pub fn last_height(&self) -> u64 {
        self.first_height + self.records - 1
    }

    /// Leaf index of the first record.
    pub(crate) fn first(&self) -> u64 {
        self.first_height - 1
    }
}

/// Can this be the record of a pruning? Keys are sorted, so `action` is the first field of every record.
#[must_use]
pub fn concerns_pruning(record: &[u8]) -> bool {
    record.starts_with(b"{\"action\":\"ledger-prune\"")
        && late_text(record, &PHASE_KEY) == Some(b"prune")
}

/// File name of what is kept of the segment whose first record has leaf index `first`.
#[must_use]
pub fn kept_name(first: u64) -> String {
    format!("{first:012}.kept")
}

/// Consecutive records whose payloads were pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Range {
    /// Height of the first.
    pub first: u64,
    /// Height of the last.
    pub last: u64,
    /// Height of the newest record that says so.
    pub by: u64,
}

/// Ranges of all prunings, those side by side as one.
pub(crate) fn ranges<'a>(pruned: impl Iterator<Item = &'a Pruned>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for one in pruned {
        match ranges.last_mut() {
            Some(before) if before.last + 1 == one.first_height => {
                before.last = one.last_height();
                before.by = before.by.max(one.by);
            }
            _ => ranges.push(Range {
                first: one.first_height,
                last: one.last_height(),
                by: one.by,
            }),
        }
    }
    ranges
}

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
    #[error("the pruning cannot be recorded, so nothing was deleted: {0}")]
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

impl Writer {
    /// Deletes the payloads of the oldest segment that `order` covers and that still has them. Its record, a copy of
    /// `heading` with the phase `prune`, is durable before anything is deleted; the next [`Writer::open`] finishes what
    /// was interrupted. One segment at a time: everything in it is checked first, which takes its time.
    ///
    /// # Errors
    /// See [`PruneError`].
    pub fn prune(
        &mut self,
        heading: &Draft,
        order: Order,
    ) -> Result<(Pruned, Appended), PruneError> {
        let segments = Arc::new(self.ledger.sub(dir::SEGMENTS)?);
        let file = choose(&segments, order)?;
        // Evidence of damage is not thrown away, and no record vouches for what was not looked at.
        file.check(&mut |_, _, _| {}, &mut |_| {})?;
        let (first, records) = (file.seal.first(), file.seal.records);
        let kept = file.to_keep()?;
        let (first_height, last) = (first + 1, first + records);
        if kept.len() > MAX_KEPT_BYTES {
            return Err(PruneError::Kept(kept.len(), first_height, last));
        }
        let hashes = file.hashes_digest()?;
        segments.replace(&kept_name(first), &kept, SHARED_FILE, true)?;
        failpoint::reach("prune-kept", b"");
        let draft = record(heading, &file, &hashes, &sha256(&kept));
        let appended = self.append(&[draft])?;
        let pruned = Pruned {
            first_height,
            records,
            hashes,
            kept: sha256(&kept),
            by: appended.first().map_or(0, |one| one.height),
        };
        failpoint::reach("prune-recorded", b"");
        delete(&segments, first)?;
        failpoint::reach("prune-deleted", b"");
        let mut blocks = first / BLOCK_RECORDS + 1..=last / BLOCK_RECORDS;
        self.unpublished.retain(|(id, _)| !blocks.contains(id));
        if let Some(dir) = blocks_of(&self.ledger)? {
            blocks.try_for_each(|id| remove(&dir, &blocks::file_name(id)))?;
        }
        match appended.into_iter().next() {
            Some(appended) => Ok((pruned, appended)),
            None => Err(PruneError::Nothing {
                before: order.before,
            }),
        }
    }
}

/// The oldest segment that has its payloads, if it may be pruned.
fn choose(segments: &Arc<LedgerDir>, order: Order) -> Result<SealedFile, PruneError> {
    let nothing = PruneError::Nothing {
        before: order.before,
    };
    let names = segments.names()?;
    let there = |name: &String| names.binary_search(name).is_ok();
    let sealed: Vec<u64> = names
        .iter()
        .filter_map(|name| sealed::first_of(name))
        // While there is a log it is the truth.
        .filter(|first| !there(&crate::segment::file_name(*first)))
        .collect();
    let Some((_newest, older)) = sealed.split_last() else {
        return Err(nothing);
    };
    for &first in older {
        if !there(&sealed::records_name(first)) {
            continue;
        }
        let file = SealedFile::open(segments, first)?;
        let last = first + file.seal.records;
        if last >= order.before || !whole_blocks(first, file.seal.records) {
            break;
        }
        let timestamp = file.seal.bundles.last().map_or(i64::MAX, |b| b.timestamp);
        if timestamp > order.not_after {
            return Err(PruneError::Young {
                first: first + 1,
                last,
                timestamp,
            });
        }
        return Ok(file);
    }
    Err(nothing)
}

/// The time of a block that is only partly in a segment cannot be known without its records.
pub(crate) fn whole_blocks(first: u64, records: u64) -> bool {
    first.is_multiple_of(BUNDLE_RECORDS) && records.is_multiple_of(BUNDLE_RECORDS)
}

fn record(heading: &Draft, file: &SealedFile, hashes: &Hash, kept: &Hash) -> Draft {
    let seal = &file.seal;
    let bytes: u64 = seal.bundles.iter().map(|b| u64::from(b.compressed)).sum();
    let said = json!({
        "first_height": seal.first_height,
        "records": seal.records,
        "root": hex(&seal.commit.root),
        "bytes": bytes,
        "hashes_sha256": hex(hashes),
        "kept_sha256": hex(kept),
    });
    let metadata = match said {
        Value::Object(metadata) => metadata,
        _ => Map::new(),
    };
    Draft {
        phase: Phase::Prune,
        plugin_id: crate::blobs::PLUGIN.to_owned(),
        action: PRUNE.to_owned(),
        metadata,
        ..heading.clone()
    }
}

/// Finishes what a writer before this one recorded and did not get done, and removes what one left that did not get to
/// the record. The scan was believed; `true` means that it has to be made again.
pub(crate) fn finish(ledger: &LedgerDir, scan: &Scan) -> Result<bool, FileError> {
    let mut deleted = false;
    let segments = match ledger.sub(dir::SEGMENTS) {
        Ok(segments) => segments,
        Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error),
    };
    for segment in &scan.segments {
        let Body::Sealed(file) = &segment.body else {
            continue;
        };
        let name = kept_name(segment.first);
        match scan.prunes.get(&segment.first) {
            Some(pruned) if file.has_payloads() => {
                // What has to stay must be there before the rest goes.
                let kept = segments.read(&name, MAX_KEPT_BYTES)?;
                if kept.is_some_and(|kept| sha256(&kept) == pruned.kept) {
                    delete(&segments, segment.first)?;
                    deleted = true;
                }
            }
            None if file.has_payloads() => remove(&segments, &name)?,
            _ => {}
        }
    }
    if scan.prunes.is_empty() {
        return Ok(deleted);
    }
    let Some(blocks) = blocks_of(ledger)? else {
        return Ok(deleted);
    };
    for name in blocks.names()? {
        if blocks::id_of(&name).is_some_and(|id| scan.pruned((id - 1) * BLOCK_RECORDS).is_some()) {
            remove(&blocks, &name)?;
        }
    }
    Ok(deleted)
}

fn blocks_of(ledger: &LedgerDir) -> Result<Option<LedgerDir>, FileError> {
    match ledger.sub(dir::BLOCKS) {
        Ok(blocks) => Ok(Some(blocks)),
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn delete(segments: &LedgerDir, first: u64) -> Result<(), FileError> {
    remove(segments, &sealed::records_name(first))?;
    segments.sync()
}

fn remove(dir: &LedgerDir, name: &str) -> Result<(), FileError> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(on("remove", name)(errno)),
    }
}

/// The records in a `.kept`, one a line, by their place in the segment. `leaf` gives the hash kept for a place.
///
/// # Errors
/// Place and reason.
pub(crate) fn parse_kept(
    bytes: &[u8],
    (first_height, records): (u64, u64),
    leaf: &mut dyn FnMut(u64) -> Result<Hash, SealedError>,
    damaged: &dyn Fn(u64, &str) -> SealedError,
) -> Result<BTreeMap<u32, Vec<u8>>, SealedError> {
    let mut kept = BTreeMap::new();
    let mut next = 0;
    let body = match bytes {
        [] => return Ok(kept),
        bytes => bytes
            .strip_suffix(b"\n")
            .ok_or_else(|| damaged(0, "it ends inside a line"))?,
    };
    for line in body.split(|byte| *byte == b'\n') {
        let place = crate::record::height_of(line)
            .and_then(|height| height.checked_sub(first_height))
            .filter(|place| (next..records).contains(place))
            .ok_or_else(|| damaged(next, "a line is no record of this segment, or not in order"))?;
        if crate::merkle::leaf_hash(line) != leaf(place)? {
            return Err(damaged(
                place,
                "a kept record is not the one with the hash kept for it",
            ));
        }
        next = place + 1;
        if let Ok(place) = u32::try_from(place) {
            kept.insert(place, line.to_vec());
        }
    }
    Ok(kept)
}
