//! One process at a time writes to a directory: a lock file that says who has it by way of the kernel's own list. Taken by
//! exports, which may be started by hand and by a timer at once. The ledger's writer has a lock of its own.

use crate::dir::{FileError, LedgerDir, on};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FlockOperation, OFlags};
use rustix::io::Errno;

/// Its name. Gone when nobody writes; what a killed process leaves is taken over.
pub const NAME: &str = ".export.lock";
/// How often one that is just given up is tried again.
const TRIES: u32 = 16;

/// Why the directory cannot be written to now.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Somebody else does.
    #[error("{0} is writing to this directory; nothing was written, try again when it has ended")]
    Held(String),
    /// The system refused.
    #[error("cannot {0}")]
    File(#[from] FileError),
}

/// The right to write, until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    dir: LedgerDir,
    _fd: OwnedFd,
}

impl Hold {
    /// Takes it, or says who has it. 0600: who may only read cannot keep writers out.
    pub fn take(dir: &LedgerDir) -> Result<Self, HoldError> {
        for _ in 0..TRIES {
            let fd = dir.file(NAME, OFlags::RDWR | OFlags::CREATE, 0o600)?;
            match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(HoldError::Held(holder(&fd))),
                Err(errno) => return Err(on("lock", NAME)(errno).into()),
            }
            let stat = rustix::fs::fstat(&fd).map_err(on("look at", NAME))?;
            // Who had it before removed the file after we opened it: that lock is of a file nobody else sees.
            if dir.identity(NAME)? == Some((stat.st_dev, stat.st_ino)) {
                let dir = dir.try_clone()?;
                return Ok(Self { dir, _fd: fd });
            }
        }
        Err(HoldError::Held("another process".to_owned()))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // While it is still locked. What stays is in nobody's way.
        let _ = rustix::fs::unlinkat(&self.dir, NAME, AtFlags::empty());
    }
}

/// Who has locked this file, as far as it can be seen from here.
fn holder(fd: &OwnedFd) -> String {
    let pid = rustix::fs::fstat(fd).ok().and_then(|stat| {
        let (major, minor) = (
            rustix::fs::major(stat.st_dev),
            rustix::fs::minor(stat.st_dev),
        );
        let file = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        locking(&locks, &file)
    });
    let Some(pid) = pid else {
        return "another process".to_owned();
    };
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name: String = name.trim().escape_default().take(64).collect();
    match name.as_str() {
        "" => format!("process {pid}"),
        name => format!("process {pid} ({name})"),
    }
}

/// The process that holds the lock of `file` in the kernel's list; waiting ones are marked by an arrow.
fn locking(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, pid, found, ..] if found == file => pid.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_among_other_locks_and_those_who_wait_are_not_taken_for_it() {
        let locks = "1: POSIX  ADVISORY  READ 11 fd:01:77 128 128\n\
                     2: FLOCK  ADVISORY  WRITE 12 fd:01:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 13 fd:01:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 14 fd:01:78 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE -1 fd:01:79 0 EOF\n";
        assert_eq!(locking(locks, "fd:01:77"), Some(12));
        assert_eq!(locking(locks, "fd:01:78"), Some(14));
        for other in ["fd:01:79", "fd:01:7", "", "fd:02:77"] {
            assert_eq!(locking(locks, other), None, "{other}");
        }
    }

    #[test]
    fn a_lock_that_was_given_up_leaves_nothing_and_can_be_taken_again() {
        let dir = tempfile::tempdir().expect("temp dir");
        let open = || LedgerDir::open(dir.path()).expect("opens");
        let held = Hold::take(&open()).expect("taken");
        let refused = Hold::take(&open()).expect_err("held");
        assert!(refused.to_string().contains("process"), "{refused}");
        drop(held);
        assert!(!dir.path().join(NAME).exists());
        drop(Hold::take(&open()).expect("again"));
    }
}
