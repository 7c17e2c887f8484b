//! Container templates that are files of the host. `pct` tells an archive's kind by its name, so it gets the path and not a
//! descriptor: allowed is a file that nobody but root could put in the place of the one that was checked.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use blockhost_proto::layout::Layout;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::ImagePath;
use rustix::fs::{FileType, Mode, OFlags, fstat, open, openat};
use rustix::io::Errno;

use crate::compartment::Failure;

/// The whole path of the template that `path` names below one of the allowed directories.
pub(super) fn find(
    layout: &Layout,
    directories: &[PathBuf],
    path: &ImagePath,
) -> Result<PathBuf, Failure> {
    for allowed in directories {
        // Clients inside and outside of a world see different whole paths.
        let outside = layout.join(allowed);
        let Some(relative) = path.below(allowed).or_else(|| path.below(&outside)) else {
            continue;
        };
        // The administrator may have put a link there; below it there is none.
        let Ok(directory) = std::fs::canonicalize(&outside) else {
            continue;
        };
        let whole = directory.join(relative);
        match walk(&whole) {
            Ok(()) => return Ok(whole),
            Err(Refusal::Absent) => {}
            Err(Refusal::Untrusted(place, why)) => {
                let message = format!(
                    "the template {path} was refused: {} {why}; only root may be able to change it",
                    place.display()
                );
                return Err(Failure::new(ErrorCode::Forbidden, message));
            }
            Err(Refusal::Failed(error)) => {
                let message = format!("the template {path} could not be looked at: {error}");
                return Err(Failure::new(ErrorCode::Failed, message));
            }
        }
    }
    let list: Vec<String> = directories
        .iter()
        .map(|directory| directory.display().to_string())
        .collect();
    let message = format!("there is no template {path} in {}", list.join(", "));
    Err(Failure::new(ErrorCode::NotFound, message))
}

enum Refusal {
    Absent,
    Untrusted(PathBuf, String),
    Failed(std::io::Error),
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR => Self::Absent,
            other => Self::Failed(other.into()),
        }
    }
}

/// Goes down from `/` without following a link; every step must be root's and nobody else's to write.
fn walk(path: &Path) -> Result<(), Refusal> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = open("/", flags | OFlags::DIRECTORY, Mode::empty())?;
    let mut walked = PathBuf::from("/");
    let names: Vec<&OsStr> = path.iter().skip(1).collect();
    let (name, parents) = names.split_last().ok_or(Refusal::Absent)?;
    check(&at, &walked, FileType::Directory)?;
    for parent in parents {
        walked.push(parent);
        at = openat(&at, *parent, flags, Mode::empty())?;
        check(&at, &walked, FileType::Directory)?;
    }
    walked.push(name);
    let file = openat(&at, *name, flags, Mode::empty())?;
    check(&file, &walked, FileType::RegularFile)
}

fn check(file: &OwnedFd, path: &Path, wanted: FileType) -> Result<(), Refusal> {
    let stat = fstat(file)?;
    let refused = |why: String| Err(Refusal::Untrusted(path.to_owned(), why));
    match FileType::from_raw_mode(stat.st_mode) {
        kind if kind == wanted => {}
        FileType::Symlink => return refused("is a symbolic link".to_owned()),
        _ => return refused("is not a regular file below directories".to_owned()),
    }
    if stat.st_uid != 0 {
        return refused(format!("belongs to uid {}", stat.st_uid));
    }
    if stat.st_mode & 0o022 != 0 {
        return refused(format!(
            "may be written by others (mode {:04o})",
            stat.st_mode & 0o7777
        ));
    }
    if wanted == FileType::RegularFile && stat.st_nlink != 1 {
        return refused("has a second name".to_owned());
    }
    Ok(())
}
