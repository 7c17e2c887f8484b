//! One file that several processes change: an exclusive lock on a lock file beside it, and replacement by rename, so that
//! a reader sees the old or the new text and a process killed at any instruction leaves one of the two.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::StoreError;

const LOCK_WAIT: Duration = Duration::from_secs(30);
const MODE: u32 = 0o640;

/// The lock; dropping it (or dying) lets the next one in.
pub(super) struct Guard {
    _lock: File,
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { what, path, source }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Waits for the lock of `path`, at most half a minute: every holder is done within milliseconds.
pub(super) fn lock(path: &Path) -> Result<Guard, StoreError> {
    let lock = beside(path, ".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(MODE)
        .open(&lock)
        .map_err(io("cannot open", &lock))?;
    let end = Instant::now() + LOCK_WAIT;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Guard { _lock: file }),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR)
                if Instant::now() < end =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::Locked {
                    path: lock,
                    seconds: LOCK_WAIT.as_secs(),
                });
            }
            Err(errno) => return Err(io("cannot lock", &lock)(errno.into())),
        }
    }
}

/// The bytes of `path`; `None` when there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io("cannot read", path)(e)),
    }
}

/// Replaces `path`. The caller holds the lock, so the temporary name is never used twice at a time.
pub(super) fn replace(_held: &Guard, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = beside(path, ".new");
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(MODE)
        .open(&temporary)
        .map_err(io("cannot write", &temporary))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(io("cannot write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(io("cannot replace", path))?;
    let directory = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|dir| dir.sync_all())
        .map_err(io("cannot sync the directory of", path))
}
