//! Private copies of the host's files that operations name: opened below the image directories without following links,
//! checked by descriptor, copied into the job's directory. virt-customize sees the copies and never a client's path.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::ImagePath;
use rustix::fs::{Dir, FileType, Mode, fchmod, fstat};

use crate::beneath::{READ_FOREIGN, open_beneath};
use crate::compartment::Failure;
use crate::compartment::disk::source::{self, Sources, failed, refused};

/// Files and directories below one copied directory.
const MAX_ENTRIES: usize = 20_000;
/// Bytes that a file or directory counts for at least: file systems have an inode for so many, and those end, too.
const LEAST: u64 = 16 << 10;
/// Directories in directories.
const MAX_DEPTH: usize = 32;

/// Copies what `path` names to `to/<its last component>` and returns that. A directory only where `trees` says so.
pub(super) fn stage(
    sources: &Sources<'_>,
    path: &ImagePath,
    to: &Path,
    trees: bool,
    space: &mut u64,
    deadline: Instant,
) -> Result<PathBuf, Failure> {
    let found = source::find(sources, path)?;
    let stat =
        fstat(&found.file).map_err(|error| failed(path, "could not be examined", &error.into()))?;
    let target = to.join(path.file_name());
    let mut copying = Copying {
        path,
        owners: sources.owners,
        entries: 0,
        space,
        deadline,
    };
    if trees && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        copying.directory(found.file, &target, 0)?;
    } else {
        source::check(sources, path, &found.file)?;
        copying.file(&found.file, &target)?;
    }
    Ok(target)
}

struct Copying<'a> {
    path: &'a ImagePath,
    owners: &'a [u32],
    entries: usize,
    space: &'a mut u64,
    deadline: Instant,
}

impl Copying<'_> {
    fn file(&mut self, source: &OwnedFd, target: &Path) -> Result<(), Failure> {
        let error = |error| failed(self.path, "could not be copied", &error);
        let stat = fstat(source).map_err(|errno| error(errno.into()))?;
        self.take(u64::try_from(stat.st_blocks).unwrap_or(0) * 512)?;
        let copy: OwnedFd = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(target)
            .map_err(error)?
            .into();
        source::copy_data(source, &copy, self.path, self.deadline)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o755 | 0o600);
        fchmod(&copy, mode).map_err(|errno| error(errno.into()))
    }

    fn directory(&mut self, source: OwnedFd, target: &Path, depth: usize) -> Result<(), Failure> {
        let error = |error| failed(self.path, "could not be copied", &error);
        if depth >= MAX_DEPTH {
            return Err(refused(self.path, "nests too deeply"));
        }
        self.admit(&source, Path::new("."))?;
        self.take(LEAST)?;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(target)
            .map_err(error)?;
        // Said again: a mask of this process (a unit's UMask=) would go with the directory into the guest.
        std::fs::set_permissions(target, std::fs::Permissions::from_mode(0o755)).map_err(error)?;
        let listing = Dir::read_from(&source).map_err(|errno| error(errno.into()))?;
        for entry in listing {
            let entry = entry.map_err(|errno| error(errno.into()))?;
            let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
            if [".", ".."].map(Path::new).contains(&name) {
                continue;
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(refused(
                    self.path,
                    &format!("holds more than {MAX_ENTRIES} files"),
                ));
            }
            if Instant::now() >= self.deadline {
                return Err(Failure::new(
                    ErrorCode::Timeout,
                    format!("{} was not copied in time", self.path),
                ));
            }
            // The name is one component, so this is the entry itself or, were it a link, nothing.
            let child = open_beneath(&source, name, READ_FOREIGN).map_err(|_| {
                refused(
                    self.path,
                    "holds something that is no plain file or directory, or that may not be read",
                )
            })?;
            if self.admit(&child, name)? {
                self.directory(child, &target.join(name), depth + 1)?;
            } else {
                self.file(&child, &target.join(name))?;
            }
        }
        Ok(())
    }

    /// Uses up space of the job's.
    fn take(&mut self, bytes: u64) -> Result<(), Failure> {
        *self.space = self.space.checked_sub(bytes.max(LEAST)).ok_or_else(|| {
            failed(
                self.path,
                "could not be copied",
                &std::io::ErrorKind::StorageFull.into(),
            )
        })?;
        Ok(())
    }

    /// Whether it is a directory; anything but files and directories of the right people is refused.
    fn admit(&self, file: &OwnedFd, name: &Path) -> Result<bool, Failure> {
        let stat = fstat(file)
            .map_err(|error| failed(self.path, "could not be examined", &error.into()))?;
        let name = format!("{name:?}");
        let is_directory = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => true,
            FileType::RegularFile => false,
            _ => {
                return Err(refused(
                    self.path,
                    &format!("holds {name}, which is no plain file or directory"),
                ));
            }
        };
        match source::objection(&stat, self.owners) {
            Some(why) => Err(refused(self.path, &format!("holds {name}, which {why}"))),
            None => Ok(is_directory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockhost_proto::layout::Layout;
    use std::time::Duration;

    #[test]
    fn a_tree_of_empty_files_cannot_use_up_the_file_systems_inodes() {
        let root = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(root.path());
        let tree = layout.images().join("tree");
        std::fs::create_dir_all(&tree).expect("a directory");
        for number in 0..3 {
            std::fs::write(tree.join(number.to_string()), "").expect("a file");
        }
        let owner = rustix::process::geteuid().as_raw();
        let sources = Sources {
            layout: &layout,
            directories: &["/var/lib/blockhost/images".into()],
            owners: &[owner],
        };
        let path: ImagePath = "tree".parse().expect("a name");
        let copied = |mut space| {
            let job = tempfile::tempdir().expect("a directory");
            let deadline = Instant::now() + Duration::from_secs(60);
            stage(&sources, &path, job.path(), true, &mut space, deadline).map(|_| space)
        };
        assert_eq!(copied(4 * LEAST).expect("enough"), 0);
        copied(4 * LEAST - 1).expect_err("one entry too many");
    }
}
