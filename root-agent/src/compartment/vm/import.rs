//! From a client's image path to a descriptor that nobody can change any more: opened beneath an allowed directory,
//! checked, copied into a file without a name, inspected there. What was inspected is what `qm` reads.

use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::ImagePath;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, SeekFrom, copy_file_range, fchmod, fstat,
    ftruncate, openat, openat2, seek, unlinkat,
};
use rustix::io::Errno;

use super::image::{self, Format, HEAD};
use crate::compartment::Failure;

/// Bytes per copy call; the deadline is looked at in between.
const CHUNK: usize = 64 << 20;

/// Where images may come from and to whom they may belong.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    pub(super) layout: &'a Layout,
    /// Absolute paths of the host, below the layout's root.
    pub(super) directories: &'a [PathBuf],
    /// The unprivileged services' user; root's images are fine too.
    pub(super) owner: u32,
}

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
    let (directory, source) = find(sources, path)?;
    check(sources, path, &source)?;
    let copy = copy(&directory, &source, path, deadline)?;
    let mut head = vec![0u8; HEAD];
    let count = read_head(&copy, &mut head)
        .map_err(|error| failed(path, "could not be inspected", &error))?;
    let format = image::inspect(head.get(..count).unwrap_or_default()).map_err(|refusal| {
        Failure::new(
            ErrorCode::Forbidden,
            format!("the image {path} was refused: it {refusal}"),
        )
    })?;
    Ok(Image {
        file: copy.into(),
        format,
    })
}

/// The first allowed directory that holds the name, and the file in it.
fn find(sources: &Sources<'_>, path: &ImagePath) -> Result<(OwnedFd, OwnedFd), Failure> {
    let mut considered = false;
    for allowed in sources.directories {
        // Older clients send whole paths, as they see them inside the world or outside.
        let outside = sources.layout.join(allowed);
        let Some(relative) = path.below(allowed).or_else(|| path.below(&outside)) else {
            continue;
        };
        considered = true;
        let Some(directory) = open_directory(sources.layout.root(), allowed)? else {
            continue;
        };
        let flags =
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        match openat2(&directory, relative, flags, Mode::empty(), resolve) {
            Ok(file) => return Ok((directory, file)),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(Errno::LOOP) => {
                return Err(Failure::new(
                    ErrorCode::Forbidden,
                    format!(
                        "the image {path} is, or lies behind, a symbolic link; name the file itself"
                    ),
                ));
            }
            Err(Errno::XDEV) => {
                return Err(Failure::new(
                    ErrorCode::Forbidden,
                    format!("the image {path} leads out of {}", allowed.display()),
                ));
            }
            Err(error) => return Err(failed(path, "could not be opened", &error.into())),
        }
    }
    let list = sources
        .directories
        .iter()
        .map(|dir| dir.display().to_string())
        .collect::<Vec<_>>()
        .join(", ");
    if considered {
        Err(Failure::new(
            ErrorCode::NotFound,
            format!("there is no image {path} in {list}"),
        ))
    } else {
        Err(Failure::new(
            ErrorCode::Forbidden,
            format!("the image {path} is not in an image directory; allowed are {list}"),
        ))
    }
}

/// An allowed directory, reached from the root without any link: its parents belong to unprivileged users.
fn open_directory(root: &Path, allowed: &Path) -> Result<Option<OwnedFd>, Failure> {
    let cannot = |error: Errno| {
        let why = if error == Errno::LOOP {
            "there is a symbolic link in it; configure the real path".to_owned()
        } else {
            std::io::Error::from(error).to_string()
        };
        Failure::new(
            ErrorCode::Failed,
            format!(
                "the image directory {} cannot be used: {why}",
                allowed.display()
            ),
        )
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty()).map_err(cannot)?;
    let relative = allowed.strip_prefix("/").unwrap_or(allowed);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, relative, flags, Mode::empty(), resolve) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(cannot(error)),
    }
}

fn check(sources: &Sources<'_>, path: &ImagePath, file: &OwnedFd) -> Result<(), Failure> {
    let stat = fstat(file).map_err(|error| failed(path, "could not be examined", &error.into()))?;
    let refused = |why: String| {
        Err(Failure::new(
            ErrorCode::Forbidden,
            format!("the image {path} was refused: it {why}"),
        ))
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return refused("is not a regular file".to_owned());
    }
    if stat.st_nlink != 1 {
        return refused(format!(
            "has {} names; it may be somebody else's file",
            stat.st_nlink
        ));
    }
    if stat.st_mode & 0o002 != 0 {
        return refused("may be written by everybody".to_owned());
    }
    if stat.st_uid != 0 && stat.st_uid != sources.owner {
        return refused(format!(
            "belongs to uid {}, not to uid {} or root",
            stat.st_uid, sources.owner
        ));
    }
    Ok(())
}

/// Copies the data (not the holes) into a file that has no name, so that nobody can open it for writing. On file systems
/// with reflinks this takes no time and no space.
fn copy(
    directory: &OwnedFd,
    source: &OwnedFd,
    path: &ImagePath,
    deadline: Instant,
) -> Result<std::fs::File, Failure> {
    let error = |error: Errno| failed(path, "could not be copied", &error.into());
    let copy = nameless(directory).map_err(error)?;
    let size = u64::try_from(fstat(source).map_err(error)?.st_size).unwrap_or(0);
    ftruncate(&copy, size).map_err(error)?;
    let mut at = 0;
    while at < size {
        if Instant::now() >= deadline {
            return Err(Failure::new(
                ErrorCode::Timeout,
                format!("the image {path} was not copied in time"),
            ));
        }
        at = match seek(source, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(error(errno)),
        };
        let hole = seek(source, SeekFrom::Hole(at)).map_err(error)?.min(size);
        while at < hole && Instant::now() < deadline {
            let (mut from, mut to) = (at, at);
            let length = usize::try_from(hole - at).unwrap_or(CHUNK).min(CHUNK);
            match copy_file_range(source, Some(&mut from), &copy, Some(&mut to), length)
                .map_err(error)?
            {
                // The owner made it shorter meanwhile; what is missing reads as zeros and fails inspection or import.
                0 => return finish(copy).map_err(error),
                _ => at = from,
            }
        }
    }
    finish(copy).map_err(error)
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

fn read_head(file: &std::fs::File, head: &mut [u8]) -> std::io::Result<usize> {
    let mut count = 0;
    while let Some(rest) = head.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, count as u64) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn failed(path: &ImagePath, what: &str, error: &std::io::Error) -> Failure {
    Failure::new(
        ErrorCode::Failed,
        format!("the image {path} {what}: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

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
