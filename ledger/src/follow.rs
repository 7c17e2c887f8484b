//! Follows a log that is being written: each call gives what was committed since the last. Reads only what is new, and
//! checks it as far as that goes (heights, chain, root of each commit). What it cannot explain is judged by the
//! [`Reader`], from the beginning. Called by `blockhost ledger watch`; needs no agent and no privileges beyond reading.

use crate::dir::{self, FileError, LedgerDir, on, read_at};
use crate::merkle::{Frontier, Hash, leaf_hash};
use crate::note::Vkey;
use crate::reader::{ReadError, Reader};
use crate::record;
use crate::segment::{self, Commit, FrameReader, HEADER_BYTES, Header, Step};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::OFlags;
use std::time::{Duration, Instant};

/// Most records that one call gives, so that a reader that slept is not given everything at once.
const MAX_AT_ONCE: usize = 4096;
/// How long at least between two readings of the whole log because something here could not be explained; ten times as
/// long as the reading took, when that is more.
const JUDGE_PAUSE: Duration = Duration::from_millis(500);
/// How long bytes without their commit are taken for an append that is going on.
const UNFINISHED: Duration = Duration::from_secs(2);

/// One committed record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// Leaf index, from 0.
    pub index: u64,
    /// Its hash.
    pub leaf: Hash,
    /// Its exact bytes.
    pub bytes: Vec<u8>,
}

/// The log is not the one that was followed until now, or cannot be read. The next call tries again.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// It cannot be read, or is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Records that were committed are gone.
    #[error(
        "{seen} records were committed while this was watching, now there are {found}: the end was cut off or an old copy was put back"
    )]
    Shrunk {
        /// Records seen.
        seen: u64,
        /// Records there are.
        found: u64,
    },
    /// A record that was seen is another one now.
    #[error("record {height} is not the one that was seen: the history was rewritten")]
    Rewritten {
        /// Height of the newest record that was seen.
        height: u64,
    },
}

impl From<FileError> for FollowError {
    fn from(error: FileError) -> Self {
        Self::Read(error.into())
    }
}

/// The segment that is being written.
#[derive(Debug)]
struct Live {
    name: String,
    fd: OwnedFd,
    salt: [u8; 8],
    /// The last commit that was read; `None` before the first one in this segment.
    commit: Option<u64>,
    /// Behind it.
    position: u64,
}

/// A log and how far it was read.
#[derive(Debug)]
pub struct Follower {
    ledger: LedgerDir,
    key: Option<Vkey>,
    frontier: Frontier,
    last: Hash,
    committed_us: i64,
    live: Option<Live>,
    unfinished_since: Option<Instant>,
    /// When the whole log may be read again.
    judge_from: Option<Instant>,
    alarm: Option<String>,
}

/// What a look at the live segment found.
enum Look {
    /// All that is committed was read.
    End,
    /// There is more.
    More,
    /// Something that the whole log has to be read for.
    Odd,
}

impl Follower {
    /// Reads the log once, telling `each` record to it, and stands behind the last commit. Without `key` the one beside
    /// the ledger is used.
    ///
    /// # Errors
    /// The log cannot be read or is damaged.
    pub fn open(
        ledger: LedgerDir,
        key: Option<Vkey>,
        each: &mut dyn FnMut(u64, u64, &Followed),
    ) -> Result<Self, ReadError> {
        let mut follower = Self {
            ledger,
            key,
            frontier: Frontier::new(),
            last: record::GENESIS_PREV,
            committed_us: 0,
            live: None,
            unfinished_since: None,
            judge_from: None,
            alarm: None,
        };
        let reader = follower.reader()?;
        let size = reader.size();
        for item in reader.records(0) {
            let (index, bytes) = item?;
            follower.pass_over(&reader, index)?;
            let followed = follower.take(index, bytes);
            each(index, size, &followed);
        }
        follower.live = follower.find_live()?;
        Ok(follower)
    }

    /// Number of committed records that were read.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Root over them.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// When the newest commit that was read was made, in microseconds since 1970 UTC; 0 when not known.
    #[must_use]
    pub fn committed_us(&self) -> i64 {
        self.committed_us
    }

    /// How long there have been bytes behind the last commit: an append that is going on, or one that was interrupted.
    #[must_use]
    pub fn unfinished(&self) -> Option<Duration> {
        self.unfinished_since.map(|since| since.elapsed())
    }

    /// What is wrong with the log, until it is right again: damage, or a history that is not the one that was seen.
    #[must_use]
    pub fn alarm(&self) -> Option<&str> {
        self.alarm.as_deref()
    }

    /// What was committed since the last call, at most a few thousand records.
    ///
    /// # Errors
    /// The log is damaged, is not the one that was followed, or cannot be read. What was seen is kept, [`Self::alarm`]
    /// says the same until it is over, and the next call looks again.
    pub fn poll(&mut self) -> Result<Vec<Followed>, FollowError> {
        let mut new = Vec::new();
        let result = self.read_on(&mut new);
        match result {
            Ok(()) => Ok(new),
            Err(error) => {
                self.alarm = Some(error.to_string());
                Err(error)
            }
        }
    }

    fn read_on(&mut self, new: &mut Vec<Followed>) -> Result<(), FollowError> {
        if self.alarm.is_some() {
            return self.judge(new);
        }
        while new.len() < MAX_AT_ONCE {
            match self.look(new)? {
                Look::More => {}
                Look::End => return Ok(()),
                Look::Odd => return self.judge(new),
            }
        }
        Ok(())
    }

    fn reader(&self) -> Result<Reader, ReadError> {
        let handle = self.ledger.try_clone()?;
        Reader::open(handle, self.key.clone())
    }

    /// Takes in the hashes of what was pruned before `index`.
    fn pass_over(&mut self, reader: &Reader, index: u64) -> Result<(), ReadError> {
        const MANY: u64 = 256;
        while self.frontier.size() < index {
            let from = self.frontier.size();
            for leaf in reader.leaves(from, index.min(from + MANY))? {
                self.frontier.push(leaf);
                self.last = leaf;
            }
        }
        Ok(())
    }

    fn take(&mut self, index: u64, bytes: Vec<u8>) -> Followed {
        let leaf = leaf_hash(&bytes);
        self.frontier.push(leaf);
        self.last = leaf;
        Followed { index, leaf, bytes }
    }

    /// Reads whole batches from the live segment, or goes on to the next one.
    fn look(&mut self, new: &mut Vec<Followed>) -> Result<Look, FileError> {
        let Some(live) = &mut self.live else {
            self.live = self.find_live()?;
            return Ok(if self.live.is_some() {
                Look::More
            } else {
                Look::End
            });
        };
        let mut frames = FrameReader::new(live.fd.as_fd(), &live.name, live.salt).at(live.position);
        let mut frontier = self.frontier.clone();
        let mut last = self.last;
        let mut batch = Vec::new();
        loop {
            let at = frames.position();
            match frames.next_frame()? {
                Step::Frame {
                    kind: segment::RECORD,
                    payload,
                    ..
                } => {
                    if record::height_of(payload) != Some(frontier.size() + 1)
                        || !record::follows(payload, &last)
                    {
                        return Ok(Look::Odd);
                    }
                    let bytes = payload.to_vec();
                    last = leaf_hash(&bytes);
                    let index = frontier.size();
                    frontier.push(last);
                    batch.push(Followed {
                        index,
                        leaf: last,
                        bytes,
                    });
                }
                Step::Frame {
                    offset,
                    kind: segment::COMMIT,
                    payload,
                } => {
                    let Some(commit) = Commit::decode(payload) else {
                        return Ok(Look::Odd);
                    };
                    if commit.size != frontier.size() || commit.root != frontier.root() {
                        return Ok(Look::Odd);
                    }
                    live.commit = Some(offset);
                    live.position = frames.position();
                    self.frontier = frontier;
                    self.last = last;
                    self.committed_us = commit.ts_us;
                    self.unfinished_since = None;
                    new.append(&mut batch);
                    return Ok(Look::More);
                }
                // Cosignatures, receipts: nothing that changes the history.
                Step::Frame { .. } => {
                    if batch.is_empty() {
                        live.position = frames.position();
                    }
                }
                Step::End if batch.is_empty() && at == live.position => {
                    self.unfinished_since = None;
                    return self.at_end();
                }
                // Half of an append, until it is finished or too old for that.
                Step::End | Step::Damage(_) => {
                    let since = *self.unfinished_since.get_or_insert_with(Instant::now);
                    return if since.elapsed() > UNFINISHED {
                        Ok(Look::Odd)
                    } else {
                        self.at_end()
                    };
                }
            }
        }
    }

    /// Nothing more in the live segment: is it still the live one?
    fn at_end(&mut self) -> Result<Look, FileError> {
        let Some(live) = &self.live else {
            return Ok(Look::End);
        };
        let stat = rustix::fs::fstat(&live.fd).map_err(on("look at", &live.name))?;
        let kept = u64::try_from(stat.st_size).unwrap_or(0) >= live.position
            && self.commit_is_there(live)?;
        let next = segment::file_name(self.frontier.size());
        if next != live.name && self.exists(&next)? {
            self.live = self.find_live()?;
            return Ok(if self.live.is_some() {
                Look::More
            } else {
                Look::End
            });
        }
        // Unlinked, replaced or cut: by an attack, or by sealing; the whole log says which.
        if !kept || stat.st_nlink == 0 {
            return Ok(Look::Odd);
        }
        Ok(Look::End)
    }

    /// The last commit still stands where it was read, and says the same.
    fn commit_is_there(&self, live: &Live) -> Result<bool, FileError> {
        let Some(at) = live.commit else {
            return Ok(true);
        };
        let mut frames = FrameReader::new(live.fd.as_fd(), &live.name, live.salt).at(at);
        let Step::Frame {
            kind: segment::COMMIT,
            payload,
            ..
        } = frames.next_frame()?
        else {
            return Ok(false);
        };
        let same = |commit: Commit| commit.size == self.size() && commit.root == self.root();
        Ok(Commit::decode(payload).is_some_and(same))
    }

    fn exists(&self, name: &str) -> Result<bool, FileError> {
        let segments = self.ledger.sub(dir::SEGMENTS)?;
        Ok(segments.names()?.iter().any(|known| known == name))
    }

    /// The segment that continues what was read, and where in it.
    fn find_live(&mut self) -> Result<Option<Live>, FileError> {
        let segments = match self.ledger.sub(dir::SEGMENTS) {
            Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let size = self.frontier.size();
        let newest = segments
            .names()?
            .into_iter()
            .filter_map(|name| Some((segment::first_of(&name)?, name)))
            .filter(|(first, _)| *first <= size)
            .max();
        let Some((first, name)) = newest else {
            return Ok(None);
        };
        let fd = segments.file(&name, OFlags::RDONLY, 0)?;
        let mut head = [0; 64];
        let read = read_at(fd.as_fd(), &mut head, 0).map_err(on("read", &name))?;
        let Ok(header) = Header::decode(&head) else {
            return Ok(None);
        };
        if read < head.len() || header.first_height != first + 1 {
            return Ok(None);
        }
        let (mut position, mut last) = (HEADER_BYTES, None);
        if size > first {
            let mut frames = FrameReader::new(fd.as_fd(), &name, header.salt);
            loop {
                let Step::Frame {
                    kind,
                    payload,
                    offset,
                } = frames.next_frame()?
                else {
                    return Ok(None);
                };
                let commit = (kind == segment::COMMIT)
                    .then(|| Commit::decode(payload))
                    .flatten();
                if let Some(commit) = commit
                    && commit.size >= size
                {
                    if commit.size > size {
                        return Ok(None);
                    }
                    self.committed_us = commit.ts_us;
                    (position, last) = (frames.position(), Some(offset));
                    break;
                }
            }
        }
        Ok(Some(Live {
            name,
            fd,
            salt: header.salt,
            commit: last,
            position,
        }))
    }

    /// Reads the whole log again and says whether it still is the one that was followed.
    fn judge(&mut self, new: &mut Vec<Followed>) -> Result<(), FollowError> {
        let begun = Instant::now();
        if self.judge_from.is_some_and(|from| begun < from) {
            return Ok(());
        }
        let reader = self.reader();
        self.judge_from = Some(Instant::now() + JUDGE_PAUSE.max(begun.elapsed() * 10));
        let reader = reader?;
        let seen = self.size();
        if reader.size() < seen {
            let found = reader.size();
            return Err(FollowError::Shrunk { seen, found });
        }
        if seen > 0 && reader.leaf(seen - 1) != Some(self.last) {
            return Err(FollowError::Rewritten { height: seen });
        }
        for item in reader.records(seen) {
            let (index, bytes) = item?;
            self.pass_over(&reader, index)?;
            new.push(self.take(index, bytes));
        }
        self.live = self.find_live()?;
        self.alarm = None;
        Ok(())
    }
}
