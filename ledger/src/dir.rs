//! The ledger's directory as a descriptor: every path of the writer is relative to it, so that it works under Landlock,
//! without capabilities and wherever the directory is mounted. Small file helpers shared by the other modules.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::path::Path;

/// Sub-directory of the segments.
pub const SEGMENTS: &str = "seg";
/// Sub-directory of the derived block files.
pub const BLOCKS: &str = "blockchain";
/// The newest published signed head.
pub const CHECKPOINT: &str = "checkpoint";
/// The newest head that witnesses cosigned, with their cosignatures; often a little older than the checkpoint.
pub const COSIGNED: &str = "cosigned";
/// The verifier keys of this ledger, one a line, the first key first: a convenience, trust needs a copy kept elsewhere.
pub const VKEY: &str = "vkey";
/// Locked by the one writer; 0600, so that nobody who may only read can hold it.
pub const WRITER_LOCK: &str = "writer.lock";

/// Mode of what the readers' group may read.
pub(crate) const SHARED_FILE: u32 = 0o640;
const SHARED_DIR: u32 = 0o750;

/// An operation on a file of the ledger that the system refused.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {file}: {source}")]
pub struct FileError {
    /// What was tried, as a verb.
    pub doing: &'static str,
    /// Which file, relative to the ledger's directory.
    pub file: String,
    /// What the system said.
    pub source: std::io::Error,
}

impl FileError {
    /// The system's error number.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.source)
    }
}

/// Adds what was tried and with which file to a system error.
pub(crate) fn on<E: Into<std::io::Error>>(
    doing: &'static str,
    file: impl Into<String>,
) -> impl FnOnce(E) -> FileError {
    let file = file.into();
    move |source| FileError {
        doing,
        file,
        source: source.into(),
    }
}

/// The open directory of a ledger.
#[derive(Debug)]
pub struct LedgerDir {
    fd: OwnedFd,
}

impl From<OwnedFd> for LedgerDir {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl LedgerDir {
    /// Opens an existing directory.
    ///
    /// # Errors
    /// It is missing, not a directory, or may not be read.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(on("open", path.display().to_string()))?;
        Ok(Self { fd })
    }

    /// Makes another handle on the same directory.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn try_clone(&self) -> Result<Self, FileError> {
        Ok(Self {
            fd: self
                .fd
                .try_clone()
                .map_err(on("duplicate the descriptor of", "the ledger directory"))?,
        })
    }

    /// Opens the sub-directory `name`.
    pub(crate) fn sub(&self, name: &str) -> Result<Self, FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(on("open", name))?;
        Ok(Self { fd })
    }

    /// Opens the sub-directory `name`, making it (0750) if it is missing.
    pub(crate) fn make_sub(&self, name: &str) -> Result<Self, FileError> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(SHARED_DIR)) {
            Ok(()) => {
                let sub = self.sub(name)?;
                rustix::fs::fchmod(&sub.fd, Mode::from_raw_mode(SHARED_DIR))
                    .map_err(on("set the mode of", name))?;
                self.sync()?;
                Ok(sub)
            }
            Err(Errno::EXIST) => self.sub(name),
            Err(errno) => Err(on("make directory", name)(errno)),
        }
    }

    /// Opens a regular file; a link is not followed.
    pub(crate) fn file(&self, name: &str, flags: OFlags, mode: u32) -> Result<OwnedFd, FileError> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode))
            .map_err(on("open", name))?;
        let stat = rustix::fs::fstat(&fd).map_err(on("look at", name))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(on("open", name)(Errno::INVAL));
        }
        Ok(fd)
    }

    /// The published checkpoint as it stands, with its cosignatures if it has any.
    ///
    /// # Errors
    /// It cannot be read, is too large, or is no text.
    pub fn checkpoint(&self) -> Result<Option<String>, FileError> {
        self.text(CHECKPOINT)
    }

    /// The newest head that witnesses cosigned, likewise.
    ///
    /// # Errors
    /// As [`Self::checkpoint`].
    pub fn cosigned(&self) -> Result<Option<String>, FileError> {
        self.text(COSIGNED)
    }

    fn text(&self, name: &str) -> Result<Option<String>, FileError> {
        let Some(bytes) = self.read(name, 64 * 1024)? else {
            return Ok(None);
        };
        let text = String::from_utf8(bytes).map_err(|_| on("read", name)(Errno::ILSEQ))?;
        Ok(Some(text))
    }

    /// The whole file, or `None` when there is none. Refuses more than `limit` bytes.
    pub(crate) fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, FileError> {
        let mut bytes = Vec::new();
        let there = self.read_into(name, limit, &mut bytes)?;
        Ok(there.then_some(bytes))
    }

    /// The same into memory that is there already, in the place of what it held; `false` when there is no such file.
    pub(crate) fn read_into(
        &self,
        name: &str,
        limit: usize,
        bytes: &mut Vec<u8>,
    ) -> Result<bool, FileError> {
        use std::io::Read as _;
        bytes.clear();
        let fd = match self.file(name, OFlags::RDONLY, 0) {
            Ok(fd) => fd,
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut file = std::fs::File::from(fd).take(limit as u64 + 1);
        file.read_to_end(bytes).map_err(on("read", name))?;
        if bytes.len() > limit {
            return Err(on("read", name)(Errno::FBIG));
        }
        Ok(true)
    }

    /// Replaces `name` in one step: temporary file beside it, mode set first, renamed. With `durable` both the content
    /// and the rename survive a power cut when this returns.
    pub(crate) fn replace(
        &self,
        name: &str,
        bytes: &[u8],
        mode: u32,
        durable: bool,
    ) -> Result<(), FileError> {
        self.put(name, bytes, mode, durable)?;
        if durable { self.sync() } else { Ok(()) }
    }

    /// The same, content durable; the name is after a [`Self::sync`], which can be one for many.
    pub(crate) fn replace_content(
        &self,
        name: &str,
        bytes: &[u8],
        mode: u32,
    ) -> Result<(), FileError> {
        self.put(name, bytes, mode, true)
    }

    fn put(&self, name: &str, bytes: &[u8], mode: u32, durable: bool) -> Result<(), FileError> {
        let temporary = format!(".{name}.new");
        // A leftover of a crash is ours: there is one writer.
        match rustix::fs::unlinkat(&self.fd, &temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(on("remove", temporary)(errno)),
        }
        let fd = self.file(
            &temporary,
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
            mode,
        )?;
        let written = (|| {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
            write_all_at(fd.as_fd(), bytes, 0)?;
            if durable {
                rustix::fs::fsync(&fd)
            } else {
                Ok(())
            }
        })();
        if let Err(errno) = written {
            let _ = rustix::fs::unlinkat(&self.fd, &temporary, AtFlags::empty());
            return Err(on("write", temporary)(errno));
        }
        rustix::fs::renameat(&self.fd, &temporary, &self.fd, name)
            .map_err(on("rename into place", name))
    }

    /// Names in this directory, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>, FileError> {
        let mut names = Vec::new();
        let entries =
            rustix::fs::Dir::read_from(&self.fd).map_err(on("list", "the ledger directory"))?;
        for entry in entries {
            let entry = entry.map_err(on("list", "the ledger directory"))?;
            // Names that are not UTF-8 are not ours.
            if let Ok(name) = entry.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes renames and new names in this directory durable. The descriptor we were given may be one that cannot be
    /// synced (O_PATH), so the directory is opened again.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        let here = rustix::fs::openat(
            &self.fd,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(on("open", "the ledger directory"))?;
        rustix::fs::fsync(here).map_err(on("sync", "the ledger directory"))
    }

    /// Device and inode of what `name` is now.
    pub(crate) fn identity(&self, name: &str) -> Result<Option<(u64, u64)>, FileError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((stat.st_dev, stat.st_ino))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(on("look at", name)(errno)),
        }
    }
}

impl LedgerDir {
    /// When `name` was last changed, in seconds since 1970 UTC.
    pub(crate) fn modified(&self, name: &str) -> Result<Option<i64>, FileError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_mtime)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(on("look at", name)(errno)),
        }
    }
}

#[cfg(feature = "index")]
impl LedgerDir {
    /// Bytes that `name` takes on disk.
    pub(crate) fn bytes_of(&self, name: &str) -> Result<Option<u64>, FileError> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(u64::try_from(stat.st_blocks).unwrap_or(0) * 512)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(on("look at", name)(errno)),
        }
    }
}

impl AsFd for LedgerDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Writes all of `bytes` at `offset`; one system call unless the kernel takes less.
pub(crate) fn write_all_at(
    fd: BorrowedFd<'_>,
    mut bytes: &[u8],
    mut offset: u64,
) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, offset) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
pub(crate) fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(fd, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}
