//! A connection to one of the switch's unix sockets: every wait has a deadline, and reading goes on while writing, so that
//! neither side can block the other for good. What the bytes mean is known to `ovsdb` and `openflow`.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fstat, open, stat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};

use super::error::SwitchError;

/// The directory of the switch's sockets. Confined, it is this process's root directory: nothing else can be named.
#[derive(Debug)]
pub struct Sockets {
    path: PathBuf,
    handle: Option<OwnedFd>,
}

impl Sockets {
    /// The directory at `path`, which may not be there yet.
    pub fn new(path: PathBuf) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = open(&path, flags, Mode::empty()).ok();
        Self { path, handle }
    }

    /// The socket `name` as this process has to call it: below `/` once that is the directory itself.
    fn locate(&self, name: &str) -> PathBuf {
        let inside = self.handle.as_ref().is_some_and(|handle| {
            matches!((fstat(handle), stat("/")), (Ok(ours), Ok(root)) if (ours.st_dev, ours.st_ino) == (root.st_dev, root.st_ino))
        });
        if inside {
            Path::new("/").join(name)
        } else {
            self.path.join(name)
        }
    }

    /// Whether the directory seen at start is not on the host any more.
    fn is_replaced(&self) -> bool {
        let state = self.handle.as_ref().map(fstat);
        state.is_some_and(|state| state.is_ok_and(|state| state.st_nlink == 0))
    }

    /// Connects to the socket `name`, a plain file name.
    ///
    /// # Errors
    /// [`SwitchError::Unreachable`], with the path on the host.
    pub fn connect(&self, name: &str, peer: &'static str) -> Result<Line, SwitchError> {
        let unreachable = |errno| SwitchError::Unreachable {
            path: self.path.join(name),
            errno,
        };
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(unreachable)?;
        let address = SocketAddrUnix::new(self.locate(name)).map_err(unreachable)?;
        // A unix socket connects at once or not at all; a full backlog is EAGAIN.
        connect(&socket, &address).map_err(|errno| match self.is_replaced() {
            true => SwitchError::Replaced(self.path.clone()),
            false => unreachable(errno),
        })?;
        Ok(Line { socket, peer })
    }
}

/// One connection.
#[derive(Debug)]
pub struct Line {
    socket: OwnedFd,
    peer: &'static str,
}

/// What a reader of a stream wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// More bytes.
    More,
    /// It has what it wanted.
    Enough,
}

impl Line {
    /// Sends everything and reads until `hear` has enough. `hear` is called with each piece as it arrives, also while
    /// sending.
    ///
    /// # Errors
    /// [`SwitchError::TimedOut`], [`SwitchError::Closed`], or what `hear` makes of the bytes.
    pub fn exchange(
        &mut self,
        mut out: &[u8],
        deadline: Instant,
        when: &'static str,
        mut hear: impl FnMut(&[u8]) -> Result<Flow, SwitchError>,
    ) -> Result<(), SwitchError> {
        let mut buffer = vec![0u8; 32 << 10];
        let mut enough = false;
        loop {
            if enough && out.is_empty() {
                return Ok(());
            }
            let readable = self.wait(!out.is_empty(), deadline, when)?;
            if !out.is_empty() {
                match send(&self.socket, out, SendFlags::NOSIGNAL) {
                    Ok(count) => out = out.get(count..).unwrap_or_default(),
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    // What the peer said before it went is worth more than that it went.
                    Err(Errno::PIPE | Errno::CONNRESET) if readable => out = &[],
                    Err(errno) => return Err(self.failed(errno, when)),
                }
            }
            if readable {
                match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                    Ok((0, _)) => {
                        return Err(SwitchError::Closed {
                            peer: self.peer,
                            when,
                        });
                    }
                    Ok((count, _)) => {
                        enough = hear(buffer.get(..count).unwrap_or_default())? == Flow::Enough;
                    }
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(errno) => return Err(self.failed(errno, when)),
                }
            }
        }
    }

    /// Whether there is nothing to read and the other side is still there: what an idle connection has to be.
    pub fn is_idle(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(0))
    }

    /// Waits until something can be done; true when that is reading.
    fn wait(
        &self,
        writing: bool,
        deadline: Instant,
        when: &'static str,
    ) -> Result<bool, SwitchError> {
        let interest = if writing {
            PollFlags::IN | PollFlags::OUT
        } else {
            PollFlags::IN
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(SwitchError::TimedOut {
                    peer: self.peer,
                    when,
                });
            }
            let left = left.min(Duration::from_secs(3600));
            let timeout = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(3600),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::new(&self.socket, interest)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => {
                    let happened = fds[0].revents();
                    // HUP and ERR show themselves to the next read.
                    return Ok(happened != PollFlags::OUT);
                }
                Err(errno) => return Err(self.failed(errno, when)),
            }
        }
    }

    fn failed(&self, errno: Errno, when: &'static str) -> SwitchError {
        match errno {
            Errno::PIPE | Errno::CONNRESET => SwitchError::Closed {
                peer: self.peer,
                when,
            },
            errno => SwitchError::Socket {
                peer: self.peer,
                errno,
            },
        }
    }
}
