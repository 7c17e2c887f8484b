//! What the witness remembers: for each log the head it cosigned last, as the cosigned note itself. Durable before it is
//! answered; one process for a directory. Judging is `blockhost_ledger::witness`.

use crate::config::Log;
use blockhost_ledger::cosign::Cosigner;
use blockhost_ledger::merkle::{hex, sha256};
use blockhost_ledger::note::{Checkpoint, Vkey, parts};
use blockhost_ledger::witness::{AddCheckpoint, Refusal, Seen};
use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest file that is read, bytes.
const MAX_BYTES: u64 = 64 * 1024;

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
    /// Held from judging to answering: two requests of one log cannot pass each other.
    last: Mutex<Option<Last>>,
}

#[derive(Debug, Clone)]
struct Last {
    seen: Seen,
    note: String,
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
    directory: PathBuf,
    _lock: File,
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
        let mut kept = HashMap::new();
        for log in logs {
            let path = directory.join(file_name(&log.origin));
            let last = read_last(&path, &log.origin, &cosigner)?;
            kept.insert(
                log.origin.clone(),
                Kept {
                    keys: log.keys.clone(),
                    path,
                    last: Mutex::new(last),
                },
            );
        }
        Ok(Self {
            cosigner,
            logs: kept,
            directory: directory.to_owned(),
            _lock: lock,
        })
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
        let line = self.cosigner.cosign(request.body()?, time_s);
        let note = format!("{}{line}", request.note);
        self.write(&kept.path, &note)?;
        *last = Some(Last {
            seen: Seen {
                size: head.size,
                root: head.root,
            },
            note,
            time_s,
        });
        Ok(line)
    }

    /// The note that was cosigned last of the log whose origin has this SHA-256.
    #[must_use]
    pub fn latest(&self, origin_sha256: &str) -> Option<String> {
        let (_, kept) = self
            .logs
            .iter()
            .find(|(origin, _)| hex(&sha256(origin.as_bytes())) == origin_sha256)?;
        let last = kept.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|last| last.note.clone())
    }

    /// What is known of each log, by name.
    #[must_use]
    pub fn states(&self) -> Vec<LogState> {
        let mut states: Vec<LogState> = self
            .logs
            .iter()
            .map(|(origin, kept)| {
                let last = kept.last.lock().unwrap_or_else(PoisonError::into_inner);
                LogState::of(origin, last.as_ref())
            })
            .collect();
        states.sort_by(|a, b| a.origin.cmp(&b.origin));
        states
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
        file.write_all(note.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(on("write", &temporary))?;
        std::fs::rename(&temporary, path).map_err(on("rename into place", path))?;
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
    let state = |log: &Log| {
        let path = directory.join(file_name(&log.origin));
        let last = read_last(&path, &log.origin, cosigner)?;
        Ok(LogState::of(&log.origin, last.as_ref()))
    };
    logs.iter().map(state).collect()
}

/// One file for each log, whatever its name is made of.
fn file_name(origin: &str) -> String {
    format!("{}.checkpoint", hex(&sha256(origin.as_bytes())))
}

fn read_last(path: &Path, origin: &str, cosigner: &Cosigner) -> Result<Option<Last>, StoreError> {
    let mut note = String::new();
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
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
    let own = cosigner.key().find(body, lines);
    let time_s = own.ok_or_else(|| bad("our cosignature is missing"))?.time_s;
    let seen = Seen {
        size: head.size,
        root: head.root,
    };
    Ok(Some(Last { seen, note, time_s }))
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
