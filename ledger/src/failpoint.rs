//! Places where a test can stop the process for good or have the system refuse, so that every step of an append (and of
//! a request, in the root agent, which shares this) can be interrupted exactly there. Without the feature `fail-points`,
//! which only tests ask for, every function here is empty and nothing of it is in a program.

pub use imp::*;

#[cfg(not(feature = "fail-points"))]
mod imp {
    use rustix::fd::BorrowedFd;
    use rustix::io::Errno;

    use crate::record::Draft;

    /// Stops here for good if a test wants it.
    #[inline(always)]
    pub fn reach(_point: &str, _detail: &[u8]) {}

    /// The same for a step of an append.
    #[inline(always)]
    pub(crate) fn reach_append(_: &[Draft], _step: &str) {}

    /// Stops here with half of the bytes written if a test wants it.
    #[inline(always)]
    pub(crate) fn half_written(_: &[Draft], _: BorrowedFd<'_>, _: &[u8], _offset: u64) {}

    /// Fails as the system might if a test wants it.
    ///
    /// # Errors
    /// Never, in this build.
    #[inline(always)]
    pub(crate) fn refuse(_point: &str) -> Result<(), Errno> {
        Ok(())
    }
}

#[cfg(feature = "fail-points")]
mod imp {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    use rustix::fd::BorrowedFd;
    use rustix::io::Errno;

    use crate::record::Draft;

    /// What a release build is searched for.
    const MARKER: &str = "blockhost fail point";

    static IN_USE: AtomicBool = AtomicBool::new(false);
    static ARMED: Mutex<Option<Armed>> = Mutex::new(None);
    static MEANWHILE: Mutex<Option<Meanwhile>> = Mutex::new(None);

    /// What happens once, at a point of this process.
    type Meanwhile = (String, Box<dyn FnOnce() + Send>);

    struct Armed {
        point: String,
        detail: Vec<u8>,
        refuse: bool,
    }

    /// Chooses the one point of this process that does something. `detail` has to be part of what the point is reached
    /// with (an action's name). With `refuse` it answers with an input/output error, from then on, and does not stop.
    pub fn arm(point: &str, detail: &str, refuse: bool) {
        let armed = Armed {
            point: point.to_owned(),
            detail: detail.as_bytes().to_vec(),
            refuse,
        };
        *ARMED.lock().unwrap_or_else(PoisonError::into_inner) = Some(armed);
        IN_USE.store(true, Ordering::Release);
    }

    fn armed(point: &str, detail: &[u8], refuse: bool) -> bool {
        if !IN_USE.load(Ordering::Acquire) {
            return false;
        }
        let armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        armed.as_ref().is_some_and(|armed| {
            let named = armed.detail.is_empty()
                || detail
                    .windows(armed.detail.len())
                    .any(|part| part == armed.detail);
            armed.point == point && armed.refuse == refuse && named
        })
    }

    /// Has something done, once, when that point of this process is reached: what somebody else does in that moment.
    pub fn meanwhile(point: &str, work: impl FnOnce() + Send + 'static) {
        let meanwhile = (point.to_owned(), Box::new(work) as Box<dyn FnOnce() + Send>);
        *MEANWHILE.lock().unwrap_or_else(PoisonError::into_inner) = Some(meanwhile);
        IN_USE.store(true, Ordering::Release);
    }

    fn due(reached: &str) -> Option<Box<dyn FnOnce() + Send>> {
        let mut meanwhile = MEANWHILE.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, work) = meanwhile.take_if(|(point, _)| point == reached)?;
        Some(work)
    }

    /// Stops here for good, with a line on standard error that says so; whoever armed it kills the process.
    pub fn reach(point: &str, detail: &[u8]) {
        if !IN_USE.load(Ordering::Acquire) {
            return;
        }
        if let Some(work) = due(point) {
            work();
        }
        if armed(point, detail, false) {
            eprintln!("{MARKER} {point} reached");
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }

    /// The point `ledger-PHASE-STEP` of the first draft that is reached with its action.
    fn of_append<'a>(drafts: &'a [Draft], step: &str) -> Option<(String, &'a [u8])> {
        let wanted = |draft: &&Draft| {
            let point = format!("ledger-{}-{step}", draft.phase);
            armed(&point, draft.action.as_bytes(), false)
        };
        let draft = drafts.iter().find(wanted)?;
        Some((
            format!("ledger-{}-{step}", draft.phase),
            draft.action.as_bytes(),
        ))
    }

    /// The same for a step of an append.
    pub(crate) fn reach_append(drafts: &[Draft], step: &str) {
        if let Some((point, action)) = of_append(drafts, step) {
            reach(&point, action);
        }
    }

    /// Stops here for good, with half of the bytes written.
    pub(crate) fn half_written(drafts: &[Draft], fd: BorrowedFd<'_>, bytes: &[u8], offset: u64) {
        if let Some((point, action)) = of_append(drafts, "half") {
            let _ = crate::dir::write_all_at(fd, &bytes[..bytes.len() / 2], offset);
            reach(&point, action);
        }
    }

    /// Whether a test wants it to be refused.
    pub fn refuses(point: &str) -> bool {
        armed(point, b"", true)
    }

    /// Fails as a dying disk does.
    pub(crate) fn refuse(point: &str) -> Result<(), Errno> {
        if armed(point, b"", true) {
            eprintln!("{MARKER} {point} refuses");
            return Err(Errno::IO);
        }
        Ok(())
    }
}
