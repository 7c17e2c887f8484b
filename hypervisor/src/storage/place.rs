//! The way down to a storage's directories: one component after the other, never through a link, each of them root's and nobody
//! else's to fill or to exchange. What a storage is and has in it is the parent's.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, RawMode, fstat, mkdirat, open, openat};
use rustix::io::Errno;

use crate::error::{Error, IoContext, Result};

const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// A directory that was come to in this way.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory.
    pub fd: OwnedFd,
    /// Its name, for messages.
    pub path: PathBuf,
}

impl Place {
    /// Where a way begins: the state directory, or a directory that is held.
    ///
    /// # Errors
    /// [`Error::Environment`] when it is somebody else's; `NotFound` in [`Error::Io`] when it is missing, and not to be made.
    pub fn base(path: &Path, make: bool) -> Result<Self> {
        if make {
            fs::create_dir_all(path).at("cannot create", path)?;
        }
        let fd = open(path, FLAGS, Mode::empty()).at("cannot open", path)?;
        Self::checked(fd, path.to_owned())
    }

    /// Goes further down.
    ///
    /// # Errors
    /// As [`Self::base`]; links are somebody else's.
    pub fn enter(self, below: &Path, make: bool) -> Result<Self> {
        let mut at = self;
        for part in below.components() {
            let Component::Normal(name) = part else {
                return Err(refused(&at.path.join(below), "leads somewhere else"));
            };
            at = at.step(name, make)?;
        }
        Ok(at)
    }

    fn step(self, name: &OsStr, make: bool) -> Result<Self> {
        let path = self.path.join(name);
        if make {
            match mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e).at("cannot create", path),
            }
        }
        match openat(&self.fd, name, FLAGS | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => Self::checked(fd, path),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(refused(&path, "is a link or no directory")),
            Err(e) => Err(e).at("cannot open", path),
        }
    }

    fn checked(fd: OwnedFd, path: PathBuf) -> Result<Self> {
        let stat = fstat(&fd).at("cannot inspect", &path)?;
        match fault(stat.st_uid, stat.st_mode) {
            Some(why) => Err(refused(&path, why)),
            None => Ok(Self { fd, path }),
        }
    }
}

/// Nothing where a way ends before its end.
pub(super) fn there(place: Result<Place>) -> Result<Option<Place>> {
    match place {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// What is wrong with a directory on the way.
fn fault(owner: u32, mode: RawMode) -> Option<&'static str> {
    // Others may put something into one with this bit, but not something else in the place of what is there; and what they
    // put is not root's.
    let shared = mode & Mode::SVTX.as_raw_mode() != 0;
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        Some("does not belong to root")
    } else if mode & 0o022 != 0 && !shared {
        Some("may be written by others")
    } else {
        None
    }
}

fn refused(path: &Path, why: &str) -> Error {
    Error::Environment(format!(
        "{} {why}: every directory of a storage, from the state directory down, must be root's and nobody else's to write",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    #[test]
    fn no_way_to_a_storage_leads_through_what_somebody_else_could_exchange() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: directories of others need root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (state, elsewhere) = (dir.path().join("state"), dir.path().join("elsewhere"));
        let way = Path::new("a/b/images/100");
        let go = |make: bool| Place::base(&state, make).and_then(|base| base.enter(way, make));
        assert!(there(go(false)).unwrap().is_none(), "it is made by looking");
        assert!(!state.exists());
        assert_eq!(go(true).unwrap().path, state.join(way));
        assert!(there(go(false)).unwrap().is_some());

        let refused = |what: &str| {
            for make in [false, true] {
                let said = go(make).unwrap_err();
                assert!(
                    matches!(said, Error::Environment(_)) && said.to_string().contains(what),
                    "{what}: {said}"
                );
            }
        };
        for part in ["", "a", "a/b", "a/b/images", "a/b/images/100"] {
            let part = state.join(part);
            let (own, mode) = (
                fs::metadata(&part).unwrap().permissions(),
                fs::Permissions::from_mode,
            );
            chown(&part, Some(4711), None).unwrap();
            refused("does not belong to root");
            chown(&part, Some(0), Some(4711)).unwrap();
            for open in [0o775, 0o757] {
                fs::set_permissions(&part, mode(open)).unwrap();
                refused("may be written by others");
            }
            // As the state directory is.
            fs::set_permissions(&part, mode(0o1771)).unwrap();
            assert!(go(false).is_ok(), "{}", part.display());
            fs::set_permissions(&part, own).unwrap();
        }
        let parts = ["a", "a/b", "a/b/images", "a/b/images/100"];
        fs::create_dir_all(elsewhere.join("b/images/100/images/100")).unwrap();
        for part in parts {
            let (part, aside) = (state.join(part), dir.path().join("aside"));
            fs::rename(&part, &aside).unwrap();
            symlink(&elsewhere, &part).unwrap();
            refused("is a link");
            fs::remove_file(&part).unwrap();
            fs::rename(&aside, &part).unwrap();
        }
        let up = Place::base(&state, false).unwrap();
        let said = up.enter(Path::new("a/../../elsewhere"), false).unwrap_err();
        assert!(said.to_string().contains("somewhere else"), "{said}");
    }
}
