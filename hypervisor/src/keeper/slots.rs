//! Which container has which ids. Each gets 65536 of the service's subordinate ids to itself, so that one container is a
//! stranger to another even where both got out; what it has is written into its directory before anything is unpacked.
#![forbid(unsafe_code)]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::config::write_atomically;
use crate::error::{Error, IoContext, Result};

/// Ids of one container.
pub const IDS_EACH: u32 = 65_536;

/// The file in a container's directory with the first of its ids.
const FILE: &str = "slot";

/// The ids that are there to be given: first and count of ranges that a user has as uids and as gids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool(Vec<(u32, u32)>);

impl Pool {
    /// The pool of a user: what `/etc/subuid` and `/etc/subgid` both give it.
    ///
    /// # Errors
    /// [`Error::Environment`] saying what to do.
    pub fn of(user: &str) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).at("cannot read", path);
        Self::parse(user, &read("/etc/subuid")?, &read("/etc/subgid")?)
    }

    fn parse(user: &str, uids: &str, gids: &str) -> Result<Self> {
        let (uids, gids) = (ranges(user, uids), ranges(user, gids));
        let common: Vec<(u32, u32)> = uids.into_iter().filter(|one| gids.contains(one)).collect();
        if common.is_empty() {
            return Err(Error::Environment(format!(
                "/etc/subuid and /etc/subgid give the user '{user}' no common range of at least {IDS_EACH} ids: usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST {user}"
            )));
        }
        Ok(Self(common))
    }

    /// First ids of all slots, in the order of the file.
    fn firsts(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(first, count)| {
            (0..count / IDS_EACH).map(move |slot| first + slot * IDS_EACH)
        })
    }
}

/// The ranges of a user that are large enough and hold no id of the host.
fn ranges(user: &str, text: &str) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let mut fields = line.split(':');
        (fields.next()? == user).then_some(())?;
        let first: u32 = fields.next()?.trim().parse().ok()?;
        let count: u32 = fields.next()?.trim().parse().ok()?;
        first.checked_add(count)?;
        (first >= IDS_EACH && count >= IDS_EACH).then_some((first, count))
    };
    text.lines().filter_map(range).collect()
}

/// The first id of a container that has a directory; `None` without one.
///
/// # Errors
/// When what is written there is no slot of the pool.
pub fn of(pool: &Pool, containers: &Path, vmid: u32) -> Result<Option<u32>> {
    let path = containers.join(vmid.to_string()).join(FILE);
    match read(&path)? {
        None => Ok(None),
        Some(first) if pool.firsts().any(|one| one == first) => Ok(Some(first)),
        Some(first) => Err(Error::Failed(format!(
            "{}: {IDS_EACH} ids from {first} are none that /etc/subuid and /etc/subgid give; was their range changed? Nothing is done to the container until they do again",
            path.display()
        ))),
    }
}

fn read(path: &Path) -> Result<Option<u32>> {
    match fs::read_to_string(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e).at("cannot read", path),
        Ok(text) => match text.trim().parse() {
            Ok(first) if first >= IDS_EACH => Ok(Some(first)),
            _ => Err(Error::Failed(format!(
                "{}: '{}' is not the first id of a container; write the uid there that /etc/subuid gave it",
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
pub fn take(pool: &Pool, containers: &Path, vmid: u32) -> Result<u32> {
    let mut taken = Vec::new();
    for entry in fs::read_dir(containers).at("cannot read", containers)? {
        let path: PathBuf = entry.at("cannot read", containers)?.path().join(FILE);
        // A directory without this file was cut off before it got ids; nothing in it has any.
        taken.extend(read(&path)?);
    }
    // Those of a range that has been moved since may reach into two.
    let free = |first: &u32| taken.iter().all(|other| first.abs_diff(*other) >= IDS_EACH);
    let Some(first) = pool.firsts().find(free) else {
        return Err(Error::Environment(format!(
            "all {} ranges of ids are taken by containers: give the service more in /etc/subuid and /etc/subgid",
            pool.firsts().count()
        )));
    };
    let directory = containers.join(vmid.to_string());
    // Nobody passes until the container's own ids may.
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .at("cannot create", &directory)?;
    write_atomically(
        &directory.join(FILE),
        format!("{first}\n").as_bytes(),
        0o600,
    )?;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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
        let take = |vmid| take(&pool, place.path(), vmid);
        assert_eq!(take(100).unwrap(), 1_000_000);
        assert_eq!(take(101).unwrap(), 1_065_536);
        assert_eq!(take(102).unwrap(), 1_131_072);
        assert!(matches!(take(103), Err(Error::Environment(_))));
        assert!(take(100).is_err(), "it has a directory");
        fs::remove_dir_all(place.path().join("101")).unwrap();
        assert_eq!(take(103).unwrap(), 1_065_536);
        assert_eq!(of(&pool, place.path(), 103).unwrap(), Some(1_065_536));
        assert_eq!(of(&pool, place.path(), 104).unwrap(), None);
        let door = fs::metadata(place.path().join("103")).unwrap();
        assert_eq!(door.permissions().mode() & 0o7777, 0o700);
        for text in ["3\n", "1196608\n", "1000001\n", "4294967295\n", "-1\n"] {
            fs::write(place.path().join("103/slot"), text).unwrap();
            assert!(of(&pool, place.path(), 103).is_err(), "{text}");
        }
    }

    #[test]
    fn a_container_keeps_its_ids_whatever_becomes_of_the_files_that_gave_them() {
        let place = tempfile::tempdir().unwrap();
        let old = Pool::parse("ct", LINE, LINE).unwrap();
        assert_eq!(take(&old, place.path(), 100).unwrap(), 1_000_000);
        // Another line before it, one that only one of the files has, another order.
        let uids = "ct:500000:65536\nct:2000000:65536\nct:1000000:196608\n";
        let gids = "ct:1000000:196608\nct:2000000:65536\n";
        let new = Pool::parse("ct", uids, gids).unwrap();
        assert_eq!(of(&new, place.path(), 100).unwrap(), Some(1_000_000));
        assert_eq!(take(&new, place.path(), 101).unwrap(), 2_000_000);
        assert_eq!(take(&new, place.path(), 102).unwrap(), 1_065_536);
        // A range that begins in the middle of what is taken.
        let moved = Pool::parse("ct", "ct:1000100:196608\n", "ct:1000100:196608\n").unwrap();
        assert!(of(&moved, place.path(), 100).is_err());
        assert_eq!(take(&moved, place.path(), 103).unwrap(), 1_131_172);
    }
}
