//! From a client's image path to a descriptor that nobody can change any more: opened and checked as [`source`] does, copied
//! into a file without a name, inspected there. What was inspected is what `qm` reads.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use blockhost_proto::value::ImagePath;
use rustix::fs::{AtFlags, Mode, OFlags, fchmod, openat, unlinkat};
use rustix::io::Errno;

use crate::compartment::Failure;
use crate::compartment::disk::format::Format;
use crate::compartment::disk::source::{self, Sources, failed};

/// An image whose content is fixed.
#[derive(Debug)]
pub(super) struct Image {
    /// A readable file without a name; its content is the inspected one.
    pub(super) file: OwnedFd,
    pub(super) format: Format,
}

/// Opens, checks, copies and inspects the image that `path` names.
pub(super) fn take(
    sources: &Sources<'_>,
    path: &ImagePath,
    deadline: Instant,
) -> Result<Image, Failure> {
    let source::Found {
        directory,
        file: original,
        ..
    } = source::find(sources, path)?;
    source::check(sources, path, &original)?;
    let error = |error: Errno| failed(path, "could not be copied", &error.into());
    let copy = nameless(&directory).map_err(error)?;
    source::copy_data(&original, &copy, path, deadline)?;
    let copy = finish(copy).map_err(error)?;
    let format = source::inspect(path, &copy)?;
    Ok(Image {
        file: copy.into(),
        format,
    })
}

/// An empty file without a name, in the directory's file system so that copying can share blocks.
fn nameless(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match openat(directory, ".", flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => unnamed(directory),
        opened => opened,
    }
}

/// The same for file systems that cannot: it has a name for a moment, under which only root may open it.
fn unnamed(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!(".blockhost-import-{}-{number}", std::process::id());
    // A process of the same number may have died between the next two steps.
    let _ = unlinkat(directory, &name, AtFlags::empty());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(directory, &name, flags, Mode::RUSR | Mode::WUSR)?;
    unlinkat(directory, &name, AtFlags::empty())?;
    Ok(file)
}

/// Readable by whoever gets the descriptor (the converter runs as another user), writable by nobody.
fn finish(copy: OwnedFd) -> Result<std::fs::File, Errno> {
    fchmod(&copy, Mode::RUSR | Mode::RGRP | Mode::ROTH)?;
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::fstat;

    #[test]
    fn a_file_for_the_copy_has_no_name_on_any_file_system() {
        let place = tempfile::tempdir().expect("a directory");
        let directory: OwnedFd = std::fs::File::open(place.path()).expect("opened").into();
        for file in [
            nameless(&directory),
            unnamed(&directory),
            unnamed(&directory),
        ] {
            let stat = fstat(file.expect("a file")).expect("examined");
            assert_eq!((stat.st_nlink, stat.st_mode & 0o7777), (0, 0o600));
        }
        assert_eq!(std::fs::read_dir(place.path()).expect("listed").count(), 0);
    }
}
