//! What the writer does before it writes: lock, compare with what was published, read the history, find what is open.
//! Judging the bytes is `scan`'s; cutting and appending is `writer`'s.

use crate::active::Active;
use crate::blobs::BlobIndex;
use crate::blocks::{self, BLOCK_RECORDS, BlockChain};
use crate::dir::{self, FileError, LedgerDir, SHARED_FILE, on};
use crate::epochs::Epochs;
use crate::features::Feed;
use crate::history::{Cache, HistoryError, Place};
use crate::keys::Signers;
use crate::merkle::Hash;
use crate::note::{Checkpoint, NoteError};
use crate::prune::{self, Gone};
use crate::record::{self, Draft, Joined, Phase};
use crate::scan::{self, Body, Fault, Plan, Scan, ScanError, Signatures, Visit};
use crate::writer::OpenError;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// How often the lock is tried, 20 ms apart.
const LOCK_TRIES: u32 = 100;

/// An intent that no outcome closed: the writer before this one ended while it was being done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenIntent {
    /// Joins it to the outcome to be written.
    pub op_id: String,
    /// Leaf index of the intent.
    pub index: u64,
    /// Part of the product that it belongs to.
    pub plugin_id: String,
    /// Its category.
    pub category: String,
    /// Its operation.
    pub operation: String,
    /// The catalog action.
    pub action: String,
    /// What it acts on.
    pub resource: String,
    /// Who asked.
    pub user: String,
    /// Uid of who asked.
    pub uid: u32,
}

impl OpenIntent {
    fn read(index: u64, bytes: &[u8]) -> Option<Self> {
        let record: Value = serde_json::from_slice(bytes).ok()?;
        let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
        Some(Self {
            op_id: text("op_id"),
            index,
            plugin_id: text("plugin_id"),
            category: text("category"),
            operation: text("operation"),
            action: text("action"),
            resource: text("resource"),
            user: text("user"),
            uid: record["uid"]
                .as_u64()
                .and_then(|uid| u32::try_from(uid).ok())
                .unwrap_or(u32::MAX),
        })
    }
}

/// The history as found.
pub(crate) struct Found {
    pub scan: Scan,
    pub chain: BlockChain,
    pub open_intents: Vec<OpenIntent>,
    pub blobs: BlobIndex,
}

/// The lock of the one writer. Dropping it unlocks the file at once: closing alone would not, as long as a program that another
/// thread is starting has a copy of the descriptor.
#[derive(Debug)]
pub(crate) struct WriterLock(OwnedFd);

impl Drop for WriterLock {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Takes the lock, or says that somebody has it. The file is 0600: who may only read cannot keep the writer out.
pub(crate) fn lock(ledger: &LedgerDir) -> Result<WriterLock, OpenError> {
    let fd = ledger.file(dir::WRITER_LOCK, OFlags::RDWR | OFlags::CREATE, 0o600)?;
    // A writer that was killed a moment ago may not be gone yet; one that lives will still be there.
    let mut tries = 0;
    loop {
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if tries < LOCK_TRIES => {
                tries += 1;
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(Errno::WOULDBLOCK) => return Err(OpenError::Locked),
            Err(errno) => return Err(on("lock", dir::WRITER_LOCK)(errno).into()),
        }
    }
    let stat = rustix::fs::fstat(&fd).map_err(on("look at", dir::WRITER_LOCK))?;
    // Somebody removed the file between opening and locking: the lock would be of a file nobody else sees.
    if ledger.identity(dir::WRITER_LOCK)? != Some((stat.st_dev, stat.st_ino)) {
        return Err(OpenError::Locked);
    }
    Ok(WriterLock(fd))
}

/// A head that was published: the log may not be smaller, nor another.
pub(crate) struct Floor {
    pub note: String,
    /// What it claims; its signature is checked when the keys are known.
    pub head: Checkpoint,
}

/// The newest published head, and the newest that witnesses cosigned; each is missing where there was none yet.
pub(crate) fn floors(ledger: &LedgerDir) -> Result<[Option<Floor>; 2], OpenError> {
    let floor = |name| -> Result<Option<Floor>, OpenError> {
        let Some(bytes) = ledger.read(name, 64 * 1024)? else {
            return Ok(None);
        };
        let note = String::from_utf8(bytes)
            .map_err(|_| OpenError::Checkpoint(NoteError::Shape("it is not text")))?;
        let head = Checkpoint::parse_unverified(&note).map_err(OpenError::Checkpoint)?;
        Ok(Some(Floor { note, head }))
    };
    Ok([floor(dir::CHECKPOINT)?, floor(dir::COSIGNED)?])
}

/// Is what was published still there?
fn holds(floor: &Floor, scan: &Scan, signers: &Signers) -> Result<(), OpenError> {
    let (published, found) = (floor.head.size, scan.frontier.size());
    let opened = match &scan.epochs {
        Some(epochs) => epochs.open(&floor.note),
        None => Err(NoteError::Vkey("there is none")),
    };
    if found < published {
        // Where the record of its epoch was cut too, its key is one of those we hold.
        let known = opened.is_ok() || signers.vkeys().any(|key| key.open(&floor.note).is_ok());
        if known {
            return Err(OpenError::Rollback { published, found });
        }
    }
    opened.map_err(OpenError::Checkpoint)?;
    if !scan.roots.contains(&(published, floor.head.root)) {
        return Err(OpenError::Rewritten { published });
    }
    Ok(())
}

/// Reads all segments and compares them with what was published. Payloads that are `gone` may be: a record is about to
/// say so.
pub(crate) fn read(
    ledger: &LedgerDir,
    signers: &Signers,
    floors: &[Option<Floor>],
    gone: &[Gone],
) -> Result<Found, OpenError> {
    let mut seen = Seen::default();
    let plan = &mut Plan {
        key: Some(signers.first()),
        signatures: Signatures::Last,
        roots_at: floors
            .iter()
            .flatten()
            .map(|floor| floor.head.size)
            .collect(),
        visit: &mut seen,
        progress: &mut |_, _| {},
    };
    let mut scan = Scan::starting(plan);
    scan.prunes = prune::given(gone);
    scan::scan_into(ledger, plan, &mut scan).map_err(|error| match error {
        ScanError::File(error) => OpenError::File(error),
        ScanError::Fault(fault) => OpenError::Damaged(fault),
    })?;
    for floor in floors.iter().flatten() {
        holds(floor, &scan, signers)?;
    }
    let open_intents = seen.open_intents(&scan)?;
    Ok(Found {
        scan,
        chain: seen.chain,
        open_intents,
        blobs: seen.blobs,
    })
}

/// What the writer wants to know of the records: heads of blocks, which intents are open, what became of blobs.
#[derive(Default)]
struct Seen {
    chain: BlockChain,
    open: HashMap<Vec<u8>, u64>,
    blobs: BlobIndex,
}

impl Visit for Seen {
    fn record(&mut self, index: u64, leaf: &Hash, bytes: &[u8]) {
        self.sealed_record(leaf, bytes);
        self.sealed_matters(index, bytes);
    }

    fn sealed_matters(&mut self, index: u64, bytes: &[u8]) {
        self.blobs.see(index, bytes);
        match record::joined(bytes) {
            Some((Joined::Intent, op_id)) => drop(self.open.insert(op_id.to_vec(), index)),
            Some((Joined::Outcome, op_id)) => drop(self.open.remove(op_id)),
            None => {}
        }
    }

    fn sealed_record(&mut self, leaf: &Hash, bytes: &[u8]) {
        self.chain
            .push(*leaf, record::timestamp_of(bytes).unwrap_or(0));
    }

    fn sealed_block(&mut self, root: &Hash, timestamp: i64) {
        self.chain.push_block(*root, timestamp);
    }
}

impl Seen {
    /// Intents without an outcome, in order.
    fn open_intents(&mut self, scan: &Scan) -> Result<Vec<OpenIntent>, OpenError> {
        let cache = Cache::default();
        let mut indices: Vec<u64> = self.open.drain().map(|(_, index)| index).collect();
        indices.sort_unstable();
        let mut intents = Vec::new();
        for index in indices {
            let read = match scan.place(index) {
                Some(place) => place.read(&cache).map(|(_, bytes)| bytes),
                None => Err(HistoryError::Missing(index)),
            };
            let bytes = read.map_err(|error| match error {
                HistoryError::File(error) => OpenError::File(error),
                other => OpenError::Damaged(Box::new(Fault {
                    height: index + 1,
                    segment: dir::SEGMENTS.to_owned(),
                    offset: 0,
                    why: other.to_string(),
                    good: scan.size(),
                    root: scan.frontier.root(),
                    good_bytes: 0,
                })),
            })?;
            intents.extend(OpenIntent::read(index, &bytes));
        }
        Ok(intents)
    }
}

/// Records of the blocks that have to be written: those that the published checkpoint does not cover (their file, if
/// any, may be of a time when they were not full), and those whose file is missing.
pub(crate) fn unpublished(
    ledger: &LedgerDir,
    scan: &Scan,
    published: u64,
) -> Result<Vec<(u64, Vec<Place>)>, FileError> {
    let there = match ledger.sub(dir::BLOCKS) {
        Ok(blocks) => blocks.names()?,
        Err(error) if error.errno() == Some(Errno::NOENT) => Vec::new(),
        Err(error) => return Err(error),
    };
    let size = scan.size();
    let mut work = Vec::new();
    for id in 1..=size.div_ceil(BLOCK_RECORDS) {
        let (from, to) = ((id - 1) * BLOCK_RECORDS, (id * BLOCK_RECORDS).min(size));
        if scan.pruned(from).is_some() {
            continue;
        }
        let whole = to - from == BLOCK_RECORDS && to <= published;
        if whole && there.binary_search(&blocks::file_name(id)).is_ok() {
            continue;
        }
        let places = (from..to).filter_map(|index| scan.place(index));
        work.push((id, places.collect()));
    }
    Ok(work)
}

/// What the features of records to come rest on, and those of the blocks that have to be written.
pub(crate) fn features(scan: &Scan, unpublished: &[(u64, Vec<Place>)]) -> Result<Feed, FileError> {
    let blocks: Vec<u64> = unpublished.iter().map(|(id, _)| *id).collect();
    let cache = Cache::default();
    Feed::open(scan.size(), &blocks, |index| {
        let place = scan.place(index).ok_or(HistoryError::Missing(index));
        match place.and_then(|place| place.read(&cache)) {
            Ok((_, bytes)) => Ok(bytes),
            Err(HistoryError::File(error)) => Err(error),
            // A payload that is gone says nothing; whether it may be gone is for others to judge.
            Err(_) => Ok(Vec::new()),
        }
    })
}

/// Makes durable what was read, before anything rests on it that cannot be taken back: a key that is erased, a payload that
/// is removed, a head that is published. What `published` covers was durable before that was.
pub(crate) fn make_durable(
    ledger: &LedgerDir,
    scan: &Scan,
    published: u64,
) -> Result<(), FileError> {
    // All before it were closed by a sync that succeeded.
    let Some(Body::Log(last)) = scan.segments.last().map(|segment| &segment.body) else {
        return Ok(());
    };
    let covered = published.saturating_sub(last.header.first_height - 1);
    let before = usize::try_from(covered).ok().and_then(|n| n.checked_sub(1));
    let from = before
        .and_then(|index| last.entries.get(index))
        .map_or(0, |entry| entry.offset + entry.length as u64);
    let from = if published >= scan.size() {
        last.end
    } else {
        from
    };
    Active::make_durable(&ledger.sub(dir::SEGMENTS)?, last, from)
}

/// Puts the verifier keys beside the ledger, for readers without another source.
pub(crate) fn write_vkeys(ledger: &LedgerDir, epochs: &Epochs) -> Result<(), FileError> {
    let line = epochs.text();
    if ledger.read(dir::VKEY, 64 * 1024)?.as_deref() == Some(line.as_bytes()) {
        return Ok(());
    }
    ledger.replace(dir::VKEY, line.as_bytes(), SHARED_FILE, true)
}

/// The record that says that a torn end was cut.
pub(crate) fn recovery_draft(torn_bytes: u64, kept: u64, segment: &str) -> Draft {
    let mut metadata = Map::new();
    metadata.insert("kept_records".to_owned(), json!(kept));
    metadata.insert("torn_bytes".to_owned(), json!(torn_bytes));
    Draft {
        phase: Phase::Recovery,
        op_id: String::new(),
        plugin_id: "ledger".to_owned(),
        category: "storage".to_owned(),
        operation: "modify".to_owned(),
        action: "ledger-recovery".to_owned(),
        resource: format!("segment:{segment}"),
        user: "root".to_owned(),
        uid: 0,
        pid: None,
        exe: None,
        unit: None,
        metadata,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_that_was_let_go_of_is_free_although_a_copy_of_the_locks_descriptor_lives() {
        let place = tempfile::tempdir().expect("a directory");
        let ledger = LedgerDir::open(place.path()).expect("a directory");
        let held = lock(&ledger).expect("free");
        let copy = rustix::io::dup(&held.0).expect("as a program has it that is being started");
        assert!(matches!(lock(&ledger), Err(OpenError::Locked)));
        drop(held);
        drop(lock(&ledger).expect("free again"));
        drop(copy);
    }
}
