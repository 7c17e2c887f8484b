//! What a program knows of the tries before it, where its unit has systemd start it again and again after a failure: since when
//! that goes on, and what failed. It is in the unit's own directory, which systemd keeps between such tries
//! (`RuntimeDirectoryPreserve=restart`), and so does a restart by hand meanwhile; it goes with the last of them. Used by
//! `blockhost-vm-onboot` and `blockhost net restore`.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The tries of a unit, or of nobody.
#[derive(Debug)]
pub struct UnitTries {
    note: Option<PathBuf>,
}

/// What the tries before left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    since: Duration,
    /// What failed; nothing where that is not known.
    pub failed: Vec<String>,
}

impl UnitTries {
    /// Those of the unit that this process is of, which its environment tells (systemd.exec(5), `RuntimeDirectory=`).
    #[must_use]
    pub fn of_unit() -> Self {
        Self::at(std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from))
    }

    pub(crate) fn at(directory: Option<PathBuf>) -> Self {
        Self {
            note: directory.map(|directory| directory.join("failed")),
        }
    }

    /// What the tries before this one left. `None` in the first, and without a unit.
    #[must_use]
    pub fn before(&self) -> Option<Before> {
        let text = std::fs::read_to_string(self.note.as_ref()?).ok()?;
        let mut lines = text.lines();
        let since = Duration::from_secs(lines.next()?.parse().ok()?);
        let failed = lines.map(str::to_owned).collect();
        Some(Before { since, failed })
    }

    /// This one failed as well. Whether that goes on for longer than `limit`; then nothing is left of it, and the next is a first
    /// one again.
    pub fn failed(&self, before: Option<&Before>, failed: &[String], limit: Duration) -> bool {
        let Some(note) = &self.note else {
            return false;
        };
        let now = since_boot();
        let since = before.map_or(now, |before| before.since);
        if now.saturating_sub(since) > limit {
            self.ended();
            return true;
        }
        let lines = [&[since.as_secs().to_string()], failed].concat();
        // Whole or not at all: half of it would be what did not fail.
        let beside = note.with_extension("new");
        let written =
            std::fs::write(&beside, lines.join("\n")).and_then(|()| std::fs::rename(&beside, note));
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
            self.ended();
        }
        false
    }

    /// Nothing is to be tried again.
    pub fn ended(&self) {
        let gone = self.note.as_ref().map(std::fs::remove_file);
        if let Some(Err(error)) = gone
            && error.kind() != io::ErrorKind::NotFound
        {
            eprintln!("cannot forget what failed before: {error}");
        }
    }
}

/// The host's own time may jump while it starts.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::from_secs(now.tv_sec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    #[test]
    fn what_failed_is_known_to_the_next_try_of_the_unit_and_to_nobody_after_a_good_one() {
        let directory = tempfile::tempdir().unwrap();
        let tries = UnitTries::at(Some(directory.path().to_owned()));
        assert_eq!(tries.before(), None, "the first try");
        let failed = ["VM 101".to_owned(), "the route to VM 102".to_owned()];
        assert!(!tries.failed(None, &failed, LONG));
        let before = tries.before().unwrap();
        assert_eq!(before.failed, failed);
        // It counts from the first one.
        let earlier = Before {
            since: before.since.saturating_sub(Duration::from_secs(7)),
            failed: Vec::new(),
        };
        assert!(!tries.failed(Some(&earlier), &[], LONG));
        assert_eq!(tries.before(), Some(earlier));
        tries.ended();
        assert_eq!(tries.before(), None);
        let none = UnitTries::at(None);
        assert!(!none.failed(None, &failed, LONG));
        assert_eq!(none.before(), None, "no unit");
    }

    #[test]
    fn tries_end_when_their_time_is_over_and_the_next_is_a_first_one() {
        let directory = tempfile::tempdir().unwrap();
        let tries = UnitTries::at(Some(directory.path().to_owned()));
        let long_ago = Before {
            since: Duration::ZERO,
            failed: Vec::new(),
        };
        assert!(
            !tries.failed(None, &[], Duration::ZERO),
            "it has just begun"
        );
        assert!(tries.failed(Some(&long_ago), &["VM 1".to_owned()], Duration::ZERO));
        assert_eq!(tries.before(), None);
    }

    #[test]
    fn half_a_note_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let tries = UnitTries::at(Some(directory.path().to_owned()));
        for text in ["", "VM 101", "12x\nVM 101"] {
            std::fs::write(directory.path().join("failed"), text).unwrap();
            assert_eq!(tries.before(), None, "{text:?}");
        }
        // A directory in its place cannot be replaced: nothing is known then, rather than something wrong.
        std::fs::remove_file(directory.path().join("failed")).unwrap();
        std::fs::create_dir(directory.path().join("failed")).unwrap();
        assert!(!tries.failed(None, &["VM 101".to_owned()], LONG));
        assert_eq!(tries.before(), None);
        assert!(!directory.path().join("failed.new").exists());
    }
}
