//! What was scanned, asked by index: leaf hashes, exact record bytes, roots of ranges, wherever they lie, in a log or in
//! a sealed segment. For `reader`, `verify` and the writer's block files.

use crate::dir::{FileError, on, read_at};
use crate::merkle::{Hash, leaf_hash, leaf_hashes, node_hash, root_of};
use crate::prune::Pruned;
use crate::scan::{Body, Entry, Log, Scan, Segment};
use crate::sealed::{BUNDLE_RECORDS, Records};
use crate::sealed_file::{SealedError, SealedFile};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a record that is there could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not what it was when the ledger was opened.
    #[error("{place}: {why}")]
    Damaged { place: String, why: String },
    /// There is no such record.
    #[error("there is no record with index {0}")]
    Missing(u64),
    /// Its payload was deleted, as the record of that height says.
    #[error("its payload was pruned, as record {0} says")]
    Pruned(u64),
}

impl From<SealedError> for HistoryError {
    fn from(error: SealedError) -> Self {
        match error {
            SealedError::File(error) => Self::File(error),
            SealedError::Damaged { file, why, .. } => Self::Damaged {
                place: format!("{}/{file}", crate::dir::SEGMENTS),
                why,
            },
        }
    }
}

/// Where the bytes of one record are.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Log {
        fd: Arc<OwnedFd>,
        offset: u64,
        length: usize,
        leaf: Hash,
    },
    Sealed {
        file: Arc<SealedFile>,
        bundle: usize,
        index: usize,
    },
}

impl Place {
    /// The leaf hash, and the bytes that were checked against it.
    pub fn read(&self, cache: &Cache) -> Result<(Hash, Vec<u8>), HistoryError> {
        match self {
            Self::Log {
                fd,
                offset,
                length,
                leaf,
            } => {
                let mut bytes = vec![0; *length];
                let read = read_at(fd.as_fd(), &mut bytes, *offset)
                    .map_err(on("read", "the active segment"))?;
                bytes.truncate(read);
                if leaf_hash(&bytes) == *leaf {
                    return Ok((*leaf, bytes));
                }
                Err(changed(*offset))
            }
            Self::Sealed {
                file,
                bundle,
                index,
            } => {
                let place = *bundle as u64 * BUNDLE_RECORDS + *index as u64;
                if !file.has_payloads() {
                    return kept(file, place, file.pruned_by());
                }
                let bundle = match cache.bundle(file, *bundle) {
                    Err(SealedError::File(error)) if error.errno() == Some(Errno::NOENT) => {
                        let (now, by) = file.gone_meanwhile()?.ok_or_else(|| gone(file))?;
                        return kept(&now, place, by);
                    }
                    read => read?,
                };
                let pair = bundle.leaves.get(*index).zip(bundle.records.get(*index));
                let (leaf, bytes) = pair.ok_or(HistoryError::Missing(*index as u64))?;
                Ok((*leaf, bytes.to_vec()))
            }
        }
    }
}

/// One of the records that were kept of a segment whose payloads are gone, as the record of height `by` says.
fn kept(file: &SealedFile, place: u64, by: u64) -> Result<(Hash, Vec<u8>), HistoryError> {
    let kept = file.kept(place).ok_or(HistoryError::Pruned(by))?;
    Ok((leaf_hash(kept), kept.to_vec()))
}

/// Without a record that says so it may have been pruned, or taken away: whoever opens the ledger again knows.
fn gone(file: &SealedFile) -> HistoryError {
    HistoryError::Damaged {
        place: format!("{}/{}", crate::dir::SEGMENTS, file.records_name()),
        why: "it is gone since the ledger was opened here; if it was pruned, opening it again tells so".to_owned(),
    }
}

/// The bundle that was unpacked last: whoever reads one record mostly reads its neighbour next.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Option<Arc<Unpacked>>>);

#[derive(Debug)]
struct Unpacked {
    first: u64,
    bundle: usize,
    leaves: Vec<Hash>,
    records: Records,
}

impl Cache {
    fn bundle(&self, file: &SealedFile, bundle: usize) -> Result<Arc<Unpacked>, SealedError> {
        let first = file.seal.first();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.as_ref()
            && (kept.first, kept.bundle) == (first, bundle)
        {
            return Ok(Arc::clone(kept));
        }
        let fresh = Arc::new(Unpacked {
            first,
            bundle,
            leaves: file.leaves(bundle)?,
            records: file.records(bundle)?,
        });
        *kept = Some(Arc::clone(&fresh));
        Ok(fresh)
    }
}

/// Number of the bundle, and place in it.
pub(crate) fn split(place: u64) -> (usize, usize) {
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    (
        number(place / BUNDLE_RECORDS),
        number(place % BUNDLE_RECORDS),
    )
}

/// Who is shown leaf index, hash and bytes of records.
pub(crate) type See<'a> = &'a mut dyn FnMut(u64, &Hash, &[u8]);

/// Most bytes of a log that are read at a time.
const TOGETHER: u64 = 256 * 1024;

/// The first of these that lie close enough to be read at once: one at least, if there is one.
fn together(entries: &[Entry]) -> &[Entry] {
    let Some(first) = entries.first() else {
        return entries;
    };
    let end = |entry: &Entry| entry.offset + entry.length as u64;
    let close = entries.partition_point(|entry| end(entry) - first.offset <= TOGETHER);
    &entries[..close.max(1)]
}

/// Reads records that lie close together, with what is between them, and checks them.
fn read_together(
    log: &Log,
    entries: &[Entry],
    bytes: &mut Vec<u8>,
    (first, see): (u64, See<'_>),
) -> Result<(), (u64, HistoryError)> {
    let (Some(one), Some(last)) = (entries.first(), entries.last()) else {
        return Err((first, HistoryError::Missing(first)));
    };
    let length = last.offset + last.length as u64 - one.offset;
    bytes.resize(usize::try_from(length).unwrap_or(0), 0);
    let read = read_at(log.fd.as_fd(), bytes, one.offset).map_err(on("read", &log.name));
    let read = read.map_err(|error| (first, error.into()))?;
    let record = |entry: &Entry| {
        let start = usize::try_from(entry.offset - one.offset).unwrap_or(usize::MAX);
        bytes[..read]
            .get(start..start.saturating_add(entry.length))
            .unwrap_or_default()
    };
    let records: Vec<&[u8]> = entries.iter().map(record).collect();
    let hashes = leaf_hashes(&records);
    for (index, ((entry, record), hash)) in (first..).zip(entries.iter().zip(&records).zip(&hashes))
    {
        if *hash != entry.leaf {
            return Err((index, changed(entry.offset)));
        }
        see(index, hash, record);
    }
    Ok(())
}

fn changed(offset: u64) -> HistoryError {
    HistoryError::Damaged {
        place: crate::dir::SEGMENTS.to_owned(),
        why: format!("byte {offset}: the record changed after it was read"),
    }
}

impl Scan {
    /// The segment that holds the record, and its place in it.
    fn segment_of(&self, index: u64) -> Option<(&Segment, u64)> {
        let after = self
            .segments
            .partition_point(|segment| segment.first <= index);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let place = index - segment.first;
        (place < segment.records()).then_some((segment, place))
    }

    /// What says that the payload of a record is gone, or about to be.
    pub fn pruned(&self, index: u64) -> Option<&Pruned> {
        let (_, pruned) = self.prunes.range(..=index).next_back()?;
        let (segment, _) = self.segment_of(index)?;
        (segment.first == pruned.first() && matches!(segment.body, Body::Sealed(_)))
            .then_some(pruned)
    }

    /// Root and time of the bundle that a record is in, where its payloads are gone.
    pub fn pruned_block(&self, index: u64) -> Result<Option<(Hash, i64)>, HistoryError> {
        let (segment, place) = self.segment_of(index).ok_or(HistoryError::Missing(index))?;
        Ok(match &segment.body {
            Body::Sealed(file) if !file.has_payloads() => {
                let bundle = file.seal.bundles.get(split(place).0);
                bundle.map(|bundle| (bundle.root, bundle.timestamp))
            }
            _ => None,
        })
    }

    /// Those whose payloads are gone.
    pub fn gone(&self) -> impl Iterator<Item = &Pruned> {
        self.segments
            .iter()
            .filter_map(|segment| match &segment.body {
                Body::Sealed(file) if !file.has_payloads() => self.prunes.get(&segment.first),
                _ => None,
            })
    }

    /// Where a record's bytes are.
    pub fn place(&self, index: u64) -> Option<Place> {
        let (segment, place) = self.segment_of(index)?;
        Some(match &segment.body {
            Body::Log(log) => {
                let entry = log.entries.get(usize::try_from(place).ok()?)?;
                Place::Log {
                    fd: Arc::clone(&log.fd),
                    offset: entry.offset,
                    length: entry.length,
                    leaf: entry.leaf,
                }
            }
            Body::Sealed(file) => {
                let (bundle, index) = split(place);
                Place::Sealed {
                    file: Arc::clone(file),
                    bundle,
                    index,
                }
            }
        })
    }

    fn see_one(&self, index: u64, cache: &Cache, see: See<'_>) -> Result<(), HistoryError> {
        let place = self.place(index).ok_or(HistoryError::Missing(index))?;
        match place.read(cache) {
            Ok((leaf, record)) => see(index, &leaf, &record),
            Err(HistoryError::Pruned(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Shows the records from leaf index `from` to before `to`, in order, each checked against its hash; those whose
    /// payloads are gone are left out. Many at a time: faster than one by one.
    pub fn each(
        &self,
        (from, to): (u64, u64),
        cache: &Cache,
        see: See<'_>,
    ) -> Result<(), (u64, HistoryError)> {
        let mut at = from;
        let mut bytes = Vec::new();
        while at < to {
            let missing = (at, HistoryError::Missing(at));
            let (segment, place) = self.segment_of(at).ok_or(missing)?;
            at = match &segment.body {
                Body::Log(log) => {
                    let skip = usize::try_from(place).unwrap_or(usize::MAX);
                    let take = usize::try_from(to - at).unwrap_or(usize::MAX);
                    let entries = log.entries.get(skip..).unwrap_or_default();
                    let some = together(&entries[..entries.len().min(take)]);
                    read_together(log, some, &mut bytes, (at, see))?;
                    at + some.len() as u64
                }
                Body::Sealed(file) => {
                    let (bundle, index) = split(place);
                    let unpacked = match file.has_payloads() {
                        true => cache.bundle(file, bundle).ok(),
                        false => None,
                    };
                    match unpacked {
                        Some(unpacked) => {
                            let pairs = unpacked.leaves.iter().zip(unpacked.records.iter());
                            let mut next = at;
                            for (leaf, record) in pairs.skip(index) {
                                if next < to {
                                    see(next, leaf, record);
                                    next += 1;
                                }
                            }
                            // Never for ever, whatever a bundle has.
                            next.max(at + 1)
                        }
                        // Pruned, maybe just now, or damaged: what is true of each by itself.
                        None => {
                            self.see_one(at, cache, see).map_err(|error| (at, error))?;
                            at + 1
                        }
                    }
                }
            };
        }
        Ok(())
    }

    /// The leaf hash of a record.
    pub fn leaf(&self, index: u64) -> Result<Hash, HistoryError> {
        let missing = HistoryError::Missing(index);
        let Some((segment, place)) = self.segment_of(index) else {
            return Err(missing);
        };
        match &segment.body {
            Body::Log(log) => usize::try_from(place)
                .ok()
                .and_then(|place| log.entries.get(place))
                .map(|entry| entry.leaf)
                .ok_or(missing),
            Body::Sealed(file) => {
                let (bundle, index) = split(place);
                file.leaves(bundle)?.get(index).copied().ok_or(missing)
            }
        }
    }

    /// The leaf hashes from `from` to before `to`.
    pub fn leaves(&self, from: u64, to: u64) -> Result<Vec<Hash>, HistoryError> {
        let mut leaves = Vec::new();
        let mut at = from;
        while at < to {
            let (segment, place) = self.segment_of(at).ok_or(HistoryError::Missing(at))?;
            let (start, some) = match &segment.body {
                Body::Log(log) => (
                    segment.first,
                    log.entries.iter().map(|entry| entry.leaf).collect(),
                ),
                Body::Sealed(file) => {
                    let (bundle, _) = split(place);
                    let start = segment.first + bundle as u64 * BUNDLE_RECORDS;
                    (start, file.leaves(bundle)?)
                }
            };
            let skip = usize::try_from(at - start).unwrap_or(usize::MAX);
            let take = usize::try_from(to - at).unwrap_or(usize::MAX);
            let before = leaves.len();
            leaves.extend(some.into_iter().skip(skip).take(take));
            if leaves.len() == before {
                return Err(HistoryError::Missing(at));
            }
            at += (leaves.len() - before) as u64;
        }
        Ok(leaves)
    }

    /// The root of the tree over the leaves from `from` to before `to`, where `from` is a multiple of the largest power
    /// of two that the range needs, as in every RFC 6962 tree. Whole sealed bundles cost one look each.
    pub fn root_of_range(&self, from: u64, to: u64) -> Result<Hash, HistoryError> {
        let count = to.saturating_sub(from);
        if count == BUNDLE_RECORDS
            && let Some((segment, place)) = self.segment_of(from)
            && let Body::Sealed(file) = &segment.body
            && place.is_multiple_of(BUNDLE_RECORDS)
            && let Some(bundle) = file.seal.bundles.get(split(place).0)
            && file.seal.records_in(split(place).0) == BUNDLE_RECORDS
        {
            return Ok(bundle.root);
        }
        if count <= BUNDLE_RECORDS {
            return Ok(root_of(&self.leaves(from, to)?));
        }
        let split = count.next_power_of_two() / 2;
        let left = self.root_of_range(from, from + split)?;
        let right = self.root_of_range(from + split, to)?;
        Ok(node_hash(&left, &right))
    }

    /// RFC 6962 audit path of a record in the tree of all of them.
    pub fn inclusion_proof(&self, index: u64) -> Result<Vec<Hash>, HistoryError> {
        let (mut from, mut to) = (0, self.size());
        if index >= to {
            return Err(HistoryError::Missing(index));
        }
        let mut path = Vec::new();
        while to - from > 1 {
            let middle = from + (to - from).next_power_of_two() / 2;
            if index < middle {
                path.push(self.root_of_range(middle, to)?);
                to = middle;
            } else {
                path.push(self.root_of_range(from, middle)?);
                from = middle;
            }
        }
        path.reverse();
        Ok(path)
    }

    /// RFC 6962 consistency proof from the tree of the first `old` records to that of the first `new`.
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Hash>, HistoryError> {
        let (mut from, mut to) = (0, new);
        if old > to || to > self.size() {
            return Err(HistoryError::Missing(old.max(new) - 1));
        }
        let mut proof = Vec::new();
        if old == 0 || old == to {
            return Ok(proof);
        }
        // Down to the subtree that ends where the old tree ended; whether that is all of the old tree decides if its
        // root has to be told.
        let mut whole = true;
        while to > old {
            let middle = from + (to - from).next_power_of_two() / 2;
            if old <= middle {
                proof.push(self.root_of_range(middle, to)?);
                to = middle;
            } else {
                proof.push(self.root_of_range(from, middle)?);
                from = middle;
                whole = false;
            }
        }
        if !whole {
            proof.push(self.root_of_range(from, to)?);
        }
        proof.reverse();
        Ok(proof)
    }
}
