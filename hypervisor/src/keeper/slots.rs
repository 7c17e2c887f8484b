//! Which container has which ids. Each gets 65536 of the service's subordinate ids to itself, so that one container is a
//! stranger to another even where both got out; what it has is written into its directory before anything is unpacked.
#![forbid(unsafe_code)]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::write_atomically;
use crate::error::{Error, IoContext, Result};

/// Ids of one container.
pub const IDS_EACH: u32 = 65_536;

/// The file in a container's directory that says which slot is its own.
const FILE: &str = "slot";

/// The ids that are there to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    first: u32,
    slots: u32,
}

impl Pool {
    /// The pool of a user, from `/etc/subuid` and `/etc/subgid`, which must give it the same ids.
    ///
    /// # Errors
    /// [`Error::Environment`] saying what to do.
    pub fn of(user: &str) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).at("cannot read", path);
        Self::parse(user, &read("/etc/subuid")?, &read("/etc/subgid")?)
    }

    fn parse(user: &str, uids: &str, gids: &str) -> Result<Self> {
        let range = |text: &str| {
            text.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next()? == user).then_some(())?;
                let first: u32 = fields.next()?.trim().parse().ok()?;
                let count: u32 = fields.next()?.trim().parse().ok()?;
                first.checked_add(count)?;
                (first >= IDS_EACH && count >= IDS_EACH).then_some((first, count))
            })
        };
        match (range(uids), range(gids)) {
            (Some((first, count)), Some(same)) if same == (first, count) => Ok(Self {
                first,
                slots: count / IDS_EACH,
            }),
            _ => Err(Error::Environment(format!(
                "/etc/subuid and /etc/subgid give the user '{user}' no common range of at least {IDS_EACH} ids: usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST {user}"
            ))),
        }
    }

    fn first_id(self, slot: u32) -> Option<u32> {
        (slot < self.slots).then(|| self.first + slot * IDS_EACH)
    }
}

/// The first id of a container that has a directory; `None` without one.
///
/// # Errors
/// When what is written there is no slot of the pool.
pub fn of(pool: Pool, containers: &Path, vmid: u32) -> Result<Option<u32>> {
    let path = containers.join(vmid.to_string()).join(FILE);
    match read(&path)? {
        None => Ok(None),
        Some(slot) => match pool.first_id(slot) {
            Some(first) => Ok(Some(first)),
            None => Err(Error::Failed(format!(
                "{}: slot {slot} is outside of the ids in /etc/subuid; was its range made smaller?",
                path.display()
            ))),
        },
    }
}

fn read(path: &Path) -> Result<Option<u32>> {
    match fs::read_to_string(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e).at("cannot read", path),
        Ok(text) => match text.trim().parse() {
            Ok(slot) => Ok(Some(slot)),
            Err(_) => Err(Error::Failed(format!(
                "{}: '{}' is no slot",
                path.display(),
                text.trim().escape_default()
            ))),
        },
    }
}

/// Makes the directory of a new container and gives it the lowest free slot. The caller sees to it that nobody else does
/// this at the same time.
///
/// # Errors
/// When all are taken, or the directory is there.
pub fn take(pool: Pool, containers: &Path, vmid: u32) -> Result<u32> {
    let mut taken = Vec::new();
    for entry in fs::read_dir(containers).at("cannot read", containers)? {
        let path: PathBuf = entry.at("cannot read", containers)?.path().join(FILE);
        // A directory without this file was cut off before it got ids; nothing in it has any.
        taken.extend(read(&path)?);
    }
    let slot = (0..pool.slots).find(|slot| !taken.contains(slot));
    let free = slot.and_then(|slot| Some((slot, pool.first_id(slot)?)));
    let Some((slot, first)) = free else {
        return Err(Error::Environment(format!(
            "all {} ranges of ids are taken by containers: give the service more in /etc/subuid and /etc/subgid",
            pool.slots
        )));
    };
    let directory = containers.join(vmid.to_string());
    fs::create_dir(&directory).at("cannot create", &directory)?;
    write_atomically(&directory.join(FILE), format!("{slot}\n").as_bytes(), 0o600)?;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "a:100000:65536\nct:1000000:196608\n";

    #[test]
    fn ids_of_the_host_are_never_given_to_a_container() {
        for (uids, gids) in [
            ("ct:0:65536\n", "ct:0:65536\n"),
            ("ct:1000:131072\n", "ct:1000:131072\n"),
            ("ct:100000:1000\n", "ct:100000:1000\n"),
            ("ct:100000:65536\n", "ct:200000:65536\n"),
            ("ct:4294901760:65536\n", "ct:4294901760:65536\n"),
            ("other:100000:65536\n", ""),
            ("ct:100000\n", "ct:100000\n"),
        ] {
            assert!(Pool::parse("ct", uids, gids).is_err(), "{uids}{gids}");
        }
        assert!(Pool::parse("ct", LINE, LINE).is_ok());
    }

    #[test]
    fn no_two_containers_share_an_id_and_a_removed_ones_are_used_again() {
        let pool = Pool::parse("ct", LINE, LINE).unwrap();
        let place = tempfile::tempdir().unwrap();
        let take = |vmid| take(pool, place.path(), vmid);
        assert_eq!(take(100).unwrap(), 1_000_000);
        assert_eq!(take(101).unwrap(), 1_065_536);
        assert_eq!(take(102).unwrap(), 1_131_072);
        assert!(matches!(take(103), Err(Error::Environment(_))));
        assert!(take(100).is_err(), "it has a directory");
        fs::remove_dir_all(place.path().join("101")).unwrap();
        assert_eq!(take(103).unwrap(), 1_065_536);
        assert_eq!(of(pool, place.path(), 103).unwrap(), Some(1_065_536));
        assert_eq!(of(pool, place.path(), 104).unwrap(), None);
        fs::write(place.path().join("103/slot"), "3\n").unwrap();
        assert!(of(pool, place.path(), 103).is_err(), "outside of the pool");
    }
}
