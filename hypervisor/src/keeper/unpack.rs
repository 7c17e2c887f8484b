//! An archive becomes a root file system. Everything in it is hostile; the caller has made the root file system the root
//! directory of this process, which has no rights outside of it. What is checked here keeps an archive from being larger
//! than it may, and from being something else than it seems.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use crate::keeper::inside::Stop;
use crate::keeper::slots::IDS_EACH;

/// What every entry costs at least: its inode, its name.
const ENTRY_COST: u64 = 4096;
/// Longest path, bytes.
const LONGEST_PATH: usize = 4095;
/// Capabilities of a program, which the kernel binds to the container's own name space.
const CAPABILITY: &str = "security.capability";

/// What may still be unpacked, and what was left out.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    left: u64,
    entries: u64,
    devices: u64,
}

impl Budget {
    /// For a root file system of that many bytes.
    pub fn new(bytes: u64) -> Self {
        Self {
            limit: bytes,
            left: bytes,
            entries: 0,
            devices: 0,
        }
    }

    /// Takes an entry with its content off. Holes count: what reads as zeros can be written to later.
    fn charge(&mut self, size: u64) -> Result<(), Stop> {
        let content = size.checked_next_multiple_of(ENTRY_COST);
        let left = content
            .and_then(|content| content.checked_add(ENTRY_COST))
            .and_then(|cost| self.left.checked_sub(cost));
        self.entries += 1;
        self.left = left.ok_or_else(|| {
            Stop::Archive(format!(
                "it holds more than the {} MiB that the root file system may have; give rootfs a larger size",
                self.limit >> 20
            ))
        })?;
        Ok(())
    }

    /// What is to be said about it.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.devices > 0 {
            notes.push(format!(
                "{} device nodes of the archive were left out; a container gets its own /dev",
                self.devices
            ));
        }
        notes
    }
}

/// Unpacks everything.
///
/// # Errors
/// [`Stop::Archive`] at the first entry that is not acceptable.
pub fn unpack(stream: &mut dyn Read, budget: &mut Budget) -> Result<(), Stop> {
    let mut archive = tar::Archive::new(stream);
    let damaged = |e: io::Error| Stop::Archive(format!("it is damaged: {e}"));
    let root = rustix::fs::open("/", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Stop::at("root directory"))?;
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path_bytes().into_owned();
        let name = relative(&path)?;
        budget.charge(entry.size())?;
        let result = one(&root, &name, &mut entry, budget);
        result.map_err(|problem| match problem {
            Problem::Archive(why) => Stop::Archive(format!("'{}': {why}", path.escape_ascii())),
            Problem::Io(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                Stop::Archive(format!("'{}' cannot be made: {e}", path.escape_ascii()))
            }
            Problem::Io(e) => {
                Stop::Failed(format!("'{}' cannot be made: {e}", path.escape_ascii()))
            }
        })?;
    }
    if budget.entries == 0 {
        return Err(Stop::Archive("it holds nothing".to_owned()));
    }
    Ok(())
}

/// A name below the root, without leading slashes and empty parts; empty for the root itself.
fn relative(path: &[u8]) -> Result<Vec<u8>, Stop> {
    let refused = |why: &str| {
        let start = path.get(..200).unwrap_or(path);
        Err(Stop::Archive(format!("'{}' {why}", start.escape_ascii())))
    };
    if path.len() > LONGEST_PATH {
        return refused("is too long a name");
    }
    if path.contains(&0) {
        return refused("holds a NUL");
    }
    let parts: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    if parts.contains(&b"..".as_slice()) {
        return refused("leads out of the root file system");
    }
    Ok(parts.join(&b'/'))
}

enum Problem {
    Archive(String),
    Io(io::Error),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Problem {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

fn one(
    root: &OwnedFd,
    name: &[u8],
    entry: &mut tar::Entry<'_, &mut dyn Read>,
    budget: &mut Budget,
) -> Result<(), Problem> {
    let kind = entry.header().entry_type();
    let (owner, group) = (id(entry.header().uid()?)?, id(entry.header().gid()?)?);
    let (owner, group) = (Uid::from_raw(owner), Gid::from_raw(group));
    let mode = Mode::from_raw_mode(entry.header().mode()? & 0o7777);
    let stamp = times(entry.header().mtime().unwrap_or(0));
    if name.is_empty() {
        return match kind {
            EntryType::Directory => {
                rustix::fs::fchown(root, Some(owner), Some(group))?;
                Ok(rustix::fs::fchmod(root, mode)?)
            }
            _ => Err(Problem::Archive("the root is no directory".to_owned())),
        };
    }
    if matches!(kind, EntryType::Char | EntryType::Block) {
        budget.devices += 1;
        return Ok(());
    }
    make_parents(root, name, budget)?;
    match kind {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            clear(root, name)?;
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(root, name, flags, Mode::from_raw_mode(0o600))?;
            let mut file = File::from(fd);
            let size = entry.size();
            let written = io::copy(&mut entry.by_ref().take(size), &mut file)?;
            if written != size {
                return Err(Problem::Archive("the archive ends in it".to_owned()));
            }
            rustix::fs::fchown(&file, Some(owner), Some(group))?;
            rustix::fs::fchmod(&file, mode)?;
            if let Some(value) = capability(entry)? {
                rustix::fs::fsetxattr(&file, CAPABILITY, &value, XattrFlags::empty())?;
            }
            Ok(rustix::fs::futimens(file.as_fd(), &stamp)?)
        }
        EntryType::Directory => {
            match rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o700)) {
                Err(Errno::EXIST) if is_directory(root, name) => {}
                Err(Errno::EXIST) => {
                    clear(root, name)?;
                    rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o700))?;
                }
                other => other?,
            }
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
            let made = rustix::fs::openat(root, name, flags, Mode::empty())?;
            rustix::fs::fchown(&made, Some(owner), Some(group))?;
            Ok(rustix::fs::fchmod(&made, mode)?)
        }
        EntryType::Symlink => {
            let target = target(entry)?;
            clear(root, name)?;
            rustix::fs::symlinkat(target.as_slice(), root, name)?;
            Ok(rustix::fs::chownat(
                root,
                name,
                Some(owner),
                Some(group),
                AtFlags::SYMLINK_NOFOLLOW,
            )?)
        }
        EntryType::Link => {
            let target = relative(&target(entry)?).map_err(|stop| match stop {
                Stop::Archive(why) | Stop::Failed(why) => {
                    Problem::Archive(format!("a second name for {why}"))
                }
            })?;
            if target == name {
                return Ok(());
            }
            clear(root, name)?;
            Ok(rustix::fs::linkat(
                root,
                target.as_slice(),
                root,
                name,
                AtFlags::empty(),
            )?)
        }
        EntryType::Fifo => {
            clear(root, name)?;
            rustix::fs::mknodat(root, name, FileType::Fifo, mode, 0)?;
            rustix::fs::chownat(
                root,
                name,
                Some(owner),
                Some(group),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
            Ok(())
        }
        EntryType::XGlobalHeader => Ok(()),
        other => Err(Problem::Archive(format!(
            "is of the unknown kind {:?}",
            char::from(other.as_byte())
        ))),
    }
}

/// An id that exists in the container.
fn id(id: u64) -> Result<u32, Problem> {
    u32::try_from(id)
        .ok()
        .filter(|id| *id < IDS_EACH)
        .ok_or_else(|| {
            Problem::Archive(format!(
                "belongs to the id {id}; a container has those from 0 to {}",
                IDS_EACH - 1
            ))
        })
}

fn target(entry: &tar::Entry<'_, &mut dyn Read>) -> Result<Vec<u8>, Problem> {
    entry
        .link_name_bytes()
        .map(std::borrow::Cow::into_owned)
        .filter(|target| !target.is_empty() && !target.contains(&0) && target.len() <= LONGEST_PATH)
        .ok_or_else(|| Problem::Archive("is a link to nothing".to_owned()))
}

/// The capabilities that the archive gives a program.
fn capability(entry: &mut tar::Entry<'_, &mut dyn Read>) -> Result<Option<Vec<u8>>, Problem> {
    let Some(extensions) = entry.pax_extensions()? else {
        return Ok(None);
    };
    for extension in extensions {
        let extension = extension?;
        if extension.key_bytes() == b"SCHILY.xattr.security.capability" {
            return Ok(Some(extension.value_bytes().to_owned()));
        }
    }
    Ok(None)
}

fn times(mtime: u64) -> Timestamps {
    let stamp = Timespec {
        tv_sec: i64::try_from(mtime).unwrap_or(0),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: stamp,
        last_modification: stamp,
    }
}

fn is_directory(root: &OwnedFd, name: &[u8]) -> bool {
    rustix::fs::statat(root, name, AtFlags::empty())
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Removes what an earlier entry put at a name, so that nothing is ever written through it.
fn clear(root: &OwnedFd, name: &[u8]) -> Result<(), Problem> {
    match rustix::fs::unlinkat(root, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Ok(rustix::fs::unlinkat(root, name, AtFlags::REMOVEDIR)?),
        Err(e) => Err(e.into()),
    }
}

/// Archives need not list the directories that their entries are in.
fn make_parents(root: &OwnedFd, name: &[u8], budget: &mut Budget) -> Result<(), Problem> {
    for (at, _) in name.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        let parent = name.get(..at).unwrap_or_default();
        match rustix::fs::mkdirat(root, parent, Mode::from_raw_mode(0o755)) {
            Ok(()) => budget.charge(0).map_err(|stop| match stop {
                Stop::Archive(why) | Stop::Failed(why) => Problem::Archive(why),
            })?,
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_and_none_is_changed_into_another() {
        for (path, name) in [
            ("./", ""),
            ("/", ""),
            ("./a//b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("a/...", "a/..."),
        ] {
            assert_eq!(
                relative(path.as_bytes()).unwrap(),
                name.as_bytes(),
                "{path}"
            );
        }
        let long = "a/".repeat(3000);
        for path in ["..", "../etc", "a/../../b", "a/..", "a\0b", &long] {
            assert!(relative(path.as_bytes()).is_err(), "{path:?}");
        }
    }

    #[test]
    fn many_small_entries_count_as_much_as_few_large_ones() {
        let mut budget = Budget::new(1 << 20);
        let made = (0..1000).take_while(|_| budget.charge(0).is_ok()).count();
        assert_eq!(made, 256);
        let mut budget = Budget::new(1 << 20);
        for size in [1 << 20, u64::MAX, u64::MAX - 4096] {
            assert!(budget.charge(size).is_err());
        }
        budget.charge((1 << 20) - 4096).unwrap();
        assert!(budget.charge(0).is_err());
    }
}
