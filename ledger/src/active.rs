//! The segment that is being written: making it, keeping zeros ahead of the next batch, cutting a torn end, noticing
//! that it was taken away. What goes into it is `writer`'s.

use crate::dir::{FileError, LedgerDir, SEGMENTS, SHARED_FILE, on, write_all_at};
use crate::merkle::Hash;
use crate::scan::Log;
use crate::segment::{self, Header};
use crate::writer::Options;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::sync::Arc;

/// Name of the next segment's file before it has a place in the log.
const SPARE: &str = ".next.log.new";

/// The open segment.
#[derive(Debug)]
pub(crate) struct Active {
    pub fd: Arc<OwnedFd>,
    pub name: String,
    pub header: Header,
    /// Where the next batch goes.
    pub position: u64,
    /// Bytes of the file: everything from the position on is preallocated zeros.
    pub file_bytes: u64,
    identity: Option<(u64, u64)>,
}

impl Active {
    /// Takes room for the next segment, whose place in the log is not known yet: the last records of a full segment and
    /// the first ones of the next may belong to one batch, and on a full disk outcomes need both.
    pub fn spare(segments: &LedgerDir, options: &Options) -> Result<Self, FileError> {
        let mut salt = [0; 8];
        crate::keys::random(&mut salt).map_err(on("get random bytes for", SPARE))?;
        let header = Header {
            first_height: 0,
            root_before: [0; 32],
            salt,
        };
        match rustix::fs::unlinkat(segments, SPARE, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(on("remove", SPARE)(errno)),
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let fd = segments.file(SPARE, flags, SHARED_FILE)?;
        let made = (|| {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(SHARED_FILE))?;
            let want = options
                .preallocate_bytes
                .max(options.reserve_bytes + 4096)
                .max(segment::HEADER_BYTES);
            let (file_bytes, result) = zero(&fd, 0, want);
            result?;
            Ok(file_bytes)
        })();
        let file_bytes = match made {
            Ok(bytes) => bytes,
            Err(errno) => {
                let _ = rustix::fs::unlinkat(segments, SPARE, AtFlags::empty());
                return Err(on::<Errno>("make", SPARE)(errno));
            }
        };
        Ok(Self {
            fd: Arc::new(fd),
            name: SPARE.to_owned(),
            header,
            position: segment::HEADER_BYTES,
            file_bytes,
            identity: None,
        })
    }

    /// Makes it the segment that begins with leaf index `first`; durable when this returns. Needs no more room.
    pub fn begin(
        mut self,
        segments: &LedgerDir,
        first: u64,
        root_before: Hash,
    ) -> Result<Self, FileError> {
        let name = segment::file_name(first);
        self.header.first_height = first + 1;
        self.header.root_before = root_before;
        write_all_at(self.fd.as_fd(), &self.header.encode(), 0)
            .and_then(|()| rustix::fs::fsync(&*self.fd))
            .map_err(on("begin", &name))?;
        // Whatever has that name is not part of the log: it would have been read.
        rustix::fs::renameat(segments, &self.name, segments, &name)
            .map_err(on("rename into place", &name))?;
        segments.sync()?;
        self.identity = segments.identity(&name)?;
        self.name = name;
        Ok(self)
    }

    /// Opens the last segment for writing behind its last commit. A torn end becomes zeros in place, so that the space
    /// stays ours on a full disk. Interrupted half-way, what is left is a torn end again.
    pub fn resume(segments: &LedgerDir, last: &Log, torn_bytes: u64) -> Result<Self, FileError> {
        let fd = segments.file(&last.name, OFlags::RDWR, 0)?;
        if torn_bytes > 0 {
            let (_, result) = zero(&fd, last.end, last.end + torn_bytes);
            result.map_err(on("cut the torn end of", &last.name))?;
        }
        Ok(Self {
            identity: segments.identity(&last.name)?,
            name: last.name.clone(),
            header: last.header.clone(),
            position: last.end,
            file_bytes: last.file_bytes,
            fd: Arc::new(fd),
        })
    }

    /// Makes what was read of the last segment durable from the byte `from` on, and its name. It may be in the kernel's
    /// memory only: who wrote it was killed before the sync, or the sync failed. After that one the kernel takes the pages
    /// for clean, and another sync would prove nothing; so they are written anew.
    pub fn make_durable(segments: &LedgerDir, last: &Log, from: u64) -> Result<(), FileError> {
        let fd = segments.file(&last.name, OFlags::RDWR, 0)?;
        let mut chunk = vec![0; 64 * 1024];
        let mut at = from;
        while at < last.end {
            let most = usize::try_from(last.end - at).map_or(chunk.len(), |n| n.min(chunk.len()));
            let read = match rustix::io::pread(&last.fd, &mut chunk[..most], at) {
                Ok(0) => Err(Errno::IO),
                Err(Errno::INTR) => continue,
                other => other,
            };
            let read = read.map_err(on("read", &last.name))?;
            write_all_at(fd.as_fd(), &chunk[..read], at).map_err(on("write", &last.name))?;
            at += read as u64;
        }
        if from < last.end {
            rustix::fs::fsync(&fd).map_err(on("make durable", &last.name))?;
        }
        segments.sync()
    }

    /// The file as people find it.
    pub fn path(&self) -> String {
        format!("{SEGMENTS}/{}", self.name)
    }

    /// Is the file still the one under its name? One that was unlinked or replaced would take our records with it.
    pub fn is_still_there(&self, segments: &LedgerDir) -> Result<bool, FileError> {
        let stat = rustix::fs::fstat(&*self.fd).map_err(on("look at", self.path()))?;
        Ok(stat.st_nlink > 0 && segments.identity(&self.name)? == self.identity)
    }

    /// Does the file still have a name? Asked after each sync: what has none is gone when we end.
    pub fn is_linked(&self) -> bool {
        rustix::fs::fstat(&*self.fd).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// Makes zeros again of so many bytes behind the position, durably.
    pub fn wipe(&self, bytes: u64) -> Result<(), FileError> {
        let (_, result) = zero(&self.fd, self.position, self.position + bytes);
        result.map_err(on("take back what was written to", self.path()))
    }

    /// Makes sure that `wanted` bytes fit behind the position, and where it can that `reserve_bytes` are left behind them.
    /// `keep` have to be: all of these for new work, none for the outcomes that they are for.
    pub fn make_room(
        &mut self,
        wanted: u64,
        keep: u64,
        options: &Options,
    ) -> Result<(), FileError> {
        let end = self.position + wanted;
        let with_reserve = end + options.reserve_bytes;
        if with_reserve <= self.file_bytes {
            return Ok(());
        }
        let Err(source) = self.extend(with_reserve, options.preallocate_bytes) else {
            return Ok(());
        };
        // It may have grown by less than was asked and still by enough.
        let enough = end + keep <= self.file_bytes;
        if enough && is_full(&source) {
            return Ok(());
        }
        Err(source)
    }

    /// Grows the file with zeros to at least `to`, rounded up to `step`, and makes that durable. After an error it may
    /// have grown by less.
    pub fn extend(&mut self, to: u64, step: u64) -> Result<(), FileError> {
        let (grown, result) = zero(
            &self.fd,
            self.file_bytes,
            to.next_multiple_of(step.max(4096)),
        );
        self.file_bytes = grown;
        result.map_err(on("extend", self.path()))
    }
}

/// Does the error mean that there is no space?
pub(crate) fn is_full(error: &FileError) -> bool {
    matches!(
        error.errno(),
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
    )
}

/// Writes zeros from `from` to `to` and syncs. Real zeros rather than `fallocate`: overwriting them later changes no
/// extent, so the fdatasync of an append has only data to write. Says how far it came.
fn zero(fd: &OwnedFd, from: u64, to: u64) -> (u64, Result<(), Errno>) {
    const CHUNK: u64 = 64 * 1024;
    let zeros = vec![0; 64 * 1024];
    let mut at = from;
    let mut result = Ok(());
    while at < to {
        let length = usize::try_from(CHUNK.min(to - at)).unwrap_or(zeros.len());
        match rustix::io::pwrite(fd, &zeros[..length], at) {
            Ok(0) => {
                result = Err(Errno::NOSPC);
                break;
            }
            Ok(n) => at += n as u64,
            Err(Errno::INTR) => {}
            Err(errno) => {
                result = Err(errno);
                break;
            }
        }
    }
    match rustix::fs::fsync(fd) {
        Ok(()) => (at, result),
        Err(errno) => (at, Err(errno)),
    }
}
