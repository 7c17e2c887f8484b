//! The image itself: copied into the job, put back whole. At every instant the name leads to the old image or to the new one,
//! each complete: what is renamed over the original was synced before, and the directory after.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::ImagePath;
use rustix::fs::{
    Access, AtFlags, CWD, Mode, OFlags, Stat, accessat, fchmod, fstat, fstatvfs, fsync,
    ioctl_ficlone, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::beneath::open_beneath;
use crate::compartment::Failure;
use crate::compartment::disk::format::Format;
use crate::compartment::disk::source::{self, Found, Sources, failed};
use crate::failpoint;

/// What is never used up of the file system that images are on, bytes.
const RESERVE: u64 = 512 << 20;

/// Temporary names in image directories that are on another file system than the job; no image's name begins with a dot.
const TEMPORARY: &str = ".blockhost-customize-";

/// An image that was taken for customisation.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    path: &'a ImagePath,
    /// The directory that the image is in.
    parent: OwnedFd,
    name: OsString,
    /// What it was when it was opened.
    original: Stat,
    /// The copy that is changed.
    copy: std::fs::File,
    pub(super) copy_path: PathBuf,
    pub(super) format: Format,
    /// Bytes that the job may still use.
    pub(super) space: u64,
}

/// Opens, checks and inspects the image, and copies it to `to`.
pub(super) fn take<'a>(
    sources: &Sources<'_>,
    path: &'a ImagePath,
    to: PathBuf,
    deadline: Instant,
) -> Result<Taken<'a>, Failure> {
    let error = |what| move |error: Errno| failed(path, what, &error.into());
    let Found {
        directory,
        relative,
        file,
    } = source::find(sources, path)?;
    source::check(sources, path, &file)?;
    let parent = parent(&directory, relative).map_err(error("is in an unusable directory"))?;
    accessat(&parent, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).map_err(|_| {
        Failure::new(
            ErrorCode::Forbidden,
            format!("the image {path} cannot be replaced: its directory may not be written to; give it to the group blockhost-image (chgrp blockhost-image, chmod g+w)"),
        )
    })?;
    let original = fstat(&file).map_err(error("could not be examined"))?;
    // What it is, from the original: a copy of what will be refused would only cost.
    let file = std::fs::File::from(file);
    source::inspect(path, &file)?;
    let copy = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&to)
        .map_err(|error| failed(path, "could not be copied", &error))?;
    let free = free(&copy).map_err(error("is on an unusable file system"))?;
    let needed = u64::try_from(original.st_blocks).unwrap_or(0) * 512;
    let mut space = free.saturating_sub(RESERVE);
    if ioctl_ficlone(&copy, &file).is_err() {
        space = space.checked_sub(needed).ok_or_else(|| {
            Failure::new(
                ErrorCode::Failed,
                format!(
                    "there is no space for a copy of the image {path}: {} MiB are needed, {} MiB are free and {} MiB of them are kept",
                    needed >> 20,
                    free >> 20,
                    RESERVE >> 20
                ),
            )
        })?;
        let copy: OwnedFd = copy
            .try_clone()
            .map_err(|error| failed(path, "could not be copied", &error))?
            .into();
        source::copy_data(&file.into(), &copy, path, deadline)?;
    }
    // And again from the copy, which nobody else can change: the original's owner may have, meanwhile.
    let format = source::inspect(path, &copy)?;
    Ok(Taken {
        path,
        parent,
        name: relative
            .file_name()
            .map(OsStr::to_owned)
            .unwrap_or_default(),
        original,
        copy,
        copy_path: to,
        format,
        space,
    })
}

impl Taken<'_> {
    /// The largest file that customising may make, bytes.
    pub(super) fn largest_file(&self) -> u64 {
        let size = u64::try_from(self.original.st_size).unwrap_or(0);
        size.saturating_add(self.space)
    }

    /// Puts the customised copy in the original's place.
    pub(super) fn publish(self, deadline: Instant) -> Result<(), Failure> {
        let path = self.path;
        let error = |error: Errno| failed(path, "could not be put in its place", &error.into());
        // Whoever held the image may have written anything into its header; nothing such takes the name.
        let format = source::inspect(path, &self.copy)?;
        if format != self.format {
            return Err(source::refused(path, "came back in another format"));
        }
        if !self.is_copy(statat(CWD, &self.copy_path, AtFlags::SYMLINK_NOFOLLOW)) {
            return Err(source::refused(path, "came back as another file"));
        }
        // Readable by whoever could read it, and by the services through the group; never writable by everybody.
        let mode = Mode::from_raw_mode(0o660 | self.original.st_mode & 0o004);
        fchmod(&self.copy, mode).map_err(error)?;
        fsync(&self.copy).map_err(error)?;
        failpoint::reach("image-synced", b"");
        match statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(now) if same(&now, &self.original) && !changed(&now, &self.original) => {}
            Ok(_) | Err(Errno::NOENT) => {
                return Err(Failure::new(
                    ErrorCode::Conflict,
                    format!(
                        "the image {path} was replaced, changed or removed while it was customised; it was left as it is"
                    ),
                ));
            }
            Err(errno) => return Err(error(errno)),
        }
        match renameat(CWD, &self.copy_path, &self.parent, &self.name) {
            Err(Errno::XDEV) => self.publish_across(mode, deadline)?,
            other => other.map_err(error)?,
        }
        failpoint::reach("image-renamed", b"");
        fsync(&self.parent).map_err(error)
    }

    /// The same where the image is on another file system than the job.
    fn publish_across(&self, mode: Mode, deadline: Instant) -> Result<(), Failure> {
        let path = self.path;
        let error = |error: Errno| failed(path, "could not be put in its place", &error.into());
        clean(&self.parent);
        let name = format!("{TEMPORARY}{}", std::process::id());
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let near = openat(&self.parent, &name, flags, Mode::RUSR | Mode::WUSR).map_err(error)?;
        let moved = self
            .copy
            .try_clone()
            .map_err(|e| failed(path, "could not be put in its place", &e))
            .and_then(|copy| source::copy_data(&copy.into(), &near, path, deadline))
            .and_then(|()| {
                fchmod(&near, mode)
                    .and_then(|()| fsync(&near))
                    .and_then(|()| renameat(&self.parent, &name, &self.parent, &self.name))
                    .map_err(error)
            });
        if moved.is_err() {
            let _ = unlinkat(&self.parent, &name, AtFlags::empty());
        }
        moved
    }

    fn is_copy(&self, found: Result<Stat, Errno>) -> bool {
        let own = self.copy.metadata();
        // Under a second name it could still be written to after the inspection.
        matches!((found, own), (Ok(found), Ok(own)) if found.st_dev == own.dev() && found.st_ino == own.ino() && found.st_nlink == 1)
    }
}

fn same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

fn changed(one: &Stat, other: &Stat) -> bool {
    let of = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    of(one) != of(other)
}

/// The directory of an image, open for syncing.
fn parent(directory: &OwnedFd, relative: &Path) -> Result<OwnedFd, Errno> {
    let parent = relative
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    open_beneath(directory, parent, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Removes what a killed process left in an image directory on another file system.
fn clean(directory: &OwnedFd) {
    let Ok(listing) = rustix::fs::Dir::read_from(directory) else {
        return;
    };
    for entry in listing.flatten() {
        if entry
            .file_name()
            .to_bytes()
            .starts_with(TEMPORARY.as_bytes())
        {
            let _ = unlinkat(directory, entry.file_name(), AtFlags::empty());
        }
    }
}

fn free(file: &std::fs::File) -> Result<u64, Errno> {
    let status = fstatvfs(file)?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use blockhost_proto::layout::Layout;
    use std::time::Duration;

    /// An image directory below `root` with one raw image, customised in a job elsewhere by `change`.
    fn customise(root: &Path, change: impl FnOnce(&Path, &Path)) -> Result<(), Failure> {
        let layout = Layout::new(root);
        std::fs::create_dir_all(layout.images()).expect("a directory");
        let image = layout.images().join("x.raw");
        let mut content = vec![0u8; 4096];
        content[510..512].copy_from_slice(&[0x55, 0xaa]);
        std::fs::write(&image, content).expect("an image");
        std::fs::write(layout.images().join(format!("{TEMPORARY}7")), "left").expect("a file");
        let owner = rustix::process::geteuid().as_raw();
        let sources = Sources {
            layout: &layout,
            directories: &["/var/lib/blockhost/images".into()],
            owners: &[owner],
        };
        let path: ImagePath = "x.raw".parse().expect("a name");
        let deadline = Instant::now() + Duration::from_secs(60);
        let job = tempfile::tempdir().expect("a directory");
        let taken = take(&sources, &path, job.path().join("disk"), deadline)?;
        change(&taken.copy_path.clone(), &image);
        taken.publish(deadline)
    }

    fn mark(copy: &Path) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().write(true).open(copy);
        let file = file.expect("the copy");
        file.write_all_at(b"new", 1024).expect("written");
    }

    fn marked(root: &Path) -> bool {
        let image = Layout::new(root).images().join("x.raw");
        std::fs::read(image).expect("an image").get(1024..1027) == Some(b"new")
    }

    #[test]
    fn an_image_on_another_file_system_is_replaced_whole_too_and_leftovers_go() {
        let shared = Path::new("/dev/shm");
        if !shared.is_dir() {
            println!("skipped: there is no second file system at /dev/shm");
            return;
        }
        let root = tempfile::tempdir_in(shared).expect("a directory");
        customise(root.path(), |copy, _| mark(copy)).expect("published");
        assert!(marked(root.path()));
        let names = std::fs::read_dir(Layout::new(root.path()).images()).expect("listed");
        assert_eq!(names.count(), 1, "a temporary name is left");
    }

    #[test]
    fn a_copy_that_came_back_as_something_else_does_not_take_the_images_name() {
        let hostile: [fn(&Path, &Path); 5] = [
            // A header that leads to another file.
            |copy, _| {
                let mut header = vec![0u8; 65536];
                header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
                header[15] = 0x70;
                header[23] = 16;
                std::fs::write(copy, header).expect("written");
            },
            // Another file in the copy's place.
            |copy, _| {
                std::fs::remove_file(copy).expect("removed");
                std::fs::write(copy, "x").expect("written");
            },
            // A second name for the copy.
            |copy, _| {
                mark(copy);
                std::fs::hard_link(copy, copy.with_extension("kept")).expect("linked");
            },
            // Its owner wrote to the original meanwhile.
            |copy, image| {
                mark(copy);
                std::fs::write(image, "newer").expect("written");
            },
            // Its owner took the original away meanwhile.
            |copy, image| {
                mark(copy);
                std::fs::remove_file(image).expect("removed");
                std::fs::write(image, vec![0u8; 4096]).expect("written");
            },
        ];
        for (number, change) in hostile.into_iter().enumerate() {
            let root = tempfile::tempdir().expect("a directory");
            customise(root.path(), change).expect_err("it is refused");
            assert!(!marked(root.path()), "case {number}");
        }
    }
}
