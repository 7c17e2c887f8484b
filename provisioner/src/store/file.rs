//! One file that several processes change: an exclusive lock on a lock file beside it, and replacement by rename, so that
//! a reader sees the old or the new text and a process killed at any instruction leaves one of the two.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::StoreError;

const LOCK_WAIT: Duration = Duration::from_secs(30);
const MODE: u32 = 0o640;

/// The lock; dropping it (or dying) lets the next one in.
pub(crate) struct Guard {
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

fn directory_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Makes a file that was not there, never through a link. What root makes here belongs to whom the directory belongs to:
/// an operator's one command as root must not take the database away from the services.
fn make(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)?;
    if rustix::process::geteuid().is_root() {
        let owner = std::fs::metadata(directory_of(path))?;
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(file)
}

fn open_or_make(path: &Path) -> std::io::Result<File> {
    use std::io::ErrorKind::{AlreadyExists, NotFound};
    loop {
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        match OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(path)
        {
            Err(e) if e.kind() == NotFound => {}
            opened => return opened,
        }
        match make(path) {
            // Somebody was quicker.
            Err(e) if e.kind() == AlreadyExists => {}
            made => return made,
        }
    }
}

/// Waits for the lock of `path`, at most half a minute: every holder is done within milliseconds.
pub(crate) fn lock(path: &Path) -> Result<Guard, StoreError> {
    let lock = beside(path, ".lock");
    let file = open_or_make(&lock).map_err(io("cannot open", &lock))?;
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
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io("cannot read", path)(e)),
    }
}

/// Replaces `path`. The caller holds the lock, so the temporary name is never used twice at a time.
pub(crate) fn replace(_held: &Guard, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = beside(path, ".new");
    // A leftover of a writer that was killed.
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(io("cannot remove", &temporary)(e));
        }
        _ => {}
    }
    let mut file = make(&temporary).map_err(io("cannot write", &temporary))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|e| {
            // Half of it on a full disk would only keep it full.
            let _ = std::fs::remove_file(&temporary);
            io("cannot write", &temporary)(e)
        })?;
    std::fs::rename(&temporary, path).map_err(io("cannot replace", path))?;
    File::open(directory_of(path))
        .and_then(|dir| dir.sync_all())
        .map_err(io("cannot sync the directory of", path))
}
