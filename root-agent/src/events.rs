//! The one wait of both event loops, the front's and the gate's.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll;
use rustix::io::Errno;

/// Waits until something is ready or the time is over, and appends what is ready to `events`. A signal is no error:
/// the loop looks at its state again.
///
/// # Errors
/// The kernel's.
pub fn wait(
    epoll: &OwnedFd,
    events: &mut Vec<epoll::Event>,
    timeout: Option<Duration>,
) -> Result<(), Errno> {
    let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
    match epoll::wait(
        epoll,
        rustix::buffer::spare_capacity(events),
        timeout.as_ref(),
    ) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}
