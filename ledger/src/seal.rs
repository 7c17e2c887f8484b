//! Sealing: a full log becomes a `.zst` and a `.hsh`, in small steps between appends. The log is the truth until both
//! are durable under their names; whatever interrupts this, the next writer begins it again. Driven by `writer`.

use crate::dir::{FileError, LedgerDir, SHARED_FILE, on, write_all_at};
use crate::epochs::may_begin_epoch;
use crate::failpoint;
use crate::merkle::{Frontier, Hash, hex, leaf_hash};
use crate::scan::{Body, Scan};
use crate::sealed::{self, BUNDLE_RECORDS, Bundle, Matters, Seal};
use crate::segment::{self, Commit, Cosigned, FrameReader, Header, Step};
use crate::writer::Writer;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::sync::Arc;

/// A full log that waits to be sealed.
#[derive(Debug)]
pub(crate) struct Full {
    pub name: String,
    pub fd: Arc<OwnedFd>,
    pub header: Header,
    /// Leaf hash of the record before its first.
    pub prev: Hash,
    /// Leaf hash of its last record.
    pub last: Hash,
    /// Its last commit.
    pub commit: Commit,
}

/// Why a segment was not sealed. Its log is there as before.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The system refused.
    #[error("cannot {0}")]
    File(#[from] FileError),
    /// What is read is not what was written.
    #[error("{0} changed after it was written: {1}; run `blockhost ledger verify`")]
    Changed(String, String),
    /// The compressor failed.
    #[error("{0} could not be compressed; it stays as it is")]
    Compressor(String),
}

/// How far a segment is.
#[derive(Debug)]
pub(crate) struct Sealing {
    full: Full,
    /// Where the next record's frame begins.
    position: u64,
    out: OwnedFd,
    out_name: String,
    written: u64,
    prev: Hash,
    leaves: Vec<Hash>,
    bundles: Vec<Bundle>,
    matters: Matters,
    /// Place of a record that may begin an epoch, until its commit is read.
    epoch: Option<u32>,
    epochs: Vec<(u32, Commit)>,
    cosigned: Vec<u8>,
    next: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Bundle,
    Hashes,
    NameRecords,
    NameHashes,
    RemoveLog,
}

impl Sealing {
    /// Begins with an empty file beside the log.
    pub fn begin(segments: &LedgerDir, full: Full) -> Result<Self, Box<(Full, SealError)>> {
        let out_name = format!(".{}.new", sealed::records_name(first(&full)));
        match create(segments, &out_name) {
            Ok(out) => Ok(Self {
                position: segment::HEADER_BYTES,
                out,
                out_name,
                written: 0,
                prev: full.prev,
                leaves: Vec::new(),
                bundles: Vec::new(),
                matters: Matters::default(),
                epoch: None,
                epochs: Vec::new(),
                cosigned: Vec::new(),
                next: Next::Bundle,
                full,
            }),
            Err(error) => Err(Box::new((full, error.into()))),
        }
    }

    /// The segment is sealed.
    pub fn into_full(self) -> Full {
        self.full
    }

    /// Gives the log back, to be tried again. What was made so far takes room that outcomes may need, so it goes; while
    /// the log is there nobody reads it. Where this fails the next try, or the next start, removes it.
    pub fn give_up(self, segments: &LedgerDir) -> Full {
        let hashes = sealed::hashes_name(first(&self.full));
        let mut names = vec![format!(".{hashes}.new"), self.out_name.clone()];
        // Once the log may be gone these are the segment.
        if self.next != Next::RemoveLog {
            names.extend([hashes, sealed::records_name(first(&self.full))]);
        }
        for name in names {
            let _ = rustix::fs::unlinkat(segments, name, AtFlags::empty());
        }
        self.full
    }

    /// One step: a bundle, or one change of the directory. `true` when the segment is sealed and the log gone.
    pub fn step(&mut self, segments: &LedgerDir) -> Result<bool, SealError> {
        let (records, hashes) = (
            sealed::records_name(first(&self.full)),
            sealed::hashes_name(first(&self.full)),
        );
        let new_hashes = format!(".{hashes}.new");
        match self.next {
            Next::Bundle => {
                if !self.bundle()? {
                    self.next = Next::Hashes;
                }
            }
            Next::Hashes => {
                let bytes = self.hashes()?;
                let fd = create(segments, &new_hashes)?;
                failpoint::reach("seal-hashes-made", b"");
                write_all_at(fd.as_fd(), &bytes, 0).map_err(on("write", &new_hashes))?;
                rustix::fs::fsync(&fd).map_err(on("make durable", &new_hashes))?;
                // The last look at what the log will be given up for.
                rustix::fs::fsync(&self.out).map_err(on("make durable", &self.out_name))?;
                failpoint::reach("seal-durable", b"");
                self.next = Next::NameRecords;
            }
            Next::NameRecords => {
                rename(segments, &self.out_name, &records)?;
                failpoint::reach("seal-records-named", b"");
                segments.sync()?;
                self.next = Next::NameHashes;
            }
            Next::NameHashes => {
                rename(segments, &new_hashes, &hashes)?;
                failpoint::reach("seal-hashes-named", b"");
                segments.sync()?;
                failpoint::reach("seal-both-named", b"");
                self.next = Next::RemoveLog;
            }
            Next::RemoveLog => {
                let name = &self.full.name;
                match rustix::fs::unlinkat(segments, name, AtFlags::empty()) {
                    // Gone already when an earlier try removed it and could not sync the directory.
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(on("remove", name)(errno).into()),
                }
                failpoint::reach("seal-log-removed", b"");
                segments.sync()?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Packs the next bundle; `false` when there is none left.
    fn bundle(&mut self) -> Result<bool, SealError> {
        let (name, fd) = (&self.full.name, Arc::clone(&self.full.fd));
        let total = self.full.commit.size.saturating_sub(first(&self.full));
        let left = total.saturating_sub(self.leaves.len() as u64);
        let wanted = usize::try_from(left.min(BUNDLE_RECORDS)).unwrap_or(0);
        let changed = |why: &str| SealError::Changed(name.clone(), why.to_owned());
        let mut frames =
            FrameReader::new(fd.as_fd(), name, self.full.header.salt).at(self.position);
        let mut records: Vec<Vec<u8>> = Vec::with_capacity(wanted);
        // Behind the last record there are its commit and, maybe, cosignatures.
        while wanted == 0 || records.len() < wanted {
            match frames.next_frame()? {
                Step::Frame { kind, payload, .. } if kind == segment::RECORD => {
                    let begins = may_begin_epoch(payload)
                        && crate::record::late_text(payload, &crate::record::PHASE_KEY)
                            == Some(b"epoch");
                    if begins && self.epoch.is_none() {
                        let place = self.leaves.len() + records.len();
                        self.epoch = u32::try_from(place).ok();
                    }
                    records.push(payload.to_vec());
                }
                Step::Frame { kind, payload, .. } if kind == segment::COMMIT => {
                    if let Some(place) = self.epoch.take()
                        && let Some(commit) = Commit::decode(payload)
                    {
                        self.epochs.push((place, commit));
                    }
                }
                Step::Frame { kind, payload, .. } if kind == segment::COSIGNATURE => {
                    let size = |payload| Cosigned::decode(payload).map_or(0, |head| head.size);
                    if size(payload) >= size(&self.cosigned) {
                        self.cosigned = payload.to_vec();
                    }
                }
                Step::Frame { .. } => {}
                Step::End | Step::Damage(_) if wanted == 0 => break,
                Step::End => return Err(changed("it ends before its last commit")),
                Step::Damage(why) => return Err(changed(why)),
            }
        }
        if wanted == 0 {
            return match records.is_empty() {
                true => Ok(false),
                false => Err(changed("there are more records than were committed")),
            };
        }
        self.position = frames.position();
        let before = self.prev;
        let mut root = Frontier::new();
        for record in &records {
            if !crate::record::follows(record, &self.prev) {
                return Err(changed("a record does not follow the one before it"));
            }
            self.prev = leaf_hash(record);
            root.push(self.prev);
            let place = u32::try_from(self.leaves.len()).unwrap_or(u32::MAX);
            self.matters.record(place, record);
            self.leaves.push(self.prev);
        }
        let slices: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let packed = sealed::pack(&slices, &before)
            .ok_or_else(|| SealError::Compressor(self.full.name.clone()))?;
        let last = records.last().map_or(&[][..], Vec::as_slice);
        self.bundles.push(Bundle {
            compressed: u32::try_from(packed.frame.len()).unwrap_or(u32::MAX),
            plain: packed.plain,
            elided: packed.elided,
            timestamp: crate::record::timestamp_of(last).unwrap_or(0),
            root: root.root(),
        });
        failpoint::reach("seal-bundle", b"");
        // Durable bit by bit: one sync of all of it at the end would hold up the appends behind it.
        write_all_at(self.out.as_fd(), &packed.frame, self.written)
            .and_then(|()| rustix::fs::fdatasync(&self.out))
            .map_err(on("write", &self.out_name))?;
        self.written += packed.frame.len() as u64;
        Ok(true)
    }

    /// The bytes of the `.hsh`.
    fn hashes(&mut self) -> Result<Vec<u8>, SealError> {
        if self.prev != self.full.last {
            let why = format!("its last record has the hash {}", hex(&self.prev));
            return Err(SealError::Changed(self.full.name.clone(), why));
        }
        let seal = Seal {
            first_height: self.full.header.first_height,
            records: self.leaves.len() as u64,
            root_before: self.full.header.root_before,
            prev: self.full.prev,
            commit: self.full.commit,
            bundles: std::mem::take(&mut self.bundles),
            matters: std::mem::take(&mut self.matters).finish(),
            epochs: std::mem::take(&mut self.epochs),
            cosigned: std::mem::take(&mut self.cosigned),
        };
        let mut bytes = seal.encode();
        // What nobody could read is not written.
        if let Err(why) = Seal::decode(&bytes) {
            let why = format!("it cannot be described: {why}");
            return Err(SealError::Changed(self.full.name.clone(), why));
        }
        bytes.extend(self.leaves.iter().flatten());
        Ok(bytes)
    }
}

impl Writer {
    /// Whether [`Writer::seal_step`] has something to do.
    #[must_use]
    pub fn wants_sealing(&self) -> bool {
        self.poisoned.is_none() && (self.sealing.is_some() || !self.unsealed.is_empty())
    }

    /// One small step (a bundle of 256 records, or one change of the directory) towards sealing full segments. Meant
    /// for when nobody waits. `Some` with the first height of a segment when it was its last step.
    ///
    /// # Errors
    /// See [`SealError`]. The segment's log is unharmed; the next call begins it again.
    pub fn seal_step(&mut self) -> Result<Option<u64>, SealError> {
        if !self.wants_sealing() {
            return Ok(None);
        }
        let mut sealing = match (self.sealing.take(), self.unsealed.pop_front()) {
            (Some(sealing), None) => sealing,
            (Some(sealing), Some(waiting)) => {
                self.unsealed.push_front(waiting);
                sealing
            }
            (None, Some(full)) => Sealing::begin(&self.segments, full).map_err(|failed| {
                let (full, error) = *failed;
                self.unsealed.push_front(full);
                error
            })?,
            (None, None) => return Ok(None),
        };
        match sealing.step(&self.segments) {
            Ok(true) => Ok(Some(sealing.into_full().header.first_height)),
            Ok(false) => {
                self.sealing = Some(sealing);
                Ok(None)
            }
            Err(error) => {
                self.unsealed.push_front(sealing.give_up(&self.segments));
                Err(error)
            }
        }
    }
}

/// Removes what an interrupted sealing left of logs that are still there, and says which of them are full.
pub(crate) fn unsealed(segments: &LedgerDir, scan: &Scan) -> Result<Vec<Full>, FileError> {
    let names = segments.names()?;
    let mut removed = false;
    for name in &names {
        let of = |suffix: &str| {
            let first = name.strip_suffix(suffix)?;
            names.binary_search(&format!("{first}.log")).ok()
        };
        // A name that begins with a dot is only ever given by the one writer, for what is not finished.
        let unfinished = name.starts_with('.') && name.ends_with(".new");
        if unfinished || of(".zst").is_some() || of(".hsh").is_some() {
            rustix::fs::unlinkat(segments, name, AtFlags::empty()).map_err(on("remove", name))?;
            removed = true;
        }
    }
    if removed {
        segments.sync()?;
    }
    let mut full = Vec::new();
    let mut prev = crate::record::GENESIS_PREV;
    // The last one goes on being written, unless the one after it was begun.
    let active = usize::from(scan.unborn.is_none());
    let logs = scan.segments.len().saturating_sub(active);
    for segment in scan.segments.iter().take(logs) {
        if let Body::Log(log) = &segment.body
            && let Some(commit) = log.commit
        {
            full.push(Full {
                name: log.name.clone(),
                fd: Arc::clone(&log.fd),
                header: log.header.clone(),
                prev,
                last: segment.last,
                commit,
            });
        }
        prev = segment.last;
    }
    Ok(full)
}

fn first(full: &Full) -> u64 {
    full.header.first_height - 1
}

fn create(segments: &LedgerDir, name: &str) -> Result<OwnedFd, FileError> {
    match rustix::fs::unlinkat(segments, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(on("remove", name)(errno)),
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let fd = segments.file(name, flags, SHARED_FILE)?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(SHARED_FILE))
        .map_err(on("set the mode of", name))?;
    Ok(fd)
}

fn rename(segments: &LedgerDir, from: &str, to: &str) -> Result<(), FileError> {
    rustix::fs::renameat(segments, from, segments, to).map_err(on("rename into place", to))
}
