//! `/run/blockhost/provisioning.lock`: the pids of running creates, one per line, so that others (the garbage collector,
//! an operator) see that one is under way. The file is gone when none is. Pids of processes that died do not count.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use blockhost_proto::Layout;
use rustix::fs::FlockOperation;

use crate::record::{is_hidden, start_of};

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; is /run/blockhost there and writable for user blockhost?", path.display())]
pub struct LockError {
    path: PathBuf,
    source: std::io::Error,
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
            Err(source) => Err(LockError { path, source }),
        }
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
#[must_use]
pub fn running(layout: &Layout) -> Vec<u32> {
    let text = std::fs::read_to_string(layout.provisioning_lock()).unwrap_or_default();
    living(&text)
}

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
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o640)
            .open(path)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        if std::fs::metadata(path)
            .is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino()))
        {
            return Ok(file);
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
        assert_eq!(running(&layout), [std::process::id()]);
        drop(lock);
        assert!(!layout.provisioning_lock().exists());
    }
}
