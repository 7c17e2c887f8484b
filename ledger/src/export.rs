//! The history as files that others' tools read: a static C2SP tlog-tiles directory, a copy of the block files, lines of
//! JSON. Written from the segments through [`Reader`]; may be killed anywhere and started again. Called by the commands.

use crate::blocks::{self, BLOCK_RECORDS, BlockChain, BlockHead};
use crate::bundle::{self, BundleError};
use crate::dir::{self, FileError, LedgerDir, on};
use crate::failpoint;
use crate::features::{Generations, History, Vector};
use crate::hold::{Hold, HoldError};
use crate::merkle::{Hash, hex, leaf_hash, root_of};
use crate::note::{Checkpoint, NoteError};
use crate::reader::{ReadError, Reader};
use crate::record;
use crate::tiles::{self, MAX_LEVEL, Tile, WIDTH};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io::Write;

/// Why nothing, or not everything, was exported. Started again, an export goes on where it was.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The ledger cannot be read.
    #[error("{0}")]
    Read(#[from] ReadError),
    /// The directory that is exported to refused something.
    #[error("cannot {0}")]
    File(#[from] FileError),
    /// Lines cannot be written.
    #[error("cannot write: {0}")]
    Write(#[from] std::io::Error),
    /// What stands in the directory is no export.
    #[error("the checkpoint in the directory cannot be read ({0}); export to an empty directory")]
    Checkpoint(#[from] NoteError),
    /// The directory has more than the ledger: publishing less would show a rollback to everybody who looks.
    #[error(
        "the directory has {exported} records, the ledger has only {records}: the ledger's end was cut off, or it is an old copy; nothing was written"
    )]
    Shorter {
        /// Records exported before.
        exported: u64,
        /// Records of the ledger.
        records: u64,
    },
    /// The directory is an export of something else.
    #[error(
        "the directory has another history: its first {exported} records are not those of this ledger; nothing was written, export to an empty directory"
    )]
    Foreign {
        /// Records exported before.
        exported: u64,
    },
    /// Another export is writing there.
    #[error("{0}")]
    Held(#[from] HoldError),
    /// A record that no bundle can hold.
    #[error("{0}")]
    Bundle(#[from] BundleError),
}

/// What an export did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Exported {
    /// Records in the export now.
    pub records: u64,
    /// Records that it did not have before.
    pub new_records: u64,
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Records that were left out because their payloads were pruned.
    pub pruned: u64,
}

/// Writes (or completes) a C2SP tlog-tiles log in `target`: entry bundles and tiles first, made durable, the checkpoint
/// last; so whoever reads meanwhile, or after a kill, has a whole log. `cosigned` is a checkpoint with more signatures,
/// used instead of the head's own when it is of the same size and root. Modes are those of `target`.
///
/// # Errors
/// The ledger or the directory, see [`ExportError`]. What is there of another history is left alone.
pub fn to_c2sp(
    reader: &Reader,
    target: &LedgerDir,
    cosigned: Option<&str>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Exported, ExportError> {
    let _held = Hold::take(target)?;
    failpoint::reach("export-held", b"");
    let head = reader.head()?;
    let before = exported_size(reader, target, &head)?;
    let mut tree = Tree::new(target)?;
    let mut done = Exported {
        records: head.size,
        new_records: head.size - before,
        ..Exported::default()
    };
    // Hashes of each level that wait for their tile to be full.
    let mut waiting: Vec<(u64, Vec<Hash>)> = vec![(0, Vec::new()); usize::from(MAX_LEVEL) + 1];
    let mut leaves = Vec::new();
    for index in 0..head.size {
        // A bundle at a time: sealed segments are read in bundles.
        if index.is_multiple_of(WIDTH) {
            leaves = reader.leaves(index, head.size.min(index + WIDTH))?;
        }
        let missing = || ReadError::NoRecord {
            index,
            size: head.size,
        };
        let place = usize::try_from(index % WIDTH).unwrap_or(usize::MAX);
        let mut hash = *leaves.get(place).ok_or_else(missing)?;
        for level in 0..=MAX_LEVEL {
            let Some((number, hashes)) = waiting.get_mut(usize::from(level)) else {
                break;
            };
            hashes.push(hash);
            if hashes.len() as u64 != WIDTH {
                break;
            }
            hash = root_of(hashes);
            let hashes = std::mem::take(hashes);
            let at = (level, *number);
            *number += 1;
            put_tile(
                reader,
                &mut tree,
                (before, head.size),
                at,
                &hashes,
                &mut done,
            )?;
        }
        if (index + 1).is_multiple_of(WIDTH) {
            progress(index + 1, head.size);
        }
    }
    for (level, (number, hashes)) in (0..=MAX_LEVEL).zip(&waiting) {
        if !hashes.is_empty() {
            let at = (level, *number);
            put_tile(
                reader,
                &mut tree,
                (before, head.size),
                at,
                hashes,
                &mut done,
            )?;
        }
    }
    rustix::fs::syncfs(target).map_err(on("sync", "the export"))?;
    // Full now, so the partial ones may go; before the checkpoint, so that a kill cannot leave them for good.
    for tile in tiles::added(before, head.size).filter(|tile| !tile.is_partial()) {
        if Tile::at(tile.level(), tile.index(), before).is_some() {
            tree.remove_partials(&tile.path())?;
            if tile.level() == 0 {
                tree.remove_partials(&tile.entries_path())?;
            }
        }
    }
    let note = cosigned
        .filter(|note| {
            Checkpoint::parse_unverified(note)
                .is_ok_and(|found| (found.size, found.root) == (head.size, head.root))
        })
        .unwrap_or(&head.note);
    if target.read(dir::CHECKPOINT, 64 * 1024)?.as_deref() != Some(note.as_bytes()) {
        target.replace(dir::CHECKPOINT, note.as_bytes(), tree.mode & 0o666, true)?;
        done.files += 1;
        done.bytes += note.len() as u64;
    }
    progress(head.size, head.size);
    Ok(done)
}

/// How many records the directory has, when they are this ledger's.
fn exported_size(
    reader: &Reader,
    target: &LedgerDir,
    head: &crate::writer::Head,
) -> Result<u64, ExportError> {
    let Some(bytes) = target.read(dir::CHECKPOINT, 64 * 1024)? else {
        return Ok(0);
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| NoteError::Shape("it is not text"))?;
    let found = Checkpoint::parse_unverified(text)?;
    let exported = found.size;
    if exported > head.size {
        let records = head.size;
        return Err(ExportError::Shorter { exported, records });
    }
    let ours = Checkpoint::parse_unverified(&head.note)?;
    if reader.root_of_range(0, exported)? != found.root || found.origin != ours.origin {
        return Err(ExportError::Foreign { exported });
    }
    Ok(exported)
}

/// Writes one tile, and on level 0 its bundle, unless the export has it already.
fn put_tile(
    reader: &Reader,
    tree: &mut Tree,
    (before, size): (u64, u64),
    (level, number): (u8, u64),
    hashes: &[Hash],
    done: &mut Exported,
) -> Result<(), ExportError> {
    let Some(tile) = Tile::at(level, number, size) else {
        return Ok(());
    };
    if Tile::at(level, number, before) == Some(tile) {
        return Ok(());
    }
    let mut put = |path: &str, bytes: &[u8]| {
        done.files += 1;
        done.bytes += bytes.len() as u64;
        tree.put(path, bytes)
    };
    put(&tile.path(), &tiles::encode(hashes))?;
    if level == 0 {
        let first = number * WIDTH;
        let records: Result<Option<Vec<_>>, _> = (first..first + u64::from(tile.width()))
            .map(|index| reader.get_unpruned(index))
            .collect();
        // What was pruned has no bundle; its tile is all there is, as C2SP allows.
        match records? {
            Some(records) => {
                let bundle = bundle::encode(records.iter().map(Vec::as_slice))?;
                put(&tile.entries_path(), &bundle)?;
            }
            None => done.pruned += u64::from(tile.width()),
        }
    }
    Ok(())
}

/// The directory that is written, with its sub-directories as far as they were opened.
struct Tree {
    root: LedgerDir,
    open: HashMap<String, LedgerDir>,
    /// Of the root; what is made in it gets the same rights.
    mode: u32,
}

/// Directories kept open; a directory has at most a thousand tiles, so this is more than enough at the right edge.
const KEPT: usize = 64;

impl Tree {
    fn new(root: &LedgerDir) -> Result<Self, FileError> {
        let stat = rustix::fs::fstat(root).map_err(on("look at", "the export"))?;
        Ok(Self {
            root: root.try_clone()?,
            open: HashMap::new(),
            mode: stat.st_mode & 0o777,
        })
    }

    /// Writes a file by rename, making the directories above it.
    fn put(&mut self, path: &str, bytes: &[u8]) -> Result<(), FileError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mode = self.mode;
        let file = mode & 0o666;
        let Some(dir) = self.open.get(parent) else {
            if self.open.len() == KEPT {
                self.open.clear();
            }
            let mut dir = self.root.try_clone()?;
            for part in parent.split('/').filter(|part| !part.is_empty()) {
                match rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(mode)) {
                    Ok(()) => {
                        dir = dir.sub(part)?;
                        // Whatever the umask says.
                        rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))
                            .map_err(on("set the mode of", part))?;
                    }
                    Err(Errno::EXIST) => dir = dir.sub(part)?,
                    Err(errno) => return Err(on("make directory", parent)(errno)),
                }
            }
            dir.replace(name, bytes, file, false)?;
            self.open.insert(parent.to_owned(), dir);
            return Ok(());
        };
        dir.replace(name, bytes, file, false)
    }

    /// Removes the partial forms of the full tile or bundle at `path`.
    fn remove_partials(&mut self, path: &str) -> Result<(), FileError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let partials = format!("{name}.p");
        let mut dir = self.root.try_clone()?;
        for part in parent.split('/') {
            dir = dir.sub(part)?;
        }
        let inner = match dir.sub(&partials) {
            Ok(inner) => inner,
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error),
        };
        for name in inner.names()? {
            if name
                .trim_start_matches('.')
                .starts_with(|c: char| c.is_ascii_digit())
            {
                rustix::fs::unlinkat(&inner, &name, AtFlags::empty())
                    .map_err(on("remove", format!("{path}.p/{name}")))?;
            }
        }
        self.open.remove(&format!("{path}.p"));
        match rustix::fs::unlinkat(&dir, &partials, AtFlags::REMOVEDIR) {
            // Something that is not ours stands in it: it stays.
            Ok(()) | Err(Errno::NOTEMPTY | Errno::NOENT) => Ok(()),
            Err(errno) => Err(on("remove", format!("{path}.p"))(errno)),
        }
    }
}

/// Writes (or completes) the block files and their index into `target`. Files that are right already are left alone.
///
/// # Errors
/// The ledger or the directory, see [`ExportError`].
pub fn to_blocks(
    reader: &Reader,
    target: &LedgerDir,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Exported, ExportError> {
    let _held = Hold::take(target)?;
    let head = reader.head()?;
    let origin = Checkpoint::parse_unverified(&head.note)?.origin;
    let mode = Tree::new(target)?.mode & 0o666;
    let mut done = Exported {
        records: head.size,
        ..Exported::default()
    };
    let mut put = |name: &str, bytes: &[u8]| -> Result<bool, ExportError> {
        // Compared whole: a file of a hundred records is as large as one of another hundred.
        let same = matches!(target.read(name, bytes.len()), Ok(Some(found)) if found == bytes);
        if !same {
            target.replace(name, bytes, mode, false)?;
            done.files += 1;
            done.bytes += bytes.len() as u64;
        }
        Ok(!same)
    };
    let mut chain = BlockChain::default();
    let mut block: Vec<(Hash, Vec<u8>)> = Vec::new();
    let mut features = Generations::<History>::new(0);
    let mut vectors: Vec<Option<Vector>> = Vec::new();
    let mut new_records = 0;
    for index in 0..head.size {
        if let Some((root, time)) = reader.pruned_block(index)? {
            if index.is_multiple_of(BLOCK_RECORDS) {
                chain.push_block(root, time);
                done.pruned += BLOCK_RECORDS;
            }
            continue;
        }
        let bytes = reader.get(index)?;
        let leaf = leaf_hash(&bytes);
        chain.push(leaf, record::timestamp_of(&bytes).unwrap_or(0));
        vectors.push(Some(features.push(&bytes)));
        block.push((leaf, bytes));
        let full = (index + 1).is_multiple_of(BLOCK_RECORDS);
        if !full && index + 1 != head.size {
            continue;
        }
        let open = chain.open();
        let closed = if full { chain.closed().last() } else { None };
        if let Some(head) = closed.or(open.as_ref())
            && put(&head.file_name(), &render(head, &block, &vectors))?
        {
            new_records += block.len() as u64;
        }
        block.clear();
        vectors.clear();
        progress(index + 1, head.size);
    }
    let open = chain.open();
    for page in 1.. {
        let Some(heads) = blocks::page_blocks(chain.closed(), page) else {
            break;
        };
        let bytes = blocks::render_page(&origin, page, heads);
        put(&blocks::page_name(page), &bytes)?;
    }
    let index = blocks::render_index(&origin, chain.closed(), open.as_ref());
    put(blocks::INDEX, &index)?;
    rustix::fs::syncfs(target).map_err(on("sync", "the export"))?;
    done.new_records = new_records;
    Ok(done)
}

fn render(head: &BlockHead, records: &[(Hash, Vec<u8>)], vectors: &[Option<Vector>]) -> Vec<u8> {
    let records = records.iter();
    let file = blocks::render_block(head, records.map(|(leaf, bytes)| (*leaf, bytes.as_slice())));
    blocks::with_features(&file, vectors)
}

/// Writes one line for each record: the record with its `hash`.
///
/// # Errors
/// The ledger cannot be read or the lines not be written.
pub fn to_jsonl(
    reader: &Reader,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Exported, ExportError> {
    let size = reader.size();
    let mut done = Exported {
        records: size,
        new_records: size,
        files: 0,
        bytes: 0,
        pruned: size,
    };
    for item in reader.records(0) {
        let (index, bytes) = item?;
        let hash = format!(",\"hash\":\"{}\"}}\n", hex(&leaf_hash(&bytes)));
        out.write_all(bytes.strip_suffix(b"}").unwrap_or(&bytes))?;
        out.write_all(hash.as_bytes())?;
        done.bytes += (bytes.len() - 1 + hash.len()) as u64;
        done.pruned -= 1;
        if (index + 1).is_multiple_of(BLOCK_RECORDS) {
            progress(index + 1, size);
        }
    }
    out.flush()?;
    Ok(done)
}

/// The bytes of a tile in an exported directory: the file of its width or, where that is gone, the beginning of the full
/// one. For [`tiles::TileTree::new`].
///
/// # Errors
/// Neither file can be read.
pub fn read_tile(exported: &LedgerDir, tile: Tile) -> Result<Vec<u8>, FileError> {
    let limit = usize::from(tile.width()) * 32;
    match read_beneath(exported, &tile.path(), limit) {
        Err(error) if tile.is_partial() && error.errno() == Some(Errno::NOENT) => {
            let full = tile.filled();
            let mut bytes = read_beneath(exported, &full.path(), usize::from(full.width()) * 32)?;
            bytes.truncate(limit);
            Ok(bytes)
        }
        other => other,
    }
}

/// The records that a tile of level 0 has the hashes of, from an exported directory: from the bundle of its width or,
/// where that is gone, the first ones of the full one. Not checked against any hash.
///
/// # Errors
/// Neither file can be read, or it is no bundle.
pub fn read_entries(exported: &LedgerDir, tile: Tile) -> Result<Vec<Vec<u8>>, ExportError> {
    let (found, bytes) = match read_beneath(exported, &tile.entries_path(), bundle::MAX_BYTES) {
        Err(error) if tile.is_partial() && error.errno() == Some(Errno::NOENT) => {
            let full = tile.filled();
            let bytes = read_beneath(exported, &full.entries_path(), bundle::MAX_BYTES)?;
            (full, bytes)
        }
        other => (tile, other?),
    };
    let records = bundle::decode(&bytes, found.width())?;
    let wanted = records.into_iter().take(usize::from(tile.width()));
    Ok(wanted.map(<[u8]>::to_vec).collect())
}

/// A file below a directory, no link followed on the way; `NOENT` when it is missing.
fn read_beneath(root: &LedgerDir, path: &str, limit: usize) -> Result<Vec<u8>, FileError> {
    let mut dir = root.try_clone()?;
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    for part in parent.split('/') {
        dir = dir.sub(part)?;
    }
    let bytes = dir.read(name, limit)?;
    bytes.ok_or_else(|| on("read", path)(Errno::NOENT))
}
