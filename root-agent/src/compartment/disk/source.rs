//! From a client's path to an open file: beneath an allowed directory, without links, checked by descriptor. Also the one
//! way such a file is copied. Called by `vm` (imports) and `image` (customisation); what an image *is* says [`super::format`].

use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::ImagePath;
use rustix::fs::{
    FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat, copy_file_range, fstat, ftruncate,
    openat2, seek,
};
use rustix::io::{Errno, pread, pwrite};

use super::format::{self, Format, HEAD};
use crate::beneath::{READ_FOREIGN, open_beneath};
use crate::compartment::Failure;

/// Bytes per copy call; the deadline is looked at in between.
const CHUNK: usize = 64 << 20;
/// Bytes at once where the kernel cannot copy between two file systems.
const BUFFER: usize = 256 << 10;

/// Where files may come from and to whom they may belong.
#[derive(Debug)]
pub(in crate::compartment) struct Sources<'a> {
    pub(in crate::compartment) layout: &'a Layout,
    /// Absolute paths of the host, below the layout's root.
    pub(in crate::compartment) directories: &'a [PathBuf],
    /// The unprivileged services' users; root's files are fine too.
    pub(in crate::compartment) owners: &'a [u32],
}

/// What a client's path names.
#[derive(Debug)]
pub(in crate::compartment) struct Found<'a> {
    /// The allowed directory.
    pub(in crate::compartment) directory: OwnedFd,
    /// Where it is in there.
    pub(in crate::compartment) relative: &'a Path,
    /// The file or directory itself, open for reading.
    pub(in crate::compartment) file: OwnedFd,
}

/// The first allowed directory that holds the name, and the file in it.
pub(in crate::compartment) fn find<'a>(
    sources: &'a Sources<'_>,
    path: &'a ImagePath,
) -> Result<Found<'a>, Failure> {
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
        match open_beneath(&directory, relative, READ_FOREIGN) {
            Ok(file) => {
                return Ok(Found {
                    directory,
                    relative,
                    file,
                });
            }
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
            // Only where this process is not root.
            Err(Errno::ACCESS) => {
                return Err(Failure::new(
                    ErrorCode::Forbidden,
                    format!(
                        "the image {path} may not be read; give it to the group blockhost-image (chgrp blockhost-image, chmod g+r)"
                    ),
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
pub(in crate::compartment) fn open_directory(
    root: &Path,
    allowed: &Path,
) -> Result<Option<OwnedFd>, Failure> {
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

pub(in crate::compartment) fn check(
    sources: &Sources<'_>,
    path: &ImagePath,
    file: &OwnedFd,
) -> Result<(), Failure> {
    let stat = fstat(file).map_err(|error| failed(path, "could not be examined", &error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refused(path, "is not a regular file"));
    }
    objection(&stat, sources.owners).map_or(Ok(()), |why| Err(refused(path, &why)))
}

/// Why a file or directory is not taken, whatever its kind.
pub(in crate::compartment) fn objection(stat: &Stat, owners: &[u32]) -> Option<String> {
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if is_file && stat.st_nlink != 1 {
        let names = stat.st_nlink;
        return Some(format!("has {names} names; it may be somebody else's file"));
    }
    if stat.st_mode & 0o002 != 0 {
        return Some("may be written by everybody".to_owned());
    }
    if stat.st_uid != 0 && !owners.contains(&stat.st_uid) {
        let owners: Vec<String> = owners.iter().map(u32::to_string).collect();
        return Some(format!(
            "belongs to uid {}, not to uid {} or root",
            stat.st_uid,
            owners.join(", ")
        ));
    }
    None
}

pub(in crate::compartment) fn refused(path: &ImagePath, why: &str) -> Failure {
    Failure::new(
        ErrorCode::Forbidden,
        format!("the image {path} was refused: it {why}"),
    )
}

/// Decides by its content what an image is.
pub(in crate::compartment) fn inspect(
    path: &ImagePath,
    file: &std::fs::File,
) -> Result<Format, Failure> {
    let mut head = vec![0u8; HEAD];
    let count = read_head(file, &mut head)
        .map_err(|error| failed(path, "could not be inspected", &error))?;
    format::inspect(head.get(..count).unwrap_or_default())
        .map_err(|refusal| refused(path, &refusal.to_string()))
}

/// Copies the data (not the holes) of one file into another, empty one. On file systems with reflinks this takes no time and
/// no space.
pub(in crate::compartment) fn copy_data(
    source: &OwnedFd,
    copy: &OwnedFd,
    path: &ImagePath,
    deadline: Instant,
) -> Result<(), Failure> {
    let error = |error: Errno| failed(path, "could not be copied", &error.into());
    let size = u64::try_from(fstat(source).map_err(error)?.st_size).unwrap_or(0);
    ftruncate(copy, size).map_err(error)?;
    let mut at = 0;
    let mut buffer = vec![0u8; BUFFER];
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
            let copied = match copy_file_range(source, Some(&mut from), copy, Some(&mut to), length)
            {
                // From one kind of file system to another the kernel leaves it to us.
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL) => {
                    by_hand(source, copy, at, length.min(buffer.len()), &mut buffer)
                        .inspect(|&count| from = at + u64::try_from(count).unwrap_or(0))
                }
                other => other,
            };
            match copied.map_err(error)? {
                // The owner made it shorter meanwhile; what is missing reads as zeros and fails inspection or import.
                0 => return Ok(()),
                _ => at = from,
            }
        }
    }
    Ok(())
}

/// Copies some bytes at `at`; how many.
fn by_hand(
    source: &OwnedFd,
    copy: &OwnedFd,
    at: u64,
    length: usize,
    buffer: &mut [u8],
) -> Result<usize, Errno> {
    let part = buffer.get_mut(..length).unwrap_or_default();
    let count = pread(source, &mut *part, at)?;
    let mut rest = part.get(..count).unwrap_or_default();
    let mut to = at;
    while !rest.is_empty() {
        let written = pwrite(copy, rest, to)?;
        rest = rest.get(written..).unwrap_or_default();
        to += u64::try_from(written).unwrap_or(0);
    }
    Ok(count)
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

pub(in crate::compartment) fn failed(
    path: &ImagePath,
    what: &str,
    error: &std::io::Error,
) -> Failure {
    Failure::new(
        ErrorCode::Failed,
        format!("the image {path} {what}: {error}"),
    )
}
