//! The listening socket: inherited from systemd, or made here with owner and mode in place before anyone can connect.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, chmod, chown, lstat, rename, unlink};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Gid, Uid};

use crate::sys;

/// First descriptor passed by systemd.
const LISTEN_FDS_START: i32 = 3;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent runs.
    #[error(
        "{path}: another agent answers there; stop it first (`systemctl stop blockhost-root-agent`)"
    )]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("{path}: exists and is not a socket; move it away")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// What systemd passed is not a listening unix stream socket.
    #[error("LISTEN_FDS: {detail}")]
    Activation {
        /// What is wrong.
        detail: String,
    },
    /// The system refused.
    #[error("{path}: {step}: {source}")]
    System {
        /// The path.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// The answer.
        source: io::Error,
    },
}

/// The listener and, where we made the file, how to recognise it again.
#[derive(Debug)]
pub struct Listener {
    /// The descriptor.
    pub fd: OwnedFd,
    own: Option<(PathBuf, u64, u64)>,
}

impl Listener {
    /// From systemd if it passed one to this process, else a fresh one at `path`, owned root:`gid`, mode 0660.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn obtain(path: &Path, gid: u32) -> Result<Self, SocketError> {
        match activated()? {
            Some(fd) => Ok(Self { fd, own: None }),
            None => make(path, gid),
        }
    }

    /// Whether systemd owns the socket file.
    pub fn is_activated(&self) -> bool {
        self.own.is_none()
    }

    /// Takes the file away, if it is the one we made.
    pub fn remove(&self) {
        let Some((path, device, inode)) = &self.own else {
            return;
        };
        if lstat(path).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (*device, *inode)) {
            let _ = unlink(path);
        }
    }
}

/// The socket of `LISTEN_FDS`, if `LISTEN_PID` is this process.
fn activated() -> Result<Option<OwnedFd>, SocketError> {
    let wrong = |detail: String| SocketError::Activation { detail };
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<i32>().ok())
    };
    if number("LISTEN_PID") != Some(rustix::process::getpid().as_raw_nonzero().get()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        None | Some(0) => return Ok(None),
        Some(1) => {}
        Some(n) => {
            return Err(wrong(format!(
                "{n} sockets passed, exactly one is expected"
            )));
        }
    }
    let fd =
        sys::take_inherited(LISTEN_FDS_START).map_err(|e| wrong(format!("descriptor 3: {e}")))?;
    let query = |e: Errno| wrong(format!("descriptor 3: {e}"));
    let listening = sockopt::socket_acceptconn(&fd).map_err(query)?;
    let stream = sockopt::socket_type(&fd).map_err(query)? == SocketType::STREAM;
    let unix = sockopt::socket_domain(&fd).map_err(query)? == AddressFamily::UNIX;
    if !(listening && stream && unix) {
        return Err(wrong(
            "descriptor 3 is not a listening unix stream socket".to_owned(),
        ));
    }
    non_blocking(&fd).map_err(query)?;
    Ok(Some(fd))
}

fn non_blocking(fd: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)
}

fn make(path: &Path, gid: u32) -> Result<Listener, SocketError> {
    let failed = |step| {
        move |source: io::Error| SocketError::System {
            path: path.to_owned(),
            step,
            source,
        }
    };
    clear_the_way(path)?;
    // Owner and mode are set under a name nobody connects to; the rename makes the finished socket appear at once.
    let temporary = path.with_extension(format!("{}", std::process::id()));
    let _ = unlink(&temporary);
    let listener = UnixListener::bind(&temporary).map_err(failed("bind"))?;
    let finish = || -> Result<(u64, u64), Errno> {
        chown(&temporary, Some(Uid::ROOT), Some(Gid::from_raw(gid)))?;
        chmod(&temporary, Mode::from_raw_mode(0o660))?;
        let stat = lstat(&temporary)?;
        rename(&temporary, path)?;
        Ok((stat.st_dev, stat.st_ino))
    };
    let (device, inode) = finish().map_err(|e| {
        let _ = unlink(&temporary);
        failed("owner and mode")(e.into())
    })?;
    let fd = OwnedFd::from(listener);
    // A backlog for bursts; std's default is 128 on older releases.
    rustix::net::listen(fd.as_fd(), 256).map_err(|e| failed("listen")(e.into()))?;
    non_blocking(&fd).map_err(|e| failed("non-blocking")(e.into()))?;
    Ok(Listener {
        fd,
        own: Some((path.to_owned(), device, inode)),
    })
}

/// Removes a socket that nothing answers on.
fn clear_the_way(path: &Path) -> Result<(), SocketError> {
    let failed = |step, source: io::Error| SocketError::System {
        path: path.to_owned(),
        step,
        source,
    };
    let stat = match lstat(path) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(failed("stat", error.into())),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(SocketError::NotASocket {
            path: path.to_owned(),
        });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            unlink(path).map_err(|e| failed("remove the stale socket", e.into()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // It answers, or it is too busy to answer: somebody is there.
        Ok(_) => Err(SocketError::Taken {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::Taken {
            path: path.to_owned(),
        }),
        Err(error) => Err(failed("connect", error)),
    }
}
