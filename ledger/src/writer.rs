//! The one writer of a ledger: group commit with one write and one fdatasync, recovery at start, publishing afterwards.
//! Single-threaded, relative to a directory descriptor, without capabilities. Lives in the root agent's ledger process.

use crate::active::Active;
use crate::blocks::{self, BLOCK_RECORDS, BlockChain};
use crate::dir::{self, FileError, LedgerDir, SHARED_FILE, on, read_at, write_all_at};
use crate::epochs::Epochs;
use crate::failpoint;
use crate::keys::{Signer, Signers};
use crate::merkle::{Frontier, Hash, leaf_hash};
use crate::note::{Checkpoint, NoteError, Vkey, assemble};
use crate::record::{Draft, GENESIS_PREV, Phase, RecordError, Stamp};
use crate::recover::{self, OpenIntent};
use crate::scan::Fault;
use crate::segment::{self, Commit, push_frame};
use crate::trust::Witnessed;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::sync::Arc;

/// Room the writer keeps and how it cuts the log into files.
#[derive(Debug, Clone)]
pub struct Options {
    /// The segment grows by this many bytes of zeros at a time, so that an append changes no metadata of the file.
    pub preallocate_bytes: u64,
    /// Written beforehand and kept free for outcomes: what has begun can be finished on a full disk.
    pub reserve_bytes: u64,
    /// Most records in one segment.
    pub segment_records: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            preallocate_bytes: 1 << 20,
            reserve_bytes: 256 << 10,
            segment_records: segment::MAX_RECORDS,
        }
    }
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Bytes of an interrupted append that were cut; a `recovery` record says so. 0 after a clean end.
    pub torn_bytes: u64,
    /// Intents without an outcome: what was going on when the writer before this one ended.
    pub open_intents: Vec<OpenIntent>,
    /// What the log says about confidential payloads.
    pub blobs: crate::blobs::BlobIndex,
}

/// Where a record went. Durable when the caller has this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Leaf index, from 0.
    pub index: u64,
    /// Height, from 1.
    pub height: u64,
    /// Leaf hash: the record's `hash`.
    pub leaf: Hash,
}

/// The signed head of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Number of records.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: Hash,
    /// C2SP checkpoint: the signed note.
    pub note: String,
}

/// Why the ledger was not opened for writing. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process writes it.
    #[error(
        "another process is writing this ledger (it holds {}); stop it first",
        dir::WRITER_LOCK
    )]
    Locked,
    /// No crash explains what was found.
    #[error("the ledger is damaged and stays read-only: {0}. {HELP}")]
    Damaged(Box<Fault>),
    /// Fewer records than were published.
    #[error(
        "the ledger has {found} records but {published} were published: it was cut or an old copy was put back; it stays read-only. {HELP}"
    )]
    Rollback {
        /// Size of the published checkpoint.
        published: u64,
        /// Committed records now.
        found: u64,
    },
    /// The published head is of another history.
    #[error(
        "the first {published} records do not have the root that was published for them: the history was rewritten; the ledger stays read-only. {HELP}"
    )]
    Rewritten {
        /// Size of the published checkpoint.
        published: u64,
    },
    /// The private key of the epoch in force is not here.
    #[error(
        "the ledger is in epoch {epoch}, whose signing key {key} is missing: restore it from a backup of the key directory (no other key can continue this ledger)"
    )]
    NoKey {
        /// The epoch in force.
        epoch: u32,
        /// Name and id of its key.
        key: String,
    },
    /// The published checkpoint cannot be believed.
    #[error(
        "the published checkpoint cannot be verified ({0}); the ledger stays read-only. {HELP}"
    )]
    Checkpoint(NoteError),
    /// The system refused.
    #[error("cannot open the ledger: cannot {0}")]
    File(#[from] FileError),
    /// The first record after a recovery could not be written.
    #[error("the torn end was cut but the recovery record could not be written: {0}")]
    Append(Box<AppendError>),
}

const HELP: &str = "Copy the directory elsewhere as evidence, run `blockhost ledger verify` on it, then restore it from a backup, or move it away to start a new ledger";

/// Why a batch was not appended. Unless it says otherwise, nothing of the batch counts and the next one may be tried.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// One draft cannot become a record; see [`Draft::check`].
    #[error("draft {index} of the batch: {source}")]
    Draft {
        /// Which of the drafts.
        index: usize,
        /// Why.
        source: RecordError,
    },
    /// The disk is full. What is left is kept for outcomes; try again with those alone.
    #[error(
        "no space for {wanted} more bytes of ledger ({left} are kept for outcomes of what is running): {source}"
    )]
    NoSpace {
        /// Bytes the batch needs.
        wanted: u64,
        /// Bytes preallocated and unused.
        left: u64,
        /// What extending the segment said.
        source: FileError,
    },
    /// More drafts than a segment holds.
    #[error("a batch of {drafts} drafts is more than one segment holds ({most})")]
    TooMany {
        /// How many there were.
        drafts: usize,
        /// How many are allowed.
        most: u64,
    },
    /// An earlier write or sync failed, or the files were taken away: the state on disk is unknown. Only opening the
    /// ledger again helps.
    #[error("the ledger is read-only since: {0}")]
    Poisoned(String),
}

/// Where a record of a block not yet published is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub fd: Arc<OwnedFd>,
    pub offset: u64,
    pub length: usize,
    pub leaf: Hash,
}

/// The writer. Holds the lock until dropped.
#[derive(Debug)]
pub struct Writer {
    pub(crate) ledger: LedgerDir,
    segments: LedgerDir,
    pub(crate) signer: Signer,
    hostname: String,
    options: Options,
    pub(crate) active: Active,
    frontier: Frontier,
    prev: Hash,
    pub(crate) head: Head,
    chain: BlockChain,
    /// Records of blocks that are not published in full, by block number from 1, in order.
    unpublished: Vec<(u64, Vec<Place>)>,
    /// Size at the last publishing by this writer; the first one after opening writes whatever is missing.
    pub(crate) published_size: Option<u64>,
    pub(crate) poisoned: Option<String>,
    pub(crate) epochs: Epochs,
    pub(crate) witnessed: Witnessed,
    _lock: OwnedFd,
}

impl Writer {
    /// Locks the directory, reads what is committed, cuts a torn tail, and is ready to append.
    ///
    /// # Errors
    /// Locked, damaged, rolled back, or the system refused; see [`OpenError`]. The directory is unchanged then.
    pub fn open(
        ledger: impl Into<LedgerDir>,
        signers: impl Into<Signers>,
        hostname: &str,
        options: Options,
    ) -> Result<(Self, Recovery), OpenError> {
        let ledger = ledger.into();
        let lock = recover::lock(&ledger)?;
        let signers = signers.into();
        let floors = recover::floors(&ledger)?;
        let published = floors[0].as_ref().map_or(0, |floor| floor.head.size);
        let found = recover::read(&ledger, &signers, &floors)?;
        let segments = ledger.make_sub(dir::SEGMENTS)?;
        let scan = found.scan;
        if let Some(name) = &scan.unborn {
            rustix::fs::unlinkat(&segments, name, rustix::fs::AtFlags::empty())
                .map_err(on("remove", name))?;
        }
        let epochs = scan
            .epochs
            .clone()
            .unwrap_or_else(|| Epochs::starting_with(signers.first().clone()));
        let signer = signers.of(epochs.current())?;
        let unpublished = recover::unpublished(&ledger, &scan, published)?;
        let size = scan.frontier.size();
        let active = match scan.segments.last().filter(|_| scan.unborn.is_none()) {
            Some(last) => Active::resume(&segments, last, scan.torn_bytes)?,
            None => Active::create(&segments, size, scan.frontier.root(), &options)?,
        };
        let head = match &scan.last_commit {
            Some(commit) => {
                let key = &epochs.of_size(size).key;
                head_of(key, size, commit.root, &commit.signature)
            }
            None => make_head(&signer, size, scan.frontier.root()),
        };
        let prev = scan.entries.last().map_or(GENESIS_PREV, |entry| entry.leaf);
        recover::write_vkeys(&ledger, &epochs)?;
        let mut writer = Self {
            ledger,
            segments,
            signer,
            hostname: hostname.to_owned(),
            options,
            active,
            frontier: scan.frontier,
            prev,
            head,
            chain: found.chain,
            unpublished,
            published_size: None,
            poisoned: None,
            epochs,
            witnessed: Witnessed::resume(scan.cosigned, floors),
            _lock: lock,
        };
        let recovery = Recovery {
            torn_bytes: scan.torn_bytes,
            open_intents: found.open_intents,
            blobs: found.blobs,
        };
        if recovery.torn_bytes > 0 {
            let draft = recover::recovery_draft(recovery.torn_bytes, size, &writer.active.name);
            writer
                .append(&[draft])
                .map_err(|error| OpenError::Append(Box::new(error)))?;
        }
        Ok((writer, recovery))
    }

    /// Makes all drafts durable, in order, with one write and one fdatasync; all or none.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&mut self, drafts: &[Draft]) -> Result<Vec<Appended>, AppendError> {
        if let Some(why) = &self.poisoned {
            return Err(AppendError::Poisoned(why.clone()));
        }
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        if drafts.len() as u64 > self.options.segment_records {
            return Err(AppendError::TooMany {
                drafts: drafts.len(),
                most: self.options.segment_records,
            });
        }
        self.check_still_there()?;
        if self.head.size + drafts.len() as u64
            > self.active.header.first_height - 1 + self.options.segment_records
        {
            self.next_segment()?;
        }
        let batch = self.encode(drafts)?;
        // New work must leave room for the outcomes of what is running; outcomes may use it up.
        let new_work = drafts
            .iter()
            .any(|draft| matches!(draft.phase, Phase::Intent | Phase::Event));
        self.make_room(batch.bytes.len() as u64, new_work)?;
        let fd = self.active.fd.as_fd();
        let position = self.active.position;
        failpoint::reach_append(drafts, "writing");
        failpoint::half_written(drafts, fd, &batch.bytes, position);
        if let Err(errno) = write_all_at(fd, &batch.bytes, position) {
            return Err(self.poison("write", errno));
        }
        failpoint::reach_append(drafts, "written");
        if let Err(errno) =
            failpoint::refuse("ledger-sync").and_then(|()| rustix::fs::fdatasync(fd))
        {
            return Err(self.poison("make durable", errno));
        }
        failpoint::reach_append(drafts, "synced");
        // Only now does any of it exist.
        self.active.position += batch.bytes.len() as u64;
        self.active.file_bytes = self.active.file_bytes.max(self.active.position);
        self.head = batch.head;
        self.prev = batch.prev;
        self.frontier = batch.frontier;
        for (appended, place) in batch.appended.iter().zip(batch.places) {
            let block = appended.index / BLOCK_RECORDS + 1;
            match self.unpublished.last_mut().filter(|(id, _)| *id == block) {
                Some((_, places)) => places.push(place),
                None => self.unpublished.push((block, vec![place])),
            }
            self.chain.push(appended.leaf, batch.timestamp);
        }
        Ok(batch.appended)
    }

    /// The signed head of everything appended so far.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Why nothing can be appended any more, if so.
    #[must_use]
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// The public key of the epoch in force.
    #[must_use]
    pub fn vkey(&self) -> &crate::note::Vkey {
        self.signer.vkey()
    }

    /// All keys of this ledger; it is verified from the first.
    #[must_use]
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Writes what is derived: blocks, index, checkpoint (in this order: what the checkpoint covers is there), and tops
    /// up the preallocated room. Meant for after the answers, at most once a second; does nothing when nothing is new.
    ///
    /// # Errors
    /// The system refused. The log is unharmed; the next call tries again.
    pub fn publish(&mut self) -> Result<(), FileError> {
        if self.published_size == Some(self.head.size) {
            return Ok(());
        }
        let blocks = self.ledger.make_sub(dir::BLOCKS)?;
        let open = self.chain.open();
        let mut done = Vec::new();
        for (id, places) in &self.unpublished {
            let index = usize::try_from(id - 1).unwrap_or(usize::MAX);
            let closed = self.chain.closed().get(index);
            let Some(head) = closed.or(open.as_ref()) else {
                continue;
            };
            let mut records = Vec::with_capacity(places.len());
            for place in places {
                let mut bytes = vec![0; place.length];
                let read = read_at(place.fd.as_fd(), &mut bytes, place.offset)
                    .map_err(on("read", "the active segment"))?;
                bytes.truncate(read);
                records.push((place.leaf, bytes));
            }
            let bytes = blocks::render_block(
                head,
                records
                    .iter()
                    .map(|(leaf, bytes)| (*leaf, bytes.as_slice())),
            );
            // A full block is written for good; the open one will be written again within a second.
            blocks.replace(&head.file_name(), &bytes, SHARED_FILE, closed.is_some())?;
            if closed.is_some() {
                done.push(*id);
            }
        }
        let heads = self.chain.closed().iter().chain(open.as_ref());
        let index = blocks::render_index(self.signer.vkey().name(), heads);
        blocks.replace(blocks::INDEX, &index, SHARED_FILE, false)?;
        self.ledger.replace(
            dir::CHECKPOINT,
            self.witnessed
                .checkpoint(self.signer.vkey().name(), &self.head)
                .as_bytes(),
            SHARED_FILE,
            true,
        )?;
        self.witnessed.published(&self.head);
        self.unpublished.retain(|(id, _)| !done.contains(id));
        self.published_size = Some(self.head.size);
        self.publish_cosigned()?;
        if self.poisoned.is_none() {
            self.top_up()?;
        }
        Ok(())
    }

    fn encode(&self, drafts: &[Draft]) -> Result<Batch, AppendError> {
        let ts_us = now_us();
        let (mut frontier, mut prev) = (self.frontier.clone(), self.prev);
        let (mut bytes, base, salt) = (
            Vec::with_capacity(drafts.len() * 1024),
            self.active.position,
            self.active.header.salt,
        );
        let (mut appended, mut places) = (
            Vec::with_capacity(drafts.len()),
            Vec::with_capacity(drafts.len()),
        );
        for (index, draft) in drafts.iter().enumerate() {
            let height = frontier.size() + 1;
            let stamp = Stamp {
                height,
                prev_hash: &prev,
                ts_us,
                hostname: &self.hostname,
            };
            let record = draft
                .encode(&stamp)
                .map_err(|source| AppendError::Draft { index, source })?;
            let leaf = leaf_hash(&record);
            let offset = base + (bytes.len() + segment::FRAME_BYTES) as u64;
            push_frame(&mut bytes, base, &salt, segment::RECORD, &record);
            places.push(Place {
                fd: Arc::clone(&self.active.fd),
                offset,
                length: record.len(),
                leaf,
            });
            appended.push(Appended {
                index: height - 1,
                height,
                leaf,
            });
            frontier.push(leaf);
            prev = leaf;
        }
        let (size, root) = (frontier.size(), frontier.root());
        let signature = self.signer.sign_head(size, root);
        let commit = Commit {
            size,
            root,
            ts_us,
            epoch: self.signer.epoch(),
            signature,
        };
        push_frame(&mut bytes, base, &salt, segment::COMMIT, &commit.encode());
        let head = head_of(self.signer.vkey(), size, root, &signature);
        Ok(Batch {
            bytes,
            appended,
            places,
            head,
            prev,
            frontier,
            timestamp: ts_us.div_euclid(1_000_000),
        })
    }

    pub(crate) fn check_still_there(&mut self) -> Result<(), AppendError> {
        let why = match self.active.is_still_there(&self.segments) {
            Ok(true) => return Ok(()),
            Ok(false) => format!(
                "the segment {} was removed or replaced while it was open; put it back and start the agent again",
                self.active.path()
            ),
            Err(error) => error.to_string(),
        };
        self.poisoned = Some(why.clone());
        Err(AppendError::Poisoned(why))
    }

    pub(crate) fn make_room(&mut self, wanted: u64, new_work: bool) -> Result<(), AppendError> {
        let end = self.active.position + wanted;
        let with_reserve = end + self.options.reserve_bytes;
        if with_reserve <= self.active.file_bytes {
            return Ok(());
        }
        let Err(source) = self
            .active
            .extend(with_reserve, self.options.preallocate_bytes)
        else {
            return Ok(());
        };
        let full = matches!(
            source.errno(),
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
        );
        if !full {
            let why = source.to_string();
            self.poisoned = Some(why.clone());
            return Err(AppendError::Poisoned(why));
        }
        // It may have grown by less than was asked and still by enough.
        if with_reserve <= self.active.file_bytes || !new_work && end <= self.active.file_bytes {
            return Ok(());
        }
        Err(AppendError::NoSpace {
            wanted,
            left: self.active.file_bytes - self.active.position,
            source,
        })
    }

    fn top_up(&mut self) -> Result<(), FileError> {
        let low =
            self.active.position + self.options.reserve_bytes + self.options.preallocate_bytes / 2;
        if low <= self.active.file_bytes {
            return Ok(());
        }
        match self.active.extend(low, self.options.preallocate_bytes) {
            // The next append finds out by itself and knows which drafts may go on.
            Err(error)
                if matches!(
                    error.errno(),
                    Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    fn next_segment(&mut self) -> Result<(), AppendError> {
        match Active::create(
            &self.segments,
            self.head.size,
            self.head.root,
            &self.options,
        ) {
            Ok(active) => {
                self.active = active;
                Ok(())
            }
            Err(source) => Err(AppendError::NoSpace {
                wanted: self.options.preallocate_bytes,
                left: 0,
                source,
            }),
        }
    }

    pub(crate) fn poison(&mut self, doing: &'static str, errno: Errno) -> AppendError {
        let why = on(doing, self.active.path())(errno).to_string();
        self.poisoned = Some(why.clone());
        AppendError::Poisoned(why)
    }
}

/// A batch ready to be written, and the state after it.
struct Batch {
    bytes: Vec<u8>,
    appended: Vec<Appended>,
    places: Vec<Place>,
    head: Head,
    prev: Hash,
    frontier: Frontier,
    timestamp: i64,
}

fn head_of(key: &Vkey, size: u64, root: Hash, signature: &[u8; 64]) -> Head {
    let body = Checkpoint {
        origin: key.name().to_owned(),
        size,
        root,
    }
    .body();
    Head {
        size,
        root,
        note: assemble(&body, key, signature),
    }
}

fn make_head(signer: &Signer, size: u64, root: Hash) -> Head {
    head_of(signer.vkey(), size, root, &signer.sign_head(size, root))
}

fn now_us() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(0)
}
