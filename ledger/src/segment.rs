//! The segment file: header, frames, commits; reading them one after the other. Numbers are little-endian.
//! What the frames mean together (chain, tree, signatures, torn tails) is decided by `scan`.

use crate::dir::{FileError, on, read_at};
use crate::merkle::Hash;
use crate::note::Checkpoint;
use rustix::fd::BorrowedFd;

/// Bytes of the header.
pub const HEADER_BYTES: u64 = 64;
/// Bytes before a frame's payload: u32 length, u32 CRC32C, u8 type.
pub const FRAME_BYTES: usize = 9;
/// Most records in one segment.
pub const MAX_RECORDS: u64 = 65_536;
/// Payload bytes of a commit frame.
pub const COMMIT_BYTES: usize = 116;
const MAGIC: [u8; 8] = *b"BHLEDGER";
const VERSION: u32 = 1;
/// Largest payload of any frame.
pub(crate) const MAX_PAYLOAD: usize = 65_535;

/// Frame type: a record.
pub const RECORD: u8 = 1;
/// Frame type: a commit, see [`Commit`].
pub const COMMIT: u8 = 2;
/// Frame type: cosignatures of a head, see [`Cosigned`].
pub const COSIGNATURE: u8 = 3;
// Type 4 is not used: that a head was anchored is a record like any other (phase `anchor`). Type 5 (seal) is reserved.

/// File name of the segment whose first record has leaf index `first`.
#[must_use]
pub fn file_name(first: u64) -> String {
    format!("{first:012}.log")
}

/// The leaf index that a segment's file name announces.
#[must_use]
pub fn first_of(name: &str) -> Option<u64> {
    let first = name.strip_suffix(".log")?.parse().ok()?;
    // One name for each segment: more zeros in front, or a sign, would be a second one.
    (file_name(first) == name).then_some(first)
}

/// The first 64 bytes of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Height (from 1) of the first record in it.
    pub first_height: u64,
    /// Root of the tree before that record.
    pub root_before: Hash,
    /// Random; goes into every frame's checksum, so that frames of another segment are never taken for this one's.
    pub salt: [u8; 8],
}

impl Header {
    /// The bytes on disk: magic 8, version 4, first height 8, root 32, salt 8, CRC32C of all that 4.
    #[must_use]
    pub fn encode(&self) -> [u8; 64] {
        let mut out = [0; 64];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..20].copy_from_slice(&self.first_height.to_le_bytes());
        out[20..52].copy_from_slice(&self.root_before);
        out[52..60].copy_from_slice(&self.salt);
        let crc = crc32c::crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header; `Err` says what is wrong with it.
    ///
    /// # Errors
    /// Wrong magic, version or checksum.
    pub fn decode(bytes: &[u8; 64]) -> Result<Self, &'static str> {
        if bytes[..8] != MAGIC {
            return Err("it does not begin with BHLEDGER");
        }
        if u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return Err("the header's checksum is wrong");
        }
        if u32_at(bytes, 8) != VERSION {
            return Err("it was written by another version of this program");
        }
        Ok(Self {
            first_height: u64_at(bytes, 12),
            root_before: array_at(bytes, 20),
            salt: array_at(bytes, 52),
        })
    }
}

/// What makes the records before it count: the signed head of the tree up to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Number of records in the tree.
    pub size: u64,
    /// Root of the tree.
    pub root: Hash,
    /// When, in microseconds since 1970 UTC; informative, not signed.
    pub ts_us: i64,
    /// Which key signed.
    pub epoch: u32,
    /// Ed25519 over the exact checkpoint body (origin, size, root).
    pub signature: [u8; 64],
}

impl Commit {
    /// What is signed: the head of the log `origin`.
    #[must_use]
    pub fn head(&self, origin: &str) -> Checkpoint {
        Checkpoint {
            origin: origin.to_owned(),
            size: self.size,
            root: self.root,
        }
    }

    /// The payload: size 8, root 32, time 8, epoch 4, signature 64.
    #[must_use]
    pub fn encode(&self) -> [u8; COMMIT_BYTES] {
        let mut out = [0; COMMIT_BYTES];
        out[..8].copy_from_slice(&self.size.to_le_bytes());
        out[8..40].copy_from_slice(&self.root);
        out[40..48].copy_from_slice(&self.ts_us.to_le_bytes());
        out[48..52].copy_from_slice(&self.epoch.to_le_bytes());
        out[52..].copy_from_slice(&self.signature);
        out
    }

    /// Reads a payload; `None` when it has another length.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let bytes: &[u8; COMMIT_BYTES] = payload.try_into().ok()?;
        Some(Self {
            size: u64_at(bytes, 0),
            root: array_at(bytes, 8),
            ts_us: i64::from_le_bytes(array_at(bytes, 40)),
            epoch: u32_at(bytes, 48),
            signature: array_at(bytes, 52),
        })
    }
}

/// What witnesses said about a head of this log. Behind the commit of that head or a later one; no part of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// Number of records of the head.
    pub size: u64,
    /// Its root.
    pub root: Hash,
    /// The signature lines of the note, each with its newline: the log's own, then the cosignatures.
    pub lines: String,
}

impl Cosigned {
    /// Longest text of lines.
    pub const MAX_LINES: usize = 16 * 1024;

    /// The note.
    #[must_use]
    pub fn note(&self, origin: &str) -> String {
        let head = Checkpoint {
            origin: origin.to_owned(),
            size: self.size,
            root: self.root,
        };
        format!("{}\n{}", head.body(), self.lines)
    }

    /// The payload: size 8, root 32, the lines.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.size.to_le_bytes().to_vec();
        out.extend_from_slice(&self.root);
        out.extend_from_slice(self.lines.as_bytes());
        out
    }

    /// Reads a payload; `None` when it is too short or too long, or the lines are no text.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (head, lines) = payload.split_first_chunk::<40>()?;
        if lines.len() > Self::MAX_LINES {
            return None;
        }
        Some(Self {
            size: u64_at(head, 0),
            root: array_at(head, 8),
            lines: std::str::from_utf8(lines).ok()?.to_owned(),
        })
    }
}

/// Appends a frame to `out`, which will be written at `base` in the file.
pub fn push_frame(out: &mut Vec<u8>, base: u64, salt: &[u8; 8], kind: u8, payload: &[u8]) {
    let offset = base + out.len() as u64;
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&checksum(salt, offset, kind, payload).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(payload);
}

/// CRC32C over salt, offset of the frame, type and payload: a frame is valid in one place of one file only.
#[must_use]
pub fn checksum(salt: &[u8; 8], offset: u64, kind: u8, payload: &[u8]) -> u32 {
    Salted::new(salt).checksum(offset, kind, payload)
}

/// The beginning of every checksum in one segment.
#[derive(Clone, Copy)]
pub(crate) struct Salted(u32);

impl Salted {
    pub fn new(salt: &[u8; 8]) -> Self {
        Self(crc32c::crc32c(salt))
    }

    /// As [`checksum`].
    pub fn checksum(self, offset: u64, kind: u8, payload: &[u8]) -> u32 {
        let mut place = [kind; 9];
        place[..8].copy_from_slice(&offset.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &place), payload)
    }
}

/// What stands at a place of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A frame whose checksum is right.
    Frame {
        /// Where the frame begins in the file.
        offset: u64,
        /// Its type.
        kind: u8,
        /// Its payload.
        payload: &'a [u8],
    },
    /// Nothing was written here: zeros, or the end of the file.
    End,
    /// Something that is not a frame.
    Damage(&'static str),
}

/// Reads frames in order with a buffer of a few hundred KiB, whatever the size of the file.
pub struct FrameReader<'f> {
    fd: BorrowedFd<'f>,
    name: String,
    salt: [u8; 8],
    position: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'f> FrameReader<'f> {
    /// Begins behind the header.
    #[must_use]
    pub fn new(fd: BorrowedFd<'f>, name: &str, salt: [u8; 8]) -> Self {
        Self {
            fd,
            name: name.to_owned(),
            salt,
            position: HEADER_BYTES,
            buffer: Vec::new(),
            buffer_at: 0,
        }
    }

    /// Begins with the frame at `position` instead, for readers that were here before.
    #[must_use]
    pub fn at(mut self, position: u64) -> Self {
        self.position = position;
        self
    }

    /// Where the next frame begins.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next frame, or why there is none. After `End` or `Damage` the position does not move.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn next_frame(&mut self) -> Result<Step<'_>, FileError> {
        let have = self.fill(FRAME_BYTES)?;
        let head = self.peek(FRAME_BYTES.min(have));
        if head.iter().all(|b| *b == 0) {
            return Ok(Step::End);
        }
        if have < FRAME_BYTES {
            return Ok(Step::Damage("the file ends inside a frame"));
        }
        let (length, crc, kind) = (u32_at(head, 0), u32_at(head, 4), head[8]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_PAYLOAD {
            return Ok(Step::Damage("the length of a frame is impossible"));
        }
        if self.fill(FRAME_BYTES + length)? < FRAME_BYTES + length {
            return Ok(Step::Damage("the file ends inside a frame"));
        }
        let offset = self.position;
        self.position += (FRAME_BYTES + length) as u64;
        let start = Self::index(offset, self.buffer_at) + FRAME_BYTES;
        let payload = &self.buffer[start..start + length];
        if checksum(&self.salt, offset, kind, payload) != crc {
            self.position = offset;
            return Ok(Step::Damage(
                "the checksum is wrong: the bytes were changed, or belong to another place",
            ));
        }
        Ok(Step::Frame {
            offset,
            kind,
            payload,
        })
    }

    /// Looks again, at the file and not at the buffer, whether there is a frame at the position now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn goes_on(&mut self) -> Result<bool, FileError> {
        self.buffer.clear();
        let position = self.position;
        let frame = matches!(self.next_frame()?, Step::Frame { .. });
        self.position = position;
        Ok(frame)
    }

    /// Makes at least `want` bytes from the position available if the file has them; says how many there are.
    fn fill(&mut self, want: usize) -> Result<usize, FileError> {
        const CHUNK: usize = 256 * 1024;
        let start = Self::index(self.position, self.buffer_at);
        let have = self.buffer.len().saturating_sub(start);
        if self.position < self.buffer_at || have < want {
            // The same memory again: it costs more to get zeros than to read.
            self.buffer.resize(CHUNK.max(want), 0);
            let read = read_at(self.fd, &mut self.buffer, self.position);
            self.buffer.truncate(*read.as_ref().unwrap_or(&0));
            let read = read.map_err(on("read", self.name.as_str()))?;
            self.buffer_at = self.position;
            return Ok(read);
        }
        Ok(have)
    }

    fn peek(&self, bytes: usize) -> &[u8] {
        let start = Self::index(self.position, self.buffer_at);
        &self.buffer[start..start + bytes]
    }

    fn index(position: u64, buffer_at: u64) -> usize {
        usize::try_from(position.saturating_sub(buffer_at)).unwrap_or(usize::MAX)
    }
}

/// What lies behind the place where reading stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    /// Bytes up to the last one that is not zero; 0 when nothing was written here.
    pub bytes: u64,
    /// Valid commit frames found anywhere in it, by offset, in order.
    pub commits: Vec<(u64, Commit)>,
    /// Whether a whole disk sector before the first of these commits was never written (reads as zeros).
    pub missing_sector: bool,
}

/// Looks at everything from `from` to the end of the file: what was written, and whether any commit in it is valid.
///
/// # Errors
/// The file cannot be read.
pub fn look_behind(
    fd: BorrowedFd<'_>,
    name: &str,
    salt: &[u8; 8],
    from: u64,
) -> Result<Tail, FileError> {
    const SECTOR: u64 = 512;
    const CHUNK: usize = 256 * 1024;
    const COMMIT_FRAME: usize = FRAME_BYTES + COMMIT_BYTES;
    let length = u32::try_from(COMMIT_BYTES)
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    let (mut tail, mut at, mut missing) = (Tail::default(), from, false);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = read_at(fd, &mut chunk, at).map_err(on("read", name))?;
        let bytes = &chunk[..read];
        let written = bytes
            .iter()
            .rposition(|b| *b != 0)
            .map_or(0, |last| last + 1);
        if written > 0 {
            tail.bytes = tail.bytes.max(at + written as u64 - from);
        }
        // Zeros are the common case and hold no commit; one may itself end with a few zeros.
        let searched = if written == 0 {
            0
        } else {
            read.min(written + COMMIT_FRAME)
        };
        for (index, window) in bytes[..searched].windows(COMMIT_FRAME).enumerate() {
            if window[8] != COMMIT || window[..4] != length {
                continue;
            }
            let offset = at + index as u64;
            let payload = &window[FRAME_BYTES..];
            if checksum(salt, offset, COMMIT, payload) == u32_at(window, 4)
                && let Some(commit) = Commit::decode(payload)
                && tail.commits.last().is_none_or(|(last, _)| *last < offset)
            {
                if tail.commits.is_empty() {
                    missing = missing || sector_missing(bytes, at, offset, SECTOR);
                    tail.missing_sector = missing;
                }
                tail.commits.push((offset, commit));
            }
        }
        if read < CHUNK {
            return Ok(tail);
        }
        if tail.commits.is_empty() {
            missing = missing || sector_missing(bytes, at, at + read as u64, SECTOR);
        }
        // Overlap, so that a commit across the border of two chunks is seen.
        at += (CHUNK - COMMIT_FRAME) as u64;
    }
}

/// Is there a disk sector that overlaps `bytes` (standing at `at`) before `end` and holds only zeros there? An overlap
/// shorter than a frame's head proves nothing: numbers in frames have zero bytes too.
fn sector_missing(bytes: &[u8], at: u64, end: u64, sector: u64) -> bool {
    let mut start = at;
    while start < end {
        let stop = ((start / sector + 1) * sector).min(end);
        let range = usize::try_from(start - at).unwrap_or(usize::MAX)
            ..usize::try_from(stop - at).unwrap_or(usize::MAX);
        if bytes
            .get(range)
            .is_some_and(|part| part.len() >= FRAME_BYTES && part.iter().all(|b| *b == 0))
        {
            return true;
        }
        start = stop;
    }
    false
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

/// `N` bytes at `at`; callers have checked the length.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(part) = bytes.get(at..at + N) {
        out.copy_from_slice(part);
    }
    out
}
