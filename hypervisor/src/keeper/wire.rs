//! What `blockhost-pct` and the containers' service say to each other: one JSON message per packet, descriptors beside it.
//! Both ends are ours and neither trusts the other's identity: the service answers root only, `blockhost-pct` speaks to the
//! service's user only.
#![forbid(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use blockhost_proto::layout::Layout;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest message, bytes: SSH keys are the longest part of any.
const LONGEST: usize = 160 << 10;
/// Most descriptors beside one message.
pub const MOST_DESCRIPTORS: usize = 3;

/// Name of the socket below the service's run directory.
pub fn socket_path(layout: &Layout) -> std::path::PathBuf {
    layout.containers_run().join("keeper.sock")
}

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// Not at all.
    Plain,
    /// gzip
    Gzip,
    /// bzip2
    Bzip2,
    /// xz
    Xz,
    /// Zstandard
    Zstd,
}

/// What is written into a root file system, from inside of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Host name.
    pub hostname: String,
    /// Name servers; empty leaves what is there.
    pub nameservers: Vec<String>,
    /// Search domains, likewise.
    pub searchdomains: Vec<String>,
    /// Name of a time zone that the container itself knows.
    pub timezone: Option<String>,
    /// SSH keys for its root; only at creation.
    pub ssh_keys: Option<String>,
}

/// An address with its prefix, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// `10.0.0.2/24`
    pub address: String,
    /// `10.0.0.1`
    pub gateway: Option<String>,
}

/// One interface, as the container's end of it is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Its name inside.
    pub name: String,
    /// Addresses; none where the container asks for its own.
    pub addresses: Vec<Address>,
}

/// What a container may use of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory.
    pub memory_mib: u64,
    /// Swap beside it.
    pub swap_mib: u64,
    /// Hundredths of a core; 0 for no limit.
    pub cpu_hundredths: u32,
    /// Weight among containers.
    pub cpu_units: u16,
}

/// What a container is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartSpec {
    /// Written inside beforehand.
    pub settings: Settings,
    /// Its interfaces; plugged in by the asking side.
    pub interfaces: Vec<Interface>,
    /// Its limits.
    pub limits: Limits,
    /// 32-bit programs only.
    pub narrow: bool,
    /// May make containers of its own.
    pub nesting: bool,
    /// May use the kernel's key rings.
    pub keyctl: bool,
    /// May mount file systems of its own programs.
    pub fuse: bool,
}

/// From `blockhost-pct`, and from the hook of a starting container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// Unpack a root file system; the archive comes with it.
    Create {
        /// For which container.
        vmid: u32,
        /// How it is packed.
        packing: Packing,
        /// How much may be unpacked.
        bytes: u64,
        /// What is written into it.
        settings: Settings,
    },
    /// Remove a root file system with everything of it. An absent one is fine.
    Remove {
        /// Of which container.
        vmid: u32,
    },
    /// Start.
    Start {
        /// Which container.
        vmid: u32,
        /// With what.
        spec: Box<StartSpec>,
    },
    /// The answer to [`Answer::Network`].
    Plugged {
        /// Whether the interfaces are there.
        done: bool,
    },
    /// Ask it to shut down and wait.
    Shutdown {
        /// Which container.
        vmid: u32,
        /// Seconds.
        timeout_s: u64,
    },
    /// End it at once.
    Kill {
        /// Which container.
        vmid: u32,
    },
    /// What these containers do.
    States {
        /// Which.
        vmids: Vec<u32>,
    },
    /// Run a program inside; its standard input, output and error come with it.
    Exec {
        /// In which container.
        vmid: u32,
        /// Program and arguments.
        words: Vec<String>,
    },
    /// Change limits of a running container.
    Limit {
        /// Which container.
        vmid: u32,
        /// To these.
        limits: Limits,
    },
    /// Begin again with the program that is installed now, in the same process.
    Renew,
    /// From the hook of a starting container, with its network name space.
    Hook {
        /// Which start it belongs to: the word that only this start was given.
        start: String,
    },
    /// From the same hook, after it got its interfaces: it could not set them up.
    HookFailed {
        /// Why, for people.
        message: String,
    },
}

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Its state forbids it.
    Conflict,
    /// It did not happen in time.
    Timeout,
    /// The archive is not acceptable.
    Archive,
    /// This host lacks something.
    Environment,
    /// Anything else.
    Failed,
}

/// Whether a container runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Pid of its first process, as the host counts; of any where only others are left.
    pub pid: Option<i32>,
    /// It runs without its monitor, and can only be stopped.
    pub left_over: bool,
    /// Why nothing is known of it.
    pub problem: Option<String>,
    /// Where its limits are in force, or why nowhere.
    pub cgroup: String,
}

/// From the service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// Done; what is to be said about it.
    Done {
        /// Sentences.
        notes: Vec<String>,
    },
    /// A starting container waits for its interfaces; its network name space comes with it.
    Network,
    /// To the hook: set these up.
    Interfaces {
        /// In this order.
        interfaces: Vec<Interface>,
    },
    /// In the order they were asked for.
    States {
        /// One each.
        states: Vec<State>,
    },
    /// A program inside ended.
    Exited {
        /// Its exit code; 128 and the number of a signal.
        code: i32,
    },
    /// Not done.
    Refused {
        /// Why, for programs.
        refusal: Refusal,
        /// Why, for people.
        message: String,
    },
}

/// One end of a connection.
#[derive(Debug)]
pub struct Line(OwnedFd);

fn seqpacket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

impl Line {
    /// Wraps an accepted connection.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Connects to a socket by its path.
    ///
    /// # Errors
    /// As `connect`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = seqpacket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    /// A listening socket at a path, which must be free.
    ///
    /// # Errors
    /// As `bind`.
    pub fn listen(path: &Path) -> io::Result<OwnedFd> {
        let socket = seqpacket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, 64)?;
        Ok(socket)
    }

    /// User at the other end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn peer(&self) -> io::Result<u32> {
        Ok(rustix::net::sockopt::socket_peercred(&self.0)?.uid.as_raw())
    }

    /// Sends one message.
    ///
    /// # Errors
    /// When the other side is gone, or the message too long.
    pub fn send<M: Serialize>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let body = serde_json::to_vec(message).map_err(io::Error::other)?;
        if body.len() > LONGEST {
            return Err(io::Error::other(format!(
                "a message of {} bytes is too long",
                body.len()
            )));
        }
        let mut space =
            [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
        {
            return Err(io::Error::other("too many descriptors"));
        }
        loop {
            match rustix::net::sendmsg(
                &self.0,
                &[IoSlice::new(&body)],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            ) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for one message. `UnexpectedEof` when the other side is gone.
    ///
    /// # Errors
    /// As said, or when it is none.
    pub fn receive<M: DeserializeOwned>(&self) -> io::Result<(M, Vec<OwnedFd>)> {
        let mut body = vec![0u8; LONGEST];
        let mut space =
            [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut body)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let descriptors: Vec<OwnedFd> = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
        let whole = body
            .get(..received.bytes)
            .filter(|_| !received.flags.intersects(cut));
        let message = whole.ok_or_else(|| io::Error::other("a message was cut"))?;
        Ok((
            serde_json::from_slice(message).map_err(io::Error::other)?,
            descriptors,
        ))
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Line, Line) {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        (Line(a), Line(b))
    }

    #[test]
    fn a_message_arrives_whole_with_its_descriptors_or_not_at_all() {
        let (a, b) = pair();
        let keys = "k".repeat(100 << 10);
        let settings = Settings {
            ssh_keys: Some(keys.clone()),
            ..Settings::default()
        };
        let ask = Ask::Create {
            vmid: 100,
            packing: Packing::Zstd,
            bytes: 1,
            settings,
        };
        let null = std::fs::File::open("/dev/null").unwrap();
        a.send(&ask, &[null.as_fd()]).unwrap();
        let (got, descriptors) = b.receive::<Ask>().unwrap();
        assert!(matches!(got, Ask::Create { settings, .. } if settings.ssh_keys == Some(keys)));
        assert_eq!(descriptors.len(), 1);
        let words = vec!["w".repeat(LONGEST)];
        assert!(a.send(&Ask::Exec { vmid: 100, words }, &[]).is_err());
        drop(a);
        let gone = b.receive::<Ask>().unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in [
            "{}",
            "[]",
            "{\"kill\":{\"vmid\":100,\"x\":1}}",
            "\"kill\"",
            "{",
        ] {
            let (a, b) = pair();
            rustix::net::send(&a, text.as_bytes(), SendFlags::NOSIGNAL).unwrap();
            assert!(b.receive::<Ask>().is_err(), "{text}");
        }
    }
}
