//! Reads all segments and decides what is history: frames, chain, heights, tree, commits; torn tails against damage.
//! Shared by the writer (recovery), the reader (index) and `verify`, so that all three judge alike.

mod beside;
mod log;
mod pieces;
mod sealed;

pub(crate) use pieces::Stretch;

use crate::dir::{FileError, LedgerDir, on};
use crate::epochs::Epochs;
use crate::merkle::{Frontier, Hash};
use crate::note::Vkey;
use crate::parallel::Pool;
use crate::prune::Pruned;
use crate::record;
use crate::sealed_file::SealedFile;
use crate::segment::{self, Commit, Cosigned, Header};
use beside::Beside;
use rustix::fd::OwnedFd;
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
    /// Committed records of a log, the first of them with this leaf index; none is of another block than the first.
    fn records(&mut self, first: u64, records: &Stretch) {
        for (index, (leaf, bytes)) in (first..).zip(records.records()) {
            self.record(index, leaf, bytes);
        }
    }
    /// A committed record of a log, where nothing else is done with several.
    fn record(&mut self, _index: u64, _leaf: &Hash, _bytes: &[u8]) {}
    /// The tree over all records up to the last one of a log that was told of: at the end of each block and of each commit.
    fn grown(&mut self, _frontier: &Frontier) {}
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

/// The same with the help of others: what can be judged by itself they judge beside the reading.
pub(crate) fn scan_beside(
    ledger: &LedgerDir,
    plan: &mut Plan<'_>,
    pool: &Pool,
) -> Result<Scan, ScanError> {
    let mut scan = Scan::starting(plan);
    let mut beside = Beside::with(pool);
    let read = read(ledger, plan, &mut scan, Some(&mut beside));
    match beside.wrong() {
        Some(fault) => Err(ScanError::Fault(Box::new(fault))),
        None => read.map(|()| scan),
    }
}

/// The same as [`scan`], keeping what was good before a fault.
pub(crate) fn scan_into(
    ledger: &LedgerDir,
    plan: &mut Plan<'_>,
    scan: &mut Scan,
) -> Result<(), ScanError> {
    read(ledger, plan, scan, None)
}

fn read(
    ledger: &LedgerDir,
    plan: &mut Plan<'_>,
    scan: &mut Scan,
    mut beside: Option<&mut Beside<'_>>,
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
        let (first, sealed) = match (segment::first_of(&name), crate::sealed::first_of(&name)) {
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
                    .map_err(|error| sealed::from_its_beginning(error, good))?;
            }
            Some(fd) => {
                let Some(log) = log::open(scan, first, name, fd, file_bytes, last)? else {
                    break;
                };
                let done = (before, total);
                log::read(scan, first, log, plan, last, done, beside.as_deref_mut())?;
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

    fn note_root(&mut self, plan: &Plan<'_>) {
        if plan.roots_at.contains(&self.frontier.size()) {
            self.roots
                .push((self.frontier.size(), self.frontier.root()));
        }
    }

    fn note_pruning(&mut self, index: u64, record: &[u8]) {
        if let Some(pruned) = Pruned::read(index, record) {
            self.prunes.entry(pruned.first()).or_insert(pruned);
        }
    }
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
