//! The blobs of the one who writes them: how much may be kept, taking in, writing, erasing. A blob is durable before its
//! record; waiting for the disk is left to whoever has the time (see [`Write`]).

use super::{
    BLOBS, BlobIndex, KEPT_FREE_BYTES, MAX_BLOB_BYTES, State, files, parse_hash, remove, sub_of,
};
use crate::dir::{FileError, LedgerDir, SHARED_FILE, on};
use crate::failpoint;
use crate::merkle::{Hash, hex, sha256};
use std::collections::HashMap;

/// How much may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Number of blobs.
    pub blobs: u64,
    /// Their bytes together.
    pub bytes: u64,
}

/// Why a blob is not taken in. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// It was erased once, and stays so.
    #[error(
        "blob {hash} was shredded and is not taken again; encrypt anew, then it has another hash"
    )]
    Shredded {
        /// Its hash.
        hash: String,
    },
    /// Too many, or too much.
    #[error(
        "{blobs} blobs of {bytes} bytes are kept and the limits are {} blobs and {} bytes; shred old ones, or raise limits.ledger_blobs and limits.ledger_blob_bytes",
        quota.blobs, quota.bytes
    )]
    Quota {
        /// Blobs that are kept.
        blobs: u64,
        /// Their bytes.
        bytes: u64,
        /// What is allowed.
        quota: Quota,
    },
    /// The rest of the disk is for the log.
    #[error(
        "{free} bytes are free beside the ledger, and {KEPT_FREE_BYTES} are kept for its records; free some space"
    )]
    Space {
        /// Free bytes.
        free: u64,
    },
    /// The system refused.
    #[error("cannot {0}")]
    File(#[from] FileError),
}

/// Why a blob is not erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// No record commits to it.
    #[error(
        "no record commits to a blob {hash}; `blockhost ledger blob list` shows those there are"
    )]
    Unknown {
        /// What was asked for.
        hash: String,
    },
    /// It was done before.
    #[error("blob {hash} is shredded already")]
    Already {
        /// What was asked for.
        hash: String,
    },
    /// The system refused.
    #[error("cannot {0}")]
    File(#[from] FileError),
}

/// A blob on its way to the disk, for whichever thread has the time to wait for that.
#[derive(Debug)]
pub struct Write {
    ledger: LedgerDir,
    name: String,
    bytes: Vec<u8>,
    /// A record commits to it already.
    known: bool,
}

impl Write {
    /// Writes it; durable when this returns.
    ///
    /// # Errors
    /// The system refused; [`Store::withdraw`] it.
    pub fn run(self) -> Result<(), FileError> {
        failpoint::reach("blob-writing", b"");
        let dir = self.ledger.make_sub(BLOBS)?.make_sub(&self.name[..2])?;
        // One that is there as it has to be needs no second writing, but it may be a moment old and not durable yet.
        let there = |found: Option<Vec<u8>>| found.is_some_and(|found| found == self.bytes);
        if self.known && dir.read(&self.name, MAX_BLOB_BYTES).is_ok_and(there) {
            return Ok(());
        }
        dir.replace(&self.name, &self.bytes, SHARED_FILE, true)
    }
}

/// The directory of blobs, for the one who writes it.
#[derive(Debug)]
pub struct Store {
    ledger: LedgerDir,
    index: BlobIndex,
    /// Written, and not committed to yet: by how many jobs.
    pending: HashMap<Hash, (u64, u32)>,
}

impl Store {
    /// Takes over what an opened writer found, and removes files that no record commits to: their writer ended between
    /// file and record, and told nobody that it had them. Says how many those were.
    ///
    /// # Errors
    /// The system refused.
    pub fn open(ledger: LedgerDir, index: BlobIndex) -> Result<(Self, u64), FileError> {
        let mut orphans = 0;
        for (dir, name) in files(&ledger)? {
            let hash = parse_hash(name.strip_prefix('.').map_or(name.as_str(), |rest| {
                rest.strip_suffix(".new").unwrap_or(rest)
            }));
            // A name that is not ours is somebody else's to explain.
            let Some(hash) = hash else { continue };
            let wanted = index
                .get(&hash)
                .is_some_and(|blob| !matches!(blob.state, State::Shredded(_)));
            if !wanted || name.starts_with('.') {
                remove(&dir, &name)?;
                dir.sync()?;
                orphans += 1;
            }
        }
        let store = Self {
            ledger,
            index,
            pending: HashMap::new(),
        };
        Ok((store, orphans))
    }

    /// What the log says.
    #[must_use]
    pub fn index(&self) -> &BlobIndex {
        &self.index
    }

    /// Takes a blob in; it is to be written, and durable, before its record. Then comes [`Self::recorded`] or
    /// [`Self::withdraw`].
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn admit(&mut self, bytes: &[u8], quota: Quota) -> Result<(Hash, Write), PutError> {
        let hash = sha256(bytes);
        let known = self.index.get(&hash).map(|blob| blob.state);
        if let Some(State::Shredded(_) | State::Shredding(_)) = known {
            return Err(PutError::Shredded { hash: hex(&hash) });
        }
        let length = bytes.len() as u64;
        let (kept, kept_bytes) = self.index.kept();
        let waiting: u64 = self.pending.values().map(|(bytes, _)| bytes).sum();
        if known.is_none() && !self.pending.contains_key(&hash) {
            let blobs = kept + self.pending.len() as u64;
            let sum = kept_bytes.saturating_add(waiting);
            if blobs >= quota.blobs || sum.saturating_add(length) > quota.bytes {
                return Err(PutError::Quota {
                    blobs,
                    bytes: sum,
                    quota,
                });
            }
        }
        let stat = rustix::fs::fstatvfs(&self.ledger).map_err(on("look at", BLOBS))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free
            < KEPT_FREE_BYTES
                .saturating_add(waiting)
                .saturating_add(length)
        {
            return Err(PutError::Space { free });
        }
        let write = Write {
            ledger: self.ledger.try_clone()?,
            name: hex(&hash),
            bytes: bytes.to_vec(),
            known: known.is_some(),
        };
        self.pending.entry(hash).or_insert((length, 0)).1 += 1;
        Ok((hash, write))
    }

    /// Takes a blob in and writes it; durable when this returns.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put(&mut self, bytes: &[u8], quota: Quota) -> Result<Hash, PutError> {
        let (hash, write) = self.admit(bytes, quota)?;
        write.run().inspect_err(|_| self.withdraw(hash, false))?;
        Ok(hash)
    }

    /// The record is durable.
    pub fn recorded(&mut self, hash: Hash, height: u64) {
        if let Some((bytes, _)) = self.settle(&hash) {
            self.index.committed(hash, height, bytes);
        }
    }

    /// The record was not written. `maybe` means that it may be on the disk all the same (a sync failed): then the file
    /// stays, and the next start decides.
    pub fn withdraw(&mut self, hash: Hash, maybe: bool) {
        let last = self.settle(&hash).is_some_and(|(_, others)| others == 0);
        if !last || maybe || self.index.get(&hash).is_some() {
            return;
        }
        let name = hex(&hash);
        // What stays is an orphan, which the next start removes.
        let removed = sub_of(&self.ledger, &name).and_then(|dir| match dir {
            Some(dir) => remove(&dir, &name),
            None => Ok(()),
        });
        drop(removed);
    }

    /// Bytes of a pending blob, and how many others still wait with it.
    fn settle(&mut self, hash: &Hash) -> Option<(u64, u32)> {
        let (bytes, jobs) = self.pending.get_mut(hash)?;
        *jobs -= 1;
        let settled = (*bytes, *jobs);
        if settled.1 == 0 {
            self.pending.remove(hash);
        }
        Some(settled)
    }

    /// Erases a blob. Its intent is in the log; [`shred_record`] has to follow. Overwriting first would be theatre: on a
    /// copying or journaling file system, on flash, in snapshots and backups the old bytes stay where they are. What
    /// makes them worthless is the erased key.
    ///
    /// # Errors
    /// See [`EraseError`].
    pub fn erase(&mut self, hash: &Hash) -> Result<(), EraseError> {
        match self.index.get(hash).map(|blob| blob.state) {
            None => return Err(EraseError::Unknown { hash: hex(hash) }),
            Some(State::Shredded(_)) => return Err(EraseError::Already { hash: hex(hash) }),
            Some(State::Kept | State::Shredding(_)) => {}
        }
        let name = hex(hash);
        if let Some(dir) = sub_of(&self.ledger, &name)? {
            remove(&dir, &name)?;
            // Also where it was gone: a life before this one may have removed it and not come to the sync.
            dir.sync()?;
        }
        self.index.set(*hash, State::Shredded(0));
        Ok(())
    }
}
