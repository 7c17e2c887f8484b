//! Files in the state directory that root's commands and the engine's user both write: the outbox, locks of accounts. What
//! root makes there its group may write; what is somebody else's stays theirs, and no link is followed: the engine's user
//! may put anything into that directory, and root must not be led by it.

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Between two looks whether a lock is free.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Opens a file for writing, makes it where it is missing.
///
/// # Errors
/// The system's; a link, or anything but a file with one name.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let make = flags | OFlags::CREATE | OFlags::EXCL;
    let mode = Mode::from_raw_mode(0o640);
    let file = loop {
        // Making and opening are two steps: with O_CREAT the kernel refuses what is another's in a sticky directory
        // (fs.protected_regular), to root too.
        match rustix::fs::open(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => match rustix::fs::open(path, make, mode) {
                Err(Errno::EXIST) => {}
                made => break File::from(made?),
            },
            opened => break File::from(opened?),
        }
    };
    let about = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile || about.st_nlink != 1 {
        return Err(io::Error::other(
            "it is no file with a single name; look who put it there",
        ));
    }
    let group = match path.parent() {
        Some(dir) => rustix::fs::stat(dir)?.st_gid,
        None => 0,
    };
    let own = about.st_uid == 0 && rustix::process::geteuid().is_root();
    if own && group != 0 {
        rustix::fs::fchown(&file, None, Some(rustix::fs::Gid::from_raw(group)))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o660))?;
    }
    Ok(file)
}

/// Waits until no other process has this file locked, and has it then, until it is closed. Giving up the wait gives up the lock.
///
/// # Errors
/// The system's.
pub async fn lock(file: &File) -> io::Result<()> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => tokio::time::sleep(LOOK_EVERY).await,
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

    #[test]
    fn no_link_is_followed_and_what_is_somebody_elses_stays_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let (target, path) = (dir.path().join("target"), dir.path().join("outbox.db"));
        std::fs::write(&target, "secret").unwrap();
        symlink(&target, &path).unwrap();
        assert!(open(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        std::fs::hard_link(&target, &path).unwrap();
        assert!(open(&path).is_err());
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "secret");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(open(&path).is_err());
        std::fs::remove_dir(&path).unwrap();
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root gives files to others");
            return;
        }
        chown(dir.path(), Some(0), Some(4242)).unwrap();
        open(&path).unwrap();
        let about = std::fs::metadata(&path).unwrap();
        assert_eq!(
            (about.uid(), about.gid(), about.mode() & 0o777),
            (0, 4242, 0o660)
        );
        chown(&path, Some(4243), Some(4243)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        open(&path).unwrap();
        let about = std::fs::metadata(&path).unwrap();
        assert_eq!(
            (about.uid(), about.gid(), about.mode() & 0o777),
            (4243, 4243, 0o600)
        );
    }
}
