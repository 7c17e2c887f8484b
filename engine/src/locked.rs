//! Locks on files that one process of ours has at a time, for as long as it works: the outbox, an apply, a change of the
//! network. What is waited for here is only what goes by itself: somebody looks at a lock for a moment, or a program that is
//! being started has a copy of what a process had open that was killed. Who waits for somebody's work does that itself.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

/// How long a lock that somebody has is asked for again, and how long apart.
pub(crate) const MOMENT: Duration = Duration::from_secs(1);
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// A file that this process has locked. Dropping it unlocks it at once: closing alone would not, as long as a program that
/// another thread is starting has a copy of the descriptor.
#[derive(Debug)]
pub(crate) struct Locked(File);

impl Locked {
    /// Takes the lock if it is free; gives the file back where somebody has it.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn now(file: File) -> io::Result<Result<Self, File>> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Ok(Self(file))),
            Err(Errno::WOULDBLOCK) => Ok(Err(file)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// As [`Locked::now`], for who may wait [a moment](MOMENT).
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn soon(mut file: File) -> io::Result<Result<Self, File>> {
        let end = Instant::now() + MOMENT;
        loop {
            file = match Self::now(file)? {
                Err(file) if Instant::now() < end => file,
                ended => return Ok(ended),
            };
            std::thread::sleep(PAUSE);
        }
    }

    /// What is locked.
    pub(crate) fn file(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(place: &tempfile::TempDir) -> File {
        File::create(place.path().join("lock")).unwrap()
    }

    #[test]
    fn a_lock_that_is_given_back_is_free_although_a_copy_of_its_descriptor_lives() {
        let place = tempfile::tempdir().unwrap();
        let held = Locked::now(open(&place)).unwrap().expect("free");
        let copy = held.file().try_clone().unwrap();
        assert!(Locked::now(open(&place)).unwrap().is_err(), "held");
        drop(held);
        assert!(Locked::now(open(&place)).unwrap().is_ok(), "given back");
        drop(copy);
    }

    #[test]
    fn who_only_looks_keeps_nobody_out_and_who_has_it_does() {
        let place = tempfile::tempdir().unwrap();
        let looks = open(&place);
        flock(&looks, FlockOperation::LockShared).unwrap();
        let held = std::thread::scope(|scope| {
            let asks = scope.spawn(|| Locked::soon(open(&place)));
            std::thread::sleep(PAUSE);
            drop(looks);
            asks.join().unwrap().unwrap().expect("it is waited for")
        });
        assert!(Locked::soon(open(&place)).unwrap().is_err(), "held");
        drop(held);
    }
}
