//! Reads all segments and decides what is history: frames, chain, heights, tree, commits; torn tails against damage.
//! Shared by the writer (recovery), the reader (index) and `verify`, so that all three judge alike.

use crate::dir::{FileError, LedgerDir, on, read_at};
use crate::epochs::{Epochs, may_begin_epoch};
use crate::merkle::{Frontier, Hash, hex, leaf_hash};
use crate::note::Vkey;
use crate::prune::Pruned;
use crate::record;
use crate::sealed;
use crate::sealed_file::{SealedError, SealedFile};
use crate::segment::{self, Commit, Cosigned, FrameReader, Header, Step};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where one record of a log is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Where its payload begins.
    pub offset: u64,
    /// Its bytes.
    pub length: usize,
    /// Its hash.
    pub leaf: Hash,
}

/// One segment that was read.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Leaf index of its first record.
    pub first: u64,
    /// Leaf hash of its last record, or of the one before it when it has none.
    pub last: Hash,
    pub body: Body,
}

/// A segment is a log until it is sealed.
#[derive(Debug)]
pub(crate) enum Body {
    Log(Box<Log>),
    Sealed(Arc<SealedFile>),
}

/// A segment that was not sealed yet.
#[derive(Debug)]
pub(crate) struct Log {
    /// Name in the segments directory.
    pub name: String,
    /// Open for reading: what was read stays readable when the log is sealed and removed.
    pub fd: Arc<OwnedFd>,
    /// Its header.
    pub header: Header,
    /// Its records.
    pub entries: Vec<Entry>,
    /// The last valid commit in it.
    pub commit: Option<Commit>,
    /// End of that commit.
    pub end: u64,
    /// Length of the file.
    pub file_bytes: u64,
}

impl Segment {
    /// Number of records.
    pub fn records(&self) -> u64 {
        match &self.body {
            Body::Log(log) => log.entries.len() as u64,
            Body::Sealed(sealed) => sealed.seal.records,
        }
    }
}

/// All that is committed.
#[derive(Debug)]
pub(crate) struct Scan {
    pub segments: Vec<Segment>,
    pub frontier: Frontier,
    pub last_commit: Option<Commit>,
    pub commits: u64,
    /// Bytes behind the last commit that a crash left (or a writer is just writing).
    pub torn_bytes: u64,
    /// A last segment that was made but never got a valid header: name, to be made again.
    pub unborn: Option<String>,
    /// Roots at the sizes that were asked for, as far as the log reaches.
    pub roots: Vec<(u64, Hash)>,
    /// The keys, where the first was given.
    pub epochs: Option<Epochs>,
    /// The largest head that witnesses cosigned, as the log itself says.
    pub cosigned: Option<Cosigned>,
    /// End of the last good commit of the log that is being read; 0 while it has none.
    good_bytes: u64,
    /// What was pruned, or is to be, by the leaf index of the first record.
    pub prunes: BTreeMap<u64, Pruned>,
}

/// Something that no crash explains. The first wrong place and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{segment}, byte {offset}, height {height}: {why}")]
pub struct Fault {
    /// Height of the first record that cannot be trusted.
    pub height: u64,
    /// Segment file.
    pub segment: String,
    /// Where in the file.
    pub offset: u64,
    /// What was found.
    pub why: String,
    /// Number of records before it that are committed and consistent.
    pub good: u64,
    /// Root of the tree over these.
    pub root: Hash,
    /// Bytes at the beginning of that file which hold the last of these records and its commit; 0 when none of it does.
    pub good_bytes: u64,
}

/// A scan that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Fault(Box<Fault>),
}

/// How the signatures of commits are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signatures {
    /// The last one: it covers the whole tree.
    Last,
    /// Every one.
    All,
}

pub(crate) struct Plan<'a> {
    /// The first key of the log; later ones are followed from it.
    pub key: Option<&'a Vkey>,
    pub signatures: Signatures,
    /// Tree sizes whose root is wanted.
    pub roots_at: Vec<u64>,
    pub visit: &'a mut dyn Visit,
    /// Called now and then: bytes read, bytes in all.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

/// Who is told what a scan reads, in order.
pub(crate) trait Visit {
    /// A committed record of a log.
    fn record(&mut self, _index: u64, _leaf: &Hash, _bytes: &[u8]) {}
    /// A record of a sealed segment that matters to a writer that starts (see [`sealed::Seal::matters`]). It comes
    /// before the blocks and records of its segment.
    fn sealed_matters(&mut self, _index: u64, _bytes: &[u8]) {}
    /// A record of a sealed bundle that is not a whole block. Its bytes were checked.
    fn sealed_record(&mut self, _leaf: &Hash, _bytes: &[u8]) {}
    /// A sealed bundle that is a whole block of the tree: its root, and the time of its last record. Its records were
    /// not read.
    fn sealed_block(&mut self, _root: &Hash, _timestamp: i64) {}
}

/// Nobody.
impl Visit for () {}

/// Reads all segments of the ledger: logs whole, of sealed segments the hashes (each record is checked against its hash
/// when it is read; `verify` reads them all).
pub(crate) fn scan(ledger: &LedgerDir, plan: &mut Plan<'_>) -> Result<Scan, ScanError> {
    let mut scan = Scan::starting(plan);
    scan_into(ledger, plan, &mut scan)?;
    Ok(scan)
}

/// The same, keeping what was good before a fault.
pub(crate) fn scan_into(
    ledger: &LedgerDir,
    plan: &mut Plan<'_>,
    scan: &mut Scan,
) -> Result<(), ScanError> {
    scan.note_root(plan);
    let dir = match ledger.sub(crate::dir::SEGMENTS) {
        Ok(dir) => Arc::new(dir),
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut files = BTreeMap::new();
    let mut total = 0;
    for name in dir.names()? {
        let (first, sealed) = match (segment::first_of(&name), sealed::first_of(&name)) {
            (Some(first), _) => (first, false),
            (_, Some(first)) => (first, true),
            _ => continue,
        };
        // While there is a log it is the truth: its sealed form may not be finished.
        if sealed && files.contains_key(&first) {
            continue;
        }
        let fd = dir.file(&name, OFlags::RDONLY, 0)?;
        let stat = rustix::fs::fstat(&fd).map_err(on("look at", &name))?;
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        // A sealed segment is opened when it is needed: there may be more of them than descriptors.
        let log = (!sealed).then_some(fd);
        files.insert(first, (name, log, bytes));
    }
    total += files.values().map(|(.., bytes)| bytes).sum::<u64>();
    let count = files.len();
    let mut before = 0;
    for (index, (first, (name, fd, file_bytes))) in files.into_iter().enumerate() {
        let last = index + 1 == count;
        scan.good_bytes = 0;
        if first != scan.size() {
            let why = format!(
                "this segment begins with height {} but the one before it ends with height {}: a segment is missing or was moved",
                first.saturating_add(1),
                scan.size()
            );
            return Err(fault(scan, &name, 0, why));
        }
        match fd {
            None => {
                let good = (scan.size(), scan.frontier.root());
                scan.read_sealed(&dir, first, &name, plan)
                    .map_err(|error| from_its_beginning(error, good))?;
            }
            Some(fd) => {
                let Some(log) = open_log(scan, first, name, fd, file_bytes, last)? else {
                    break;
                };
                read_log(scan, first, log, plan, last, (before, total))?;
            }
        }
        before += file_bytes;
        (plan.progress)(before, total);
    }
    if let (Some(commit), Some(epochs)) = (scan.last_commit, &scan.epochs)
        && plan.signatures == Signatures::Last
        && let Err(why) = epochs.check(&commit)
        && let Some(segment) = scan.segments.last()
    {
        let (name, end) = match &segment.body {
            Body::Log(log) => (log.name.clone(), log.end),
            Body::Sealed(sealed) => (sealed.hashes_name(), 0),
        };
        return Err(fault(scan, &name, end, why));
    }
    scan.may_be_gone()?;
    (plan.progress)(total, total);
    Ok(())
}

/// A sealed segment is good as a whole or not at all: what was read of it before the fault is not.
fn from_its_beginning(error: ScanError, (good, root): (u64, Hash)) -> ScanError {
    match error {
        ScanError::Fault(mut fault) => {
            (fault.good, fault.root) = (good, root);
            ScanError::Fault(fault)
        }
        other => other,
    }
}

/// The header of a log; `None` for one that was made but never got a valid one (then [`Scan::unborn`] names it).
fn open_log(
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

impl Scan {
    /// Of nothing yet.
    pub fn starting(plan: &Plan<'_>) -> Self {
        Self {
            segments: Vec::new(),
            frontier: Frontier::new(),
            last_commit: None,
            commits: 0,
            torn_bytes: 0,
            unborn: None,
            roots: Vec::new(),
            epochs: plan.key.cloned().map(Epochs::starting_with),
            cosigned: None,
            good_bytes: 0,
            prunes: BTreeMap::new(),
        }
    }

    /// Number of committed records.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Leaf hash of the last record; zeros when there is none.
    pub fn last_leaf(&self) -> Hash {
        self.segments
            .last()
            .map_or(record::GENESIS_PREV, |segment| segment.last)
    }

    /// Is there a record for each segment without payloads?
    fn may_be_gone(&self) -> Result<(), ScanError> {
        for segment in &self.segments {
            let Body::Sealed(file) = &segment.body else {
                continue;
            };
            let said = match self.prunes.get(&segment.first) {
                Some(pruned) => file.believe(pruned),
                None if file.has_payloads() => Ok(()),
                None => Err(file.missing()),
            };
            match said {
                Ok(()) => {}
                Err(SealedError::File(error)) => return Err(error.into()),
                Err(SealedError::Damaged {
                    file: name, why, ..
                }) => {
                    let mut told = fault_at(self, &name, 0, segment.first + 1, why);
                    if let ScanError::Fault(fault) = &mut told {
                        fault.good = segment.first;
                        fault.root = file.seal.root_before;
                        // Good as a whole or not at all.
                        fault.good_bytes = 0;
                    }
                    return Err(told);
                }
            }
        }
        Ok(())
    }

    fn note_root(&mut self, plan: &Plan<'_>) {
        if plan.roots_at.contains(&self.frontier.size()) {
            self.roots
                .push((self.frontier.size(), self.frontier.root()));
        }
    }

    /// Follows the keys and the cosignatures of a sealed segment. `roots` are those of all sizes that matter.
    fn sealed_trust(
        &mut self,
        file: &SealedFile,
        roots: &[(u64, Hash)],
        plan: &Plan<'_>,
    ) -> Result<(), String> {
        let seal = &file.seal;
        let all = plan.signatures == Signatures::All;
        for (place, commit) in &seal.epochs {
            if !roots.contains(&(commit.size, commit.root)) {
                return Err("the commit that begins an epoch is of another history".to_owned());
            }
            let record = file.record(u64::from(*place));
            let record = record.map_err(|error| error.to_string())?;
            if let Some(epochs) = &mut self.epochs {
                epochs.accept(commit, Some(&record), true)?;
            }
        }
        let begins = seal.epochs.last();
        if let Some(epochs) = &mut self.epochs
            && begins.is_none_or(|(_, commit)| commit.size < seal.commit.size)
        {
            epochs.accept(&seal.commit, None, all)?;
        }
        if seal.cosigned.is_empty() {
            return Ok(());
        }
        let cosigned = Cosigned::decode(&seal.cosigned).filter(|head| head.size <= self.size());
        let cosigned =
            cosigned.ok_or("its cosignatures are of a head that the log does not have")?;
        let newest = self.cosigned.as_ref().map_or(0, |newest| newest.size);
        if cosigned.size >= newest {
            self.cosigned = Some(cosigned);
        }
        Ok(())
    }

    fn note_pruning(&mut self, index: u64, record: &[u8]) {
        if let Some(pruned) = Pruned::read(index, record) {
            self.prunes.entry(pruned.first()).or_insert(pruned);
        }
    }

    /// Adds a sealed segment by its hashes.
    fn read_sealed(
        &mut self,
        dir: &Arc<LedgerDir>,
        first: u64,
        name: &str,
        plan: &mut Plan<'_>,
    ) -> Result<(), ScanError> {
        let broken = |scan: &Scan, error| match error {
            SealedError::File(error) => ScanError::File(error),
            SealedError::Damaged { place, file, why } => {
                fault_at(scan, &file, 0, first.saturating_add(place + 1), why)
            }
        };
        let file = SealedFile::open(dir, first).map_err(|error| broken(self, error))?;
        let seal = &file.seal;
        if seal.root_before != self.frontier.root() || seal.prev != self.last_leaf() {
            let why = "it does not continue the segment before it".to_owned();
            return Err(fault(self, name, 0, why));
        }
        let mut read: Option<(usize, sealed::Records)> = None;
        for place in &seal.matters {
            if let Some(record) = file.kept(u64::from(*place)) {
                let index = first + u64::from(*place);
                self.note_pruning(index, record);
                plan.visit.sealed_matters(index, record);
                continue;
            }
            let (bundle, index) = crate::history::split(u64::from(*place));
            if read.as_ref().is_none_or(|(number, _)| *number != bundle) {
                let records = file.records(bundle);
                read = Some((bundle, records.map_err(|error| broken(self, error))?));
            }
            if let Some(record) = read.as_ref().and_then(|(_, records)| records.get(index)) {
                self.note_pruning(first + u64::from(*place), record);
                plan.visit.sealed_matters(first + u64::from(*place), record);
            }
        }
        let good = self.frontier.clone();
        let mut asked: Vec<(u64, Hash)> = Vec::new();
        for (number, bundle) in seal.bundles.iter().enumerate() {
            let records = seal.records_in(number);
            let end = self.frontier.size() + records;
            let whole = records == sealed::BUNDLE_RECORDS
                && self.frontier.size().is_multiple_of(sealed::BUNDLE_RECORDS);
            let inside = |size: &u64| (self.frontier.size() + 1..end).contains(size);
            let epoch = seal.epochs.iter().any(|(_, commit)| inside(&commit.size));
            if whole && !epoch && !plan.roots_at.iter().any(inside) {
                self.frontier.push_subtree(8, bundle.root);
                self.note_root(plan);
                asked.push((end, self.frontier.root()));
                plan.visit.sealed_block(&bundle.root, bundle.timestamp);
                continue;
            }
            let leaves = file.leaves(number).map_err(|error| broken(self, error))?;
            for leaf in &leaves {
                self.frontier.push(*leaf);
                self.note_root(plan);
                asked.push((self.frontier.size(), self.frontier.root()));
            }
            if whole {
                plan.visit.sealed_block(&bundle.root, bundle.timestamp);
                continue;
            }
            let records = file.records(number).map_err(|error| broken(self, error))?;
            for (leaf, bytes) in leaves.iter().zip(records.iter()) {
                plan.visit.sealed_record(leaf, bytes);
            }
        }
        let commit = seal.commit;
        if commit.size != self.frontier.size() || commit.root != self.frontier.root() {
            self.frontier = good;
            let why = format!(
                "the commit signs {} records with root {}, but the hashes kept here have another root: they were changed",
                commit.size,
                hex(&commit.root),
            );
            return Err(fault(self, name, 0, why));
        }
        if let Err(why) = self.sealed_trust(&file, &asked, plan) {
            self.frontier = good;
            return Err(fault(self, name, 0, why));
        }
        let last = file.last_leaf().map_err(|error| broken(self, error))?;
        self.last_commit = Some(commit);
        self.commits += 1;
        self.segments.push(Segment {
            first,
            last,
            body: Body::Sealed(Arc::new(file)),
        });
        Ok(())
    }
}

fn read_log(
    scan: &mut Scan,
    first: u64,
    mut log: Log,
    plan: &mut Plan<'_>,
    last: bool,
    (before, total): (u64, u64),
) -> Result<(), ScanError> {
    let (fd, name, salt) = (Arc::clone(&log.fd), log.name.clone(), log.header.salt);
    let mut frames = FrameReader::new(fd.as_fd(), &name, salt);
    let mut pending: Vec<Entry> = Vec::new();
    // The batch is checked on a copy: what is not committed must leave no trace.
    let mut frontier = scan.frontier.clone();
    let mut prev = scan.last_leaf();
    let mut committed = prev;
    let mut batch: Vec<u8> = Vec::new();
    let mut told = 0_u64;
    let (stopped, tail) = loop {
        match frames.next_frame()? {
            Step::Frame {
                offset,
                kind: segment::RECORD,
                payload,
            } => {
                let height = frontier.size() + 1;
                if record::height_of(payload) != Some(height) {
                    let found =
                        record::height_of(payload).map_or("none".to_owned(), |h| h.to_string());
                    let why = format!(
                        "the record here says height {found}: records were moved, removed or added"
                    );
                    return Err(fault_at(scan, &name, offset, height, why));
                }
                if !record::follows(payload, &prev) {
                    let why = format!(
                        "prev_hash is not the hash of the record before it ({}): one of the two was changed",
                        hex(&prev)
                    );
                    return Err(fault_at(scan, &name, offset, height, why));
                }
                let leaf = leaf_hash(payload);
                prev = leaf;
                frontier.push(leaf);
                if plan.roots_at.contains(&frontier.size()) {
                    scan.roots.push((frontier.size(), frontier.root()));
                }
                pending.push(Entry {
                    offset: offset + segment::FRAME_BYTES as u64,
                    length: payload.len(),
                    leaf,
                });
                batch.extend_from_slice(payload);
            }
            Step::Frame {
                offset,
                kind: segment::COMMIT,
                payload,
            } => {
                let height = scan.frontier.size() + 1;
                let Some(commit) = Commit::decode(payload) else {
                    return Err(fault(
                        scan,
                        &name,
                        offset,
                        "a commit of the wrong length".to_owned(),
                    ));
                };
                if commit.size != frontier.size() || commit.root != frontier.root() {
                    let why = format!(
                        "the commit signs {} records with root {}, but the records before it are {} with root {}: records were changed, removed or added",
                        commit.size,
                        hex(&commit.root),
                        frontier.size(),
                        hex(&frontier.root())
                    );
                    return Err(fault_at(scan, &name, offset, height, why));
                }
                let mut start = 0;
                let named = pending.iter().find_map(|waiting| {
                    let record = &batch[start..start + waiting.length];
                    start += waiting.length;
                    may_begin_epoch(record).then_some(record)
                });
                let all = plan.signatures == Signatures::All;
                if let Some(epochs) = &mut scan.epochs
                    && let Err(why) = epochs.accept(&commit, named, all)
                {
                    return Err(fault_at(scan, &name, offset, height, why));
                }
                let mut start = 0;
                for entry in pending.drain(..) {
                    let bytes = &batch[start..start + entry.length];
                    let index = first + log.entries.len() as u64;
                    scan.note_pruning(index, bytes);
                    plan.visit.record(index, &entry.leaf, bytes);
                    start += entry.length;
                    committed = entry.leaf;
                    log.entries.push(entry);
                }
                batch.clear();
                scan.frontier.clone_from(&frontier);
                scan.last_commit = Some(commit);
                scan.commits += 1;
                log.commit = Some(commit);
                log.end = offset + (segment::FRAME_BYTES + payload.len()) as u64;
                scan.good_bytes = log.end;
                if log.end - told > 1 << 20 {
                    told = log.end;
                    (plan.progress)(before + log.end, total);
                }
            }
            Step::Frame {
                offset,
                kind: segment::COSIGNATURE,
                payload,
            } => {
                let cosigned =
                    Cosigned::decode(payload).filter(|head| head.size <= scan.frontier.size());
                let Some(cosigned) = cosigned.filter(|_| pending.is_empty()) else {
                    let why = "cosignatures of a head that the log does not have here: records were removed, or the frame was moved";
                    return Err(fault(scan, &name, offset, why.to_owned()));
                };
                log.end = offset + (segment::FRAME_BYTES + payload.len()) as u64;
                if scan.good_bytes > 0 {
                    scan.good_bytes = log.end;
                }
                let newest = scan.cosigned.as_ref().map_or(0, |newest| newest.size);
                if cosigned.size >= newest {
                    scan.cosigned = Some(cosigned);
                }
            }
            Step::Frame { offset, kind, .. } => {
                return Err(fault(
                    scan,
                    &name,
                    offset,
                    format!("a frame of the unknown type {kind}: written by a newer version?"),
                ));
            }
            stop @ (Step::End | Step::Damage(_)) => {
                let stopped = if let Step::Damage(why) = stop {
                    why
                } else {
                    "nothing is written here"
                };
                let tail = segment::look_behind(fd.as_fd(), &name, &salt, log.end)?;
                // Beside a writer, what stands behind may have been written since we stopped: then go on reading.
                if tail.bytes == 0 || !frames.goes_on()? {
                    break (stopped, tail);
                }
            }
        }
    };
    scan.roots.retain(|(size, _)| *size <= scan.frontier.size());
    let stopped_at = frames.position();
    let stopped_height = frontier.size() + 1;
    let good_end = log.end;
    scan.segments.push(Segment {
        first,
        last: committed,
        body: Body::Log(Box::new(log)),
    });
    if tail.bytes == 0 {
        return Ok(());
    }
    let why = stopped;
    if !last {
        return Err(fault_at(
            scan,
            &name,
            stopped_at,
            stopped_height,
            format!("{why}, and more segments follow"),
        ));
    }
    // A crash can lose sectors of the write it interrupted, and of no other: the commit at its end may then have
    // reached the disk while a sector before it reads as zeros. Anything else with a valid commit behind it is no crash.
    let interrupted = match tail.commits.as_slice() {
        [] => true,
        [(offset, commit)] => {
            let end = *offset + (segment::FRAME_BYTES + segment::COMMIT_BYTES) as u64 - good_end;
            tail.missing_sector && tail.bytes <= end && commit.size > scan.frontier.size()
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
        return Err(fault_at(scan, &name, stopped_at, stopped_height, why));
    }
    scan.torn_bytes = tail.bytes;
    Ok(())
}

fn fault(scan: &Scan, segment: &str, offset: u64, why: String) -> ScanError {
    fault_at(scan, segment, offset, scan.frontier.size() + 1, why)
}

fn fault_at(scan: &Scan, segment: &str, offset: u64, height: u64, why: String) -> ScanError {
    let segment = format!("{}/{segment}", crate::dir::SEGMENTS);
    ScanError::Fault(Box::new(Fault {
        height,
        segment,
        offset,
        why,
        good: scan.frontier.size(),
        root: scan.frontier.root(),
        good_bytes: scan.good_bytes,
    }))
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
