//! The listening sockets: inherited from systemd, or made here with owner and mode in place before anyone can connect.
//! What their names mean is the policy's business.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, chmod, chown, lstat, rename, unlink};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Gid, Uid};

use crate::policy::sockets::{MAX_SOCKETS, SocketName};
use crate::sys;

/// How long a start waits for an agent that is going.
const LEAVING: Duration = Duration::from_secs(5);

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

/// A listening socket and, where we made the file, how to recognise it again.
#[derive(Debug)]
pub struct Listener {
    /// The descriptor.
    pub fd: OwnedFd,
    own: Option<OwnFile>,
}

#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// A socket that is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name in rules.
    pub name: SocketName,
    /// Its file.
    pub path: PathBuf,
    /// Group of the file.
    pub gid: u32,
    /// Permissions of the file.
    pub mode: u32,
}

impl Listener {
    /// Takes the file away, if it is the one we made.
    fn remove(&self) {
        if let Some(own) = &self.own
            && own.is_still_there()
        {
            let _ = unlink(&own.path);
        }
    }

    /// Whether the socket stands under that name in the file system and was made here.
    fn is_at(&self, path: &Path) -> bool {
        self.own.as_ref().is_some_and(|own| own.path == path)
    }
}

impl OwnFile {
    fn is_still_there(&self) -> bool {
        lstat(&self.path).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (self.device, self.inode))
    }
}

/// Every socket the agent listens on: those that systemd brought, and those made here.
#[derive(Debug)]
pub struct Sockets {
    all: BTreeMap<SocketName, Listener>,
}

/// What a change of the policy does to the sockets, ready to be carried out.
#[derive(Debug)]
pub struct Change {
    made: Vec<(SocketName, Listener)>,
    gone: Vec<SocketName>,
    adjusted: Vec<Wanted>,
}

impl Sockets {
    /// The sockets that systemd brought and the wanted ones that it did not. Where somebody answers there it waits a little:
    /// when a supervisor is killed, its front answers until it is dead too.
    ///
    /// # Errors
    /// [`SocketError`]; nothing that was made is left behind then.
    pub fn open(
        passed: BTreeMap<SocketName, OwnedFd>,
        wanted: &[Wanted],
    ) -> Result<Self, SocketError> {
        let inherited = |(name, fd)| (name, Listener { fd, own: None });
        let mut sockets = Self {
            all: passed.into_iter().map(inherited).collect(),
        };
        let until = Instant::now() + LEAVING;
        let change = loop {
            match sockets.plan(wanted) {
                Ok(change) => break change,
                Err(SocketError::Taken { .. }) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => {
                    sockets.remove();
                    return Err(error);
                }
            }
        };
        sockets.apply(change);
        Ok(sockets)
    }

    /// Makes what is missing. Nothing that is in use is touched, so that an error leaves everything as it was.
    ///
    /// # Errors
    /// [`SocketError`]; what was made is removed then.
    pub fn plan(&self, wanted: &[Wanted]) -> Result<Change, SocketError> {
        let mut change = Change {
            made: Vec::new(),
            gone: Vec::new(),
            adjusted: Vec::new(),
        };
        for one in wanted {
            match self.all.get(&one.name) {
                Some(listener) if listener.own.is_none() => {}
                Some(listener) if listener.is_at(&one.path) => change.adjusted.push(one.clone()),
                _ => match make(one) {
                    Ok(listener) => change.made.push((one.name.clone(), listener)),
                    Err(error) => {
                        change.made.iter().for_each(|(_, made)| made.remove());
                        return Err(error);
                    }
                },
            }
        }
        let unwanted = |(name, listener): (&SocketName, &Listener)| {
            let kept = listener.own.is_none() || wanted.iter().any(|one| one.name == *name);
            (!kept).then(|| name.clone())
        };
        change.gone = self.all.iter().filter_map(unwanted).collect();
        Ok(change)
    }

    /// Carries the change out. Gives the names of sockets that are new and of those that are gone.
    pub fn apply(&mut self, change: Change) -> (Vec<SocketName>, Vec<SocketName>) {
        for one in change.adjusted {
            let ours = self
                .all
                .get(&one.name)
                .and_then(|listener| listener.own.as_ref())
                .is_some_and(OwnFile::is_still_there);
            let as_wanted = |stat: rustix::fs::Stat| {
                stat.st_gid == one.gid && stat.st_mode & 0o7777 == one.mode
            };
            // A file that somebody has replaced is not ours to change. Nobody gets in while the group changes.
            if ours && !lstat(&one.path).is_ok_and(as_wanted) {
                let _ = chmod(&one.path, Mode::from_raw_mode(0o600));
                let _ = chown(&one.path, Some(Uid::ROOT), Some(Gid::from_raw(one.gid)));
                let _ = chmod(&one.path, Mode::from_raw_mode(one.mode));
            }
        }
        let mut gone = change.gone;
        for name in &gone {
            if let Some(listener) = self.all.remove(name) {
                listener.remove();
            }
        }
        let mut new = Vec::new();
        for (name, listener) in change.made {
            if let Some(moved) = self.all.insert(name.clone(), listener) {
                moved.remove();
                gone.push(name.clone());
            }
            new.push(name);
        }
        (new, gone)
    }

    /// Every socket by name.
    pub fn iter(&self) -> impl Iterator<Item = (&SocketName, &Listener)> {
        self.all.iter()
    }

    /// The socket of that name.
    pub fn get(&self, name: &SocketName) -> Option<&Listener> {
        self.all.get(name)
    }

    /// Names of those that systemd brought.
    pub fn passed(&self) -> Vec<SocketName> {
        let inherited = self.all.iter().filter(|(_, one)| one.own.is_none());
        inherited.map(|(name, _)| name.clone()).collect()
    }

    /// Takes the files away that we made.
    pub fn remove(&self) {
        self.all.values().for_each(Listener::remove);
    }
}

/// The sockets of `LISTEN_FDS` by their names in `LISTEN_FDNAMES`, if `LISTEN_PID` is this process. One alone that
/// has no name of ours is the main one: systemd calls it after its unit.
///
/// # Errors
/// [`SocketError::Activation`] for everything that is not a listening unix stream socket with a name of its own.
pub fn activated() -> Result<BTreeMap<SocketName, OwnedFd>, SocketError> {
    let wrong = |detail: String| SocketError::Activation { detail };
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<i32>().ok())
    };
    let mut sockets = BTreeMap::new();
    if number("LISTEN_PID") != Some(rustix::process::getpid().as_raw_nonzero().get()) {
        return Ok(sockets);
    }
    let count = number("LISTEN_FDS").unwrap_or(0);
    if !(0..=1 + i32::try_from(MAX_SOCKETS).unwrap_or(0)).contains(&count) {
        let most = MAX_SOCKETS + 1;
        return Err(wrong(format!("{count} sockets passed; at most {most}")));
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    for fd in LISTEN_FDS_START..LISTEN_FDS_START + count {
        let name = names.next().unwrap_or_default();
        let nameless = name.is_empty() || name == "unknown" || name.ends_with(".socket");
        let name = if nameless && count == 1 {
            SocketName::main()
        } else {
            SocketName::try_from(name.to_owned()).map_err(|detail| {
                wrong(format!(
                    "descriptor {fd}: {detail}; give it one with `FileDescriptorName=` in its socket unit"
                ))
            })?
        };
        let socket = sys::take_inherited(fd).map_err(|e| wrong(format!("descriptor {fd}: {e}")))?;
        let query = |e: Errno| wrong(format!("descriptor {fd}: {e}"));
        let listening = sockopt::socket_acceptconn(&socket).map_err(query)?;
        let stream = sockopt::socket_type(&socket).map_err(query)? == SocketType::STREAM;
        let unix = sockopt::socket_domain(&socket).map_err(query)? == AddressFamily::UNIX;
        if !(listening && stream && unix) {
            let detail = format!("descriptor {fd} is not a listening unix stream socket");
            return Err(wrong(detail));
        }
        non_blocking(&socket).map_err(query)?;
        if sockets.insert(name.clone(), socket).is_some() {
            return Err(wrong(format!(
                "two sockets are called `{name}`; each socket unit needs a `FileDescriptorName=` of its own"
            )));
        }
    }
    Ok(sockets)
}

fn non_blocking(fd: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)
}

fn make(wanted: &Wanted) -> Result<Listener, SocketError> {
    let Wanted {
        path, gid, mode, ..
    } = wanted;
    let failed = |step| {
        move |source: io::Error| SocketError::System {
            path: path.clone(),
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
        chown(&temporary, Some(Uid::ROOT), Some(Gid::from_raw(*gid)))?;
        chmod(&temporary, Mode::from_raw_mode(*mode))?;
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
        own: Some(OwnFile {
            path: path.clone(),
            device,
            inode,
        }),
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
    match answers(path) {
        Err(Errno::CONNREFUSED) => {
            unlink(path).map_err(|e| failed("remove the stale socket", e.into()))
        }
        Err(Errno::NOENT) => Ok(()),
        // It answers, or it is too busy to answer: somebody is there.
        Ok(()) | Err(Errno::AGAIN) => Err(SocketError::Taken {
            path: path.to_owned(),
        }),
        Err(error) => Err(failed("connect", error.into())),
    }
}

/// Whether somebody accepts there. Never waits: whoever may make files in this directory could listen there and accept
/// nothing, and the supervisor would be deaf for good.
fn answers(path: &Path) -> Result<(), Errno> {
    use rustix::net::{SocketAddrUnix, SocketFlags, connect, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_accepts_nobody_does_not_stop_the_supervisor() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("lane.sock");
        let listener = UnixListener::bind(&path).expect("bind");
        rustix::net::listen(&listener, 0).expect("listen");
        // What connects and goes stays in the queue, until the next one would have to wait.
        let room = (0..100).find(|_| answers(&path) == Err(Errno::AGAIN));
        assert!(room.is_some(), "it takes everybody");
        assert!(matches!(
            clear_the_way(&path),
            Err(SocketError::Taken { .. })
        ));
        drop(listener);
        clear_the_way(&path).expect("a stale one is removed");
        assert!(!path.exists());
    }
}
