//! The segment that is being written: making it, keeping zeros ahead of the next batch, cutting a torn end, noticing
//! that it was taken away. What goes into it is `writer`'s.

use crate::dir::{FileError, LedgerDir, SEGMENTS, SHARED_FILE, on, write_all_at};
use crate::merkle::Hash;
use crate::scan::Segment;
use crate::segment::{self, Header};
use crate::writer::Options;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::sync::Arc;

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
    /// Makes the segment that begins with leaf index `first`; durable when this returns.
    pub fn create(
        segments: &LedgerDir,
        first: u64,
        root_before: Hash,
        options: &Options,
    ) -> Result<Self, FileError> {
        let name = segment::file_name(first);
        let mut salt = [0; 8];
        crate::keys::random(&mut salt).map_err(on("get random bytes for", &name))?;
        let header = Header {
            first_height: first + 1,
            root_before,
            salt,
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let fd = segments.file(&name, flags, SHARED_FILE)?;
        let made = (|| {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(SHARED_FILE))?;
            let want = options
                .preallocate_bytes
                .max(options.reserve_bytes + 4096)
                .max(segment::HEADER_BYTES);
            let (file_bytes, result) = zero(&fd, 0, want);
            result?;
            write_all_at(fd.as_fd(), &header.encode(), 0)?;
            rustix::fs::fsync(&fd)?;
            Ok(file_bytes)
        })();
        let file_bytes = match made {
            Ok(bytes) => bytes,
            Err(errno) => {
                let _ = rustix::fs::unlinkat(segments, &name, AtFlags::empty());
                return Err(on::<Errno>("make", &*name)(errno));
            }
        };
        segments.sync()?;
        let identity = segments.identity(&name)?;
        Ok(Self {
            fd: Arc::new(fd),
            name,
            header,
            position: segment::HEADER_BYTES,
            file_bytes,
            identity,
        })
    }

    /// Opens the last segment for writing behind its last commit. A torn end becomes zeros in place, so that the space
    /// stays ours on a full disk. Interrupted half-way, what is left is a torn end again.
    pub fn resume(
        segments: &LedgerDir,
        last: &Segment,
        torn_bytes: u64,
    ) -> Result<Self, FileError> {
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

    /// The file as people find it.
    pub fn path(&self) -> String {
        format!("{SEGMENTS}/{}", self.name)
    }

    /// Is the file still the one under its name? One that was unlinked or replaced would take our records with it.
    pub fn is_still_there(&self, segments: &LedgerDir) -> Result<bool, FileError> {
        let stat = rustix::fs::fstat(&*self.fd).map_err(on("look at", self.path()))?;
        Ok(stat.st_nlink > 0 && segments.identity(&self.name)? == self.identity)
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
