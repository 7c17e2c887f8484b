//! Into the network namespace of a process and out again, within one call: all that is brought back is a netlink socket, which
//! belongs to that namespace for good. The process is held by a descriptor from the first look on; which namespace it was is
//! read off the socket, not off the process, so that nothing that changes meanwhile can make the two differ.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use blockhost_netlink::Netlink;
use blockhost_proto::response::ErrorCode;
use blockhost_proto::value::Pid;
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};

use crate::compartment::Failure;
use crate::{log_error, sys};

/// The way in, and the way back.
#[derive(Debug)]
pub(super) struct Door {
    home: OwnedFd,
    /// Numbers of the namespaces that nobody is let into: the agent's own, and that of the host's first process.
    hosts: Vec<u64>,
}

/// What is brought back.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) netlink: Netlink,
    pub(super) namespace: OwnedFd,
    pub(super) number: u64,
}

/// While it lives the thread is elsewhere.
struct Away<'a>(&'a OwnedFd);

impl Drop for Away<'_> {
    fn drop(&mut self) {
        let back = move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network));
        if let Err(error) = back {
            // The next request would be carried out in a container.
            log_error!("there is no way back from a container's network: {error}");
            std::process::exit(1);
        }
    }
}

impl Door {
    /// Looks where home is; called before confinement, when `/proc` is in reach.
    pub(super) fn open() -> io::Result<Self> {
        let look = |path: &str| open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let home = look("/proc/self/ns/net")?;
        let mut hosts = vec![fstat(&home)?.st_ino];
        // In a container of its own the agent may not see that one; then it cannot be led there either.
        if let Ok(first) = look("/proc/1/ns/net") {
            hosts.push(fstat(&first)?.st_ino);
        }
        Ok(Self { home, hosts })
    }

    /// Into the namespace of the process and back.
    pub(super) fn enter(&self, pid: Pid) -> Result<Inside, Failure> {
        let gone = || {
            let message = format!("there is no process {pid} any more");
            Failure::new(ErrorCode::NotFound, message)
        };
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            let message = format!("the network of process {pid} {what}: {error}");
            Failure::new(ErrorCode::Failed, message)
        };
        let number = i32::try_from(pid.get()).ok();
        let number = number.and_then(rustix::process::Pid::from_raw);
        let number = number.ok_or_else(gone)?;
        let process = pidfd_open(number, PidfdFlags::empty()).map_err(|error| match error {
            // The latter two for a thread that is no process.
            Errno::SRCH | Errno::INVAL | Errno::NOENT => gone(),
            error => failed("cannot be reached", &error),
        })?;
        let netlink = {
            move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::NETWORK).map_err(
                |error| match error {
                    Errno::SRCH => gone(),
                    error => failed("cannot be entered", &error),
                },
            )?;
            let _away = Away(&self.home);
            Netlink::open()
        };
        let netlink = netlink.map_err(|error| failed("cannot be spoken to", &error))?;
        let namespace = sys::socket_namespace(netlink.as_fd())
            .map_err(|error| failed("cannot be told from others", &error))?;
        let number = fstat(&namespace)
            .map_err(|error| failed("has no number", &error))?
            .st_ino;
        if self.hosts.contains(&number) {
            let message = format!(
                "process {pid} is in the host's own network, where nothing is attached; a container with host networking \
                 cannot have a wire"
            );
            return Err(Failure::new(ErrorCode::Forbidden, message));
        }
        Ok(Inside {
            netlink,
            namespace,
            number,
        })
    }
}
