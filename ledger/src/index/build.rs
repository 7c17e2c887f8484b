//! Filling the index: a few new records are added in one transaction; a whole index is made in a file beside it and
//! renamed into place, so that a process killed meanwhile leaves the old one or none, never half of one. Only who holds
//! the lock writes.

use super::numbers::{Added, FIELDS, Fresh, Mixed, New, Numbers};
use super::{
    APPLICATION, Counted, INDEXES, IndexError, TABLES, VERSION, connect, short, signed, state,
};
use crate::merkle::{Hash, sha256_of_each};
use crate::query::Fields;
use crate::reader::Reader;
use rusqlite::{Connection, params};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hash::BuildHasherDefault;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

/// Records that go from the reading to the writing side at a time.
const BATCH: u64 = 4096;
/// Numbers in a row of `record`.
const COLUMNS: usize = 6;
/// Rows in one statement: a call into SQLite costs more than a row.
const ROWS: usize = 64;

/// Rows, and what is new for them.
struct Batch {
    rows: Vec<[i64; COLUMNS]>,
    new: New,
}

/// Counts of what was seen: by kind, with first and last height.
type Tallies = HashMap<i64, (i64, i64, i64), BuildHasherDefault<Mixed>>;

fn directory(path: &Path) -> &Path {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    dir.unwrap_or(Path::new("."))
}

/// Makes the directory of the index, for its user alone; refuses one that others can write to.
pub(super) fn prepare_directory(path: &Path) -> Result<(), IndexError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let dir = directory(path);
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.map_err(on("make directory", dir))?;
    check_directory(path)
}

/// Refuses a directory that somebody else owns or can write to: an index made by others could leave records out.
pub(super) fn check_directory(path: &Path) -> Result<(), IndexError> {
    use std::os::unix::fs::MetadataExt as _;
    let dir = directory(path);
    let meta = std::fs::symlink_metadata(dir).map_err(on("look at", dir))?;
    let mine = meta.uid() == rustix::process::geteuid().as_raw();
    if !meta.is_dir() || !mine || meta.mode() & 0o022 != 0 {
        return Err(IndexError::Shared { path: dir.into() });
    }
    Ok(())
}

/// Takes the lock that every writer holds; waits a little, not for ever: whoever holds it may be stopped.
pub(super) fn lock(path: &Path) -> Result<File, IndexError> {
    let lock = beside(path, "lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::open(&lock, flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| on("open", &lock)(errno.into()))?;
    let until = std::time::Instant::now() + super::PATIENCE;
    loop {
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(fd.into()),
            Err(rustix::io::Errno::WOULDBLOCK) if std::time::Instant::now() < until => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(IndexError::Busy { path: path.into() });
            }
            Err(errno) => return Err(on("lock", &lock)(errno.into())),
        }
    }
}

/// Adds the records that the index does not have; says how many.
pub(super) fn add(
    path: &Path,
    reader: &Reader,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<u64, IndexError> {
    let sqlite = |source| IndexError::Sqlite {
        path: path.to_owned(),
        source,
    };
    let mut db = connect(path).map_err(sqlite)?;
    let transaction = db.transaction().map_err(sqlite)?;
    let (from, _) = state(&transaction)
        .map_err(|_| rusqlite::Error::InvalidQuery)
        .map_err(sqlite)?;
    let mut numbers = Added::to(&transaction).map_err(sqlite)?;
    let mut tallies = Tallies::default();
    let to = reader.size();
    let mut at = from;
    while at < to {
        let end = (at + BATCH).min(to);
        let batch = digest(reader, at, end, &mut numbers)?;
        if let Some(error) = numbers.failed.take() {
            return Err(sqlite(error));
        }
        write(&transaction, &batch, &mut tallies).map_err(sqlite)?;
        numbers.batch_done();
        at = end;
        progress(at - from, to - from);
    }
    drop(numbers);
    finish(&transaction, reader, &tallies).map_err(sqlite)?;
    transaction.commit().map_err(sqlite)?;
    Ok(to - from)
}

/// Makes the whole index. One thread reads, hashes and parses, the other writes.
pub(super) fn anew(
    path: &Path,
    reader: &Reader,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), IndexError> {
    let new = beside(path, "new");
    // A leftover of a process that was killed; we hold the lock.
    remove(&new)?;
    let sqlite = |source| IndexError::Sqlite {
        path: new.clone(),
        source,
    };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::open(&new, flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| on("make", &new)(errno.into()))?;
    let db = connect(&new).map_err(sqlite)?;
    fill(&db, reader, progress).map_err(|error| match error {
        FillError::Sqlite(source) => sqlite(source),
        FillError::Read(error) => error,
    })?;
    drop(db);
    let synced = File::open(&new).and_then(|file| file.sync_all());
    synced.map_err(on("sync", &new))?;
    // The old file goes before its journal, and both before the new one comes: a journal must never meet a file that it
    // does not belong to.
    remove(path)?;
    remove(&beside(path, "journal"))?;
    std::fs::rename(&new, path).map_err(on("rename into place", path))
}

enum FillError {
    Sqlite(rusqlite::Error),
    Read(IndexError),
}

impl From<rusqlite::Error> for FillError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn fill(
    db: &Connection,
    reader: &Reader,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), FillError> {
    // Nobody else sees this file, and half of it is thrown away.
    db.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA temp_store = MEMORY; PRAGMA cache_size = -65536;",
    )?;
    db.pragma_update(None, "application_id", APPLICATION)?;
    db.pragma_update(None, "user_version", VERSION)?;
    db.execute_batch("BEGIN")?;
    db.execute_batch(&TABLES.join(";"))?;
    db.execute("INSERT INTO log VALUES (?, 0, zeroblob(32))", [VERSION])?;
    let total = reader.size();
    let (send, receive) = sync_channel::<Batch>(4);
    let mut tallies = Tallies::default();
    std::thread::scope(|scope| -> Result<(), FillError> {
        let reading = scope.spawn(move || -> Result<(), IndexError> {
            let (mut at, mut numbers) = (0, Fresh::default());
            while at < total {
                let end = (at + BATCH).min(total);
                let batch = digest(reader, at, end, &mut numbers)?;
                if send.send(batch).is_err() {
                    // The writing side failed and says why.
                    return Ok(());
                }
                at = end;
            }
            Ok(())
        });
        let mut done = 0;
        while let Ok(batch) = receive.recv() {
            write(db, &batch, &mut tallies)?;
            done += batch.rows.len() as u64;
            progress(done, total);
        }
        match reading.join() {
            Ok(read) => read.map_err(FillError::Read),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    finish(db, reader, &tallies)?;
    db.execute_batch(&INDEXES.join(";"))?;
    db.execute_batch("COMMIT")?;
    Ok(())
}

/// Reads the records with leaf index `from` to `to` and makes numbers of them.
fn digest(
    reader: &Reader,
    from: u64,
    to: u64,
    numbers: &mut impl Numbers,
) -> Result<Batch, IndexError> {
    let mut batch = Batch {
        rows: Vec::with_capacity(usize::try_from(to - from).unwrap_or(0)),
        new: New::default(),
    };
    // What a field was in the record before, it mostly is again.
    let mut before: [(String, i64); FIELDS + 1] = Default::default();
    let mut op_ids = Joined::default();
    reader.each(from, to, &mut |index, leaf, record| {
        let fields = Fields::of(record);
        let new = &mut batch.new;
        let mut id = |field: usize, text: &str| {
            let (known, id) = &mut before[field];
            if *id == 0 || known != text {
                text.clone_into(known);
                *id = numbers.word(text, new);
            }
            *id
        };
        let kind = [
            id(0, &fields.phase),
            id(1, &fields.category),
            id(2, &fields.plugin_id),
            id(3, &fields.operation),
            id(4, &fields.action),
            id(5, &fields.user),
        ];
        let resource = id(FIELDS, &fields.resource);
        let kind = numbers.kind(kind, new);
        op_ids.push(&fields.op_id);
        let height = signed(index + 1);
        batch
            .rows
            .push([height, fields.ts_us, kind, resource, 0, short(leaf)]);
    })?;
    for (row, hash) in batch.rows.iter_mut().zip(op_ids.hashes()) {
        row[4] = short(&hash);
    }
    Ok(batch)
}

/// Texts one behind the other.
#[derive(Default)]
struct Joined {
    text: String,
    ends: Vec<usize>,
}

impl Joined {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// SHA-256 of each.
    fn hashes(&self) -> Vec<Hash> {
        let mut start = 0;
        let texts = self.ends.iter().map(|end| {
            let text = &self.text.as_bytes()[start..*end];
            start = *end;
            text
        });
        sha256_of_each(&texts.collect::<Vec<_>>())
    }
}

fn write(db: &Connection, batch: &Batch, tallies: &mut Tallies) -> rusqlite::Result<()> {
    {
        let mut word = db.prepare_cached("INSERT INTO word VALUES (?, ?)")?;
        for (id, text) in &batch.new.words {
            word.execute(params![id, text])?;
        }
        let mut kind = db.prepare_cached("INSERT INTO kind VALUES (?, ?, ?, ?, ?, ?, ?)")?;
        for (id, fields) in &batch.new.kinds {
            kind.execute(rusqlite::params_from_iter(
                std::iter::once(id).chain(fields),
            ))?;
        }
    }
    let place = |rows: usize| {
        let row = format!("({})", ["?"; COLUMNS].join(","));
        format!("INSERT INTO record VALUES {}", vec![row; rows].join(","))
    };
    let chunks = batch.rows.chunks_exact(ROWS);
    let rest = chunks.remainder();
    {
        let mut many = db.prepare_cached(&place(ROWS))?;
        for rows in chunks {
            many.execute(rusqlite::params_from_iter(rows.iter().flatten()))?;
        }
        let mut one = db.prepare_cached(&place(1))?;
        for row in rest {
            one.execute(rusqlite::params_from_iter(row))?;
        }
    }
    for [height, _, kind, ..] in &batch.rows {
        let entry = tallies.entry(*kind).or_insert((0, *height, *height));
        entry.0 += 1;
        entry.2 = *height;
    }
    Ok(())
}

/// Writes the counts and how far the index reaches now.
fn finish(db: &Connection, reader: &Reader, tallies: &Tallies) -> rusqlite::Result<()> {
    // In order, so that the same ledger gives the same file.
    let mut words: BTreeMap<(usize, i64), (i64, i64, i64)> = BTreeMap::new();
    let mut fields = db.prepare(
        "SELECT phase, category, plugin, operation, action, user FROM kind WHERE id = ?",
    )?;
    for (kind, (count, first, last)) in tallies {
        fields.query_row([kind], |row| {
            for field in Counted::ALL {
                let word = row.get(field.number())?;
                let seen = (field.number(), word);
                let entry = words.entry(seen).or_insert((0, *first, *last));
                entry.0 += count;
                entry.1 = entry.1.min(*first);
                entry.2 = entry.2.max(*last);
            }
            Ok(())
        })?;
    }
    let mut add = db.prepare_cached(
        "INSERT INTO tally VALUES (?, ?, ?, ?, ?) ON CONFLICT (field, word)
         DO UPDATE SET count = count + excluded.count, last = excluded.last",
    )?;
    for ((field, word), (count, first, last)) in words {
        add.execute(params![signed(field as u64), word, count, first, last])?;
    }
    let leaf: Hash = match reader.size() {
        0 => [0; 32],
        size => reader.leaf(size - 1).unwrap_or_default(),
    };
    db.execute(
        "UPDATE log SET size = ?, leaf = ?",
        params![signed(reader.size()), leaf],
    )?;
    Ok(())
}

/// `index.db` + `-lock`; `-journal` is SQLite's own.
fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-");
    name.push(what);
    name.into()
}

fn remove(path: &Path) -> Result<(), IndexError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(on("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn on(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> IndexError {
    let path = path.to_owned();
    move |source| IndexError::File {
        doing,
        path,
        source,
    }
}
