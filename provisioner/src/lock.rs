//! Locks in `/run/blockhost`. `provisioning.lock` holds the pids of running creates, one per line, so that others (the garbage
//! collector, an operator) see that one is under way; it is gone when none is, and pids of processes that died do not count.
//! `vm-<name>.lock` is held by whoever starts, suspends, resumes, destroys or limits that machine. The directory of images is
//! locked by whoever builds one there.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blockhost_proto::Layout;
use blockhost_proto::value::VmName;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::record::{is_hidden, start_of};
use crate::signals::Interrupt;

/// Longer than a guest that is asked to power off, is not heard of, and is destroyed then; and shorter than the engine waits
/// for a command (180 s), so that it hears why.
const MACHINE_WAIT: Duration = Duration::from_secs(120);

/// A lock that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file cannot be used.
    #[error("{}: {source}; is /run/blockhost there and writable for user blockhost?", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The directory of images cannot be locked.
    #[error("{}: {source}", path.display())]
    Images {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Somebody else is at the machine, and for too long.
    #[error("another command has been at machine {name} for {seconds} s; find it with fuser {}", path.display())]
    Busy {
        /// The machine.
        name: VmName,
        /// How long was waited.
        seconds: u64,
        /// The lock.
        path: PathBuf,
    },
}

/// This process's line in the file; dropping it removes the line.
#[derive(Debug)]
pub struct ProvisioningLock {
    path: PathBuf,
}

impl ProvisioningLock {
    /// Adds this process.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn enter(layout: &Layout) -> Result<Self, LockError> {
        let path = layout.provisioning_lock();
        match edit(&path, |pids| pids.push(std::process::id())) {
            Ok(()) => Ok(Self { path }),
            Err(source) => Err(LockError::File { path, source }),
        }
    }
}

/// The right to change one machine of this host. Who has it reads the record again: what was read before may be of a machine
/// that has been paid for, destroyed or made anew since. A kill lets the next one in.
#[derive(Debug)]
pub struct MachineLock {
    path: PathBuf,
    _file: File,
}

impl MachineLock {
    /// Waits for it.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(layout: &Layout, name: &VmName) -> Result<Self, LockError> {
        let path = layout.run().join(format!("vm-{name}.lock"));
        let end = Instant::now() + MACHINE_WAIT;
        let failed = |source| LockError::File {
            path: path.clone(),
            source,
        };
        let mut file = open_or_make(&path).map_err(failed)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, &path) => return Ok(Self { path, _file: file }),
                // Its last holder has removed it.
                Ok(()) => file = open_or_make(&path).map_err(failed)?,
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(LockError::Busy {
                        name: name.clone(),
                        seconds: MACHINE_WAIT.as_secs(),
                        path,
                    });
                }
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }
}

/// The right to build images in a directory: two at once would write the same files, and register the same template.
#[derive(Debug)]
pub struct ImagesLock {
    _directory: File,
}

impl ImagesLock {
    /// Waits until nobody else builds there, which takes minutes; `say` hears of it. `None` after an interruption.
    ///
    /// # Errors
    /// [`LockError::Images`].
    pub fn take(
        directory: &Path,
        interrupt: &Interrupt,
        say: impl FnOnce(),
    ) -> Result<Option<Self>, LockError> {
        let failed = |source| LockError::Images {
            path: directory.to_owned(),
            source,
        };
        let file = File::open(directory).map_err(failed)?;
        let mut say = Some(say);
        while !interrupt.is_raised() {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Self { _directory: file })),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    if let Some(say) = say.take() {
                        say();
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        Ok(None)
    }
}

impl Drop for MachineLock {
    fn drop(&mut self) {
        // Still locked: who waits for it sees that it is gone. One that cannot be removed is used again.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Drop for ProvisioningLock {
    fn drop(&mut self) {
        // A line that stays behind is that of a dead process, which readers ignore.
        let _ = edit(&self.path, |pids| {
            pids.retain(|pid| *pid != std::process::id())
        });
    }
}

/// Pids of creates that run now.
fn living(text: &str) -> Vec<u32> {
    text.lines()
        .filter_map(|line| line.trim().parse().ok())
        .filter(|pid| start_of(*pid).is_some() || is_hidden(*pid))
        .collect()
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u32>)) -> std::io::Result<()> {
    let mut file = open_locked(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let mut pids = living(&text);
    change(&mut pids);
    if pids.is_empty() {
        return std::fs::remove_file(path);
    }
    file.rewind()?;
    file.set_len(0)?;
    let lines: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
    file.write_all(lines.as_bytes())
}

/// The file may be removed between opening and locking: then what was locked is not what others see.
fn open_locked(path: &Path) -> std::io::Result<File> {
    loop {
        let file = open_or_make(path)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        if is_at(&file, path) {
            return Ok(file);
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino()))
}

/// Opens the file, or makes it. Both at once (`O_CREAT`) the kernel refuses in a sticky directory, to root as well, where the
/// file is another's (`fs.protected_regular`). What root makes here is its directory's group's, too: a command of the operator
/// must not shut the services out.
fn open_or_make(path: &Path) -> std::io::Result<File> {
    use std::io::ErrorKind::{AlreadyExists, NotFound};
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    loop {
        match options.open(path) {
            Err(e) if e.kind() == NotFound => {}
            opened => return opened,
        }
        match options.clone().create_new(true).mode(0o660).open(path) {
            // Somebody was quicker.
            Err(e) if e.kind() == AlreadyExists => {}
            Err(e) => return Err(e),
            Ok(file) => {
                if rustix::process::geteuid().is_root() {
                    let group = path.parent().map(std::fs::metadata).transpose()?;
                    std::os::unix::fs::fchown(&file, None, group.map(|dir| dir.gid()))?;
                    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o660))?;
                }
                return Ok(file);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_our_pid_while_we_create_and_is_gone_afterwards() {
        let world = tempfile::tempdir().unwrap();
        let layout = Layout::new(world.path());
        assert!(ProvisioningLock::enter(&layout).is_err());
        std::fs::create_dir_all(layout.run()).unwrap();
        // A pid beyond the kernel's limit stands for a process that died.
        std::fs::write(layout.provisioning_lock(), "99999999\n").unwrap();
        let lock = ProvisioningLock::enter(&layout).unwrap();
        let text = std::fs::read_to_string(layout.provisioning_lock()).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        assert_eq!(living(&text), [std::process::id()]);
        drop(lock);
        assert!(!layout.provisioning_lock().exists());
    }

    #[test]
    fn a_machine_is_changed_by_one_at_a_time_and_no_lock_is_left_behind() {
        let world = tempfile::tempdir().unwrap();
        let layout = Layout::new(world.path());
        std::fs::create_dir_all(layout.run()).unwrap();
        let (name, other) = ("web-1".parse().unwrap(), "web-2".parse().unwrap());
        let at_work = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let _lock = MachineLock::take(&layout, &name).unwrap();
                        assert!(!at_work.swap(true, std::sync::atomic::Ordering::SeqCst));
                        std::thread::yield_now();
                        at_work.store(false, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
            let _held = MachineLock::take(&layout, &other).unwrap();
            MachineLock::take(&layout, &name).unwrap();
        });
        assert_eq!(std::fs::read_dir(layout.run()).unwrap().count(), 0);
    }

    #[test]
    fn one_at_a_time_builds_images_in_a_directory_and_who_waits_can_be_interrupted() {
        let place = tempfile::tempdir().unwrap();
        let take = |interrupt: &Interrupt, say: &mut dyn FnMut()| {
            ImagesLock::take(place.path(), interrupt, say).unwrap()
        };
        let free = Interrupt::default();
        let held = take(&free, &mut || panic!("nobody is there")).unwrap();
        let waiting = Interrupt::default();
        // Said once it waits, and interrupted then.
        assert!(take(&waiting, &mut || waiting.raise()).is_none());
        drop(held);
        assert!(take(&free, &mut || ()).is_some());
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_is_not_made_through_a_link() {
        let world = tempfile::tempdir().unwrap();
        let layout = Layout::new(world.path());
        std::fs::create_dir_all(layout.run()).unwrap();
        let target = world.path().join("target");
        std::os::unix::fs::symlink(&target, layout.run().join("vm-web-1.lock")).unwrap();
        assert!(MachineLock::take(&layout, &"web-1".parse().unwrap()).is_err());
        assert!(!target.exists());
    }
}
