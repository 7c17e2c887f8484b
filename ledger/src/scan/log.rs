//! A log in a scan: its records one after the other, the commits that make them count, and what its end means: a torn
//! tail, which a crash explains, or damage.

use super::beside::Beside;
use super::pieces::{Frame, Piece, Pieces, Stop, Stretch};
use super::{Entry, Log, Plan, Scan, ScanError, Segment, Signatures, fault, fault_at};
use crate::blocks::BLOCK_RECORDS;
use crate::dir::{FileError, on, read_at};
use crate::epochs::may_begin_epoch;
use crate::merkle::{Frontier, Hash, hex};
use crate::record;
use crate::segment::{self, Commit, Cosigned, Header, Tail};
use rustix::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The header of a log; `None` for one that was made but never got a valid one (then [`Scan::unborn`] names it).
pub(super) fn open(
    scan: &mut Scan,
    first: u64,
    name: String,
    fd: OwnedFd,
    file_bytes: u64,
    last: bool,
) -> Result<Option<Log>, ScanError> {
    let mut head = [0; 64];
    let read = read_at(fd.as_fd(), &mut head, 0).map_err(on("read", &name))?;
    let header = match Header::decode(&head) {
        Ok(header) if read == head.len() => header,
        // A segment is made durable before its first record; without any commit in it a crash explains a bad header.
        problem => {
            let why = problem.err().unwrap_or("it ends inside its header");
            let blank = head.iter().all(|b| *b == 0) || first > 0;
            let empty =
                file_bytes <= segment::HEADER_BYTES || is_zero(fd.as_fd(), &name, file_bytes)?;
            if last && blank && empty {
                scan.unborn = Some(name);
                return Ok(None);
            }
            return Err(fault(scan, &name, 0, why.to_owned()));
        }
    };
    if header.first_height != first + 1 || header.root_before != scan.frontier.root() {
        let why = "the header does not continue the segment before it".to_owned();
        return Err(fault(scan, &name, 0, why));
    }
    Ok(Some(Log {
        name,
        fd: Arc::new(fd),
        header,
        entries: Vec::new(),
        commit: None,
        end: segment::HEADER_BYTES,
        file_bytes,
    }))
}

/// Reads a log whose header is good. `done` are the bytes of the segments before it, and of all.
pub(super) fn read(
    scan: &mut Scan,
    first: u64,
    log: Log,
    plan: &mut Plan<'_>,
    last: bool,
    done: (u64, u64),
    beside: Option<&mut Beside<'_>>,
) -> Result<(), ScanError> {
    let (fd, name, salt) = (Arc::clone(&log.fd), log.name.clone(), log.header.salt);
    let pool = beside.as_ref().map(|beside| beside.pool);
    let mut pieces = Pieces::of(Arc::clone(&fd), &name, salt, pool);
    let prev = scan.last_leaf();
    let mut reading = Reading {
        first,
        log,
        pending: Vec::new(),
        waiting: 0,
        prev,
        committed: prev,
        told: 0,
        done,
        beside,
    };
    let (stopped, tail) = loop {
        let piece = pieces.next()?;
        for (number, frame) in piece.frames().iter().enumerate() {
            reading.frame(scan, plan, &piece, number, frame)?;
        }
        let why = match piece.stop() {
            None => continue,
            Some(Stop::End) => "nothing is written here",
            Some(Stop::Damage(why)) => why,
        };
        let stopped = Stopped {
            at: piece.stopped_at(),
            height: reading.next_height(scan),
            why,
        };
        let tail = segment::look_behind(fd.as_fd(), &name, &salt, reading.log.end)?;
        // Beside a writer, what stands behind may have been written since we stopped: then go on reading.
        if tail.bytes == 0 || !pieces.goes_on(stopped.at)? {
            break (stopped, tail);
        }
    };
    let good_end = reading.log.end;
    scan.segments.push(Segment {
        first,
        last: reading.committed,
        body: super::Body::Log(Box::new(reading.log)),
    });
    judge_end(scan, &name, last, good_end, &stopped, &tail)
}

/// Where reading stopped, and why.
struct Stopped {
    at: u64,
    height: u64,
    why: &'static str,
}

/// The log that is being read.
struct Reading<'b, 'p> {
    first: u64,
    log: Log,
    /// Records that no commit covers yet, and their number: what is not committed must leave no trace.
    pending: Vec<Stretch>,
    waiting: u64,
    /// Hash of the last record, and of the last one that is committed.
    prev: Hash,
    committed: Hash,
    told: u64,
    done: (u64, u64),
    beside: Option<&'b mut Beside<'p>>,
}

impl Reading<'_, '_> {
    fn next_height(&self, scan: &Scan) -> u64 {
        scan.size() + self.waiting + 1
    }

    fn frame(
        &mut self,
        scan: &mut Scan,
        plan: &mut Plan<'_>,
        piece: &Arc<Piece>,
        number: usize,
        frame: &Frame,
    ) -> Result<(), ScanError> {
        let (offset, payload) = (piece.frame_at(frame), piece.payload(frame));
        let end = offset + (segment::FRAME_BYTES + payload.len()) as u64;
        match frame.kind {
            segment::RECORD => {
                self.record(scan, offset, payload, frame)?;
                match self.pending.last_mut() {
                    Some(last) if last.goes_on_with(piece, number) => last.frames.end += 1,
                    _ => self.pending.push(Stretch {
                        piece: Arc::clone(piece),
                        frames: number..number + 1,
                    }),
                }
            }
            segment::COMMIT => {
                self.commit(scan, plan, offset, payload)?;
                self.log.end = end;
                scan.good_bytes = end;
                if end - self.told > 1 << 20 {
                    self.told = end;
                    let (before, total) = self.done;
                    (plan.progress)(before + end, total);
                }
            }
            segment::COSIGNATURE => {
                self.cosignature(scan, offset, payload)?;
                self.log.end = end;
                if scan.good_bytes > 0 {
                    scan.good_bytes = end;
                }
            }
            kind => {
                let why =
                    format!("a frame of the unknown type {kind}: written by a newer version?");
                return Err(fault(scan, &self.log.name, offset, why));
            }
        }
        Ok(())
    }

    fn record(
        &mut self,
        scan: &Scan,
        offset: u64,
        payload: &[u8],
        frame: &Frame,
    ) -> Result<(), ScanError> {
        let height = self.next_height(scan);
        if frame.height != Some(height) {
            let found = frame.height.map_or("none".to_owned(), |h| h.to_string());
            let why = format!(
                "the record here says height {found}: records were moved, removed or added"
            );
            return Err(fault_at(scan, &self.log.name, offset, height, why));
        }
        // The first one of a piece follows one of another piece, or of another segment.
        let follows = frame.follows;
        if !follows.unwrap_or_else(|| record::follows(payload, &self.prev)) {
            let why = format!(
                "prev_hash is not the hash of the record before it ({}): one of the two was changed",
                hex(&self.prev)
            );
            return Err(fault_at(scan, &self.log.name, offset, height, why));
        }
        self.prev = frame.leaf;
        self.waiting += 1;
        Ok(())
    }

    fn commit(
        &mut self,
        scan: &mut Scan,
        plan: &mut Plan<'_>,
        offset: u64,
        payload: &[u8],
    ) -> Result<(), ScanError> {
        let name = &self.log.name;
        let Some(commit) = Commit::decode(payload) else {
            let why = "a commit of the wrong length".to_owned();
            return Err(fault(scan, name, offset, why));
        };
        let frames = self.pending.iter().flat_map(Stretch::frames);
        let leaves: Vec<Hash> = frames.map(|frame| frame.leaf).collect();
        let grown = Grown::from(&scan.frontier, &leaves, &plan.roots_at);
        let frontier = grown.blocks.last().unwrap_or(&scan.frontier);
        if commit.size != frontier.size() || commit.root != frontier.root() {
            let why = format!(
                "the commit signs {} records with root {}, but the records before it are {} with root {}: records were changed, removed or added",
                commit.size,
                hex(&commit.root),
                frontier.size(),
                hex(&frontier.root())
            );
            return Err(fault(scan, name, offset, why));
        }
        let own = self.pending.iter().flat_map(Stretch::own);
        let named = own
            .map(|(_, record)| record)
            .find(|record| may_begin_epoch(record));
        let all = plan.signatures == Signatures::All;
        if let Some(epochs) = &mut scan.epochs {
            let now = all && self.beside.is_none();
            if let Err(why) = epochs.accept(&commit, named, now) {
                return Err(fault(scan, name, offset, why));
            }
        }
        if let (Some(beside), Some(epochs), true) = (&mut self.beside, &scan.epochs, all) {
            let key = &epochs.of_size(commit.size).key;
            beside.sign(key, &commit, scan, name, offset);
        }
        self.tell(scan, plan, &grown);
        scan.roots.extend(grown.roots);
        if let Some(frontier) = grown.blocks.into_iter().next_back() {
            scan.frontier = frontier;
        }
        scan.last_commit = Some(commit);
        scan.commits += 1;
        self.log.commit = Some(commit);
        self.committed = self.prev;
        Ok(())
    }

    /// The records that wait are committed now.
    fn tell(&mut self, scan: &mut Scan, plan: &mut Plan<'_>, grown: &Grown) {
        let mut index = self.first + self.log.entries.len() as u64;
        let mut stretches = self.pending.drain(..);
        let mut stretch = stretches.next();
        for frontier in &grown.blocks {
            while index < frontier.size()
                && let Some(some) = &mut stretch
            {
                let wanted = usize::try_from(frontier.size() - index).unwrap_or(usize::MAX);
                let records = some.split_front(wanted);
                if some.frames.is_empty() {
                    stretch = stretches.next();
                }
                for (number, record) in records.own() {
                    scan.note_pruning(index + number as u64, record);
                }
                plan.visit.records(index, &records);
                let entries = records.frames().iter().map(|frame| Entry {
                    offset: records.piece.payload_at(frame),
                    length: records.piece.payload(frame).len(),
                    leaf: frame.leaf,
                });
                self.log.entries.extend(entries);
                index += records.frames.len() as u64;
            }
            plan.visit.grown(frontier);
        }
        self.waiting = 0;
    }

    fn cosignature(
        &mut self,
        scan: &mut Scan,
        offset: u64,
        payload: &[u8],
    ) -> Result<(), ScanError> {
        let cosigned = Cosigned::decode(payload).filter(|head| head.size <= scan.size());
        let Some(cosigned) = cosigned.filter(|_| self.pending.is_empty()) else {
            let why = "cosignatures of a head that the log does not have here: records were removed, or the frame was moved";
            return Err(fault(scan, &self.log.name, offset, why.to_owned()));
        };
        let newest = scan.cosigned.as_ref().map_or(0, |newest| newest.size);
        if cosigned.size >= newest {
            scan.cosigned = Some(cosigned);
        }
        Ok(())
    }
}

/// What a tree is with more leaves.
struct Grown {
    /// At the end of each block that they fill, and at their own end. None without leaves.
    blocks: Vec<Frontier>,
    /// Roots at the sizes that were asked for.
    roots: Vec<(u64, Hash)>,
}

impl Grown {
    fn from(before: &Frontier, leaves: &[Hash], wanted: &[u64]) -> Self {
        let mut grown = Self {
            blocks: Vec::new(),
            roots: Vec::new(),
        };
        let (mut frontier, mut rest) = (before.clone(), leaves);
        while !rest.is_empty() {
            let size = frontier.size();
            let block = (size / BLOCK_RECORDS + 1) * BLOCK_RECORDS;
            let end = block.min(size + rest.len() as u64);
            let asked = wanted.iter().filter(|at| (size + 1..=end).contains(at));
            let asked = asked.min().copied();
            let to = asked.unwrap_or(end);
            let count = usize::try_from(to - size).unwrap_or(rest.len());
            let (now, later) = rest.split_at(count.min(rest.len()));
            frontier.extend(now);
            rest = later;
            if asked.is_some() {
                grown.roots.push((to, frontier.root()));
            }
            if to == end {
                grown.blocks.push(frontier.clone());
            }
        }
        grown
    }
}

/// What lies behind the last commit, at `good_end`: nothing, what a crash left, or something that no crash explains.
fn judge_end(
    scan: &mut Scan,
    name: &str,
    last: bool,
    good_end: u64,
    stopped: &Stopped,
    tail: &Tail,
) -> Result<(), ScanError> {
    if tail.bytes == 0 {
        return Ok(());
    }
    let why = stopped.why;
    if !last {
        let why = format!("{why}, and more segments follow");
        return Err(fault_at(scan, name, stopped.at, stopped.height, why));
    }
    // A crash can lose sectors of the write it interrupted, and of no other: the commit at its end may then have
    // reached the disk while a sector before it reads as zeros. Anything else with a valid commit behind it is no crash.
    let interrupted = match tail.commits.as_slice() {
        [] => true,
        [(offset, commit)] => {
            let end = *offset + (segment::FRAME_BYTES + segment::COMMIT_BYTES) as u64 - good_end;
            tail.missing_sector && tail.bytes <= end && commit.size > scan.size()
        }
        _ => false,
    };
    if !interrupted {
        let (offset, commit) = tail
            .commits
            .last()
            .map_or((0, 0), |(offset, commit)| (*offset, commit.size));
        let why = format!(
            "{why}; but a valid commit of {commit} records follows at byte {offset}, so this is not a crash"
        );
        return Err(fault_at(scan, name, stopped.at, stopped.height, why));
    }
    scan.torn_bytes = tail.bytes;
    Ok(())
}

/// Does the file hold only zeros?
fn is_zero(fd: rustix::fd::BorrowedFd<'_>, name: &str, bytes: u64) -> Result<bool, FileError> {
    let mut chunk = vec![0; 64 * 1024];
    let mut at = 0;
    while at < bytes {
        let read = read_at(fd, &mut chunk, at).map_err(on("read", name))?;
        if read == 0 {
            break;
        }
        if chunk[..read].iter().any(|b| *b != 0) {
            return Ok(false);
        }
        at += read as u64;
    }
    Ok(true)
}
