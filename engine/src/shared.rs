//! Files in the state directory that root's commands and the engine's user both write: the outbox, locks of accounts. What
//! root makes there its group may write; what is somebody else's stays theirs, and no link is followed: the engine's user
//! may put anything into that directory, and root must not be led by it.

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

/// Between two looks whether a lock is free.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of a signature that are looked at.
const LONGEST_SIGNATURE: u64 = 128;

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

/// Writes into a file that this process has locked who that is, for those who wait. A full disk is no reason not to go on.
pub fn sign(file: &File) {
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(Path::file_name);
    let name = program.map_or_else(|| "a program".into(), |name| name.to_string_lossy());
    let text = format!("{name} {}\n", std::process::id());
    let _ = file.set_len(0);
    let _ = file.write_all_at(text.as_bytes(), 0);
}

/// Who has signed such a file last. What is read is another user's word, so only a name and a number are taken from it.
#[must_use]
pub fn signed_by(path: &Path) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let mut text = String::new();
    file.take(LONGEST_SIGNATURE)
        .read_to_string(&mut text)
        .ok()?;
    let (name, pid) = text.trim_end().split_once(' ')?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let good = !name.is_empty() && name.bytes().all(is_plain);
    let pid: u32 = pid.parse().ok()?;
    good.then(|| format!("{name}, process {pid}"))
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
    fn a_signature_is_a_name_and_a_number_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("funds.lock");
        std::fs::write(&path, "what a longer name had been here 4242\n".repeat(9)).unwrap();
        sign(&open(&path).unwrap());
        let own = signed_by(&path).unwrap();
        assert!(
            own.ends_with(&format!(", process {}", std::process::id())),
            "{own}"
        );
        let long = format!("{} 1", "a".repeat(200));
        for bad in [
            "",
            "bw",
            "bw x",
            "bw 1 2",
            " 1",
            "b\u{1b}[2J 1",
            "b/w 1",
            "bw -1",
            &long,
        ] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(signed_by(&path), None, "{bad:?}");
        }
        std::fs::remove_file(&path).unwrap();
        symlink("/proc/self/comm", &path).unwrap();
        assert_eq!(signed_by(&path), None);
    }

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
