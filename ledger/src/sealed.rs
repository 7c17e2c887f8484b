//! The two files of a sealed segment: `.zst`, one zstd frame per bundle of 256 records, and `.hsh`, what is needed to
//! check and to find them. Layout and limits; every byte is somebody else's. Making them is `seal`'s, reading `sealed_file`'s.

use crate::merkle::{Hash, hex, leaf_hashes};
use crate::record::{Joined, MAX_RECORD_BYTES, PREV_KEY, last_place, needle};
use crate::segment::{COMMIT_BYTES, Commit, Cosigned, MAX_RECORDS, array_at, u32_at, u64_at};
use std::collections::HashMap;

/// Most records in one bundle, as in a C2SP entry bundle.
pub const BUNDLE_RECORDS: u64 = 256;
/// Bytes of the fixed part of a `.hsh`.
pub const FIXED_BYTES: usize = 216;
/// Bytes that describe the beginning of an epoch.
const EPOCH_BYTES: usize = 4 + COMMIT_BYTES;
/// Most epochs that may begin in one segment.
const MAX_EPOCHS: u32 = 1024;
/// Longest cosignatures of one head.
const MAX_COSIGNED: usize = 40 + Cosigned::MAX_LINES;
/// Bytes that describe one bundle.
const BUNDLE_BYTES: usize = 49;
const MAGIC: [u8; 8] = *b"BHSEALED";
const VERSION: u32 = 1;
/// Largest bundle before compression: the length and the bytes of 256 records.
const MAX_PLAIN: usize = 256 * (2 + MAX_RECORD_BYTES);
/// Largest window a frame may ask the decoder to hold.
const MAX_WINDOW: u64 = 32 << 20;
// What stands for `prev_hash` in a bundle whose records leave it out.
needle!(ELIDED, b"\"prev_hash\":\"\"");
/// Length of `"prev_hash":"`.
const PREV_BYTES: usize = 13;

/// File name of the compressed records of the segment whose first record has leaf index `first`.
#[must_use]
pub fn records_name(first: u64) -> String {
    format!("{first:012}.zst")
}

/// File name of its hashes.
#[must_use]
pub fn hashes_name(first: u64) -> String {
    format!("{first:012}.hsh")
}

/// The leaf index that the name of a `.hsh` announces.
#[must_use]
pub fn first_of(name: &str) -> Option<u64> {
    let first = name.strip_suffix(".hsh")?.parse().ok()?;
    (hashes_name(first) == name).then_some(first)
}

/// One bundle, as the `.hsh` describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bundle {
    /// Bytes of its zstd frame.
    pub compressed: u32,
    /// Bytes of what the frame holds.
    pub plain: u32,
    /// The records in it leave out the value of `prev_hash`.
    pub elided: bool,
    /// Time of its last record, in seconds since 1970 UTC.
    pub timestamp: i64,
    /// Root of the tree over its records alone: the level-1 tile hash when it has 256 and begins at a multiple of 256.
    pub root: Hash,
}

/// What a `.hsh` says before its leaf hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Height (from 1) of the first record.
    pub first_height: u64,
    /// Number of records, 1 to 65 536.
    pub records: u64,
    /// Root of the tree before the first record.
    pub root_before: Hash,
    /// Leaf hash of the record before the first one; zeros for the first of all.
    pub prev: Hash,
    /// The last commit of the segment: its size, root and signature cover everything up to here.
    pub commit: Commit,
    /// Its bundles, in order; they lie in the `.zst` one behind the other.
    pub bundles: Vec<Bundle>,
    /// Places in the segment of the records that matter to a writer that starts: intents that no outcome in this segment
    /// closed, outcomes of intents of earlier segments, and what concerns blobs and prunings.
    pub matters: Vec<u32>,
    /// Places of records that begin an epoch, each with the commit that it was part of: the last word of the old key.
    pub epochs: Vec<(u32, Commit)>,
    /// The newest cosignatures that the log of the segment had, as the payload of their frame; may be empty.
    pub cosigned: Vec<u8>,
}

impl Seal {
    /// Everything before the leaf hashes: magic 8, version 4, number of records 4, first height 8, root before 32, hash
    /// before 32, commit 116, numbers of records that matter, of epochs and of bytes of cosignatures 4 each; the bundles (compressed 4, plain 4, flags 1, time 8, root 32); the places, 4 each; the epochs (place 4, commit
    /// 116); the cosignatures; CRC32C of all that 4.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_BYTES + self.bundles.len() * BUNDLE_BYTES + 4);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&count(self.records));
        out.extend_from_slice(&self.first_height.to_le_bytes());
        out.extend_from_slice(&self.root_before);
        out.extend_from_slice(&self.prev);
        out.extend_from_slice(&self.commit.encode());
        out.extend_from_slice(&count(self.matters.len() as u64));
        out.extend_from_slice(&count(self.epochs.len() as u64));
        out.extend_from_slice(&count(self.cosigned.len() as u64));
        for bundle in &self.bundles {
            out.extend_from_slice(&bundle.compressed.to_le_bytes());
            out.extend_from_slice(&bundle.plain.to_le_bytes());
            out.push(u8::from(bundle.elided));
            out.extend_from_slice(&bundle.timestamp.to_le_bytes());
            out.extend_from_slice(&bundle.root);
        }
        for place in &self.matters {
            out.extend_from_slice(&place.to_le_bytes());
        }
        for (place, commit) in &self.epochs {
            out.extend_from_slice(&place.to_le_bytes());
            out.extend_from_slice(&commit.encode());
        }
        out.extend_from_slice(&self.cosigned);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// How many bytes the part before the leaf hashes has, told by its fixed part.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn head_bytes(fixed: &[u8; FIXED_BYTES]) -> Result<usize, &'static str> {
        if fixed[..8] != MAGIC {
            return Err("it does not begin with BHSEALED");
        }
        if u32_at(fixed, 8) != VERSION {
            return Err("it was written by another version of this program");
        }
        let records = u64::from(u32_at(fixed, 12));
        if records == 0 || records > MAX_RECORDS {
            return Err("the number of records is impossible");
        }
        let matters = u64::from(u32_at(fixed, 204));
        if matters > records {
            return Err("more records that matter than records");
        }
        let bundles = small(records.div_ceil(BUNDLE_RECORDS));
        let places = small(matters);
        let (epochs, cosigned) = (u32_at(fixed, 208), small(u32_at(fixed, 212).into()));
        if epochs > MAX_EPOCHS || cosigned > MAX_COSIGNED {
            return Err("more epochs or cosignatures than a segment can have");
        }
        let epochs = small(epochs.into()) * EPOCH_BYTES;
        Ok(FIXED_BYTES + bundles * BUNDLE_BYTES + places * 4 + epochs + cosigned + 4)
    }

    /// Reads the part before the leaf hashes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let fixed: &[u8; FIXED_BYTES] = bytes
            .get(..FIXED_BYTES)
            .and_then(|fixed| fixed.try_into().ok())
            .ok_or("it ends inside its head")?;
        if bytes.len() != Self::head_bytes(fixed)? {
            return Err("it ends inside its head");
        }
        let body = bytes.len() - 4;
        if crc32c::crc32c(&bytes[..body]) != u32_at(bytes, body) {
            return Err("the checksum of its head is wrong");
        }
        let records = u64::from(u32_at(fixed, 12));
        let first_height = u64_at(fixed, 16);
        let commit = Commit::decode(&fixed[88..88 + COMMIT_BYTES]).ok_or("it has no commit")?;
        if first_height == 0 || first_height.checked_add(records - 1) != Some(commit.size) {
            return Err("its commit does not end where its records end");
        }
        let (mut bundles, mut at) = (Vec::new(), FIXED_BYTES);
        for _ in 0..records.div_ceil(BUNDLE_RECORDS) {
            let bundle = Bundle {
                compressed: u32_at(bytes, at),
                plain: u32_at(bytes, at + 4),
                elided: bytes[at + 8] == 1,
                timestamp: i64::from_le_bytes(array_at(bytes, at + 9)),
                root: array_at(bytes, at + 17),
            };
            let plain = usize::try_from(bundle.plain).unwrap_or(usize::MAX);
            let compressed = usize::try_from(bundle.compressed).unwrap_or(usize::MAX);
            if bytes[at + 8] > 1 || plain > MAX_PLAIN || compressed > MAX_PLAIN + MAX_PLAIN / 128 {
                return Err("the description of a bundle is impossible");
            }
            bundles.push(bundle);
            at += BUNDLE_BYTES;
        }
        let mut places = Vec::new();
        for _ in 0..u32_at(fixed, 204) {
            places.push(u32_at(bytes, at));
            at += 4;
        }
        let matters = places;
        let mut epochs: Vec<(u32, Commit)> = Vec::new();
        for _ in 0..u32_at(fixed, 208) {
            let commit = Commit::decode(&bytes[at + 4..at + EPOCH_BYTES]);
            let commit = commit.ok_or("an epoch has no commit")?;
            let place = u32_at(bytes, at);
            let after = first_height - 1 + u64::from(place) < commit.size;
            if !after || commit.size > first_height - 1 + records {
                return Err("an epoch begins outside of the segment");
            }
            if epochs
                .last()
                .is_some_and(|(_, last)| last.size >= commit.size)
            {
                return Err("the epochs are not in order");
            }
            epochs.push((place, commit));
            at += EPOCH_BYTES;
        }
        let cosigned = bytes[at..body].to_vec();
        let inside = |list: &[u32]| {
            list.iter().all(|place| u64::from(*place) < records)
                && list.is_sorted_by(|one, next| one < next)
        };
        if !inside(&matters) {
            return Err("the list of places is not in order");
        }
        Ok(Self {
            first_height,
            records,
            root_before: array_at(fixed, 24),
            prev: array_at(fixed, 56),
            commit,
            bundles,
            matters,
            epochs,
            cosigned,
        })
    }

    /// Leaf index of the first record.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first_height - 1
    }

    /// Number of records in bundle number `bundle`.
    #[must_use]
    pub fn records_in(&self, bundle: usize) -> u64 {
        let from = bundle as u64 * BUNDLE_RECORDS;
        self.records.saturating_sub(from).min(BUNDLE_RECORDS)
    }
}

/// A bundle made ready to be written.
#[derive(Debug)]
pub struct Packed {
    /// The zstd frame.
    pub frame: Vec<u8>,
    /// Bytes it holds.
    pub plain: u32,
    /// Whether `prev_hash` was left out.
    pub elided: bool,
}

/// Compresses records that follow each other, the first one behind the record with hash `prev`. What comes back was
/// unpacked again and compared; `None` means that the compressor failed, and nothing is lost.
#[must_use]
pub fn pack(records: &[&[u8]], prev: &Hash) -> Option<Packed> {
    let leaves = leaf_hashes(records);
    let short = elide(records, &leaves, prev);
    let elided = short.is_some();
    let mut plain = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let short = short.as_ref().and_then(|short| short.get(index));
        let bytes = short.map_or(*record, Vec::as_slice);
        plain.extend_from_slice(&u16::try_from(bytes.len()).ok()?.to_be_bytes());
        plain.extend_from_slice(bytes);
    }
    // The compressor is a library: a panic of its is no reason to end, the segment just stays as it is.
    let frame = std::panic::catch_unwind(|| {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress_to_vec(&plain[..], level)
    })
    .ok()?;
    let plain = u32::try_from(plain.len()).ok()?;
    let unpacked = unpack(&frame, plain, elided, prev, &leaves).ok()?;
    let same = unpacked.iter().eq(records.iter().copied());
    same.then_some(Packed {
        frame,
        plain,
        elided,
    })
}

/// The records without the value of `prev_hash`, if every one of them can be rebuilt exactly.
fn elide(records: &[&[u8]], leaves: &[Hash], prev: &Hash) -> Option<Vec<Vec<u8>>> {
    let before = std::iter::once(prev).chain(leaves);
    let pairs = records.iter().zip(before);
    pairs
        .map(|(record, prev)| {
            let start = last_place(record, &PREV_KEY)? + PREV_BYTES;
            let hash = hex(prev);
            if record.get(start..start + hash.len())? != hash.as_bytes() {
                return None;
            }
            let short = [&record[..start], &record[start + hash.len()..]].concat();
            // The place is found again from the short form alone.
            (last_place(&short, &ELIDED)? + PREV_BYTES == start).then_some(short)
        })
        .collect()
}

/// The records of one bundle.
#[derive(Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Records {
    /// The record at place `index` of the bundle.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.bytes.get(start..*self.ends.get(index)?)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).filter_map(|index| self.get(index))
    }
}

/// What a zstd frame holds, checked against the leaf hashes: what comes back is exactly what was recorded. `prev` is
/// the hash of the record before the bundle.
///
/// # Errors
/// Place in the bundle of the first record that is not what its hash says, and why.
pub fn unpack(
    frame: &[u8],
    plain: u32,
    elided: bool,
    prev: &Hash,
    leaves: &[Hash],
) -> Result<Records, (usize, &'static str)> {
    let limit = usize::try_from(plain).unwrap_or(usize::MAX).min(MAX_PLAIN);
    let plain = decompress(frame, limit).ok_or((0, "the compressed bundle is damaged"))?;
    let grown = if elided { leaves.len() * 64 } else { 0 };
    let mut records = Records {
        bytes: Vec::with_capacity(plain.len() + grown),
        ends: Vec::with_capacity(leaves.len()),
    };
    // All of them first, then their hashes, many at a time; what is wrong first is said.
    let rebuilt = rebuild(&plain, elided, prev, leaves, &mut records);
    let found: Vec<&[u8]> = records.iter().collect();
    let hashes = leaf_hashes(&found);
    match hashes
        .iter()
        .zip(leaves)
        .position(|(hash, leaf)| hash != leaf)
    {
        Some(at) => Err((at, "the record is not the one with the hash kept for it")),
        None => rebuilt.map(|()| records),
    }
}

/// Takes the records out of what a frame holds, as far as they go.
fn rebuild(
    plain: &[u8],
    elided: bool,
    prev: &Hash,
    leaves: &[Hash],
    records: &mut Records,
) -> Result<(), (usize, &'static str)> {
    let (mut rest, mut prev) = (plain, prev);
    for (index, leaf) in leaves.iter().enumerate() {
        let ends = (index, "the bundle ends inside a record");
        let (length, after) = rest.split_first_chunk::<2>().ok_or(ends)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (bytes, after) = after.split_at_checked(length).ok_or(ends)?;
        if elided {
            let missing = (index, "a record has no prev_hash");
            let at = last_place(bytes, &ELIDED).ok_or(missing)?;
            let (head, tail) = bytes.split_at(at + PREV_BYTES);
            records.bytes.extend_from_slice(head);
            records
                .bytes
                .extend_from_slice(&crate::merkle::hex_digits(prev));
            records.bytes.extend_from_slice(tail);
        } else {
            records.bytes.extend_from_slice(bytes);
        }
        records.ends.push(records.bytes.len());
        (rest, prev) = (after, leaf);
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err((leaves.len(), "there is more in the bundle than its records"))
    }
}

/// One frame of at most `limit` bytes; `None` when it is damaged or holds another number of bytes.
#[cfg(not(feature = "cli"))]
fn decompress(frame: &[u8], limit: usize) -> Option<Vec<u8>> {
    decompress_in_rust(frame, limit)
}

/// The same with the C library, which is several times as fast; the root agent does not have it.
#[cfg(feature = "cli")]
fn decompress(frame: &[u8], limit: usize) -> Option<Vec<u8>> {
    use std::cell::RefCell;
    thread_local! {
        static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> =
            RefCell::new(zstd::bulk::Decompressor::new().ok());
    }
    // Writes at most what it is given room for, whatever the frame says of itself.
    let bytes = DECOMPRESSOR.with_borrow_mut(|one| one.as_mut()?.decompress(frame, limit).ok())?;
    (bytes.len() == limit).then_some(bytes)
}

/// One frame of exactly `limit` bytes, without the C library.
#[doc(hidden)]
#[must_use]
pub fn decompress_in_rust(frame: &[u8], limit: usize) -> Option<Vec<u8>> {
    use ruzstd::decoding::StreamingDecoder;
    use std::io::Read as _;
    let decoder = StreamingDecoder::new_with_max_window_size(frame, MAX_WINDOW).ok()?;
    let mut bytes = Vec::with_capacity(limit);
    let mut bounded = decoder.take(limit as u64 + 1);
    bounded.read_to_end(&mut bytes).ok()?;
    (bytes.len() == limit).then_some(bytes)
}

fn count(n: u64) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}

fn small(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Makes the checksum of a head right, as whoever changes one would; for tests.
#[doc(hidden)]
pub fn mend(head: &mut [u8]) {
    if let Some((body, crc)) = head.split_last_chunk_mut::<4>() {
        *crc = crc32c::crc32c(body).to_le_bytes();
    }
}

/// Follows the records of one segment and knows which will matter to a writer that starts.
#[derive(Debug, Default)]
pub(crate) struct Matters {
    open: HashMap<Vec<u8>, u32>,
    others: Vec<u32>,
}

impl Matters {
    /// The record at place `place`, in order.
    pub fn record(&mut self, place: u32, record: &[u8]) {
        let closes = match crate::record::joined(record) {
            Some((Joined::Intent, op_id)) => {
                self.open.insert(op_id.to_vec(), place);
                false
            }
            Some((Joined::Outcome, op_id)) => self.open.remove(op_id).is_none(),
            None => false,
        };
        let about = crate::blobs::concerns_blobs(record)
            || crate::loss::concerns_loss(record)
            || crate::prune::concerns_pruning(record);
        if closes || about {
            self.others.push(place);
        }
    }

    /// The places, in order.
    pub fn finish(self) -> Vec<u32> {
        let mut places = self.others;
        places.extend(self.open.into_values());
        places.sort_unstable();
        places.dedup();
        places
    }
}
