//! The ledger on this host, as the anchoring needs it: its size at little cost, and its roots and proofs when they are
//! wanted. Reads files only; the agent is not asked.

use blockhost_ledger::dir::{self, FileError, LedgerDir};
use blockhost_ledger::merkle::{Hash, empty_root};
use blockhost_ledger::note::{Checkpoint, NoteError};
use blockhost_ledger::reader::{ReadError, Reader};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A published checkpoint is a few hundred bytes, with cosignatures a few thousand.
const MAX_CHECKPOINT: u64 = 64 * 1024;
/// How far back a record of an anchor is looked for.
const LOOK_BACK: u64 = 1_000_000;

/// Why the ledger could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The files.
    #[error("the ledger: cannot {0}")]
    File(#[from] FileError),
    /// The published checkpoint, as a file.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Open {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The published checkpoint, as a text.
    #[error("the ledger's published checkpoint: {0}")]
    Checkpoint(#[from] NoteError),
    /// The records.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The published checkpoint is of another history than the records.
    #[error(
        "the ledger's published checkpoint of {0} records is not theirs; `blockhost ledger verify` says more"
    )]
    Unlike(u64),
}

/// What the ledger publishes about itself; `None` before it published anything. Cheap, and not checked.
///
/// # Errors
/// [`LocalError`].
pub fn published(path: &Path) -> Result<Option<Checkpoint>, LocalError> {
    let path = path.join(dir::CHECKPOINT);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LocalError::Open { path, source }),
    };
    let mut text = String::new();
    match file.take(MAX_CHECKPOINT).read_to_string(&mut text) {
        Ok(_) => Ok(Some(Checkpoint::parse_unverified(&text)?)),
        Err(source) => Err(LocalError::Open { path, source }),
    }
}

/// The whole ledger.
#[derive(Debug)]
pub struct History {
    /// Its name, as in its checkpoints.
    pub origin: String,
    reader: Reader,
}

impl History {
    /// Reads and checks it; as long as the ledger is large.
    ///
    /// # Errors
    /// [`LocalError`]: also when it is empty or damaged.
    pub fn read(path: &Path) -> Result<Self, LocalError> {
        let reader = Reader::open(LedgerDir::open(path)?, None)?;
        let head = reader.head()?;
        let origin = Checkpoint::parse_unverified(&head.note)?.origin;
        Ok(Self { origin, reader })
    }

    /// Number of records.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.reader.size()
    }

    /// The root of the first `size` records; `None` when there are not so many.
    ///
    /// # Errors
    /// A file that can no longer be read.
    pub fn root_at(&self, size: u64) -> Result<Option<Hash>, LocalError> {
        match size {
            0 => Ok(Some(empty_root())),
            size if size > self.size() => Ok(None),
            size => Ok(Some(self.reader.root_of_range(0, size)?)),
        }
    }

    /// The same for many sizes; those that are too large are left out.
    ///
    /// # Errors
    /// A file that can no longer be read.
    pub fn roots_at(
        &self,
        sizes: impl IntoIterator<Item = u64>,
    ) -> Result<BTreeMap<u64, Hash>, LocalError> {
        let sizes: BTreeSet<u64> = sizes.into_iter().collect();
        let roots = sizes
            .into_iter()
            .filter_map(|size| Some((size, self.root_at(size).transpose()?)));
        roots.map(|(size, root)| Ok((size, root?))).collect()
    }

    /// The proof that nothing changed between the first `old` records and the first `new`.
    ///
    /// # Errors
    /// There are not so many, or a file can no longer be read.
    pub fn prove(&self, old: u64, new: u64) -> Result<Vec<Hash>, LocalError> {
        Ok(self.reader.prove_growth(old, new)?)
    }

    /// Size of the newest head that the ledger has on record as anchored with this contract; 0 for none. It is looked for
    /// in the newest million records.
    ///
    /// # Errors
    /// [`LocalError::Read`].
    pub fn recorded(&self, chain_id: u64, contract: &str) -> Result<u64, LocalError> {
        let from = self.size().saturating_sub(LOOK_BACK);
        for record in self.reader.records(from).rev() {
            let (_, bytes) = record?;
            // Everything else need not be parsed.
            if !contains(&bytes, b"\"phase\":\"anchor\"") {
                continue;
            }
            let Ok(record) = serde_json::from_slice::<AnchorRecord>(&bytes) else {
                continue;
            };
            let metadata = record.metadata;
            if record.phase == "anchor"
                && metadata.chain_id == chain_id
                && metadata.contract == contract
            {
                return Ok(metadata.size);
            }
        }
        Ok(0)
    }
}

#[derive(Deserialize)]
struct AnchorRecord {
    phase: String,
    metadata: AnchorMetadata,
}

#[derive(Deserialize)]
struct AnchorMetadata {
    chain_id: u64,
    contract: String,
    size: u64,
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}
