//! The directory of one build: private, in memory where there is plenty, removed at the end whatever happens. A build
//! that was killed leaves its directory; the next one removes it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::build::{BuildError, file_error};
use crate::exec;

const PREFIX: &str = "blockhost-template-";
const PLACES: [&str; 2] = ["/dev/shm", "/var/tmp"];

/// Memory where there is plenty of it: a build writes and removes a gigabyte of small files.
fn build_directory() -> &'static Path {
    let (memory, disk) = (Path::new(PLACES[0]), Path::new(PLACES[1]));
    let free = rustix::fs::statvfs(memory).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<u64>()
            .ok()
    });
    let executable = std::fs::read_to_string("/proc/mounts")
        .unwrap_or_default()
        .lines()
        .any(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            fields.get(1) == Some(&"/dev/shm")
                && fields
                    .get(3)
                    .is_some_and(|options| !options.split(',').any(|o| o == "noexec"))
        });
    if executable && free >= 2 << 30 && available.unwrap_or(0) >= 4 << 20 {
        memory
    } else {
        disk
    }
}

/// The directory of one build, removed at the end whatever happens. Packages' files inside it belong to subordinate ids,
/// so removing them takes the namespace as well.
pub(super) struct WorkDir {
    pub(super) path: PathBuf,
    /// Locked while the build lives.
    _lock: File,
}

impl WorkDir {
    pub(super) fn make() -> Result<Self, BuildError> {
        for place in PLACES {
            sweep(Path::new(place));
        }
        let nonce =
            crate::cloudinit::Nonce::fresh().map_err(file_error(Path::new("/dev/urandom")))?;
        let path = build_directory().join(format!("{PREFIX}{}", nonce.as_str()));
        std::fs::create_dir(&path).map_err(file_error(&path))?;
        let lock = lock_new(&path).map_err(file_error(&path))?;
        let this = Self { path, _lock: lock };
        set_mode(&this.path, 0o711)?;
        Ok(this)
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A directory that belongs to the namespace's root and nobody else may write: where the image is made. It takes a
    /// moment in which others could write as well; therefore it is made in a place that holds nothing else.
    pub(super) fn namespace_directory(&self, mmdebstrap: &Path) -> Result<PathBuf, BuildError> {
        let place = self.join("namespace");
        let directory = place.join("image");
        std::fs::create_dir(&place).map_err(file_error(&place))?;
        set_mode(&place, 0o733)?;
        let words = ["--unshare-helper", "mkdir", "--mode=0755"].map(OsStr::new);
        let args = [&words[..], &[directory.as_os_str()]].concat();
        let made = exec::run(mmdebstrap, &args, None);
        set_mode(&place, 0o711)?;
        made?;
        let metadata = std::fs::symlink_metadata(&directory).map_err(file_error(&directory))?;
        // Somebody who was quicker in that moment owns it with an ordinary uid.
        if !metadata.is_dir() || metadata.uid() < 65_536 || metadata.mode() & 0o022 != 0 {
            let source = std::io::Error::other("was made by somebody else");
            return Err(BuildError::File {
                path: directory,
                source,
            });
        }
        Ok(directory)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), BuildError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(file_error(path))
}

/// The lock on a directory that was just made, before anybody sees that there is one: see [`sweep`].
fn lock_new(directory: &Path) -> std::io::Result<File> {
    let file = lock(directory, "lock.new")?;
    std::fs::rename(directory.join("lock.new"), directory.join("lock"))?;
    Ok(file)
}

/// The lock on a build's directory; it ends with the process.
fn lock(directory: &Path, name: &str) -> std::io::Result<File> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory.join(name), flags, Mode::from_raw_mode(0o600))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(File::from(file))
}

/// Packages' files belong to subordinate ids, so removing them takes the namespace as well.
fn remove(directory: &Path) {
    let opened = set_mode(directory, 0o733).and_then(|()| {
        let place = directory.join("namespace");
        if place.exists() {
            set_mode(&place, 0o733)
        } else {
            Ok(())
        }
    });
    if let (Ok(()), Ok(mmdebstrap)) = (opened, exec::find("mmdebstrap", "")) {
        let inside = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
        let entries = inside(directory).chain(inside(&directory.join("namespace")));
        let mut args: Vec<PathBuf> = ["--unshare-helper", "rm", "-rf", "--"]
            .iter()
            .map(Into::into)
            .collect();
        args.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| !path.ends_with("namespace")),
        );
        // What is ours cannot be removed from in there; that is done below.
        let _ = exec::run(&mmdebstrap, &args, None);
    }
    let _ = std::fs::remove_dir_all(directory);
}

/// Removes directories of builds of this user that were killed: those whose lock nobody holds.
fn sweep(place: &Path) {
    let uid = rustix::process::geteuid().as_raw();
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX))
            && std::fs::symlink_metadata(entry.path()).is_ok_and(|m| m.is_dir() && m.uid() == uid);
        // Without a lock file it may be one that is just being made.
        if ours && entry.path().join("lock").exists() && lock(&entry.path(), "lock").is_ok() {
            remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_build_left_goes_and_what_lives_or_is_being_made_stays() {
        let place = tempfile::tempdir().unwrap();
        let made = |name: &str| {
            let directory = place.path().join(format!("{PREFIX}{name}"));
            std::fs::create_dir(&directory).unwrap();
            directory
        };
        let (killed, living, young) = (made("killed"), made("living"), made("young"));
        std::fs::write(killed.join("lock"), "").unwrap();
        let held = lock_new(&living).unwrap();
        // A moment before it is locked.
        std::fs::write(young.join("lock.new"), "").unwrap();
        sweep(place.path());
        assert_eq!(
            [&killed, &living, &young].map(|directory| directory.exists()),
            [false, true, true]
        );
        drop(held);
    }
}
