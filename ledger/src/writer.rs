//! The one writer of a ledger: group commit with one write and one fdatasync. Recovery at start is `recover`'s, derived
//! files are `publish`'s, sealing full segments `seal`'s.
//! Single-threaded, relative to a directory descriptor, without capabilities. Lives in the root agent's ledger process.

use crate::active::{Active, is_full};
use crate::batch::{Batch, Tip, encode, head_of, make_head};
use crate::blocks::{BLOCK_RECORDS, BlockChain};
use crate::dir::{self, FileError, LedgerDir, on, write_all_at};
use crate::epochs::Epochs;
use crate::failpoint;
use crate::features::Feed;
use crate::history::Place;
use crate::keys::{Signer, Signers};
use crate::loss::{self, Loss};
use crate::merkle::Hash;
use crate::record::{Draft, GENESIS_PREV, Phase};
use crate::recover::{self, OpenIntent, WriterLock};
pub use crate::refusal::{AppendError, OpenError};
use crate::scan::Body;
pub use crate::seal::SealError;
use crate::seal::{self, Full, Sealing};
use crate::segment::{self, Commit};
use crate::trust::Witnessed;
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::collections::VecDeque;

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
    /// What was pruned, and the records that say so.
    pub prunes: Vec<crate::prune::Pruned>,
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

/// The writer. Holds the lock until dropped.
#[derive(Debug)]
pub struct Writer {
    pub(crate) ledger: LedgerDir,
    pub(crate) segments: LedgerDir,
    pub(crate) signer: Signer,
    hostname: String,
    pub(crate) options: Options,
    pub(crate) active: Active,
    /// Room for the segment after the active one, from the time when that is half full.
    spare: Option<Active>,
    /// Leaf hash of the record before the active segment.
    before_active: Hash,
    last_commit: Option<Commit>,
    tip: Tip,
    pub(crate) head: Head,
    pub(crate) chain: BlockChain,
    /// Records of blocks that are not published in full, by block number from 1, in order.
    pub(crate) unpublished: Vec<(u64, Vec<Place>)>,
    /// Pages of the index that are written, once that is known, and the lines behind them.
    pub(crate) index_pages: Option<u64>,
    pub(crate) index_lines: crate::block_index::Lines,
    /// Features of the records in block files.
    pub(crate) features: Feed,
    /// Size at the last publishing by this writer; the first one after opening writes whatever is missing.
    pub(crate) published_size: Option<u64>,
    /// Full logs, in order.
    pub(crate) unsealed: VecDeque<Full>,
    pub(crate) sealing: Option<Sealing>,
    pub(crate) poisoned: Option<String>,
    pub(crate) epochs: Epochs,
    pub(crate) witnessed: Witnessed,
    _lock: WriterLock,
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
        Self::open_accepting(ledger, signers, hostname, options, None)
    }

    /// The same, giving up what is damaged where `loss` names exactly what is intact. What is given up is set aside, and
    /// a record says so. With a sound ledger, or after it was done, `loss` changes nothing.
    ///
    /// # Errors
    /// As [`Self::open`]; also when `loss` names anything but what is intact. Interrupted, it goes on when called again.
    pub fn open_accepting(
        ledger: impl Into<LedgerDir>,
        signers: impl Into<Signers>,
        hostname: &str,
        options: Options,
        loss: Option<&Loss>,
    ) -> Result<(Self, Recovery), OpenError> {
        let ledger = ledger.into();
        let lock = recover::lock(&ledger)?;
        let signers = signers.into();
        let given_up = loss::settle(&ledger, &signers, loss)?;
        let floors = recover::floors(&ledger)?;
        let published = floors[0].as_ref().map_or(0, |floor| floor.head.size);
        let gone = given_up.as_ref().map_or(&[][..], loss::Begun::gone);
        let mut found = recover::read(&ledger, &signers, &floors, gone)?;
        recover::make_durable(&ledger, &found.scan, published)?;
        if crate::prune::finish(&ledger, &found.scan)? {
            found = recover::read(&ledger, &signers, &floors, gone)?;
        }
        let segments = ledger.make_sub(dir::SEGMENTS)?;
        let scan = found.scan;
        if let Some(given_up) = &given_up {
            given_up.keep_blobs(&ledger, &found.blobs)?;
        }
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
        let size = scan.size();
        let features = recover::features(&scan, &unpublished)?;
        let unsealed = seal::unsealed(&segments, &scan)?;
        let prunes = scan
            .gone()
            .filter(|pruned| pruned.by > 0)
            .copied()
            .collect();
        let tip = Tip {
            prev: scan.last_leaf(),
            frontier: scan.frontier,
        };
        let mut before = GENESIS_PREV;
        if let [.., second, _] = scan.segments.as_slice() {
            before = second.last;
        }
        let active = match scan.segments.last().map(|segment| &segment.body) {
            Some(Body::Log(last)) if scan.unborn.is_none() => {
                Active::resume(&segments, last, scan.torn_bytes)?
            }
            _ => {
                before = tip.prev;
                let spare = Active::spare(&segments, &options)?;
                spare.begin(&segments, size, tip.frontier.root())?
            }
        };
        let head = match &scan.last_commit {
            Some(commit) => {
                let key = &epochs.of_size(size).key;
                head_of(key, size, commit.root, &commit.signature)
            }
            None => make_head(&signer, size, tip.frontier.root()),
        };
        recover::write_vkeys(&ledger, &epochs)?;
        let mut writer = Self {
            ledger,
            segments,
            signer,
            hostname: hostname.to_owned(),
            options,
            active,
            spare: None,
            before_active: before,
            last_commit: scan.last_commit,
            tip,
            head,
            chain: found.chain,
            unpublished,
            index_pages: None,
            index_lines: crate::block_index::Lines::default(),
            features,
            published_size: None,
            unsealed: unsealed.into(),
            sealing: None,
            poisoned: None,
            epochs,
            witnessed: Witnessed::resume(scan.cosigned, floors),
            _lock: lock,
        };
        let recovery = Recovery {
            torn_bytes: scan.torn_bytes,
            open_intents: found.open_intents,
            blobs: found.blobs,
            prunes,
        };
        let mut drafts: Vec<Draft> = given_up.iter().flat_map(loss::Begun::drafts).collect();
        if recovery.torn_bytes > 0 {
            let name = &writer.active.name;
            drafts.push(recover::recovery_draft(recovery.torn_bytes, size, name));
        }
        writer
            .append(&drafts)
            .map_err(|error| OpenError::Append(Box::new(error)))?;
        if let Some(given_up) = given_up {
            given_up.done(&writer.ledger)?;
        }
        Ok((writer, recovery))
    }

    /// Makes all drafts durable, in order, with one write and one fdatasync; all or none.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&mut self, drafts: &[Draft]) -> Result<Vec<Appended>, AppendError> {
        // New work must leave room for the outcomes of what is running; outcomes may use it up.
        let begins = |draft: &Draft| matches!(draft.phase, Phase::Intent | Phase::Event);
        let keep = match drafts.iter().any(begins) {
            true => self.options.reserve_bytes,
            false => 0,
        };
        self.append_keeping(drafts, keep)
    }

    /// The same for the intent of what will make room, such as a pruning: on a full disk it may use some of what is kept for
    /// outcomes. However often it comes to nothing, three quarters of that stay.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_making_room(&mut self, intent: &Draft) -> Result<Appended, AppendError> {
        let keep = self.options.reserve_bytes / 4 * 3;
        let appended = self.append_keeping(std::slice::from_ref(intent), keep)?;
        let one = appended.into_iter().next();
        one.ok_or_else(|| AppendError::Poisoned("the record vanished".to_owned()))
    }

    /// All or none of the drafts; `keep` bytes of the room for outcomes have to be left.
    fn append_keeping(
        &mut self,
        drafts: &[Draft],
        keep: u64,
    ) -> Result<Vec<Appended>, AppendError> {
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
        let end = self.active.header.first_height - 1 + self.options.segment_records;
        let room = usize::try_from(end.saturating_sub(self.head.size)).unwrap_or(usize::MAX);
        if drafts.len() <= room {
            let batch = encode(
                &self.signer,
                &self.hostname,
                &self.tip,
                &self.active,
                drafts,
            )?;
            self.make_room(batch.bytes.len() as u64, keep)?;
            return self.write(batch, drafts);
        }
        // The batch goes over the end of the segment. Everything that may be refused is, before any of it is written.
        let (here, there) = drafts.split_at(room);
        self.make_spare()?;
        let first = match here {
            [] => None,
            here => Some(encode(
                &self.signer,
                &self.hostname,
                &self.tip,
                &self.active,
                here,
            )?),
        };
        let tip = first.as_ref().map_or(&self.tip, |batch| &batch.tip);
        let Some(spare) = self.spare.as_mut() else {
            return Err(AppendError::Poisoned("there is no next segment".to_owned()));
        };
        let second = encode(&self.signer, &self.hostname, tip, spare, there)
            .map_err(|error| error.behind(room))?;
        spare
            .make_room(second.bytes.len() as u64, keep, &self.options)
            .map_err(|source| no_space(spare, second.bytes.len() as u64, source))?;
        let mut appended = Vec::with_capacity(drafts.len());
        if let Some(first) = first {
            self.make_room(first.bytes.len() as u64, keep)?;
            appended = self.write(first, here)?;
        }
        self.next_segment()?;
        match self.write(second, there) {
            Ok(more) => appended.extend(more),
            // The first part of the batch stands.
            Err(error) if !appended.is_empty() => return Err(self.poison_with(error.to_string())),
            Err(error) => return Err(error),
        }
        Ok(appended)
    }

    /// A batch of so many bytes could not be written. Where that is for want of space, as where a file system writes
    /// elsewhere what is overwritten, nothing of it may stay; then the next one may have better luck.
    fn not_written(&mut self, bytes: u64, errno: Errno) -> AppendError {
        let source = on("write", self.active.path())(errno);
        if !is_full(&source) || self.active.wipe(bytes).is_err() {
            return self.poison_with(source.to_string());
        }
        no_space(&self.active, bytes, source)
    }

    /// One write, one sync; then it exists.
    fn write(&mut self, batch: Batch, drafts: &[Draft]) -> Result<Vec<Appended>, AppendError> {
        let fd = self.active.fd.as_fd();
        let position = self.active.position;
        failpoint::reach_append(drafts, "writing");
        failpoint::half_written(drafts, fd, &batch.bytes, position);
        if let Err(errno) = write_all_at(fd, &batch.bytes, position) {
            return Err(self.not_written(batch.bytes.len() as u64, errno));
        }
        failpoint::reach_append(drafts, "written");
        if let Err(errno) =
            failpoint::refuse("ledger-sync").and_then(|()| rustix::fs::fdatasync(fd))
        {
            return Err(self.poison("make durable", errno));
        }
        failpoint::reach_append(drafts, "synced");
        if !self.active.is_linked() {
            return Err(self.taken_away());
        }
        // Only now does any of it exist.
        self.active.position += batch.bytes.len() as u64;
        self.active.file_bytes = self.active.file_bytes.max(self.active.position);
        self.head = batch.head;
        self.tip = batch.tip;
        self.last_commit = Some(batch.commit);
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

    /// Tops up the preallocated room of this segment, and of the next one when that is near.
    pub(crate) fn top_up(&mut self) -> Result<(), FileError> {
        if self.poisoned.is_some() {
            return Ok(());
        }
        let options = &self.options;
        let low = self.active.position + options.reserve_bytes + options.preallocate_bytes / 2;
        let mut made = Ok(());
        if low > self.active.file_bytes {
            made = self.active.extend(low, options.preallocate_bytes);
        }
        let half = self.active.header.first_height - 1 + options.segment_records / 2;
        if made.is_ok() && self.head.size >= half && self.spare.is_none() {
            made = Active::spare(&self.segments, options).map(|spare| self.spare = Some(spare));
        }
        match made {
            // The next append finds out by itself and knows which drafts may go on.
            Err(error) if is_full(&error) => Ok(()),
            other => other,
        }
    }

    pub(crate) fn check_still_there(&mut self) -> Result<(), AppendError> {
        match self.active.is_still_there(&self.segments) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.taken_away()),
            Err(error) => Err(self.poison_with(error.to_string())),
        }
    }

    pub(crate) fn make_room(&mut self, wanted: u64, keep: u64) -> Result<(), AppendError> {
        match self.active.make_room(wanted, keep, &self.options) {
            Ok(()) => Ok(()),
            Err(source) if is_full(&source) => Err(no_space(&self.active, wanted, source)),
            Err(error) => Err(self.poison_with(error.to_string())),
        }
    }

    fn make_spare(&mut self) -> Result<(), AppendError> {
        if self.spare.is_none() {
            let spare = Active::spare(&self.segments, &self.options);
            let wanted = self.options.preallocate_bytes;
            self.spare = Some(spare.map_err(|source| no_space(&self.active, wanted, source))?);
        }
        Ok(())
    }

    /// The active segment is full: the spare one takes its place.
    fn next_segment(&mut self) -> Result<(), AppendError> {
        let (Some(spare), Some(commit)) = (self.spare.take(), self.last_commit) else {
            return Ok(());
        };
        match spare.begin(&self.segments, self.head.size, self.head.root) {
            Ok(next) => {
                let full = std::mem::replace(&mut self.active, next);
                self.unsealed.push_back(Full {
                    name: full.name,
                    fd: full.fd,
                    header: full.header,
                    prev: self.before_active,
                    last: self.tip.prev,
                    commit,
                });
                self.before_active = self.tip.prev;
                Ok(())
            }
            Err(error) => Err(self.poison_with(error.to_string())),
        }
    }

    pub(crate) fn poison(&mut self, doing: &'static str, errno: Errno) -> AppendError {
        let why = on(doing, self.active.path())(errno).to_string();
        self.poison_with(why)
    }

    fn poison_with(&mut self, why: String) -> AppendError {
        self.poisoned = Some(why.clone());
        AppendError::Poisoned(why)
    }

    fn taken_away(&mut self) -> AppendError {
        self.poison_with(format!(
            "the segment {} was removed or replaced while it was open; put it back and start the agent again",
            self.active.path()
        ))
    }
}

fn no_space(active: &Active, wanted: u64, source: FileError) -> AppendError {
    AppendError::NoSpace {
        wanted,
        left: active.file_bytes - active.position,
        source,
    }
}
