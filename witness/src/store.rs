//! What the witness remembers: for each log the head it cosigned last, as the cosigned note itself. Durable before it is
//! answered; one process for a directory. Judging is `blockhost_ledger::witness`.

use crate::config::Log;
use blockhost_ledger::cosign::Cosigner;
use blockhost_ledger::failpoint;
use blockhost_ledger::merkle::{hex, sha256};
use blockhost_ledger::note::{Checkpoint, Vkey, parts, signed_by};
use blockhost_ledger::witness::{AddCheckpoint, Refusal, Seen};
use std::collections::{BTreeSet, HashMap};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest file that is read, bytes.
const MAX_BYTES: u64 = 64 * 1024;
/// Lists the logs of which a head was cosigned, by the SHA-256 of their names, one a line: whose memory is gone is not
/// taken for one that was never seen.
const KNOWN: &str = "cosigned-logs";
/// Most that is read of it: room for a quarter of a million logs.
const MAX_KNOWN_BYTES: u64 = 16 << 20;
/// A head that was cosigned is not cosigned anew for this long, seconds: anybody may show it again, and each time would cost
/// two syncs.
const FRESH_S: u64 = 60;

/// Why the witness cannot use its memory.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process uses it.
    #[error("another witness uses {}", .0.display())]
    Locked(PathBuf),
    /// A file that this witness did not write.
    #[error(
        "{} is not a head that this witness cosigned: {why}. It is not started, because it could cosign a second history; restore the file, or retire this witness's key and begin a new one",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// A head that was cosigned is not remembered any more.
    #[error(
        "{} is missing, and this witness has cosigned a head of {origin}. It is not started, because it could cosign a second history; restore the file as it was last, or retire this witness's key and begin a new one",
        path.display()
    )]
    Forgotten {
        /// The file that is missing.
        path: PathBuf,
        /// The log.
        origin: String,
    },
    /// The key file.
    #[error("the key {}: {why}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Why a request got no cosignature.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// It must not have one.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be remembered.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn on(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File {
        doing,
        path,
        source,
    }
}

/// One log.
#[derive(Debug)]
struct Kept {
    keys: Vec<Vkey>,
    path: PathBuf,
    /// What is judged by. Held from judging to answering, while the next one is made durable: two requests of one log cannot
    /// pass each other.
    last: Mutex<Option<Last>>,
    /// What others are shown: the newest that is durable. Never held for longer than a look.
    shown: Mutex<Option<Arc<Last>>>,
}

impl Kept {
    fn shown(&self) -> Option<Arc<Last>> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.clone()
    }
}

#[derive(Debug, Clone)]
struct Last {
    seen: Seen,
    note: String,
    /// Our line of the note.
    line: String,
    time_s: u64,
}

/// What is known of a log, for people and programs.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LogState {
    /// Its name.
    pub origin: String,
    /// Records of the head that was cosigned last.
    pub size: Option<u64>,
    /// Its root, hexadecimal.
    pub root: Option<String>,
    /// When, seconds since 1970 UTC.
    pub time_s: Option<u64>,
}

impl LogState {
    fn of(origin: &str, last: Option<&Last>) -> Self {
        Self {
            origin: origin.to_owned(),
            size: last.map(|last| last.seen.size),
            root: last.map(|last| hex(&last.seen.root)),
            time_s: last.map(|last| last.time_s),
        }
    }
}

/// The memory and the key.
#[derive(Debug)]
pub struct Store {
    cosigner: Cosigner,
    logs: HashMap<String, Kept>,
    /// The lines of [`KNOWN`].
    known: Mutex<BTreeSet<String>>,
    directory: PathBuf,
    _lock: Locked,
}

/// A file that this process has locked. Closing it would not free it as long as a program that another thread is starting has
/// a copy of the descriptor.
#[derive(Debug)]
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Store {
    /// Opens the directory (made when missing) and reads what was cosigned of these logs.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is served from a memory that cannot be believed.
    pub fn open(directory: &Path, cosigner: Cosigner, logs: &[Log]) -> Result<Self, StoreError> {
        let made = DirBuilder::new().mode(0o700).create(directory);
        match made {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => other.map_err(on("make", directory))?,
        }
        let path = directory.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(on("open", &path))?;
        if lock.try_lock().is_err() {
            return Err(StoreError::Locked(directory.to_owned()));
        }
        let lock = Locked(lock);
        let mut known = read_known(directory)?;
        let listed = known.len();
        let mut kept = HashMap::new();
        for log in logs {
            let path = directory.join(file_name(&log.origin));
            let last = read_last(&path, &log.origin, &cosigner, &known)?;
            // Killed between the two, or of a version that kept no list.
            if last.is_some() {
                known.insert(hex(&sha256(log.origin.as_bytes())));
            }
            kept.insert(
                log.origin.clone(),
                Kept {
                    keys: log.keys.clone(),
                    path,
                    shown: Mutex::new(last.clone().map(Arc::new)),
                    last: Mutex::new(last),
                },
            );
        }
        let store = Self {
            cosigner,
            logs: kept,
            known: Mutex::new(known),
            directory: directory.to_owned(),
            _lock: lock,
        };
        let known = store.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > listed {
            store.write_known(&known)?;
        }
        drop(known);
        Ok(store)
    }

    /// The public key of this witness.
    #[must_use]
    pub fn key(&self) -> &blockhost_ledger::cosign::WitnessKey {
        self.cosigner.key()
    }

    /// Judges a request; if it may be, remembers its head durably and gives the cosignature line.
    ///
    /// # Errors
    /// [`AddError`].
    pub fn add(&self, request: &AddCheckpoint) -> Result<String, AddError> {
        let origin = request.claim()?.origin;
        let kept = self.logs.get(&origin).ok_or(Refusal::UnknownLog)?;
        let mut last = kept.last.lock().unwrap_or_else(PoisonError::into_inner);
        let head = request.judge(&kept.keys, last.as_ref().map(|last| &last.seen))?;
        // A clock that was set back must not make a later statement look older.
        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let time_s = last.as_ref().map_or(now_s, |last| now_s.max(last.time_s));
        let seen = Seen {
            size: head.size,
            root: head.root,
        };
        let durable = kept.shown();
        if let Some(durable) = durable.filter(|last| last.seen == seen)
            && time_s < durable.time_s.saturating_add(FRESH_S)
        {
            return Ok(durable.line.clone());
        }
        let line = self.cosigner.cosign(request.body()?, time_s);
        // Nothing of what else stood below it: it is read again at the next start.
        let signed = signed_by(&request.note, &kept.keys).ok_or(Refusal::NotSigned)?;
        let note = format!("{signed}{line}");
        let written = self
            .write(&kept.path, &note)
            .and_then(|()| self.know(&origin));
        if let Err(error) = written {
            // It may have its name all the same: then a head of another history must not get a cosignature now.
            let known = BTreeSet::new();
            if let Ok(now @ Some(_)) = read_last(&kept.path, &origin, &self.cosigner, &known) {
                *last = now;
            }
            return Err(error.into());
        }
        failpoint::reach("witness-remembered", b"");
        let now = Last {
            seen,
            note,
            line: line.clone(),
            time_s,
        };
        *kept.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(now.clone()));
        *last = Some(now);
        Ok(line)
    }

    /// The note that was cosigned last of the log whose origin has this SHA-256.
    #[must_use]
    pub fn latest(&self, origin_sha256: &str) -> Option<String> {
        let (_, kept) = self
            .logs
            .iter()
            .find(|(origin, _)| hex(&sha256(origin.as_bytes())) == origin_sha256)?;
        kept.shown().map(|last| last.note.clone())
    }

    /// What is known of each log, by name.
    #[must_use]
    pub fn states(&self) -> Vec<LogState> {
        let mut states: Vec<LogState> = self
            .logs
            .iter()
            .map(|(origin, kept)| LogState::of(origin, kept.shown().as_deref()))
            .collect();
        states.sort_by(|a, b| a.origin.cmp(&b.origin));
        states
    }

    /// Puts a log on the list. After its head: a list that speaks of more than there is would stop the next start.
    fn know(&self, origin: &str) -> Result<(), StoreError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let name = hex(&sha256(origin.as_bytes()));
        if known.contains(&name) {
            return Ok(());
        }
        let mut longer = known.clone();
        longer.insert(name);
        self.write_known(&longer)?;
        *known = longer;
        Ok(())
    }

    fn write_known(&self, known: &BTreeSet<String>) -> Result<(), StoreError> {
        let text: String = known.iter().map(|name| format!("{name}\n")).collect();
        self.write(&self.directory.join(KNOWN), &text)
    }

    fn write(&self, path: &Path, note: &str) -> Result<(), StoreError> {
        let temporary = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(on("make", &temporary))?;
        failpoint::reach("witness-begun", b"");
        file.write_all(note.as_bytes())
            .map_err(on("write", &temporary))?;
        failpoint::reach("witness-written", b"");
        file.sync_all().map_err(on("write", &temporary))?;
        failpoint::reach("witness-synced", b"");
        std::fs::rename(&temporary, path).map_err(on("rename into place", path))?;
        failpoint::reach("witness-renamed", b"");
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(on("sync", &self.directory))
    }
}

/// What was cosigned, read beside a witness that may be running.
///
/// # Errors
/// [`StoreError`].
pub fn look(
    directory: &Path,
    cosigner: &Cosigner,
    logs: &[Log],
) -> Result<Vec<LogState>, StoreError> {
    let known = read_known(directory)?;
    let state = |log: &Log| {
        let path = directory.join(file_name(&log.origin));
        let last = read_last(&path, &log.origin, cosigner, &known)?;
        Ok(LogState::of(&log.origin, last.as_ref()))
    };
    logs.iter().map(state).collect()
}

/// One file for each log, whatever its name is made of.
fn file_name(origin: &str) -> String {
    format!("{}.checkpoint", hex(&sha256(origin.as_bytes())))
}

/// The list of the logs of which something was cosigned.
fn read_known(directory: &Path) -> Result<BTreeSet<String>, StoreError> {
    let path = directory.join(KNOWN);
    let mut text = String::new();
    match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(on("open", &path)(error)),
        Ok(file) => file
            .take(MAX_KNOWN_BYTES)
            .read_to_string(&mut text)
            .map_err(on("read", &path))?,
    };
    let whole = text.is_empty() || text.ends_with('\n');
    let good = |line: &str| blockhost_ledger::blobs::parse_hash(line).is_some();
    if !whole || !text.lines().all(good) {
        let why = "it is no list of logs";
        return Err(StoreError::Damaged { path, why });
    }
    Ok(text.lines().map(str::to_owned).collect())
}

fn read_last(
    path: &Path,
    origin: &str,
    cosigner: &Cosigner,
    known: &BTreeSet<String>,
) -> Result<Option<Last>, StoreError> {
    let mut note = String::new();
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if known.contains(&hex(&sha256(origin.as_bytes()))) {
                return Err(StoreError::Forgotten {
                    path: path.to_owned(),
                    origin: origin.to_owned(),
                });
            }
            return Ok(None);
        }
        Err(error) => return Err(on("open", path)(error)),
        Ok(file) => file
            .take(MAX_BYTES)
            .read_to_string(&mut note)
            .map_err(on("read", path))?,
    };
    let bad = |why| StoreError::Damaged {
        path: path.to_owned(),
        why,
    };
    let head = Checkpoint::parse_unverified(&note).map_err(|_| bad("it is no checkpoint"))?;
    if head.origin != origin {
        return Err(bad("it is of another log"));
    }
    let (body, lines) = parts(&note).map_err(|_| bad("it is no checkpoint"))?;
    // It is the last one; those before it may be anybody's, where an older version wrote it.
    let last = lines.trim_end_matches('\n').rsplit('\n').next();
    let last = last.map(|line| format!("{line}\n")).unwrap_or_default();
    let own = cosigner.key().find(body, &last);
    let own = own.or_else(|| cosigner.key().find(body, lines));
    let own = own.ok_or_else(|| bad("our cosignature is missing"))?;
    let seen = Seen {
        size: head.size,
        root: head.root,
    };
    Ok(Some(Last {
        seen,
        note,
        line: format!("{}\n", own.line),
        time_s: own.time_s,
    }))
}

/// Reads the witness's key. A file that others may read is refused.
///
/// # Errors
/// [`StoreError`].
pub fn read_key(path: &Path) -> Result<Cosigner, StoreError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |why: String| StoreError::Key {
        path: path.to_owned(),
        why,
    };
    let file = File::open(path).map_err(on("open", path))?;
    let mode = file
        .metadata()
        .map_err(on("look at", path))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(failed(format!(
            "mode {:03o} lets others read it; chmod 600, and consider it known to them",
            mode & 0o777
        )));
    }
    let mut text = String::new();
    file.take(1024)
        .read_to_string(&mut text)
        .map_err(on("read", path))?;
    Cosigner::parse(&text).map_err(|error| failed(error.to_string()))
}

/// Makes a key file, 0600, durable; an existing one is never overwritten.
///
/// # Errors
/// [`StoreError`].
pub fn make_key(path: &Path, name: &str) -> Result<Cosigner, StoreError> {
    let cosigner = Cosigner::generate(name).map_err(|error| StoreError::Key {
        path: path.to_owned(),
        why: error.to_string(),
    })?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(on("make", path))?;
    file.write_all(cosigner.to_text().as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(on("write", path))?;
    if let Some(directory) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(on("sync", directory))?;
    }
    Ok(cosigner)
}
