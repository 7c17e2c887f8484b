//! Reading a sealed segment where it lies: its hashes when it is opened, leaf hashes and records when they are wanted.
//! Opens its files anew each time: a ledger may have more of them than a process has descriptors.

use crate::dir::{FileError, LedgerDir, on, read_at};
use crate::merkle::{Hash, hex, root_of, sha256};
use crate::prune::{self, MAX_KEPT_BYTES, Pruned};
use crate::sealed::{self, BUNDLE_RECORDS, Records, Seal};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// A sealed segment that could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealedError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{file}: {why}")]
    Damaged {
        /// Place in the segment of the first record concerned.
        place: u64,
        file: String,
        why: String,
    },
}

/// How far [`SealedFile::check_next`] is.
#[derive(Debug)]
pub(crate) struct Check {
    records: OwnedFd,
    hashes: OwnedFd,
    /// Leaf hash of the record before the next bundle.
    prev: Hash,
    matters: sealed::Matters,
    number: usize,
    /// Where the next frame begins.
    at: u64,
    /// Bytes of the last frame.
    compressed: u64,
}

/// A sealed segment.
#[derive(Debug)]
pub(crate) struct SealedFile {
    dir: Arc<LedgerDir>,
    pub seal: Seal,
    /// Where in the `.hsh` the leaf hashes begin.
    leaves_at: u64,
    /// Where the payloads are gone: the records that were kept, by place, and the hash of their file.
    kept: Option<(BTreeMap<u32, Vec<u8>>, Hash)>,
    /// The record that says that they may be.
    pruned: OnceLock<Pruned>,
}

impl SealedFile {
    /// Reads everything but the leaf hashes; checks that both files have the length that it says. Where the payloads
    /// are gone it reads what was kept of them; whether they may be gone the scan says in the end.
    pub fn open(dir: &Arc<LedgerDir>, first: u64) -> Result<Self, SealedError> {
        let name = sealed::hashes_name(first);
        let broken = |why: &str| SealedError::Damaged {
            place: 0,
            file: name.clone(),
            why: why.to_owned(),
        };
        let fd = dir.file(&name, OFlags::RDONLY, 0)?;
        let mut fixed = [0; sealed::FIXED_BYTES];
        let read = read_at(fd.as_fd(), &mut fixed, 0).map_err(on("read", &name))?;
        if read < fixed.len() {
            return Err(broken("it ends inside its head"));
        }
        let mut head = vec![0; Seal::head_bytes(&fixed).map_err(broken)?];
        let read = read_at(fd.as_fd(), &mut head, 0).map_err(on("read", &name))?;
        let seal = Seal::decode(&head[..read]).map_err(broken)?;
        if seal.first() != first {
            return Err(broken("its name is that of another segment"));
        }
        let leaves_at = head.len() as u64;
        if size(&fd, &name)? != leaves_at + seal.records * 32 {
            return Err(broken("it does not have a hash for each record"));
        }
        let mut sealed = Self {
            dir: Arc::clone(dir),
            seal,
            leaves_at,
            kept: None,
            pruned: OnceLock::new(),
        };
        let (fd, name) = match sealed.records_fd() {
            Ok(opened) => opened,
            Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => {
                sealed.kept = Some(sealed.read_kept()?);
                return Ok(sealed);
            }
            Err(error) => return Err(error.into()),
        };
        let frames = sealed.seal.bundles.iter();
        let wanted: u64 = frames.map(|bundle| u64::from(bundle.compressed)).sum();
        let found = size(&fd, &name)?;
        if found != wanted {
            return Err(SealedError::Damaged {
                place: 0,
                file: name,
                why: format!("it has {found} bytes, its hashes say {wanted}"),
            });
        }
        Ok(sealed)
    }

    /// What stands for the records where there are none.
    fn read_kept(&self) -> Result<(BTreeMap<u32, Vec<u8>>, Hash), SealedError> {
        let (first, records) = (self.seal.first(), self.seal.records);
        let name = prune::kept_name(first);
        let bytes = self.dir.read(&name, MAX_KEPT_BYTES)?;
        let Some(bytes) = bytes.filter(|_| prune::whole_blocks(first, records)) else {
            return Err(self.missing());
        };
        let damaged = |place: u64, why: &str| SealedError::Damaged {
            place,
            file: name.clone(),
            why: why.to_owned(),
        };
        let mut bundle: Option<(usize, Vec<Hash>)> = None;
        let mut leaf = |place: u64| {
            let (number, index) = crate::history::split(place);
            if bundle.as_ref().is_none_or(|(read, _)| *read != number) {
                bundle = Some((number, self.leaves(number)?));
            }
            let leaves = bundle.as_ref().map(|(_, leaves)| leaves);
            leaves
                .and_then(|leaves| leaves.get(index).copied())
                .ok_or_else(|| damaged(place, "there is no such record"))
        };
        let kept = prune::parse_kept(
            &bytes,
            (self.seal.first_height, records),
            &mut leaf,
            &damaged,
        )?;
        if let Some(place) = self.needed().find(|place| !kept.contains_key(place)) {
            return Err(damaged(
                place.into(),
                "a record is missing that has to be kept",
            ));
        }
        Ok((kept, sha256(&bytes)))
    }

    /// Places of the records that a start cannot do without.
    fn needed(&self) -> impl Iterator<Item = u32> + '_ {
        let epochs = self.seal.epochs.iter().map(|(place, _)| *place);
        self.seal.matters.iter().copied().chain(epochs)
    }

    /// What is wrong where the payloads are gone and nothing says that they may be.
    pub fn missing(&self) -> SealedError {
        SealedError::Damaged {
            place: 0,
            file: self.records_name(),
            why: "the file is missing, its hashes are there".to_owned(),
        }
    }

    /// Whether its records are there.
    pub fn has_payloads(&self) -> bool {
        self.kept.is_none()
    }

    /// Believes what a record of the log says about it, if that is about this.
    pub fn believe(&self, pruned: &Pruned) -> Result<(), SealedError> {
        let same =
            (pruned.first_height, pruned.records) == (self.seal.first_height, self.seal.records);
        let Some((_, digest)) = &self.kept else {
            // They are about to go, maybe while they are read.
            if same {
                self.pruned.get_or_init(|| *pruned);
            }
            return Ok(());
        };
        if !same {
            return Err(self.missing());
        }
        if *digest != pruned.kept {
            return Err(SealedError::Damaged {
                place: 0,
                file: prune::kept_name(self.seal.first()),
                why: format!("it is not the file that record {} committed to", pruned.by),
            });
        }
        // The first one holds; there is only one for each segment.
        self.pruned.get_or_init(|| *pruned);
        Ok(())
    }

    /// The record that says that the payloads are gone; its height is 0 where none was read yet.
    pub fn pruned_by(&self) -> u64 {
        self.pruned.get().map_or(0, |pruned| pruned.by)
    }

    /// SHA-256 of what was kept, where the payloads are gone.
    pub fn kept_digest(&self) -> Option<&Hash> {
        self.kept.as_ref().map(|(_, digest)| digest)
    }

    /// A record that was kept.
    pub fn kept(&self, place: u64) -> Option<&[u8]> {
        let (kept, _) = self.kept.as_ref()?;
        let place = u32::try_from(place).ok()?;
        kept.get(&place).map(Vec::as_slice)
    }

    /// What was kept of the records, where a record that was known when this was opened said that they were about to go,
    /// and they went; and that record's height.
    pub fn gone_meanwhile(&self) -> Result<Option<(Self, u64)>, SealedError> {
        let Some(pruned) = self.pruned.get() else {
            return Ok(None);
        };
        let now = Self::open(&self.dir, self.seal.first())?;
        now.believe(pruned)?;
        Ok((!now.has_payloads()).then_some((now, pruned.by)))
    }

    /// One record, wherever it is.
    pub fn record(&self, place: u64) -> Result<Vec<u8>, SealedError> {
        if !self.has_payloads() {
            let kept = self.kept(place).map(<[u8]>::to_vec);
            return kept.ok_or_else(|| self.missing());
        }
        let (bundle, index) = crate::history::split(place);
        let records = self.records(bundle)?;
        let record = records.get(index).map(<[u8]>::to_vec);
        record.ok_or_else(|| {
            self.damaged(
                &self.records_name(),
                bundle,
                index,
                "there is no such record".to_owned(),
            )
        })
    }

    /// Adds to a `.kept` what of these records has to stay: what a start needs, and what says that something was anchored,
    /// shredded or pruned. `first` is the leaf index of the first of them.
    pub fn keep(&self, first: u64, records: &Records, kept: &mut Vec<u8>) {
        for (index, record) in (first - self.seal.first()..).zip(records.iter()) {
            let phase = crate::record::late_text(record, &crate::record::PHASE_KEY);
            let told = matches!(phase, Some(b"anchor" | b"epoch" | b"prune" | b"shred"));
            let place = u32::try_from(index).unwrap_or(u32::MAX);
            let epoch = || self.seal.epochs.iter().any(|(begins, _)| *begins == place);
            if told || self.seal.matters.binary_search(&place).is_ok() || epoch() {
                kept.extend_from_slice(record);
                kept.push(b'\n');
            }
        }
    }

    /// SHA-256 of the `.hsh`.
    pub fn hashes_digest(&self) -> Result<Hash, FileError> {
        let name = self.hashes_name();
        let length = self.leaves_at + self.seal.records * 32;
        let limit = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = self.dir.read(&name, limit)?;
        let missing = || on("read", name)(rustix::io::Errno::NOENT);
        Ok(sha256(&bytes.ok_or_else(missing)?))
    }

    /// Compares the hashes with each other, and all of the file with what the record of the pruning says of it.
    fn check_pruned(&self, progress: &mut dyn FnMut(u64)) -> Result<(), SealedError> {
        for (number, bundle) in self.seal.bundles.iter().enumerate() {
            let leaves = self.leaves(number)?;
            progress(u64::from(bundle.compressed) + leaves.len() as u64 * 32);
        }
        let digest = self.hashes_digest()?;
        match self.pruned.get() {
            Some(pruned) if pruned.hashes == digest => Ok(()),
            Some(pruned) => {
                let why = format!("it is not the file that record {} committed to", pruned.by);
                Err(self.damaged(&self.hashes_name(), 0, 0, why))
            }
            None => Err(self.missing()),
        }
    }

    /// Name of the `.hsh`.
    pub fn hashes_name(&self) -> String {
        sealed::hashes_name(self.seal.first())
    }

    /// Name of the `.zst`.
    pub fn records_name(&self) -> String {
        sealed::records_name(self.seal.first())
    }

    fn records_fd(&self) -> Result<(OwnedFd, String), FileError> {
        let name = self.records_name();
        Ok((self.dir.file(&name, OFlags::RDONLY, 0)?, name))
    }

    /// The leaf hashes of one bundle, checked against its root.
    pub fn leaves(&self, bundle: usize) -> Result<Vec<Hash>, SealedError> {
        let name = self.hashes_name();
        let fd = self.dir.file(&name, OFlags::RDONLY, 0)?;
        let leaves = self.leaves_of(&fd, bundle)?;
        match self.seal.bundles.get(bundle) {
            Some(known) if root_of(&leaves) == known.root => Ok(leaves),
            _ => Err(self.damaged(
                &name,
                bundle,
                0,
                format!("the hashes of the records do not have the root kept for bundle {bundle}"),
            )),
        }
    }

    fn leaves_of(&self, fd: &OwnedFd, bundle: usize) -> Result<Vec<Hash>, FileError> {
        let records = usize::try_from(self.seal.records_in(bundle)).unwrap_or(0);
        let mut bytes = vec![0; records * 32];
        let at = self.leaves_at + bundle as u64 * BUNDLE_RECORDS * 32;
        read_at(fd.as_fd(), &mut bytes, at).map_err(on("read", self.hashes_name()))?;
        let hashes = bytes.chunks_exact(32);
        Ok(hashes.filter_map(|hash| hash.try_into().ok()).collect())
    }

    /// The leaf hash of the last record.
    pub fn last_leaf(&self) -> Result<Hash, SealedError> {
        let leaves = self.leaves(self.seal.bundles.len().saturating_sub(1))?;
        Ok(leaves.last().copied().unwrap_or(self.seal.prev))
    }

    /// The records of one bundle, each checked against its leaf hash, and these against the bundle's root.
    pub fn records(&self, bundle: usize) -> Result<Records, SealedError> {
        let (fd, _) = self.records_fd()?;
        let leaves = self.leaves(bundle)?;
        let prev = match bundle.checked_sub(1) {
            None => self.seal.prev,
            Some(before) => {
                let leaves = self.leaves(before)?;
                leaves.last().copied().unwrap_or(self.seal.prev)
            }
        };
        let before = self.seal.bundles.iter().take(bundle);
        let at = before.map(|bundle| u64::from(bundle.compressed)).sum();
        self.records_behind(&fd, at, bundle, &prev, &leaves)
    }

    /// `at` is where the frame of the bundle begins.
    fn records_behind(
        &self,
        fd: &OwnedFd,
        at: u64,
        bundle: usize,
        prev: &Hash,
        leaves: &[Hash],
    ) -> Result<Records, SealedError> {
        let name = self.records_name();
        let Some(known) = self.seal.bundles.get(bundle) else {
            return Ok(Records::default());
        };
        let mut frame = vec![0; usize::try_from(known.compressed).unwrap_or(0)];
        let read = read_at(fd.as_fd(), &mut frame, at).map_err(on("read", &name))?;
        sealed::unpack(&frame[..read], known.plain, known.elided, prev, leaves)
            .map_err(|(index, why)| self.damaged(&name, bundle, index, why.to_owned()))
    }

    fn damaged(&self, file: &str, bundle: usize, index: usize, why: String) -> SealedError {
        SealedError::Damaged {
            place: bundle as u64 * BUNDLE_RECORDS + index as u64,
            file: file.to_owned(),
            why,
        }
    }

    /// Reads everything there is and compares it with everything else: each record with its hash, its height and its
    /// block's time, the list of those that matter with the records. Says the first wrong record.
    /// `bundle_checked` is shown what was found to be right: leaf index of the first record, hashes, records.
    pub fn check(
        &self,
        bundle_checked: &mut dyn FnMut(u64, &[Hash], &Records),
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), SealedError> {
        if !self.has_payloads() {
            return self.check_pruned(progress);
        }
        let mut check = self.begin_check()?;
        while let Some((first, leaves, records)) = self.check_next(&mut check)? {
            bundle_checked(first, &leaves, &records);
            let hashes = leaves.len() as u64 * 32;
            progress(check.compressed + hashes);
        }
        Ok(())
    }

    /// The same in steps, of a segment that has its payloads.
    pub fn begin_check(&self) -> Result<Check, SealedError> {
        let (records, _) = self.records_fd()?;
        Ok(Check {
            records,
            hashes: self.dir.file(&self.hashes_name(), OFlags::RDONLY, 0)?,
            prev: self.seal.prev,
            matters: sealed::Matters::default(),
            number: 0,
            at: 0,
            compressed: 0,
        })
    }

    /// The next bundle that is right: leaf index of its first record, hashes, records. `None` when everything is.
    pub fn check_next(
        &self,
        check: &mut Check,
    ) -> Result<Option<(u64, Vec<Hash>, Records)>, SealedError> {
        let hashes_name = self.hashes_name();
        let number = check.number;
        let Some(bundle) = self.seal.bundles.get(number) else {
            if std::mem::take(&mut check.matters).finish() != self.seal.matters {
                let why = "the list of records that matter is not what the records say".to_owned();
                return Err(self.damaged(&hashes_name, 0, 0, why));
            }
            return Ok(None);
        };
        let leaves = self.leaves_of(&check.hashes, number)?;
        let root = root_of(&leaves);
        if root != bundle.root {
            let why = format!(
                "the hashes of the records have the root {}, kept for them is {}",
                hex(&root),
                hex(&bundle.root)
            );
            return Err(self.damaged(&hashes_name, number, 0, why));
        }
        let records =
            self.records_behind(&check.records, check.at, number, &check.prev, &leaves)?;
        check.compressed = u64::from(bundle.compressed);
        check.at += check.compressed;
        check.number += 1;
        let first = number as u64 * BUNDLE_RECORDS;
        let mut time = None;
        for (index, record) in records.iter().enumerate() {
            let place = first + index as u64;
            if crate::record::height_of(record) != Some(self.seal.first_height + place) {
                let why = "the record says another height".to_owned();
                return Err(self.damaged(&self.records_name(), number, index, why));
            }
            let follows = bundle.elided || crate::record::follows(record, &check.prev);
            if !follows {
                let why = "prev_hash is not the hash of the record before it".to_owned();
                return Err(self.damaged(&self.records_name(), number, index, why));
            }
            check
                .matters
                .record(u32::try_from(place).unwrap_or(u32::MAX), record);
            check.prev = leaves.get(index).copied().unwrap_or(check.prev);
            time = Some(record);
        }
        if time.and_then(crate::record::timestamp_of) != Some(bundle.timestamp) {
            let why = "the time kept for a bundle is not that of its last record".to_owned();
            return Err(self.damaged(&hashes_name, number, 0, why));
        }
        Ok(Some((self.seal.first() + first, leaves, records)))
    }
}

fn size(fd: &OwnedFd, name: &str) -> Result<u64, FileError> {
    let stat = rustix::fs::fstat(fd).map_err(on("look at", name))?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}
