//! A log in pieces: some hundred KiB of frames, and what can be said of them without knowing what came before: checksums,
//! leaf hashes, heights, who follows whom. What they mean together is decided by `log`, in order. With a [`Pool`] pieces
//! are read ahead and judged by its workers; without one each is judged when its turn comes.

use crate::dir::{FileError, on, read_at};
use crate::merkle::{Hash, leaf_hashes};
use crate::parallel::Pool;
use crate::record;
use crate::segment::{FRAME_BYTES, FrameReader, HEADER_BYTES, MAX_PAYLOAD, RECORD, Salted, u32_at};
use rustix::fd::{AsFd, OwnedFd};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Bytes of a piece: more than any frame has, less than a processor keeps at hand.
const PIECE_BYTES: usize = 128 * 1024;
/// Pieces that are read before their turn comes, for each worker.
const AHEAD: usize = 2;
/// How a record of the ledger's own affairs begins: keys are sorted, so the action comes first.
const OWN: &[u8] = b"{\"action\":\"ledger-";

/// A frame whose checksum is right.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Where its payload begins in the piece.
    start: usize,
    length: usize,
    /// Its type.
    pub kind: u8,
    /// Of a record: its hash.
    pub leaf: Hash,
    /// Of a record: the height that it says.
    pub height: Option<u64>,
    /// Of a record: whether it names the record before it in this piece, where there is one.
    pub follows: Option<bool>,
    /// Of a record: it may be about epochs, blobs, prunings or losses.
    pub own: bool,
}

/// Why no frame follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nothing was written here: zeros, or the end of the file.
    End,
    /// Something that is not a frame.
    Damage(&'static str),
}

/// Consecutive bytes of a log, from the beginning of a frame.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Where its first byte is in the file.
    at: u64,
    bytes: Vec<u8>,
    salt: [u8; 8],
    /// Where the payloads of whole frames are, whatever is in them.
    outlines: Vec<Range<usize>>,
    /// Why there is none behind these; `None` when more has to be read.
    stop: Option<Stop>,
    judged: OnceLock<Judged>,
    spare: Arc<Spare>,
}

#[derive(Debug)]
struct Judged {
    frames: Vec<Frame>,
    stop: Option<Stop>,
}

impl Piece {
    /// Reads the piece that begins at `at`.
    fn read(
        fd: &OwnedFd,
        name: &str,
        salt: [u8; 8],
        at: u64,
        spare: &Arc<Spare>,
    ) -> Result<Self, FileError> {
        let mut bytes = spare.take();
        let read = read_at(fd.as_fd(), &mut bytes, at).map_err(on("read", name))?;
        let (outlines, stop) = outline(&bytes[..read], read < bytes.len());
        Ok(Self {
            at,
            bytes,
            salt,
            outlines,
            stop,
            judged: OnceLock::new(),
            spare: Arc::clone(spare),
        })
    }

    /// Where it ends in the file: the next piece begins there.
    fn end(&self) -> u64 {
        let last = self.outlines.last();
        self.at + last.map_or(0, |payload| payload.end) as u64
    }

    /// Its frames, up to the first one that is damaged. Judges them when nobody has yet.
    pub fn frames(&self) -> &[Frame] {
        &self.judged.get_or_init(|| self.judge()).frames
    }

    /// Why there is no frame behind these; `None` when the next piece goes on.
    pub fn stop(&self) -> Option<Stop> {
        self.judged.get_or_init(|| self.judge()).stop
    }

    /// Where the frames end in the file.
    pub fn stopped_at(&self) -> u64 {
        let last = self.frames().last();
        self.at + last.map_or(0, |frame| frame.start + frame.length) as u64
    }

    /// The payload of one of its frames.
    pub fn payload(&self, frame: &Frame) -> &[u8] {
        self.bytes
            .get(frame.start..frame.start + frame.length)
            .unwrap_or_default()
    }

    /// Where a frame's payload is in the file.
    pub fn payload_at(&self, frame: &Frame) -> u64 {
        self.at + frame.start as u64
    }

    /// Where a frame begins in the file.
    pub fn frame_at(&self, frame: &Frame) -> u64 {
        self.payload_at(frame) - FRAME_BYTES as u64
    }

    fn judge(&self) -> Judged {
        let salted = Salted::new(&self.salt);
        let mut stop = self.stop;
        let mut frames = Vec::with_capacity(self.outlines.len());
        for outline in &self.outlines {
            let start = outline.start - FRAME_BYTES;
            let (head, payload) = self.bytes[start..outline.end].split_at(FRAME_BYTES);
            let kind = head[8];
            let offset = self.at + start as u64;
            if salted.checksum(offset, kind, payload) != u32_at(head, 4) {
                stop = Some(Stop::Damage(
                    "the checksum is wrong: the bytes were changed, or belong to another place",
                ));
                break;
            }
            frames.push(Frame {
                start: outline.start,
                length: payload.len(),
                kind,
                leaf: Hash::default(),
                height: None,
                follows: None,
                own: false,
            });
        }
        let is_record = |frame: &&mut Frame| frame.kind == RECORD;
        let payload = |frame: &Frame| &self.bytes[frame.start..frame.start + frame.length];
        let records: Vec<&[u8]> = frames
            .iter()
            .filter(|frame| frame.kind == RECORD)
            .map(payload)
            .collect();
        let leaves = leaf_hashes(&records);
        let mut prev: Option<Hash> = None;
        for (frame, leaf) in frames.iter_mut().filter(is_record).zip(leaves) {
            let record = payload(frame);
            frame.leaf = leaf;
            frame.height = record::height_of(record);
            frame.follows = prev.map(|prev| record::follows(record, &prev));
            frame.own = record.starts_with(OWN);
            prev = Some(leaf);
        }
        Judged { frames, stop }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.spare.give(std::mem::take(&mut self.bytes));
    }
}

/// The payloads of the frames in `bytes`, and why there is no further one; `ends` says that the file ends with them.
fn outline(bytes: &[u8], ends: bool) -> (Vec<Range<usize>>, Option<Stop>) {
    let mut outlines = Vec::with_capacity(bytes.len() / 512);
    let mut at = 0;
    let stop = loop {
        let rest = &bytes[at..];
        if rest.len() < FRAME_BYTES && !ends {
            break None;
        }
        let head = &rest[..FRAME_BYTES.min(rest.len())];
        if head.iter().all(|b| *b == 0) {
            break Some(Stop::End);
        }
        if head.len() < FRAME_BYTES {
            break Some(Stop::Damage("the file ends inside a frame"));
        }
        let length = usize::try_from(u32_at(head, 0)).unwrap_or(usize::MAX);
        if length > MAX_PAYLOAD {
            break Some(Stop::Damage("the length of a frame is impossible"));
        }
        let payload = at + FRAME_BYTES..at + FRAME_BYTES + length;
        if payload.end > bytes.len() {
            break ends.then_some(Stop::Damage("the file ends inside a frame"));
        }
        at = payload.end;
        outlines.push(payload);
    };
    (outlines, stop)
}

/// Consecutive records within one piece.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    pub piece: Arc<Piece>,
    /// Numbers of their frames.
    pub frames: Range<usize>,
}

impl Stretch {
    /// The frames.
    pub fn frames(&self) -> &[Frame] {
        self.piece
            .frames()
            .get(self.frames.clone())
            .unwrap_or_default()
    }

    /// Hash and bytes of each record.
    pub fn records(&self) -> impl Iterator<Item = (&Hash, &[u8])> {
        let frames = self.frames().iter();
        frames.map(|frame| (&frame.leaf, self.piece.payload(frame)))
    }

    /// Number in this stretch, and bytes, of those that may be about the ledger's own affairs.
    pub fn own(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let frames = self.frames().iter().enumerate();
        frames
            .filter(|(_, frame)| frame.own)
            .map(|(number, frame)| (number, self.piece.payload(frame)))
    }

    /// Is this frame the next one behind it?
    pub fn goes_on_with(&self, piece: &Arc<Piece>, number: usize) -> bool {
        self.frames.end == number && Arc::ptr_eq(&self.piece, piece)
    }

    /// Takes the first `count` records away from it.
    pub fn split_front(&mut self, count: usize) -> Self {
        let middle = self.frames.end.min(self.frames.start.saturating_add(count));
        let front = Self {
            piece: Arc::clone(&self.piece),
            frames: self.frames.start..middle,
        };
        self.frames.start = middle;
        front
    }
}

/// Reads a log piece by piece.
pub(super) struct Pieces<'p> {
    fd: Arc<OwnedFd>,
    name: String,
    salt: [u8; 8],
    /// Where the next piece to be read begins.
    position: u64,
    waiting: VecDeque<Arc<Piece>>,
    /// Nothing can be read behind those that wait.
    ended: bool,
    failed: Option<FileError>,
    pool: Option<&'p Pool>,
    spare: Arc<Spare>,
}

impl<'p> Pieces<'p> {
    /// Begins behind the header.
    pub fn of(fd: Arc<OwnedFd>, name: &str, salt: [u8; 8], pool: Option<&'p Pool>) -> Self {
        Self {
            fd,
            name: name.to_owned(),
            salt,
            position: HEADER_BYTES,
            waiting: VecDeque::new(),
            ended: false,
            failed: None,
            pool,
            spare: Arc::default(),
        }
    }

    /// The next piece. After one that says why it is the last, only [`Self::goes_on`] leads further.
    pub fn next(&mut self) -> Result<Arc<Piece>, FileError> {
        let ahead = self.pool.map_or(1, |pool| 1 + AHEAD * pool.workers());
        while !self.ended && self.waiting.len() < ahead {
            let piece = Piece::read(&self.fd, &self.name, self.salt, self.position, &self.spare);
            match piece {
                Ok(piece) => {
                    let piece = Arc::new(piece);
                    self.position = piece.end();
                    self.ended = piece.stop.is_some();
                    if let Some(pool) = self.pool {
                        let piece = Arc::clone(&piece);
                        pool.run(move || {
                            piece.frames();
                        });
                    }
                    self.waiting.push_back(piece);
                }
                // What was read before it comes first.
                Err(error) => {
                    self.failed = Some(error);
                    self.ended = true;
                }
            }
        }
        match self.waiting.pop_front() {
            Some(piece) => Ok(piece),
            None => Err(self
                .failed
                .take()
                .unwrap_or_else(|| on("read", &self.name)(rustix::io::Errno::IO))),
        }
    }

    /// Looks at the file again, whether there is a frame at `position` now, and goes on from there.
    pub fn goes_on(&mut self, position: u64) -> Result<bool, FileError> {
        let frames = FrameReader::new(self.fd.as_fd(), &self.name, self.salt);
        let goes_on = frames.at(position).goes_on()?;
        self.waiting.clear();
        self.position = position;
        self.ended = false;
        self.failed = None;
        Ok(goes_on)
    }
}

/// Memory of pieces that are done with: getting it anew costs more than reading into it.
#[derive(Debug, Default)]
struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    fn take(&self) -> Vec<u8> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| vec![0; PIECE_BYTES])
    }

    fn give(&self, bytes: Vec<u8>) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < 64 && bytes.len() == PIECE_BYTES {
            spare.push(bytes);
        }
    }
}
