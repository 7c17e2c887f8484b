//! Pruning: the payloads of a whole sealed segment are deleted, its hashes and every proof stay. What a start needs of
//! them goes into `.kept`, and a `prune` record says so before it is done. The root agent's ledger process prunes.

mod age;
mod work;

use crate::blocks::{self, BLOCK_RECORDS};
use crate::dir::{self, FileError, LedgerDir, on};
use crate::merkle::{Hash, hex, sha256};
use crate::record::{Draft, PHASE_KEY, Phase, late_text};
use crate::scan::{Body, Scan};
use crate::sealed::{self, BUNDLE_RECORDS, Seal};
use crate::sealed_file::SealedError;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
pub use work::{Deletion, Kept, Order, Prunable, PruneError, Pruning, prunable_segments};

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
        let by = index + 1;
        let pruned = Self::of(record["metadata"].as_object()?, by)?;
        // Only what stands before it can have been pruned.
        (pruned.last_height() < by).then_some(pruned)
    }

    /// What the `metadata` of the record at height `by` says.
    fn of(said: &Map<String, Value>, by: u64) -> Option<Self> {
        let number = |key: &str| said.get(key)?.as_u64().filter(|number| *number > 0);
        let hash = |key: &str| crate::blobs::parse_hash(said.get(key)?.as_str()?);
        let pruned = Self {
            first_height: number("first_height")?,
            records: number("records")?,
            hashes: hash("hashes_sha256")?,
            kept: hash("kept_sha256")?,
            by,
        };
        pruned.first_height.checked_add(pruned.records)?;
        Some(pruned)
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

/// A segment without payloads, and what a record has to say of it so that they may be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Read from what is to be said; `by` is 0, which is no height.
    pub pruned: Pruned,
    /// The `metadata` of such a record.
    said: Map<String, Value>,
}

impl Gone {
    /// Reads what was to be said.
    pub(crate) fn parse(said: &Value) -> Option<Self> {
        let said = said.as_object()?.clone();
        Pruned::of(&said, 0).map(|pruned| Self { pruned, said })
    }

    /// What is to be said.
    pub(crate) fn json(&self) -> Value {
        Value::Object(self.said.clone())
    }

    /// The record that says so, with what `heading` says of who and why.
    pub(crate) fn draft(&self, heading: &Draft) -> Draft {
        let mut metadata = heading.metadata.clone();
        metadata.extend(self.said.clone());
        let (first, last) = (self.pruned.first_height, self.pruned.last_height());
        Draft {
            phase: Phase::Prune,
            plugin_id: crate::blobs::PLUGIN.to_owned(),
            category: "storage".to_owned(),
            operation: "delete".to_owned(),
            action: PRUNE.to_owned(),
            resource: format!("records:{first}-{last}"),
            metadata,
            ..heading.clone()
        }
    }
}

/// The segments of which nothing but hashes and a good `.kept` is there, and no record that was read says that they were
/// pruned.
pub(crate) fn unexplained(scan: &Scan) -> Result<Vec<Gone>, FileError> {
    let mut gone = Vec::new();
    for segment in &scan.segments {
        if let Body::Sealed(file) = &segment.body
            && let Some(kept) = file.kept_digest()
            && !scan.prunes.contains_key(&segment.first)
        {
            gone.extend(Gone::parse(&say(&file.seal, &file.hashes_digest()?, kept)));
        }
    }
    Ok(gone)
}

/// These, as if records had said so.
pub(crate) fn given(gone: &[Gone]) -> BTreeMap<u64, Pruned> {
    let pruned = gone.iter().map(|gone| gone.pruned);
    pruned.map(|pruned| (pruned.first(), pruned)).collect()
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

/// The time of a block that is only partly in a segment cannot be known without its records.
pub(crate) fn whole_blocks(first: u64, records: u64) -> bool {
    first.is_multiple_of(BUNDLE_RECORDS) && records.is_multiple_of(BUNDLE_RECORDS)
}

/// The `metadata` of the record.
fn say(seal: &Seal, hashes: &Hash, kept: &Hash) -> Value {
    let bytes: u64 = seal.bundles.iter().map(|b| u64::from(b.compressed)).sum();
    json!({
        "first_height": seal.first_height,
        "records": seal.records,
        "root": hex(&seal.commit.root),
        "bytes": bytes,
        "hashes_sha256": hex(hashes),
        "kept_sha256": hex(kept),
    })
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

/// The records in a `.kept` of the segment that begins with `first_height` and has these hashes, by their place in it.
///
/// # Errors
/// Where the first line is that is not one of them, in order, and why.
#[doc(hidden)]
pub fn read_kept(
    bytes: &[u8],
    first_height: u64,
    leaves: &[Hash],
) -> Result<BTreeMap<u32, Vec<u8>>, String> {
    let damaged = |place: u64, why: &str| SealedError::Damaged {
        place,
        file: kept_name(first_height.saturating_sub(1)),
        why: why.to_owned(),
    };
    let mut leaf = |place: u64| {
        let leaf = usize::try_from(place).ok().and_then(|at| leaves.get(at));
        leaf.copied()
            .ok_or_else(|| damaged(place, "there is no such record"))
    };
    let records = leaves.len() as u64;
    let kept = parse_kept(bytes, (first_height, records), &mut leaf, &damaged);
    kept.map_err(|error| error.to_string())
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
