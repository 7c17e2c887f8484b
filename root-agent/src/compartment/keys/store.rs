//! Files of `/etc/blockhost`, always through one descriptor of that directory: reading what must be a plain file of
//! root's, writing so that every reader sees the old content or the new, never a part, never with looser rights.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use blockhost_proto::escape;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::beneath::{READ_FOREIGN, open_beneath, open_entry};
use crate::compartment::Identity;
use crate::failpoint;

/// Names of files under construction start with this; what a crash leaves behind is removed at start.
const UNFINISHED: &str = ".blockhost-unfinished-";

/// Nothing in the directory that we read is larger.
const MAX_BYTES: u64 = 1 << 20;

/// Owner reads and writes, group reads: keys and address book alike.
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);

/// Why a file of the directory could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(in crate::compartment) enum StoreError {
    #[error("{path} cannot be {what}: {source}", path = path.display())]
    System {
        path: PathBuf,
        what: &'static str,
        source: std::io::Error,
    },
    #[error("{path} {why}; look at it and repair or move it, it was left as it is", path = path.display())]
    Suspicious { path: PathBuf, why: String },
    #[error("{path} exists already and is never overwritten", path = .0.display())]
    Exists(PathBuf),
}

/// The directory, held open.
#[derive(Debug)]
pub(in crate::compartment) struct Store {
    directory: OwnedFd,
    /// Where new files are made, where that is another one.
    workshop: Option<OwnedFd>,
    path: PathBuf,
    owner: u32,
    group: Gid,
    mode: Mode,
}

/// Whether a file of that name may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::compartment) enum Existing {
    Keep,
    Replace,
}

impl Store {
    /// Opens the directory, checks that only its owner writes in it, and removes what a crash left unfinished.
    /// Files will belong to the calling user and to `group`.
    pub(in crate::compartment) fn open(path: &Path, group: u32) -> Result<Self, StoreError> {
        let owner = rustix::process::geteuid().as_raw();
        Self::open_of(
            path,
            Identity {
                uid: owner,
                gid: group,
            },
            FILE_MODE,
        )
    }

    /// The same for a directory of another user's, which this process is about to become; its files get that mode.
    pub(in crate::compartment) fn open_of(
        path: &Path,
        user: Identity,
        mode: Mode,
    ) -> Result<Self, StoreError> {
        let system = |what| {
            move |error: Errno| StoreError::System {
                path: path.to_path_buf(),
                what,
                source: error.into(),
            }
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(system("opened"))?;
        check_directory(&directory, path, user.uid)?;
        sweep(&directory).map_err(system("swept"))?;
        Ok(Store {
            directory,
            workshop: None,
            path: path.to_path_buf(),
            owner: user.uid,
            group: Gid::from_raw(user.gid),
            mode,
        })
    }

    /// Has new files made in a directory of that name below this one, until they are whole. It is made where it is missing.
    pub(in crate::compartment) fn with_workshop(mut self, name: &str) -> Result<Self, StoreError> {
        let store = &self;
        let error = |what| move |errno: Errno| store.system(name, what)(errno.into());
        match rustix::fs::mkdirat(&self.directory, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(error("made")(errno)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let workshop = open_beneath(&self.directory, name, flags).map_err(error("opened"))?;
        check_directory(&workshop, &self.path_of(name), self.owner)?;
        sweep(&workshop).map_err(error("swept"))?;
        self.workshop = Some(workshop);
        Ok(self)
    }

    fn workshop(&self) -> BorrowedFd<'_> {
        self.workshop.as_ref().unwrap_or(&self.directory).as_fd()
    }

    /// The whole path of a file here, for messages.
    pub(in crate::compartment) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Content of a plain file, zeroized when dropped; `None` when there is no such file.
    pub(in crate::compartment) fn read(
        &self,
        name: &str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let suspicious = |why: &str| StoreError::Suspicious {
            path: self.path_of(name),
            why: why.to_owned(),
        };
        let file = match open_entry(&self.directory, name, READ_FOREIGN) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(suspicious("is a symbolic link")),
            Err(error) => return Err(self.system(name, "opened")(error.into())),
        };
        let stat = rustix::fs::fstat(&file)
            .map_err(|error| self.system(name, "examined")(error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(suspicious("is not a regular file"));
        }
        if stat.st_uid != self.owner || stat.st_mode & 0o022 != 0 {
            return Err(suspicious("could have been written by another user"));
        }
        let mut content = Zeroizing::new(Vec::with_capacity(4096));
        std::fs::File::from(file)
            .take(MAX_BYTES + 1)
            .read_to_end(&mut content)
            .map_err(self.system(name, "read"))?;
        if content.len() as u64 > MAX_BYTES {
            return Err(suspicious("is too large"));
        }
        Ok(Some(content))
    }

    /// Writes a file: a new name with owner and mode first, then the bytes, then to disk, then its real name, then the
    /// directory to disk.
    pub(in crate::compartment) fn write(
        &self,
        name: &str,
        content: &[u8],
        existing: Existing,
    ) -> Result<(), StoreError> {
        self.write_with(name, content, existing, self.mode)
    }

    /// The same with a mode of its own, for what is no secret.
    pub(in crate::compartment) fn write_with(
        &self,
        name: &str,
        content: &[u8],
        existing: Existing,
        mode: Mode,
    ) -> Result<(), StoreError> {
        let temporary =
            unfinished_name().map_err(|error| self.system(name, "named")(error.into()))?;
        let result = self.write_as(&temporary, name, content, (existing, mode));
        if result.is_err() {
            // Holds a secret perhaps; where even this fails the sweep at the next start gets it.
            let _ = rustix::fs::unlinkat(self.workshop(), temporary.as_str(), AtFlags::empty());
        }
        result
    }

    fn write_as(
        &self,
        temporary: &str,
        name: &str,
        content: &[u8],
        (existing, mode): (Existing, Mode),
    ) -> Result<(), StoreError> {
        let error = |what| move |errno: Errno| self.system(name, what)(errno.into());
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.workshop(), temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(error("created"))?;
        rustix::fs::fchown(&file, None, Some(self.group)).map_err(error("given to its group"))?;
        rustix::fs::fchmod(&file, mode).map_err(error("given its mode"))?;
        failpoint::reach("keys-created", name.as_bytes());
        let mut file = std::fs::File::from(file);
        file.write_all(content)
            .map_err(self.system(name, "written"))?;
        failpoint::reach("keys-written", name.as_bytes());
        file.sync_all().map_err(self.system(name, "synced"))?;
        let flags = match existing {
            Existing::Keep => RenameFlags::NOREPLACE,
            Existing::Replace => RenameFlags::empty(),
        };
        match rustix::fs::renameat_with(self.workshop(), temporary, &self.directory, name, flags) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(StoreError::Exists(self.path_of(name))),
            Err(errno) => return Err(error("put in place")(errno)),
        }
        failpoint::reach("keys-renamed", name.as_bytes());
        rustix::fs::fsync(&self.directory).map_err(error("synced with its directory"))
    }

    /// Removes a file; false where there is none.
    pub(in crate::compartment) fn remove(&self, name: &str) -> Result<bool, StoreError> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(self.system(name, "removed")(error.into())),
        }
        rustix::fs::fsync(&self.directory)
            .map_err(|error| self.system(name, "removed for good")(error.into()))?;
        Ok(true)
    }

    fn system(
        &self,
        name: &str,
        what: &'static str,
    ) -> impl FnOnce(std::io::Error) -> StoreError + use<> {
        let path = self.path_of(name);
        move |source| StoreError::System { path, what, source }
    }
}

fn check_directory(directory: &OwnedFd, path: &Path, owner: u32) -> Result<(), StoreError> {
    let stat = rustix::fs::fstat(directory).map_err(|error| StoreError::System {
        path: path.to_path_buf(),
        what: "examined",
        source: error.into(),
    })?;
    if stat.st_uid == owner && stat.st_mode & 0o022 == 0 {
        return Ok(());
    }
    let why = format!(
        "belongs to uid {} with mode {:04o}, but must belong to uid {owner} and be writable by it alone",
        stat.st_uid,
        stat.st_mode & 0o7777
    );
    Err(StoreError::Suspicious {
        path: path.to_path_buf(),
        why,
    })
}

fn sweep(directory: &OwnedFd) -> Result<(), Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_bytes()
            .starts_with(UNFINISHED.as_bytes())
        {
            rustix::fs::unlinkat(directory, entry.file_name(), AtFlags::empty())?;
        }
    }
    Ok(())
}

fn unfinished_name() -> Result<String, Errno> {
    let mut random = [0u8; 12];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{UNFINISHED}{}", escape::hex(&random)))
}
